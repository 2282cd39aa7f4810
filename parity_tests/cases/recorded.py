"""A pair of which one net was run elsewhere, and only its record is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parity_tests.api import check_parity
from parity_tests.backends.base import backend
from parity_tests.backends.files.recorded import read_recording
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import Arrays, place_of, reason_of
from parity_tests.cases.pairs import load_own_net
from parity_tests.levels.referee import DidNotRun, attempt
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level, Side


def check_recorded(
    folder: str,
    side: Side,
    spec: str,
    levels: Sequence[Level],
    *,
    transfer: bool = False,
    allow: Mapping[str, str] | None = None,
) -> Report:
    """Compare a record of one side with the other's `package.module:factory`.

    Raises:
        ParityError: there is no whole record, the factory gives no net of the other framework, or
            it does not run on the recorded inputs.
    """
    recorded = read_recording(folder, side)
    other = Side.TORCH if side == Side.GLUON else Side.GLUON
    live = load_own_net(spec, other)
    if other == Side.GLUON:
        _settle(live, recorded.inputs)
    _run_once(live, other, recorded.inputs)
    nets = {side: recorded, other: live}
    report = check_parity(
        nets[Side.GLUON],
        nets[Side.TORCH],
        recorded.inputs,
        None,
        levels,
        transfer=transfer,
        allow=allow,
        name=f"{folder} beside {spec}",
    )
    report.environment[f"recorded {side}"] = recorded.described
    return report


def _settle(net: Any, inputs: Arrays) -> None:
    """Initialise a Gluon net that is not, and settle the shapes that wait for an input."""
    import mxnet as mx

    from parity_tests.backends.gluon.numpy_mode import run_once

    if any(p._data is None for p in net.collect_params().values()):
        net.initialize(mx.init.Xavier())
        try:
            with mx.autograd.pause():
                run_once(net, inputs)
                mx.nd.waitall()
        except Exception as error:  # a user's net may raise anything
            reason = f"{reason_of(error)}{place_of(error)}"
            raise ParityError(
                f"the gluon net does not run on the recorded inputs: {reason}"
            ) from error


def _run_once(net: object, side: Side, inputs: Arrays) -> None:
    try:
        with backend(side).set_apart(net):
            attempt(side, backend(side).run_net, net, inputs, "float32", train=False)
    except DidNotRun as error:
        shapes = ", ".join(str(x.shape) for x in inputs)
        raise ParityError(f"on the recorded inputs {shapes}: {error}") from error
