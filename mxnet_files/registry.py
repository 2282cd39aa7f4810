"""What an operator is: its attributes, its inputs, and how it is wired in torch.fx."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import fx, nn

from mxnet_files.dtypes import Dtypes
from mxnet_files.errors import SymbolError
from mxnet_files.reading.attributes import IGNORED, Attribute, declared
from mxnet_files.reading.names import PathNames, local_name

InputNames: TypeAlias = "Callable[[SimpleNamespace], tuple[str, ...] | None]"
Wired: TypeAlias = "fx.Node | tuple[fx.Node, ...]"
Build = TypeVar("Build", bound="Callable[..., Wired]")

# Inputs that hold learned numbers; a variable here that the .params file lacks is an error.
AUXILIARY = ("moving_mean", "moving_var")
FLOAT32 = "float32"
MOST_CONSTANTS = 2**26  # elements
MOST_STEPS = 100_000
PARAMETER_SLOTS = ("weight", "bias", "gamma", "beta", *AUXILIARY)


@dataclass(frozen=True)
class Operator:
    """One operator of MXNet.

    `inputs` gives the input names for given attributes (None: any number of them), `outputs` the
    number of outputs a later node may name, `dtypes` the rule for their dtype;
    `build(wiring, attributes, *inputs)` adds fx nodes and returns the one that is the result, or
    one for each output.
    """

    name: str
    build: Callable[..., Wired]
    attributes: Mapping[str, Attribute]
    inputs: InputNames
    outputs: Callable[[SimpleNamespace], int]
    dtypes: Dtypes = Dtypes.UNKNOWN
    graphs: int = 0  # its subgraphs, which its attributes hold as `inner`

    def gives_float32(self, attributes: Mapping[str, str]) -> bool:
        """A node's attribute `dtype`, or MXNet's default of it, asks for float32.

        >>> OPERATORS["Cast"].gives_float32({"dtype": "float32"})
        True
        """
        if "dtype" not in self.attributes:
            return self.dtypes is Dtypes.MADE
        said = attributes.get("dtype", "None").strip()
        if said != "None":
            return said == FLOAT32
        return self.dtypes is Dtypes.MADE or self.attributes["dtype"].default == FLOAT32


OPERATORS: dict[str, Operator] = {}


def register(
    names: str,
    build: Callable[..., Wired],
    inputs: str | InputNames | None,
    attributes: Mapping[str, Attribute] | str = "",
    outputs: int | Callable[[SimpleNamespace], int] = 1,
    dtypes: Dtypes = Dtypes.UNKNOWN,
    *,
    graphs: int = 0,
) -> None:
    """Enter an operator under its names, separated by spaces; the first is MXNet's main one.

    `inputs` is the names in a string, a function of the attributes, or None for any number.
    `attributes` are given by name, or as `declared` reads them.
    """
    main, *_ = every = names.split()
    fixed = tuple(inputs.split()) if isinstance(inputs, str) else None
    named: InputNames = inputs if callable(inputs) else (lambda a: fixed)
    counted = outputs if callable(outputs) else (lambda a: outputs)
    known = declared(attributes) if isinstance(attributes, str) else attributes
    entered = Operator(main, build, known, named, counted, dtypes, graphs)
    for name in every:
        if name in OPERATORS:
            raise ValueError(f"operator {name} is registered twice")
        OPERATORS[name] = entered


def registered(
    names: str,
    inputs: str | InputNames | None,
    attributes: Mapping[str, Attribute] | str = "",
    outputs: int | Callable[[SimpleNamespace], int] = 1,
    dtypes: Dtypes = Dtypes.UNKNOWN,
    *,
    graphs: int = 0,
) -> Callable[[Build], Build]:
    """`register`, written above the function that builds the operator."""

    def enter(build: Build) -> Build:
        register(names, build, inputs, attributes, outputs, dtypes, graphs=graphs)
        return build

    return enter


def register_call(
    names: str,
    function: Callable[..., Any],
    inputs: str | None,
    attributes: str = "",
    outputs: int = 1,
    dtypes: Dtypes = Dtypes.UNKNOWN,
) -> None:
    """Enter an operator that is one call: of its inputs, then its attributes as they are declared.

    Any number of inputs are a list; how many there are is no argument, nor is what is `ignored`.
    With several `outputs`, the function returns that many tensors.
    """
    known = declared(attributes)
    passed = [key for key, one in known.items() if one is not IGNORED and key != "num_args"]

    def build(w: Wiring, a: SimpleNamespace, *given: fx.Node) -> Wired:
        arrays = given if inputs is not None else [list(given)]
        arguments = (*arrays, *(getattr(a, key) for key in passed))
        if outputs == 1:
            return w.call(function, *arguments)
        part = "both" if outputs == 2 else "all"
        return outputs_of(w, w.call(function, *arguments, part=part), outputs)

    register(names, build, inputs, known, outputs, dtypes)


class Wiring:
    """The fx graph under construction, as one operator's `build` sees it."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.paths = PathNames()
        self.values: dict[str, torch.Tensor] = {}  # by fx node name, for parameters only
        self.flat: set[fx.Node] = set()  # results known to have two axes: no need to flatten them
        self.unsized: dict[fx.Node, tuple[int, ...]] = {}  # by shape, 0 for what MXNet infers
        self.floating: set[fx.Node] = set()  # results known to be floating point
        self.constants = 0  # elements of arrays that the file describes without storing them
        self.steps = 0  # a node with 4,096 outputs is as many operations
        self.where = ""  # the node being built, for errors
        self.operator = ""  # and its operator's main name
        self.wider = False  # float32 in the node being built is float64 in a net in float64
        self.step = ""  # the part that unnamed calls are, where the result itself comes later
        self.np_shape = False  # () is a shape in the file
        self.body: Callable[..., Any] = self.call  # what makes a module of a subgraph
        self._name = ""

    def begin(self, name: str, where: str, operator: str, *, wider: bool = False) -> None:
        """Start on the node called `name`."""
        self._name, self.where, self.operator = local_name(name), where, operator
        self.wider = wider

    def call(self, function: Callable[..., Any], *arguments: Any, part: str = "") -> fx.Node:
        """A function call. `part` marks a step on the way to the node's own result."""
        name = self._part(part)
        return self._create("call_function", function, arguments, name)

    def method(self, method: str, *arguments: Any, part: str = "") -> fx.Node:
        """A method call on the first argument."""
        name = self._part(part)
        return self._create("call_method", method, arguments, name)

    def _create(self, kind: str, target: Any, arguments: tuple[Any, ...], name: str) -> fx.Node:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise self.refuse(f"more than {MOST_STEPS:,} operations of torch in one graph")
        node = self.graph.create_node(kind, target, arguments, {}, name=name)
        if self.wider and torch.float32 in arguments:
            node.meta["mxnet_wider"] = True
        return node

    def _part(self, part: str) -> str:
        step = part or self.step
        return f"{self._name}_{step}" if step else self._name

    def layer(self, module: nn.Module, *arguments: fx.Node | None) -> fx.Node:
        """A call of a sub-module, kept under the node's name."""
        path = self.paths.layer(self._name)
        self.root.add_module(path, module)
        return self._create("call_module", path, arguments, self._name)

    def constant(self, value: torch.Tensor) -> fx.Node:
        """An array that the file describes without storing it; a buffer outside state_dict."""
        self.constants += value.numel()
        if self.constants > MOST_CONSTANTS:
            raise self.refuse(f"more than {MOST_CONSTANTS:,} elements of constants")
        path = self.paths.layer(self._name)
        self.root.register_buffer(path, value, persistent=False)
        return self.graph.create_node("get_attr", path, name=self._name)

    def shape(self, node: fx.Node | None) -> tuple[int, ...] | None:
        """The shape of a parameter, None for anything computed."""
        value = self.values.get(node.name) if node is not None else None
        return None if value is None else tuple(value.shape)

    def expect(self, node: fx.Node | None, shape: Iterable[int | None], what: str) -> None:
        """Refuse a parameter whose shape contradicts the attributes (None matches any size)."""
        found, wanted = self.shape(node), tuple(shape)
        if found is None:
            return
        same = len(found) == len(wanted) and all(
            b is None or a == b for a, b in zip(found, wanted, strict=True)
        )
        if not same:
            shown = "(" + ", ".join("any" if size is None else str(size) for size in wanted) + ")"
            raise SymbolError(f"{self.where}: {what} has shape {found}, the attributes say {shown}")

    def refuse(self, problem: str) -> SymbolError:
        """An error about the node being built."""
        return SymbolError(f"{self.where}: {problem}")


def outputs_of(w: Wiring, result: fx.Node, count: int, part: str = "") -> tuple[fx.Node, ...]:
    """The `count` items of a function that returns several tensors, which is `part` of a node."""
    return tuple(w.call(operator.getitem, result, i, part=f"{part}{i}") for i in range(count))
