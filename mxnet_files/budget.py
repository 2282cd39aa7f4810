"""What running a graph will take, worked out from shapes before anything is computed.

A small file can ask for any amount: a repetition of 10⁷, sixty concatenations that double, an image
of 30000×30000. `rehearse` runs the graph on arrays that have shapes and no memory (the ones that
`torch.export` uses), and refuses it where a budget ends.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import flop_registry

from mxnet_files.errors import SymbolError
from mxnet_files.reading.params_file import MAX_NDIM
from mxnet_files.running import Named, refusals, run, where

MOST_CALLS = 500_000  # an operator may loop as often as an attribute says; each turn takes 0.1 ms
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
DEPENDS_ON_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)


@dataclass(frozen=True)
class Budget:
    """The most that a graph may take.

    values: elements of all results together, each of which `--check` holds in 8 bytes; bytes:
    memory of the results that are alive at one time, parameters apart; operations: additions and
    multiplications. ResNet-50 takes 36 million values, 10 MB and 8 thousand million operations
    for an image of 224×224.

    >>> Budget.read("bytes=500M,operations=2T")
    Budget(values=1000000000, bytes=500000000, operations=2000000000000)
    """

    values: int = 10**9
    bytes: int = 1500 * 10**6
    operations: int = 5 * 10**12

    @classmethod
    def read(cls, text: str) -> Budget:
        """From `bytes=16G,operations=1T,values=10G`; what is not named keeps its default.

        Raises ValueError.
        """
        given: dict[str, int] = {}
        for part in text.split(","):
            name, _, size = part.strip().partition("=")
            number, unit = (size[:-1], size[-1:]) if size[-1:].isalpha() else (size, "")
            known = name in {field.name for field in fields(cls)}
            if not known or unit not in UNITS or not (number.isascii() and number.isdigit()):
                raise ValueError(f"{part.strip()!r}, expected such as bytes=16G,operations=1T")
            given[name] = int(number[:18]) * UNITS[unit]
        return replace(cls(), **given)


@dataclass
class Cost:
    """What a graph takes, in the terms of `Budget`; `bytes` is the peak."""

    values: int = 0
    bytes: int = 0
    operations: int = 0


def rehearse(
    module: fx.GraphModule, inputs: Sequence[Tensor], budget: Budget | None = None
) -> Cost:
    """Work out what `module` takes on inputs of these shapes and dtypes.

    What depends on values, such as how many boxes remain, is not known from shapes: such a graph is
    run on the inputs themselves, each operation measured before it is computed.

    Args:
        module: an imported graph.
        inputs: examples; their values matter only where a shape depends on values.
        budget: is never exceeded; default `Budget()`.

    Returns:
        The cost.

    Raises:
        SymbolError: the node at which the budget ends, or which cannot take its inputs.
    """
    try:
        return _Rehearsal(module, budget or Budget(), fake=True).measure(inputs)
    except DEPENDS_ON_VALUES:
        return _Rehearsal(module, budget or Budget(), fake=False).measure(inputs)


def in_float32(
    module: fx.GraphModule, inputs: Sequence[Tensor], budget: Budget | None = None
) -> str:
    """Keep the file's parameters as float32 where others cannot meet inputs of float32; in words.

    So they are after `cast`. A graph that casts its inputs itself takes its parameters as they are.
    """
    names = module.meta["mxnet_names"]
    held = [*module.named_parameters(), *module.named_buffers()]
    others = [x for name, x in held if name in names and x.is_floating_point()]
    others = [x for x in others if x.dtype != torch.float32]
    if not others:
        return ""
    try:
        rehearse(module, inputs, budget)
        run(module, inputs)  # shapes alone do not tell what dtypes an operator takes together
        return ""
    except SymbolError:
        kinds = sorted({str(x.dtype).removeprefix("torch.") for x in others})
        for x in others:
            x.data = x.data.float()
        return f", those of {' and '.join(kinds)} as float32"


class _Rehearsal(Named):
    """Runs a graph node by node under a meter."""

    def __init__(self, module: fx.GraphModule, budget: Budget, *, fake: bool) -> None:
        super().__init__(module)
        self.fake = FakeTensorMode(allow_non_fake_inputs=True) if fake else None
        self.meter = _Meter(budget, real=not fake)
        self.where = "the inputs"

    def measure(self, inputs: Sequence[Tensor]) -> Cost:
        """The cost of one run."""
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)

        def told() -> str:
            on = f"inputs of shape {shapes} (give the shapes it takes with --input)"
            return f"{self.where}: the graph cannot run on {on}"

        with ExitStack() as modes, refusals(told, *DEPENDS_ON_VALUES), quiet():
            modes.enter_context(torch.no_grad())
            if self.fake is not None:
                modes.enter_context(self.fake)
                inputs = [self.fake.from_tensor(x) for x in inputs]
            modes.enter_context(self.meter)
            self.run(*inputs)
        return self.meter.cost

    def run_node(self, n: fx.Node) -> Any:
        self.where = self.meter.where = where(n)
        result = super().run_node(n)
        if n.op.startswith("call_") and result is not self.given(n):
            self.meter.result(result)
        return result

    def given(self, n: fx.Node) -> Any:
        """The first argument, which a test of dtypes passes on as it is."""
        return self.env.get(n.args[0]) if n.args and isinstance(n.args[0], fx.Node) else None

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        if self.fake is not None and isinstance(value, Tensor):
            return self.fake.from_tensor(value)
        return value


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from writing a traceback to stderr for every operation that is refused."""
    logger = logging.getLogger(FakeTensorMode.__module__)
    logger.addFilter(_no_record)
    try:
        yield
    finally:
        logger.removeFilter(_no_record)


