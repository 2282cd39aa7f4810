"""The one adapter of a framework: everything that levels, fault catalogue and gate ask of it.

Each framework implements `Backend` in `backends.SIDE.backend`, which is imported when it is first
asked for: where only one framework is installed, that one works. Arrays go in and come out as
numpy. Nets are only read: everything runs on clones, on the CPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import numpy as np

from parity_tests.backends.executed import Layout, Traces
from parity_tests.backends.leaves import Leaf, ParityError
from parity_tests.backends.optimizers import OptimizedParameters
from parity_tests.backends.runs import Arrays, Edit, Key, LeafRun, Loss, NetRun, Noise, Objective
from parity_tests.backends.training import Owned, Trainee
from parity_tests.numerics.operators.cases import Change
from parity_tests.numerics.update_rules import Rule
from parity_tests.pairing.graph import OperationGraph, Replay
from parity_tests.pairing.segments import Slot
from parity_tests.reporting.verdicts import Side

SIDES = (Side.GLUON, Side.TORCH)

# Values of parameters and buffers by (path, role)
Tensors = Mapping[tuple[str, str], np.ndarray]


class Source(Protocol):
    """Where one side of a comparison comes from: a framework, or what was recorded of one."""

    @property
    def side(self) -> Side:
        """Which framework this is."""

    def set_apart(self, net: Any) -> AbstractContextManager[None]:
        """The net is compared in this context, whatever the user has set in the framework."""

    def leaves(self, net: Any) -> list[Leaf]:
        """The net's leaves in the order in which they were registered."""

    def with_values(self, net: Any, values: Tensors) -> Any:
        """A copy of the net with other values; what is not named keeps its own."""

    def fixed(self, net: Any) -> Mapping[str, Any]:
        """The net's arrays that no gradient changes, by name; None known of a recorded net."""

    def constants(self, net: Any) -> Mapping[str, Any]:
        """Those of them that are no weights, as far as they are known of a recorded net."""

    def held(self, net: Any) -> Iterator[tuple[str, np.ndarray, bool]]:
        """Each parameter and buffer that has values: its name, they, and whether it is trained."""

    def full(self, like: Any, shape: tuple[int, ...], number: float) -> Any:
        """An array of one number, of the framework, dtype and device of another one."""

    def array(self, values: np.ndarray, dtype: str, like: Any = None) -> Any:
        """An array of the framework's of these values, on the device of another one or the CPU."""

    def trace(self, net: Any, inputs: Arrays, *, train: bool) -> OperationGraph:
        """The operations that the net executes on these inputs; it is left as it was."""

    def normalise(
        self, graph: OperationGraph, *, ordered: bool = False, apart: Container[int] = ()
    ) -> OperationGraph:
        """A traced graph in the common vocabulary (`pairing.normalise`)."""

    def rebuild(
        self,
        net: Any,
        traces: Traces,
        layouts: Sequence[Layout],
        outputs: Sequence[tuple[Slot, tuple[int, ...]]],
    ) -> Any:
        """A net whose leaves are segments of what a net executed, on that net's parameters."""


class Backend(Source, Protocol):
    """One framework. `Any` stands for its own types: nets, optimizers, losses."""

    @property
    def join(self) -> tuple[str, Replay]:
        """The kind of the operation that joins arrays along their first axis, and its replay."""

    @property
    def optimizers(self) -> Mapping[str, Callable[..., Any]]:
        """Makers of optimizers over (parameters, rule), by the prefix that names their rules.

        The empty prefix is that of the `train` command.
        """

    def clone(self, net: Any, dtype: str | None, *, gradients: bool = True) -> Any:
        """An independent copy on the CPU, floats rounded through float32 to `dtype`.

        With None the values stay as they are; without `gradients` no memory is set aside for them,
        where a framework would.
        """

    def release(self, cloned: Any) -> None:
        """Let go of a clone's arrays, which nobody uses after this."""

    def set_values(self, leaf: Leaf, values: Mapping[str, np.ndarray]) -> None:
        """Put other values, by role, into a leaf of a clone."""

    def leaf_with_values(self, leaf: Leaf, values: Mapping[str, np.ndarray]) -> Leaf:
        """A copy of one leaf with other values, by role."""

    def run_leaf(
        self,
        leaf: Leaf,
        inputs: Arrays,
        dtype: str,
        *,
        train: bool,
        upstream: Arrays | None = None,
        change: Change | None = None,
        inside: bool = False,
    ) -> LeafRun:
        """Run one leaf alone, and backwards if `upstream`, its outputs' gradients, is given.

        Dropout passes its input on. Buffers are those after the run. `change` changes the numbers
        of every parameter, and with `inside` those that pass both ways between the operations of an
        executed segment.
        """

    def run_net(
        self,
        net: Any,
        inputs: Arrays,
        dtype: str,
        *,
        train: bool = False,
        objective: Objective | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
        inputs_too: bool = True,
    ) -> NetRun:
        """Run the whole net and bring back every leaf's values, and gradients of an objective.

        Dropout passes its input on, or applies `masks[path]`, True where a value is kept. Without
        `inputs_too` the calls have no inputs.
        """

    def run_loss(self, objective: Objective, logits: np.ndarray, dtype: str) -> LeafRun:
        """The "loss" (N,) of logits (N, classes), and its "loss gradient", both in `dtype`."""

    def cross_entropy(self) -> Loss:
        """Softmax cross-entropy of (logits, classes), one value a sample."""

    @property
    def losses(self) -> Mapping[str, Loss]:
        """Losses that both frameworks have, by name, each one value a sample."""

    def averaged(self, loss: Loss) -> Loss:
        """A user's loss as the mean of the batch, once for each sample: (N,)."""

    def sample_dropout(self, leaf: Leaf, x: np.ndarray) -> np.ndarray:
        """What the leaf's own dropout makes of x in training, in float32."""

    def optimized(
        self,
        values: Mapping[str, np.ndarray],
        rule: Rule,
        make: Callable[..., Any] | None = None,
    ) -> OptimizedParameters:
        """Parameters of these values and an optimizer over them.

        It is the `train` command's unless `make` says otherwise.
        """

    def trainee(
        self,
        net: Any,
        dtype: str,
        rule: Rule,
        objective: Objective,
        paths: Mapping[str, str] | None = None,
    ) -> Trainee:
        """A clone that trains as the `train` command does, under other paths where `paths` says."""

    def named_optimizer(self, net: Any, name: str, numbers: Mapping[str, float]) -> Any:
        """The framework's own optimizer over a net, by MXNet's names: "sgd", {"rate": 0.1}."""

    def check_optimizer(self, optimizer: Any) -> str:
        """What is wrong with what a user's function gives as an optimizer; empty if nothing is."""

    def own_trainee(
        self,
        net: Owned,
        dtype: str,
        rule: Rule,
        objective: Objective,
        paths: Mapping[str, str] | None = None,
    ) -> Trainee:
        """A clone of a user's net that trains with the user's optimizer."""

    def artefacts(self, net: Any, inputs: Arrays) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
        """What the framework's own saved forms compute once they are loaded, by name, in float32.

        Beside them the files that hold the graph, by name, without what changes from process to
        process.
        """


