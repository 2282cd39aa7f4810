"""An imported graph as operations that a person would write."""

from __future__ import annotations

import inspect
import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import _get_qualified_name

from mxnet_files import layers
from mxnet_files.writing import parts
from mxnet_files.writing.borrowed import Borrowed
from mxnet_files.writing.call_rules import CALLS
from mxnet_files.writing.layer_rules import LAYERS, batch_norm, recurrent
from mxnet_files.writing.layout import Atom, Brackets, Expr, Infix, call, literal
from mxnet_files.writing.ops import (
    Build,
    Layer,
    Op,
    arguments,
    identity,
    is_parameter,
    subject,
    tensor_at,
)
from mxnet_files.writing.simplify import simplify

_INFIX = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.eq: "==",
    operator.ne: "!=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.lt: "<",
    operator.le: "<=",
}


@dataclass(frozen=True)
class Lowered:
    """All operations in order; the inputs and outputs among them; tensors by name or path."""

    order: list[Op]
    inputs: list[Op]
    outputs: list[Op]
    module: fx.GraphModule
    computed: Mapping[str, torch.Tensor]
    borrowed: Borrowed

    def tensor(self, path: str) -> torch.Tensor:
        """What an operation holds."""
        return self.computed[path] if path in self.computed else tensor_at(self.module, path)


def lower(module: fx.GraphModule) -> Lowered:
    """The module's graph, whose nodes have their `meta["shape"]`."""
    return _Lowering(module).run()


