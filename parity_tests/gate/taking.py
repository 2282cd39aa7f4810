"""Takes one side of one subject: every leaf alone, the net as a whole, its steps, its exports.

How far rounding may carry each value is measured: in float64 the same is run again with relative
noise in every input and parameter, in pairs of opposite sign, so that a value near a kink (a ReLU's
zero, two nearly equal values in a pooling window) falls to the other side in one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from parity_tests.compare import ENVELOPE_FACTOR, UNIT
from parity_tests.gate.quantities import Failure, Quantity, Taken
from parity_tests.gate.subjects import Subject, Tensors, drawn
from parity_tests.leaves import Leaf
from parity_tests.optimizer_rules import Rule
from parity_tests.runs import Arrays, LeafRun, NetRun, Objective

__all__ = ["NOISE", "PAIRS", "start_of", "take", "take_rules"]

NOISE = 16.0  # units of float32's roundoff, the bound of a single operation
PAIRS = 2

NET = "(net)"
LOSS = "(loss)"

_EXACT = ("relu", "flatten", "identity", "dropout")
_SINGLE = ("leaky_relu", "prelu", "elu", "selu", "gelu")  # MXNet: float32 even in a float64 net
_UNIT = UNIT["float32"]

Found = dict[tuple[str, str], np.ndarray]  # (path, quantity)


def take(border: ModuleType, subject: Subject) -> Taken:
    """Everything a side gives for a subject; what does not run is a Failure, leaf by leaf."""
    taken = Taken()
    try:
        net = subject.make[border.SIDE]()
        values = start_of(border, net, subject)
        leaves = border.leaves(border.dressed(net, values))
    except Exception as error:
        taken.failures.append(Failure("forward", "stream", NET, "net", "output", one_line(error)))
        return taken
    taker = _Taker(border, subject, net, values, leaves)
    for part in (taker.local, taker.loss, taker.stream, taker.training, taker.artefacts):
        for item in part():
            if isinstance(item, Failure):
                taken.failures.append(item)
            elif isinstance(item, Quantity):
                taken.quantities.append(item.kept())
            else:
                taken.files.update(item)
    return taken


def start_of(border: ModuleType, net: Any, subject: Subject) -> Tensors:
    """The values that every leaf starts from."""
    values = {}
    for leaf in border.leaves(net):
        for role, tensor in leaf.tensors.items():
            key = (leaf.path, role)
            value = subject.values(border.SIDE, key, leaf.kind, tensor.shape)
            values[key] = tensor.read() if value is None else value
    return values


def one_line(error: BaseException) -> str:
    """What an exception says, in one line; MXNet's long ones end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = bool(lines) and lines[0].startswith("Traceback")
    return f"{type(error).__name__}: {lines[-1 if last else 0] if lines else 'no reason given'}"


