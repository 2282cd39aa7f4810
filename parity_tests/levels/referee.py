"""The float64 witness, and the runs of a pair of nets, each made once.

The referee is the torch net in float64. What makes it one is the local comparison in float64, in
which MXNet's value must agree with it to 16·u·s at every leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gluon_cnn_parity.memory import refused
from parity_tests.backends.base import Recorded, backend, referee
from parity_tests.backends.journal import JOURNAL, Place
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import (
    NET,
    Arrays,
    Edit,
    Key,
    NetRun,
    Objective,
    Outputs,
    output_name,
    place_of,
    reason_of,
)
from parity_tests.backends.spill import Spill, release
from parity_tests.numerics.operators.table import operator_of
from parity_tests.pairing.align import Pairing
from parity_tests.pairing.segments import SegmentPair
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Level, Side, Status

JUDGED = ((Side.GLUON, "float64"), (Side.GLUON, "float32"), (Side.TORCH, "float32"))


class DidNotRun(Exception):
    """A net or a leaf that raised while it was run; its message is one line."""


def not_compared(level: Level, path: str, quantity: str, why: object, **more: Any) -> Row:
    """The row of what could not be compared, and why."""
    status = Status.NOT_COMPARED
    return Row(level=level, path=path, quantity=quantity, status=status, detail=str(why), **more)


# What torch refuses and MXNet computes, by how torch's words begin: the cause, and what to do
_CAUSES = {
    "Expected more than 1 value per channel": (
        "a norm is given one value a channel, which has no spread, and MXNet gives its shift: "
        "use a larger batch or map"
    ),
    "Expected more than 1 spatial element": (
        "an instance norm is given maps of one value, which have no spread, and MXNet gives its "
        "shift: use a larger map"
    ),
}


def _cause(error: Exception) -> str:
    """Why foreign code raised, in one line; its own words where no cause is known."""
    words = str(error)
    known = next((cause for begin, cause in _CAUSES.items() if words.startswith(begin)), "")
    reason = reason_of(error)
    return f"{known} ({reason})" if known else reason


def attempt(who: str, action: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call foreign code; whatever it raises becomes DidNotRun with one line.

    So does what has crashed before, where that is watched. Raises: MemoryError where the system
    refused memory, which is no difference of two nets.
    """
    place = _place(who, action, args, options)
    if place in JOURNAL.crashed:
        raise DidNotRun(JOURNAL.crashed[place])
    try:
        with JOURNAL.running(place):
            return action(*args, **options)
    except Exception as error:  # a user's net may raise anything
        if (why := refused(error)) is not None:
            raise MemoryError(why) from error
        raise DidNotRun(f"{who} did not run: {_cause(error)}{place_of(error)}") from error


def _place(who: str, action: Callable[..., Any], args: Any, options: Mapping[str, Any]) -> Place:
    """What a call is known by: in float64 it crashes where it does in float32."""
    if isinstance(action, partial):
        args, options = (*action.args, *args), {**action.keywords, **options}
        action = action.func
    leaf = next((x for x in args if isinstance(x, Leaf)), None)
    backward = any(options.get(name) is not None for name in ("upstream", "objective"))
    flags = (*(x for x in args if isinstance(x, bool)), bool(options.get("train")), backward)
    kind, path = ("", "") if leaf is None else (leaf.kind, leaf.path)
    return Place(who, action.__name__, kind, path, flags)


