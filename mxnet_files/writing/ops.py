"""What a written model is made of: layers that own their weights, calls of functions.

Each `Op` is one value. A layer is a torch module with its constructor's arguments by name; anything
else is an expression of its inputs and of the tensors it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

import torch
from torch import fx, nn

from mxnet_files.writing.layout import Expr, Infix

Build = Callable[[Sequence[Expr], Sequence[str]], Expr]  # inputs, own attributes -> expression


@dataclass(frozen=True)
class Layer:
    """`cls(args)`; `state` names the imported tensor of each parameter and buffer."""

    cls: str
    args: Mapping[str, Any]
    defaults: Mapping[str, Any]
    state: Mapping[str, str]
    kind: type | None = None  # the class, where the file has to bring it along
    key: tuple[Any, ...] = ()


@dataclass(eq=False)
class Op:
    """One value: what computes it from `inputs`.

    `key` is equal for two operations that differ in nothing but a layer's arguments; `held` are the
    paths of tensors that it reads beside a layer's own; `function` is the text of a function of
    one argument, where it is just that; `needs` what the file must bring along.
    """

    name: str
    kind: str
    key: tuple[Any, ...]
    inputs: list[Op]
    build: Build
    layer: Layer | None = None
    held: list[str] = field(default_factory=list)
    function: str = ""
    needs: tuple[Any, ...] = ()
    shape: tuple[int, ...] | None = None
    several: bool = False  # gives more than one tensor
    first_alone: bool = False  # of which only the first is read: the expression picks it
    optional: bool = False  # an input that may be left out
    repeats: bool = False  # its expression writes an input more than once
    settings: Mapping[str, Any] = field(default_factory=dict)  # numbers of a call, by their names
    number: float | None = (
        None  # the one constant of its expression, which may be written otherwise
    )
    noun: str = ""  # what the value is, where what reads it says so


class Context(Protocol):
    """The graph that is read, as a rule for one kind of node sees it."""

    computed: dict[str, torch.Tensor]

    def tensor(self, node: Any) -> torch.Tensor:
        """The value of a parameter."""

    def state(self, node: fx.Node, x: Any, **tensors: Any) -> dict[str, str] | None:
        """Paths of the tensors of a layer that is called on x.

        None unless x is computed, and they are floating parameters (or None) that nothing else
        reads but the same layer again.
        """

    def layer(
        self,
        node: fx.Node,
        name: str,
        kind: str,
        made: Layer,
        inputs: Sequence[fx.Node],
        wrap: Any = None,
    ) -> Op:
        """A call of a layer."""


def arguments(node: fx.Node) -> list[Any]:
    """The arguments of a call."""
    return list(node.args)


def is_parameter(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def one(value: Any) -> Any:
    """(3, 3) -> 3."""
    same = isinstance(value, (tuple, list)) and len(set(value)) == 1
    return value[0] if same else value


def subject(value: Expr) -> str:
    """What a method is called on."""
    return f"({value.flat()})" if isinstance(value, Infix) else value.flat()


def identity(node: fx.Node) -> tuple[Any, ...]:
    """Equal for two calls of one layer: the function, the tensors, the numbers."""
    constants = fx.node.map_arg(node.args, lambda n: str(n.target) if n.op == "get_attr" else None)
    target: Any = node.target
    if node.op == "call_module":
        owner: Any = node.graph.owning_module
        layer = owner.get_submodule(str(target))
        target = (type(layer), layer.extra_repr())
    return (target, repr(constants))


def tensor_at(module: nn.Module, path: str) -> torch.Tensor:
    """The parameter or buffer at a dotted path."""
    value = attrgetter(path)(module)
    assert isinstance(value, torch.Tensor)
    return value