class _Lowering:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.nodes = simplify(module).nodes
        self.ops: dict[fx.Node, Op] = {}
        self.layers: dict[tuple[Any, ...], Layer] = {}
        self.readers: dict[str, set[fx.Node]] = defaultdict(set)  # by path of what they read
        self.computed: dict[str, torch.Tensor] = {}  # by a name that no path has
        self.borrowed = Borrowed()
        for node in self.nodes:
            if node.op == "get_attr":
                self.readers[str(node.target)].update(node.users)

    def run(self) -> Lowered:
        inputs: list[Op] = []
        outputs: list[Op] = []
        order: list[Op] = []
        known: set[Op] = set()
        for node in self.nodes:
            if node.op == "get_attr":
                continue
            if node.op == "output":
                given = arguments(node)[0]
                given = given if isinstance(given, (tuple, list)) else (given,)
                outputs = [self.value(item) for item in given]
                order += [op for op in dict.fromkeys(outputs) if op not in known]
                continue
            op = self.lower(node)
            op.shape = node.meta.get("shape")
            op.several = node.meta.get("several", False)
            self.ops[node] = op
            if op not in known:
                known.add(op)
                order.append(op)
            if node.op == "placeholder":
                inputs.append(op)
        order = reached(order, inputs, outputs)
        return Lowered(order, inputs, outputs, self.module, self.computed, self.borrowed)

    def value(self, node: fx.Node) -> Op:
        """The operation of a node; a parameter that is an output is one of its own."""
        if node not in self.ops:
            self.ops[node] = Op(
                node.name,
                "tensor",
                ("tensor",),
                [],
                lambda _, own: Atom(own[0]),
                held=[str(node.target)],
            )
        return self.ops[node]

    def tensor(self, node: Any) -> torch.Tensor:
        """The value of a parameter."""
        return tensor_at(self.module, str(node.target))

    def lower(self, node: fx.Node) -> Op:
        if node.op == "placeholder":
            source = str(node.meta.get("mxnet", ("", node.name, 0))[1])
            optional = bool(arguments(node))
            return Op(source, "input", ("input",), [], lambda *_: Atom(""), optional=optional)
        name = str(node.meta.get("mxnet", ("", node.name, 0))[1])
        if node.op == "call_module":
            return self.call_module(node, name)
        if node.op == "call_function":
            first = arguments(node)[0] if arguments(node) else None
            if (
                node.target is operator.getitem
                and isinstance(first, fx.Node)
                and first.op != "get_attr"
            ):
                whole = self.value(first)
                if whole.first_alone:
                    return whole
                own = whole.layer is None or whole.layer.kind is not None
                if whole.kind in ("LSTM", "GRU", "RNN") and not own:  # but torch's
                    return self.state_of(node, name, whole)
            for functions, rule in LAYERS:
                if node.target in functions:
                    found = rule(self, node, name)
                    if found is not None:
                        return found
            found = self.written(node, name)
            if found is not None:
                return found
        return self.general(node, name)

    # layers

    def layer(
        self,
        node: fx.Node,
        name: str,
        kind: str,
        made: Layer,
        inputs: Sequence[fx.Node],
        wrap: Any = None,
    ) -> Op:
        """A call of a layer. The same layer with the same tensors is one layer."""
        if made.kind is not None:
            made = replace(made, cls=self.borrowed.name(made.kind))
        if made.state:
            key = (made.cls, tuple(made.args.items()), tuple(made.state.items()))
            made = self.layers.setdefault(key, made)
        needs = () if made.kind is None else (made.kind,)

        def build(args: Sequence[Expr], own: Sequence[str]) -> Expr:
            if wrap is not None:
                return wrap(args, own[0])
            return call(own[0], *args)

        wrapped = () if wrap is None else tuple(map(str, wrap.key))
        signature = (kind, len(inputs), *wrapped, *made.key)
        ops = [self.value(input) for input in inputs]
        return Op(name, kind, signature, ops, build, layer=made, needs=needs)

    def state(self, node: fx.Node, x: Any, **tensors: Any) -> dict[str, str] | None:
        """Paths of the tensors of a layer that is called on x: see `Context`."""
        held = {name: each for name, each in tensors.items() if each is not None}
        if is_parameter(x) or not all(
            is_parameter(each) and self.tensor(each).is_floating_point() for each in held.values()
        ):
            return None
        paths = {name: str(each.target) for name, each in held.items()}
        if len(set(paths.values())) < len(paths):
            return None
        own = identity(node)
        readers = {reader for path in paths.values() for reader in self.readers[path]}
        if any(reader is not node and identity(reader) != own for reader in readers):
            return None
        return paths

    def call_module(self, node: fx.Node, name: str) -> Op:
        layer = self.module.get_submodule(str(node.target))
        if type(layer) is layers.BatchNorm:
            found = batch_norm(self, node, name, layer)
            if found is not None:
                return found
        if isinstance(layer, (layers.LSTM, layers.GRU, layers.RNN)):
            found = recurrent(self, node, name, layer)
            if found is not None:
                return found
        kind = type(layer)
        given: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        if isinstance(layer, nn.Dropout):
            given = {"p": layer.p}
        else:
            for argument in list(inspect.signature(kind.__init__).parameters.values())[1:]:
                value = getattr(layer, argument.name)
                if argument.default is not inspect.Parameter.empty and argument.name == "inplace":
                    continue
                given[argument.name] = value
                if argument.default is not inspect.Parameter.empty:
                    defaults[argument.name] = argument.default
        own = kind.__module__.startswith("mxnet_files")
        cls = self.borrowed.name(kind) if own else f"nn.{kind.__name__}"
        made = Layer(cls, given, defaults, {}, kind if own else None, (cls,))
        if all(isinstance(arg, fx.Node) and not is_parameter(arg) for arg in arguments(node)):
            return self.layer(node, name, kind.__name__, made, arguments(node))
        return self.general(node, name, layer=made)

    def state_of(self, node: fx.Node, name: str, whole: Op) -> Op:
        """An output of torch's recurrent layers: (y, h) or (y, (h, c))."""
        place = {0: "[0]", 1: "[1][0]" if whole.kind == "LSTM" else "[1]", 2: "[1][1]"}[
            arguments(node)[1]
        ]
        key = ("getitem", 1, place)
        return Op(name, "getitem", key, [whole], lambda args, own: Atom(args[0].flat() + place))

    # calls

    def written(self, node: fx.Node, name: str) -> Op | None:
        """A call that has a shorter form."""
        rule = CALLS.get(node.target)
        found = None if rule is None else rule(self, node)
        if found is None:
            return None
        kind, inputs, build, function = found
        # the same arguments are written otherwise beside arrays of other axes or dtypes
        text = build([Atom(f"#{place}") for place in range(len(inputs))]).flat()
        key: tuple[Any, ...] = (kind, len(inputs), _constants(node), text)
        parameters = [is_parameter(input) for input in inputs]
        held = [str(input.target) for input in inputs if is_parameter(input)]
        ops = [self.value(input) for input in inputs if not is_parameter(input)]
        if held:
            key += tuple(tuple(self.tensor(input).shape) for input in inputs if is_parameter(input))

        def filled(args: Sequence[Expr], own: Sequence[str]) -> Expr:
            values, kept = iter(args), map(Atom, own)
            return build([next(kept) if mine else next(values) for mine in parameters])

        function = "" if held else function
        made = Op(name, kind, key, ops, filled, held=held, function=function)
        made.repeats = kind == "reshape" or ".size(" in text
        made.needs = (parts.relu6,) if kind == "relu6" else ()
        return made

    def general(self, node: fx.Node, name: str, layer: Layer | None = None) -> Op:
        """Any call: its arguments as they stand, tensors and numbers."""
        inputs: list[fx.Node] = []
        held: list[str] = []
        first = 0 if layer is None else 1

        def template(value: Any) -> Build:
            if isinstance(value, fx.Node):
                if is_parameter(value):
                    place = len(held) + first
                    held.append(str(value.target))
                    return lambda args, own: Atom(own[place])
                if value not in inputs:
                    inputs.append(value)
                number = inputs.index(value)
                return lambda args, own: args[number]
            if isinstance(value, (list, tuple)) and any(_holds_node(item) for item in value):
                inner = [template(item) for item in value]
                brackets = "[]" if isinstance(value, list) else "()"
                return lambda args, own: Brackets(
                    "", tuple(each(args, own) for each in inner), brackets
                )
            return lambda args, own: literal(value)

        target: Any = node.target
        given = arguments(node)
        needs: tuple[Any, ...] = () if layer is None or layer.kind is None else (layer.kind,)
        if node.op == "call_function":
            given = _without_defaults(target, given)
        pieces = [template(argument) for argument in given]
        kind = str(getattr(target, "__name__", target))
        callee = kind  # functions of one name in two modules are two
        number: float | None = None
        function = ""
        if node.op == "call_method":

            def build(args: Sequence[Expr], own: Sequence[str]) -> Expr:
                first, *rest = [each(args, own) for each in pieces]
                return call(f"{subject(first)}.{target}", *rest)

        elif layer is not None:
            kind = layer.cls.removeprefix("nn.")

            def build(args: Sequence[Expr], own: Sequence[str]) -> Expr:
                return call(own[0], *(each(args, own) for each in pieces))

        elif target in _INFIX:
            floats = [value for value in given if isinstance(value, float)]
            number = floats[0] if len(floats) == 1 and not held else None

            def build(args: Sequence[Expr], own: Sequence[str]) -> Expr:
                left, right = (
                    Atom(own[0]) if own and value is number else each(args, own)
                    for value, each in zip(given, pieces, strict=True)
                )
                return Infix(left, _INFIX[target], right)

        elif target is operator.getitem:

            def build(args: Sequence[Expr], own: Sequence[str]) -> Expr:
                first, index = (each(args, own) for each in pieces)
                return Atom(f"{subject(first)}[{index.flat()}]")

        else:
            text, needs = self.callee(target)
            callee = text
            bare = len(given) == 1 and len(inputs) == 1 and given[0] is inputs[0]
            function = text if bare else ""
            names = _names(target, given)

            def build(args: Sequence[Expr], own: Sequence[str]) -> Expr:
                values = [each(args, own) for each in pieces]
                plain = [value for value, name in zip(values, names, strict=True) if not name]
                shown = {name: x for x, name in zip(values, names, strict=True) if name.strip("-")}
                return call(text, *plain, **shown)

        shapes = tuple(tuple(tensor_at(self.module, path).shape) for path in held)
        key = (callee, len(inputs), _constants(node), shapes, *(layer.key if layer else ()))
        ops = [self.value(input) for input in inputs]
        made = Op(name, kind, key, ops, build, layer, held, function, needs)
        made.settings, made.number = _settings(target, arguments(node)), number
        return made

    def callee(self, target: Any) -> tuple[str, tuple[Any, ...]]:
        """How the file calls a function, and the function if the file has to bring it along."""
        if getattr(target, "__module__", "").startswith("mxnet_files"):
            return self.borrowed.name(target), (target,)
        text = _get_qualified_name(target)
        for long in ("torch._C._nn.", "torch.nn.functional."):
            if text.startswith(long):
                return "F." + text.removeprefix(long), ()
        return text, ()