def _no_record(record: logging.LogRecord) -> bool:
    return False


class _Meter(TorchDispatchMode):
    """Adds up what each operation of torch takes, and refuses the one that passes the budget.

    real: the arrays have memory, so every operation is tried on shapes first.
    """

    def __init__(self, budget: Budget, *, real: bool) -> None:
        super().__init__()
        self.budget, self.real = budget, real
        self.cost = Cost()
        self.where = ""
        self.alive = self.calls = 0
        self.known: set[int] = set()  # storages that are counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise SymbolError(
                f"{self.where}: more than {MOST_CALLS:,} operations of torch up to here"
            )
        if self.real:
            self.try_on_shapes(func, args, kwargs)
        result = func(*args, **kwargs)
        self.charge("operations", operations(func, args, kwargs, result))
        for y in tree_iter(result):
            if isinstance(y, Tensor):
                self.allocate(y)
        return result

    def try_on_shapes(self, func: Any, args: Any, kwargs: Any) -> None:
        """Hold an operation against the budget before it takes memory."""
        fake = FakeTensorMode()
        try:
            with fake:
                shadows = tree_map_only(Tensor, fake.from_tensor, (args, kwargs))
                result = func(*shadows[0], **shadows[1])
        except DEPENDS_ON_VALUES:
            return  # its result is no larger than its arguments: it chooses among them
        given = {storage_of(x) for x in tree_iter(shadows) if isinstance(x, Tensor)}
        made = [y for y in tree_iter(result) if isinstance(y, Tensor)]
        new = sum(y.untyped_storage().nbytes() for y in made if storage_of(y) not in given)
        self.hold("bytes", self.alive + new)
        self.hold(
            "operations", self.cost.operations + operations(func, shadows[0], shadows[1], result)
        )

    def allocate(self, y: Tensor) -> None:
        """Count a result's memory until nothing refers to it."""
        key, storage = storage_of(y), y.untyped_storage()
        if key not in self.known:
            self.known.add(key)
            self.alive += storage.nbytes()
            weakref.finalize(storage, self.free, key, storage.nbytes())
            self.charge("bytes", max(0, self.alive - self.cost.bytes))

    def free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size

    def result(self, result: Any) -> None:
        """Count what a node gives, also where it is a view that takes no memory."""
        made = [y for y in tree_iter(result) if isinstance(y, Tensor)]
        self.charge("values", sum(y.numel() for y in made))
        if deep := [y.dim() for y in made if y.dim() > MAX_NDIM]:
            raise SymbolError(
                f"{self.where}: gives an array of {deep[0]} dimensions, expected at most {MAX_NDIM}"
            )

    def charge(self, what: str, amount: int) -> None:
        total = getattr(self.cost, what) + amount
        self.hold(what, total)
        setattr(self.cost, what, total)

    def hold(self, what: str, total: int) -> None:
        most = getattr(self.budget, what)
        if total > most:
            raise SymbolError(
                f"{self.where}: the graph takes {total:.3g} {what} up to here and the budget is"
                f" {most:.3g}: raise it with --budget {what}={total:.0f} if you trust the file"
            )


def storage_of(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def operations(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Additions and multiplications of one operation of torch, to a factor of a few."""
    if func.is_view:
        return 0
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=result))
    made = sum(y.numel() for y in tree_iter(result) if isinstance(y, Tensor))
    read = sum(x.numel() for x in tree_iter((args, kwargs)) if isinstance(x, Tensor))
    name = str(packet)
    if "_pool" in name and "adaptive" not in name and len(args) > 1:
        return made * math.prod(args[1])
    if "rnn" in name:  # every weight once for each step of each sequence
        weights = read - args[0].numel()
        return 2 * weights * args[0].numel() // max(1, args[0].shape[-1])
    return made + read