def noisy(array: np.ndarray, *seed: object, sign: int = 1) -> np.ndarray:
    """Relative normal noise of NOISE units of float32's roundoff; integers stay as they are."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    noise = drawn("noise", *seed).standard_normal(array.shape)
    moved = array.astype(np.float64) * (1.0 + sign * NOISE * _UNIT * noise)
    return moved.astype(array.dtype)


_DRAWS = tuple((pair, sign) for pair in range(PAIRS) for sign in (1, -1))


class _Taker:
    def __init__(
        self,
        border: ModuleType,
        subject: Subject,
        net: Any,
        values: Tensors,
        leaves: Sequence[Leaf],
    ) -> None:
        self.border, self.subject, self.leaves = border, subject, leaves
        self.net = border.dressed(net, values)
        self.moved = [
            border.dressed(
                net,
                {k: noisy(v, *k, pair, sign=sign) for k, v in values.items() if k[1] != "bitmaps"},
            )
            for pair, sign in _DRAWS
        ]
        self.absolute = border.dressed(net, {k: np.abs(v) for k, v in values.items()})
        # One pair of draws is enough here: both dtypes of a leaf alone see the same inputs.
        self.moved_leaves = [border.leaves(other) for other in self.moved[:2]]
        self.absolute_leaves = border.leaves(self.absolute)
        self.kinds = {leaf.path: leaf.kind for leaf in leaves}
        single = border.SIDE == "gluon" and any(leaf.kind in _SINGLE for leaf in leaves)
        self.fraction = 1.0 if single else UNIT["float64"] / _UNIT
        self.objective: Objective | None = None
        self.shapes: dict[str, Arrays] = {}
        self.summed: dict[str, float] = {}  # see `_summed`
        self.broken = ""

    # The net as a whole comes first, since it tells what shape each leaf's input has.

    def _prepare(self) -> None:
        if self.shapes or self.broken:
            return
        try:
            run = self.border.run_net(self.net, self.subject.inputs, "float64", train=False)
        except Exception as error:
            self.broken = one_line(error)
            return
        self.shapes = {path: calls[0].inputs for path, calls in run.calls.items() if calls}
        loss = self.subject.loss.get(self.border.SIDE)
        labels = self.subject.labels
        self.objective = self.border.objective(self.net, loss, labels, run.outputs)

    def local(self) -> Iterator[Quantity | Failure]:
        """Every leaf alone, forward and then backward."""
        self._prepare()
        found = [item for leaf in enumerate(self.leaves) for item in self._leaf(*leaf)]
        for level in ("forward", "backward"):
            yield from (item for item in found if item.level == level)

    def _leaf(self, index: int, leaf: Leaf) -> Iterator[Quantity | Failure]:
        if leaf.composite:
            return
        given = self.shapes.get(leaf.path)
        if given is None:
            reason = self.broken or "it never ran on this input"
            yield Failure("forward", "local", leaf.path, leaf.kind, "output", reason)
            return
        name = (self.subject.name, leaf.path)
        xs = tuple(_filled(x, *name, i) for i, x in enumerate(given))
        try:
            yield from self._modes(index, leaf, xs, name)
        except Exception as error:
            yield Failure("forward", "local", leaf.path, leaf.kind, "output", one_line(error))

    def _modes(
        self, index: int, leaf: Leaf, xs: Arrays, name: tuple[str, str]
    ) -> Iterator[Quantity]:
        shapes = self.border.run_leaf(leaf, xs, "float64", train=True)
        outputs = [v for k, v in shapes.items() if k.startswith("output")]
        upstream = tuple(_filled(y, *name, "upstream", i) for i, y in enumerate(outputs))
        modes = (True, False) if leaf.family in ("batchnorm", "custom") else (True,)
        for train in modes:
            gs = upstream if train else None

            def run(
                net_leaf: Leaf, dtype: str, xs: Arrays, gs: Arrays | None, train: bool = train
            ) -> LeafRun:
                return self.border.run_leaf(net_leaf, xs, dtype, train=train, upstream=gs)

            double, single = run(leaf, "float64", xs, gs), run(leaf, "float32", xs, gs)
            moves = _moves(double)
            for leaves, (pair, sign) in zip(self.moved_leaves, _DRAWS, strict=False):
                other = leaves[index]
                moved_xs = tuple(noisy(x, *name, i, pair, sign=sign) for i, x in enumerate(xs))
                moved_gs = None
                if gs is not None:
                    moved_gs = tuple(noisy(g, "g", i, pair, sign=sign) for i, g in enumerate(gs))
                moves.widen(run(other, "float64", moved_xs, moved_gs))
            sizes = self._sizes(index, leaf, xs, gs, run)
            for quantity, value in double.items():
                if not train and not quantity.startswith("output"):
                    continue
                yield Quantity(
                    "forward" if quantity.startswith("output") else "backward",
                    "local",
                    leaf.path,
                    leaf.kind,
                    quantity if train else f"{quantity} in inference",
                    single[quantity],
                    value,
                    0.0 if _exact(leaf, quantity) else moves.limit(quantity, sizes.get(quantity)),
                    1.0 if self.border.SIDE == "gluon" and leaf.kind in _SINGLE else 2.0**-29,
                )

    def _sizes(
        self, index: int, leaf: Leaf, xs: Arrays, gs: Arrays | None, run: Callable[..., LeafRun]
    ) -> dict[str, float]:
        """What a linear operation rounds: itself with every number made absolute."""
        if not (leaf.kind == "dense" or leaf.kind.startswith("conv") or "avg_pool" in leaf.kind):
            return {}
        other = self.absolute_leaves[index]
        absolute = None if gs is None else tuple(np.abs(g) for g in gs)
        made = run(other, "float64", tuple(np.abs(x) for x in xs), absolute)
        return {name: float(value.max()) for name, value in made.items() if value.size}

    def loss(self) -> Iterator[Quantity | Failure]:
        """The loss alone, on logits that are not the net's."""
        self._prepare()
        if self.objective is None or self.objective.labels is None:
            return
        classes = int(self.objective.labels.max()) + 1
        shape = (len(self.objective.labels), max(classes, 10))
        logits = drawn("logits", *shape).standard_normal(shape).astype(np.float32) * 3
        try:
            runs = {d: self.border.loss_run(self.objective, logits, d) for d in UNIT}
            moves = _moves(runs["float64"])
            for pair, sign in _DRAWS:
                moved = noisy(logits, "logits", pair, sign=sign)
                moves.widen(self.border.loss_run(self.objective, moved, "float64"))
        except Exception as error:
            yield Failure("loss", "local", LOSS, "loss", "loss", one_line(error))
            return
        # The table of a vectorised log is off by 64 u of 1, however small the result (`compare`)
        for name, value in runs["float64"].items():
            limit = max(moves.limit(name, None), 64 * _UNIT * max(1.0, float(np.abs(logits).max())))
            single = runs["float32"][name]
            yield Quantity("loss", "local", LOSS, "loss", name, single, value, limit)

    def stream(self) -> Iterator[Quantity | Failure]:
        """The net as a whole, in training mode: outputs of every leaf, then all gradients."""
        self._prepare()
        if self.broken:
            yield Failure("forward", "stream", NET, "net", "output", self.broken)
            return
        runs: dict[str, NetRun] = {}
        backward = self.subject.steps > 0 or self.objective is None
        how: dict[str, Any] = {"train": True, "objective": self.objective if backward else None}
        try:
            for dtype in ("float64", "float32"):
                runs[dtype] = self.border.run_net(self.net, self.subject.inputs, dtype, **how)
            double, single = (_of_run(runs[d]) for d in ("float64", "float32"))
            moves = _moves(double)
            for net, (pair, sign) in zip(self.moved, _DRAWS, strict=True):
                xs = tuple(
                    noisy(x, "input", i, pair, sign=sign) for i, x in enumerate(self.subject.inputs)
                )
                moves.widen(_of_run(self.border.run_net(net, xs, "float64", **how)))
        except Exception as error:
            yield Failure("forward", "stream", NET, "net", "output", one_line(error))
            return
        groups = _groups(double)
        self.summed = _summed(runs["float64"])
        outputs = [key for key in double if key[1].startswith("output")]
        gradients = [key for key in double if not key[1].startswith("output")]
        for level, keys in (("forward", outputs), ("backward", reversed(gradients))):
            for key in keys:
                yield Quantity(
                    level, "stream", key[0], self.kinds.get(key[0], "net"), key[1],
                    single[key], double[key], moves.limit(key, self._size(groups, key)),
                    self.fraction,
                )  # fmt: skip

    def training(self) -> Iterator[Quantity | Failure]:
        """Steps of training: the logits, loss, slots, weights and buffers that each leaves."""
        subject, labels = self.subject, self.subject.labels
        if not subject.steps or labels is None or self.broken or self.objective is None:
            return
        loss = self.objective.gluon or self.objective.torch
        batches = subject.batches
        last = len(batches)

        def run(net: Any, dtype: str, batches: Any) -> Found:
            made = self.border.steps(net, batches, dtype, subject.rule, loss)
            return {
                (path, f"step {n} {name}"): value
                for n, path, name, value in made
                if path == NET or n in (1, last)
            }

        try:
            double, single = run(self.net, "float64", batches), run(self.net, "float32", batches)
            moves = _moves(double)
            for net, (pair, sign) in zip(self.moved, _DRAWS, strict=True):
                other = [
                    (noisy(x, "batch", i, pair, sign=sign), y) for i, (x, y) in enumerate(batches)
                ]
                moves.widen(run(net, "float64", other))
        except Exception as error:
            yield Failure("training", "stream", NET, "net", "step", one_line(error))
            return
        groups = _groups(double)
        for key, value in double.items():
            path, name = key
            yield Quantity(
                "training", "stream", path, self.kinds.get(path, "net"), name,
                single[key], value, moves.limit(key, self._size(groups, key)), self.fraction,
            )  # fmt: skip

    def _size(self, groups: dict[tuple[str, str], float], key: tuple[str, str]) -> float:
        """What a tensor's rounding is relative to."""
        path, name = key
        words = name.split()
        of_bias = name == "bias gradient" or (len(words) == 4 and words[2] == "bias")
        return groups[_group(key)] * (self.summed.get(path, 1.0) if of_bias else 1.0)

    def artefacts(self) -> Iterator[Quantity | Failure | dict[str, bytes]]:
        """What is exported, loaded again and run."""
        if self.broken:
            return
        try:
            reference = self.border.run_net(self.net, self.subject.inputs, "float64", train=False)
            double = {"output": reference.outputs[0]}
            moves = _moves(double)
            for net, (pair, sign) in zip(self.moved, _DRAWS, strict=True):
                xs = tuple(
                    noisy(x, "input", i, pair, sign=sign) for i, x in enumerate(self.subject.inputs)
                )
                made = self.border.run_net(net, xs, "float64", train=False)
                moves.widen({"output": made.outputs[0]})
            values, files = self.border.artefacts(self.net, self.subject.inputs)
        except Exception as error:
            yield Failure("artefacts", "stream", NET, "net", "export", one_line(error))
            return
        limit = moves.limit("output", None)
        for name, value in values.items():
            yield Quantity(
                "artefacts", "stream", NET, "net", name, value,
                double["output"] if value.shape == double["output"].shape else None,
                limit, self.fraction,
            )  # fmt: skip
        yield files