def reached(order: Sequence[Op], inputs: Sequence[Op], outputs: Sequence[Op]) -> list[Op]:
    """The inputs, and what the outputs need."""
    needed = {*inputs, *outputs}
    for op in reversed(order):
        if op in needed:
            needed.update(op.inputs)
    return [op for op in order if op in needed]


def _holds_node(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_node, value))
    return isinstance(value, fx.Node)


def _constants(node: fx.Node) -> str:
    """The constant arguments of a call, and which of its arguments are the same array."""
    arrays: list[fx.Node] = []

    def number(array: fx.Node) -> str:
        if array not in arrays:
            arrays.append(array)
        return f"#{arrays.index(array)}"

    return repr(fx.node.map_arg(node.args, number))


def _names(target: Any, given: Sequence[Any]) -> list[str]:
    """Each argument's name where it is written: several numbers in a row say nothing without.

    "" for one written without; "-" for one that is left out, as the function's default.
    """
    numbers = [place for place, value in enumerate(given) if not _holds_node(value)]
    if len(numbers) < 2 or not getattr(target, "__module__", "").startswith("mxnet_files"):
        return [""] * len(given)
    declared = list(inspect.signature(target).parameters.values())
    if any(each.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD for each in declared):
        return [""] * len(given)
    return [
        ""
        if place < numbers[0]
        else "-"
        if place in numbers and value == each.default
        else each.name
        for place, (value, each) in enumerate(zip(given, declared, strict=False))
    ]


def _settings(target: Any, given: Sequence[Any]) -> dict[str, Any]:
    """The constants of a call of one of this package's functions, by its parameters."""
    if not getattr(target, "__module__", "").startswith("mxnet_files"):
        return {}
    named = zip(inspect.signature(target).parameters, given, strict=False)
    return {name: value for name, value in named if not _holds_node(value)}


def _without_defaults(target: Any, given: list[Any]) -> list[Any]:
    """The given up to the last that says something."""
    if not getattr(target, "__module__", "").startswith("mxnet_files"):
        return given
    declared = list(inspect.signature(target).parameters.values())
    while given and len(given) <= len(declared):
        if isinstance(given[-1], fx.Node) or given[-1] != declared[len(given) - 1].default:
            break
        given = given[:-1]
    return given
