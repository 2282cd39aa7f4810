"""A user's own pairs as subjects of a snapshot.

A user's nets may draw their weights anew each time, so that a snapshot keeps what they held when it
was taken, and later ones start from that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.backends.base import Backend, backend
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import Loss
from parity_tests.cases.factories import load_net
from parity_tests.gate.record.sides import start_of
from parity_tests.gate.record.subjects import STEPS, Subject, drawn

START = "start"


def pair_subject(
    name: str,
    gluon_net: Any,
    torch_net: Any,
    inputs: Any,
    labels: Any = None,
    *,
    start: Mapping[str, np.ndarray] | None = None,
) -> Subject:
    """A pair of nets, or one net with None beside it, and what they are run on.

    `inputs` is an array (N, …) or a tuple of them; `labels` (N,) are classes, with which steps of
    training are recorded too. `start` are the first values that an earlier snapshot kept.
    Raises ParityError for what is no such pair.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ParityError(f"a pair is named {name!r}, expected letters, digits, '_', '-' and '.'")
    nets = {"gluon": gluon_net, "torch": torch_net}
    arrays = tuple(np.asarray(x) for x in (inputs if isinstance(inputs, tuple) else (inputs,)))
    if not arrays or any(x.size == 0 for x in arrays) or all(net is None for net in nets.values()):
        raise ParityError(f"the pair {name} has no net or no inputs")
    known = None if labels is None else np.asarray(labels).astype(np.int32)
    batches = () if known is None else tuple((arrays[0], known) for _ in range(STEPS))
    values = dict(start or {})

    def value(
        side: str, key: tuple[str, str], kind: str, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        first = values.get(f"{START}/{side}/{key[0]}/{key[1]}")
        if start is not None and (first is None or first.shape != tuple(shape)):
            raise ParityError(
                f"{side} {key[0]}.{key[1]} {tuple(shape)} is not what the snapshot has "
                f"({'nothing' if first is None else first.shape}): the net itself has changed"
            )
        return first

    return Subject(
        name,
        {side: partial(_same, net) for side, net in nets.items() if net is not None},
        arrays,
        known,
        value,
        {side: partial(cross_entropy, side) for side in nets},
        batches=batches,
    )


def _same(net: Any) -> Any:
    return net


def cross_entropy(side: str, net: Any) -> Loss:
    """The loss of a net with labels; a pair's nets say nothing of theirs."""
    return backend(side).cross_entropy()


def starts(subject: Subject, backends: Mapping[str, Backend]) -> dict[str, np.ndarray]:
    """The first values of every side, for a snapshot to keep."""
    return {
        f"{START}/{side}/{path}/{role}": value
        for side, one in backends.items()
        if side in subject.make
        for (path, role), value in start_of(one, subject.make[side](), subject).items()
    }


def started_from(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first values in what a snapshot kept of a subject."""
    return {k: v for k, v in inputs.items() if k.startswith(f"{START}/")}


def parse_entries(lines: Iterable[str], root: Path) -> dict[str, Callable[[], Subject]]:
    """Configuration lines `name = pkg:gluon_net | pkg:torch_net | 1,3,32,32`, each a maker.

    Raises ParityError for a line of another form; what cannot be imported is said when it is made.
    """
    makers: dict[str, Callable[[], Subject]] = {}
    for line in filter(None, (line.strip() for line in lines)):
        match = re.fullmatch(r"([\w.-]+)\s*=\s*([^|]+?)\s*\|\s*([^|]+?)\s*\|\s*([\d,]+)", line)
        if not match:
            raise ParityError(
                f"parity_pairs has {line!r}, expected name = pkg:gluon_net | pkg:torch_net | "
                "1,3,32,32"
            )
        makers[match[1]] = partial(_of_entry, match[1], match[2], match[3], match[4], root)
    return makers


def _of_entry(name: str, gluon: str, theirs: str, shape: str, root: Path) -> Subject:
    sizes = tuple(int(size) for size in shape.split(",") if size)
    inputs = drawn(name, "inputs").standard_normal(sizes).astype(np.float32)
    nets = [load_net(spec, "parity_pairs", root) for spec in (gluon, theirs)]
    return pair_subject(name, nets[0], nets[1], inputs)