@dataclass
class Subject:
    """A pair of nets under examination, and the runs of it that have been made so far.

    `masks` are by torch path: True where dropout keeps a value. `strict` makes a divergence of
    what is otherwise a known difference of conventions.
    """

    gluon_net: Any
    torch_net: Any
    pairing: Pairing
    inputs: Arrays
    objective: Objective
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    strict: bool = False
    segments: Mapping[str, SegmentPair] = field(default_factory=dict)  # by path, of executed nets
    modes: tuple[bool, ...] = (False, True)  # in which the nets can be run; True: in training
    recorded: Recorded | None = None  # the side that was run elsewhere, in float32
    _runs: dict[tuple[Side, str, bool, bool], NetRun] = field(default_factory=dict)
    shared: dict[Any, Any] = field(default_factory=dict)  # what levels share, such as envelopes
    clones: dict[str, Any] = field(default_factory=dict)  # by dtype

    def run(self, side: Side, dtype: str, *, train: bool, backward: bool = False) -> NetRun:
        """One side's run of the whole net, made once. Raises DidNotRun."""
        key = (side, dtype, train, backward)
        if key not in self._runs:
            run = attempt(side, self._run, side, dtype, train, backward)
            if side == Side.TORCH and dtype == "float64" and backward:  # the largest that is kept
                run.move(Spill())
            self._runs[key] = run
        return self._runs[key]

    def forget(self, *, train: bool) -> None:
        """Let go of the runs in one mode; envelopes are small, and stay.

        The backward level needs the forward envelope, of inference where the net has no modes.
        """
        self._runs = {key: run for key, run in self._runs.items() if key[2] != train}

    def forget_run(self, side: Side, dtype: str, *, train: bool, backward: bool = False) -> None:
        """Let go of one run."""
        self._runs.pop((side, dtype, train, backward), None)

    def _run(self, side: Side, dtype: str, train: bool, backward: bool) -> NetRun:
        release()
        objective = self.objective if backward else None
        if self.recorded is not None and side == self.recorded.side and dtype == "float32":
            return self.recorded.run(train=train, backward=backward)
        if side == Side.TORCH:
            return referee().run_clone(
                self._cloned(dtype),
                self.inputs,
                dtype,
                train=train,
                objective=objective,
                masks=self.masks if train else {},
                inputs_too=dtype == "float64",  # the others are read for their outputs alone
            )
        return self.run_gluon(dtype, train=train, objective=objective, inputs_too=False)

    def run_gluon(
        self,
        dtype: str,
        *,
        train: bool,
        objective: Objective | None = None,
        inputs_too: bool = True,
    ) -> NetRun:
        """The Gluon net's run, made anew."""
        run: NetRun = backend(Side.GLUON).run_net(
            self.gluon_net,
            self.inputs,
            dtype,
            train=train,
            objective=objective,
            masks=self.gluon_masks() if train else {},
            inputs_too=inputs_too,
        )
        return run

    def _cloned(self, dtype: str) -> Any:
        """The torch net's clone that all its runs share."""
        if dtype not in self.clones:
            self.clones[dtype] = referee().clone(self.torch_net, dtype)
        return self.clones[dtype]

    def gluon_masks(self) -> dict[str, np.ndarray]:
        """The same masks by Gluon path."""
        return {
            pair.gluon.path: self.masks[pair.torch.path]
            for pair in self.pairing.pairs
            if pair.torch.path in self.masks
        }

    def referee_run(
        self,
        *,
        train: bool,
        backward: bool = False,
        replacements: Edit | None = None,
        addends: Edit | None = None,
        sink: Callable[[Key, np.ndarray], None] | None = None,
    ) -> NetRun:
        """The referee once more, with values changed on their way; its calls have no inputs.

        See `Referee.run_clone` for `sink`. Raises DidNotRun.
        """
        release()
        cloned = attempt("torch", self._cloned, "float64")
        return attempt(
            "torch",
            referee().run_clone,
            cloned,
            self.inputs,
            "float64",
            train=train,
            objective=self.objective if backward else None,
            masks=self.masks if train else {},
            replacements=replacements,
            addends=addends,
            inputs_too=False,
            sink=sink,
        )

    def gradient_noise(
        self, addends: Iterable[Edit], sink: Callable[[Key, np.ndarray], None]
    ) -> None:
        """See `Referee.gradient_noise`. Raises DidNotRun."""
        release()
        cloned = attempt("torch", self._cloned, "float64")
        run = referee().gradient_noise
        attempt("torch", run, cloned, self.inputs, masks=self.masks, addends=addends, sink=sink)

    def by_torch_path(self, values: Outputs) -> dict[Key, np.ndarray]:
        """Values under Gluon paths, under those of the paired torch leaves; others are left out."""
        paths = {pair.gluon.path: pair.torch.path for pair in self.pairing.pairs} | {NET: NET}
        return {
            (paths[path], call, name): value
            for (path, call, name), value in values.items()
            if path in paths
        }

    @property
    def judged(self) -> tuple[tuple[Side, str], ...]:
        """Whose value is judged, in which dtype: in float64 there is only one difference to judge.

        A record is in float32 alone.
        """
        gluon = self.recorded is not None and self.recorded.side == Side.GLUON
        return JUDGED[1:] if gluon else JUDGED

    @property
    def has_modes(self) -> bool:
        """Whether anything here may compute otherwise in training than in inference."""
        return (
            len(self.modes) < 2
            or bool(self.masks)
            or any(operator_of(pair.torch.family).by_mode for pair in self.pairing.pairs)
        )

    def torch_leaves(self) -> list[Leaf]:
        """Every torch leaf that can be run alone, paired or not."""
        return [t for _, t in self.pairing.steps if t is not None and not t.composite]


def along(subject: Subject, outputs: Outputs) -> NetRun:
    """The referee's training step at the very values of another run, by torch path.

    A value near 0 may fall on either side of a ReLU, and one of two near-equal values may win a
    pooling window: then the gradient takes another way, rightly. Where the referee is led along the
    same values it takes the same way. Raises DidNotRun.
    """

    def replacement(path: str, call: int, index: int) -> np.ndarray | None:
        release()
        return outputs.get((path, call, output_name(index)))

    return subject.referee_run(
        train=True, backward=True, replacements=replacement, sink=lambda key, value: None
    )