class _Moves:
    """The largest move of each value, in absolute numbers."""

    def __init__(self, clean: dict[Any, np.ndarray]) -> None:
        self._clean = clean
        self._most = dict.fromkeys(clean, 0.0)

    def widen(self, moved: dict[Any, np.ndarray]) -> None:
        for key, value in self._clean.items():
            if value.size:
                move = np.abs(moved[key] - value)
                self._most[key] = max(self._most[key], float(np.nanmax(move, initial=0.0)))

    def limit(self, key: Any, size: float | None) -> float:
        """ENVELOPE_FACTOR moves, but no less than a bound of 16 u of the size that is rounded."""
        if size is None:
            finite = np.abs(self._clean[key][np.isfinite(self._clean[key])])
            size = float(finite.max(initial=0.0))
        return max(ENVELOPE_FACTOR * self._most[key], NOISE * _UNIT * size)


def _moves(clean: dict[Any, np.ndarray]) -> _Moves:
    return _Moves({k: v.astype(np.float64) for k, v in clean.items()})


def _filled(array: np.ndarray, *seed: object) -> np.ndarray:
    """Normal values in an array's shape, exact in float32; integers stay as they are."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return drawn(*seed).standard_normal(array.shape).astype(np.float32)


def _exact(leaf: Leaf, quantity: str) -> bool:
    if leaf.kind in _EXACT:
        return True
    return "max_pool" in leaf.kind and quantity.startswith("output")


def _of_run(run: NetRun) -> Found:
    """Outputs in order, then gradients; a leaf that is called again has its calls numbered."""
    found: Found = {}
    for values in (run.named_outputs(), run.named_gradients()):
        for (path, call, name), value in values.items():
            found[path, f"{name} of call {call + 1}" if call else name] = value
    return found


def _group(key: tuple[str, str]) -> tuple[str, str]:
    """Whose values a tensor counts beside: a leaf's gradients of parameters, its slots of a kind.

    A bias before a BatchNorm has a gradient of rounding alone, which counts on the scale of the
    weights' gradient, or of its own terms (`_summed`).
    """
    path, name = key
    if name.startswith("step "):
        words = name.split()
        slot = words[-1] if len(words) == 4 else ""  # step 1 weight mom
        return (path, f"{words[1]} {slot}") if slot else key
    if name.endswith("gradient") and not name.startswith(("input", "output")):
        return path, "gradients"
    return key


def _groups(found: Found) -> dict[tuple[str, str], float]:
    largest: dict[tuple[str, str], float] = {}
    for key, value in found.items():
        finite = np.abs(value[np.isfinite(value)])
        group = _group(key)
        largest[group] = max(largest.get(group, 0.0), float(finite.max(initial=0.0)))
    return largest


def _summed(run: NetRun) -> dict[str, float]:
    """How many times the largest gradient of a leaf its bias sums, by path; at least 1.

    A bias has the sum of what comes back to its channel as its gradient. Before a BatchNorm these
    terms cancel, whatever they are, and noise in the net does not show how they round.
    """
    found = {}
    for (path, role), gradient in run.gradients.items():
        if role != "bias":
            continue
        terms = np.zeros(gradient.shape)
        for call in run.calls[path]:
            for back in _coming_back(run, call.outputs[0]):
                if back.shape[1:2] == gradient.shape:
                    terms += np.abs(back).sum(axis=(0, *range(2, back.ndim)))
        largest = max(
            np.abs(g).max(initial=0.0) for (p, _), g in run.gradients.items() if p == path
        )
        found[path] = max(1.0, float(terms.max(initial=0.0) / largest)) if largest else 1.0
    return found


def _coming_back(run: NetRun, output: np.ndarray) -> Iterator[np.ndarray]:
    """The gradients that every leaf which was given this output sends back."""
    for calls in run.calls.values():
        for call in calls:
            for given, back in zip(call.inputs, call.input_gradients, strict=False):
                if back is not None and np.array_equal(given, output):
                    yield back


def take_rules(border: ModuleType) -> Taken:
    """Every update rule of a side, alone, on one parameter of 64 values, for four steps."""
    taken = Taken()
    generator = drawn("rules")
    weight = generator.standard_normal(64).astype(np.float32)
    gradients = [generator.standard_normal(64).astype(np.float32) for _ in range(4)]
    for label, rule in border.rules():
        try:
            taken.quantities += [q.kept() for q in _rule(border, label, rule, weight, gradients)]
        except Exception as error:
            reason = one_line(error)
            taken.failures.append(Failure("optimizer", "local", label, rule.name, "weight", reason))
    return taken


def _rule(
    border: ModuleType, label: str, rule: Rule, weight: np.ndarray, gradients: list[np.ndarray]
) -> Iterator[Quantity]:
    def run(dtype: str, w: np.ndarray, gs: list[np.ndarray]) -> Found:
        made = border.updates(label, rule, w, gs, dtype)
        return {(label, f"step {n} {name}"): value for n, name, value in made}

    double, single = run("float64", weight, gradients), run("float32", weight, gradients)
    moves = _moves(double)
    for pair, sign in _DRAWS:
        gs = [noisy(g, i, pair, sign=sign) for i, g in enumerate(gradients)]
        moves.widen(run("float64", noisy(weight, "w", pair, sign=sign), gs))
    for key, value in double.items():
        yield replace(
            Quantity("optimizer", "local", label, rule.name, key[1], single[key], value, 0.0),
            limit=moves.limit(key, None),
        )