class Referee(Backend, Protocol):
    """The framework whose nets are the float64 witness."""

    def twin(self, net: Any) -> Any:
        """An independent copy with the same values, where they lie."""

    def run_clone(
        self,
        cloned: Any,
        inputs: Arrays,
        dtype: str,
        *,
        train: bool,
        objective: Objective | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
        replacements: Edit | None = None,
        addends: Edit | None = None,
        inputs_too: bool = True,
        sink: Callable[[Key, np.ndarray], None] | None = None,
    ) -> NetRun:
        """`run_net` on what `clone` made of a net, which stays as it is.

        Leaf outputs are replaced on their way where a replacement has their shape, or get addends.
        Without `inputs_too` the calls have no inputs. `sink` takes each leaf's outputs as they come
        and the calls have none; with an objective they are in neither.
        """

    def gradient_noise(
        self,
        cloned: Any,
        inputs: Arrays,
        *,
        masks: Mapping[str, np.ndarray],
        addends: Iterable[Edit],
        sink: Callable[[Key, np.ndarray], None],
    ) -> None:
        """What noise in the gradients of a training step makes of every gradient, in float64.

        `addends` are the noise of one draw after the other, added to the gradients of leaf inputs
        and, under the path NET, of the net's outputs. `sink` takes the moves of each draw.
        """

    def shake(self, net: Any, noise: Noise, seed: int) -> None:
        """Make every leaf of a net round worse, in training, from now on."""


@cache
def backend(side: str) -> Backend:
    """The framework's backend. Raises whatever importing the framework raises."""
    module = importlib.import_module(f"parity_tests.backends.{Side(side)}.backend")
    adapter: Backend = module.BACKEND
    return adapter


@cache
def referee() -> Referee:
    """torch's backend. Raises whatever importing torch raises."""
    witness: Referee = importlib.import_module("parity_tests.backends.torch.backend").BACKEND
    return witness


class Recorded(Protocol):
    """One side as it was run elsewhere, cut into the leaves under comparison."""

    @property
    def side(self) -> Side:
        """Which framework it ran in."""

    def run(self, *, train: bool, backward: bool) -> NetRun:
        """What the whole net gave there, in float32."""

    def leaf_run(self, path: str, run: NetRun) -> LeafRun:
        """One leaf of a run, as `run_leaf` would give it; what cannot be known is left out."""


def side_of(net: object) -> Side:
    """Which framework a net is of, or was recorded from. Raises ParityError for anything else."""
    if is_recorded(net):
        side: Side = net.side  # type: ignore[attr-defined]
        return side
    modules = {cls.__module__.split(".")[0] for cls in type(net).__mro__}
    if "torch" in modules:
        return Side.TORCH
    if "mxnet" in modules:
        return Side.GLUON
    raise ParityError(
        f"{type(net).__name__} is neither a Gluon Block nor a torch Module; pass one of each"
    )


def backend_of(net: object) -> Backend:
    """The backend of a net's framework. Raises ParityError for what is no net."""
    return backend(side_of(net))


def source_of(net: object) -> Source:
    """The backend of a net's framework, or of its record. Raises ParityError for what is no net."""
    if not is_recorded(net):
        return backend_of(net)
    recorded = importlib.import_module("parity_tests.backends.files.backend")
    source: Source = recorded.RecordedSource(side_of(net))
    return source


def is_recorded(net: object) -> bool:
    """Whether a net was run elsewhere: there is nothing to run here."""
    return type(net).__module__ == "parity_tests.backends.files.recorded"


def leaves_of(net: Any) -> list[Leaf]:
    """The leaves of a net of either framework, in the order in which they were registered."""
    return source_of(net).leaves(net)
