"""The classes of a written model, and the calls that make layers and blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mxnet_files.reading.names import local_name
from mxnet_files.writing.classes import (
    NUMBERS,
    Class,
    Classes,
    Slot,
    is_activation,
    needs_attribute,
)
from mxnet_files.writing.layout import Atom, Brackets, Expr, Name, call, literal, statement
from mxnet_files.writing.lowering import Lowered
from mxnet_files.writing.ops import Op
from mxnet_files.writing.statements import COLUMNS, Scope, Statement, emit
from mxnet_files.writing.structure import Block, Item


class ClassSource:
    """Writes the classes and functions that blocks have become."""

    def __init__(self, graph: Lowered, classes: Classes, reserved: set[str]) -> None:
        self.graph = graph
        self.classes = classes
        self.reserved = reserved  # names of the file, which no local name may hide
        reserved.update(each.name for each in classes.all)

    def protect(self, each: Class) -> None:
        """Names of parameters that hide nothing; attributes that none of the class's own meets."""
        renamed: dict[str, str] = {}
        own = {"residual", "project", "activation", "shortcut", *(p.name for p in each.parameters)}
        for parameter in each.parameters:
            safe = local_name(parameter.name)
            while safe in self.reserved or safe in renamed.values():
                safe += "_"
            renamed[parameter.name] = safe
            parameter.name = safe
        flags = {slot.attr for slot in each.slots if slot.optional}
        for slot in each.slots:
            old = slot.attr
            if needs_attribute(slot.example, self.classes) and old in own - flags:
                slot.attr += "_"
                for key in [key for key in each.expressions if key[0] == old]:
                    each.expressions[slot.attr, key[1]] = each.expressions.pop(key)
        for key, text in each.expressions.items():
            word = text.partition(" ")[0]
            if word in renamed:
                each.expressions[key] = text.replace(word, renamed[word], 1)
        each.renamed = renamed

    # making layers and blocks

    def make(self, item: Item, slot: Slot | None = None, each: Class | None = None) -> Expr:
        """The call that makes an item; within a class, of its parameters."""

        if isinstance(item, Block):
            owner = self.classes.of[item]
            given = owner.arguments(item)
            defaults = {p.name: p.default for p in owner.parameters if p.has_default}
            keep = [p.name for p in owner.parameters]
            original = {safe: old for old, safe in owner.renamed.items()}
            name = owner.name
        else:
            assert item.layer is not None
            given, defaults = dict(item.layer.args), dict(item.layer.defaults)
            keep, name = list(given), item.layer.cls
            original = {}
        positional: list[Expr] = []
        named: dict[str, Expr] = {}
        for argument in keep:
            old = original.get(argument, argument)
            shown = literal(given[argument]).flat()
            if each is not None and slot is not None:
                shown = each.expressions.get((slot.attr, old), shown)
            if argument not in defaults:
                positional.append(Atom(shown))
            elif shown != literal(defaults[argument]).flat():
                named[argument] = Atom(shown)
        return call(name, *positional, **named)

    # classes

    def function_sources(self) -> list[str]:
        out = []
        for each in self.classes.all:
            if each.is_function:
                block = each.example
                scope = Scope(self.reserved)
                names = {block.entry: scope.fresh("x")}
                statements = [self.inner_statement(each, item, None) for item in block.items]
                lines = [f"def {each.name}(x: Tensor) -> Tensor:"]
                lines += emit(statements, [block.out], names, scope, indent=1)
                out.append("\n".join(lines))
        return out

    def class_source(self, each: Class) -> str:
        lines = [f"class {each.name}(nn.Module):"]
        if {op.noun for op in each.example.ops} >= {*COLUMNS.values()}:
            said = "Rows of class, score and box, decoded from what its layers give."
            lines += [f'    """{said}"""', ""]
        parameters: list[Expr] = [Atom("self")]
        required = [p for p in each.parameters if not p.has_default]
        for parameter in [*required, *(p for p in each.parameters if p.has_default)]:
            sample = next(value for value in parameter.values if value is not None)
            kind = type_text(parameter.values, sample)
            default = f" = {literal(parameter.default).flat()}" if parameter.has_default else ""
            parameters.append(Atom(f"{parameter.name}: {kind}{default}"))
        head = Brackets("__init__", tuple(parameters), after=" -> None:")
        lines += statement("def ", head, indent=1)
        lines.append("        super().__init__()")
        for slot in each.slots:
            lines += self.slot_lines(each, slot)
        if each.shortcut:
            made = [self.make(slot.example, slot, each) for slot in each.shortcut]
            value = made[0] if len(made) == 1 else call("nn.Sequential", *made)
            if each.project:
                lines.append("        self.shortcut: nn.Module = nn.Identity()")
                lines.append(f"        if {each.renamed.get('project', 'project')}:")
                lines += statement("self.shortcut = ", value, indent=3)
            else:
                lines += statement("self.shortcut = ", value)
        for place, op in enumerate(each.example.tail):
            text = each.expressions.get((f"tail{place}", "activation"))
            if text is not None and is_activation(op) and kept(each, text):
                lines.append(f"        self.{text} = {text}")
        if each.residual:
            lines.append("        self.residual = residual")
        lines.append("")
        lines.append("    def forward(self, x: Tensor) -> Tensor:")
        lines += self.class_forward(each)
        return "\n".join(lines)

    def slot_lines(self, each: Class, slot: Slot) -> list[str]:
        """What `__init__` keeps for one slot."""
        item = slot.example
        if not needs_attribute(item, self.classes):
            if text := self.number(each, slot):
                return [f"        self.{text} = {text}"]
            text = each.expressions.get((slot.attr, "activation"), "")
            return [f"        self.{slot.attr} = {text}"] if kept(each, text) else []
        lines: list[str] = []
        if isinstance(item, Op):
            for number, path in enumerate(item.held):
                lines += self.hold(holder(slot.attr, item, number), path)
            if item.layer is None:
                return lines
        value = self.make(item, slot, each)
        if not slot.optional:
            return [*lines, *statement(f"self.{slot.attr} = ", value)]
        flag = each.renamed.get(slot.attr) or each.renamed[f"has_{slot.attr}"]
        return [
            *lines,
            f"        self.{slot.attr}: nn.Module = nn.Identity()",
            f"        if {flag}:",
            *statement(f"self.{slot.attr} = ", value, indent=3),
        ]

    def inner_statement(self, each: Class, item: Item, slot: Slot | None) -> Statement:
        """An item of a class's forward."""
        attr = "" if slot is None else slot.attr
        if isinstance(item, Block):
            owner = self.classes.of[item]
            if not owner.is_function:
                return self.call_statement(item.entry, item.out, attr)
            text = owner.name if slot is None else self.activation(each, attr, owner.name)
            return self.function_statement(item, text)
        if slot is not None and is_activation(item):
            text = self.activation(each, attr, item.function)
            return Statement(item, list(item.inputs), lambda args: call(text, *args), item.kind)
        own = [f"self.{attr}"] if item.layer is not None else []
        own += [f"self.{holder(attr, item, number)}" for number in range(len(item.held))]
        hint = attr if slot is not None and needs_attribute(item, self.classes) else item.kind
        if slot is not None and (text := self.number(each, slot)):
            own.append(f"self.{text}")
        return Statement(
            item, list(item.inputs), lambda args: item.build(args, own), hint, item.repeats
        )

    def number(self, each: Class, slot: Slot) -> str:
        """The parameter that is the number of an operation; empty where it is always the same."""
        item = slot.example
        if not isinstance(item, Op) or item.number is None:
            return ""
        text = each.expressions.get((slot.attr, NUMBERS.get(item.kind, "number")), "")
        return text if kept(each, text) else ""

    def activation(self, each: Class, attr: str, text: str) -> str:
        """How a forward calls an activation: by name, or as the instance keeps it."""
        shown = each.expressions.get((attr, "activation"), text)
        if kept(each, shown):
            return f"self.{shown if attr.startswith('tail') else attr}"
        return shown

    def class_forward(self, each: Class) -> list[str]:
        scope = Scope(self.reserved)
        if each.example.body:
            block = each.example
            names = {block.entry: scope.fresh("x")}
            statements = [
                self.inner_statement(each, item, slot)
                for item, slot in zip(block.body, each.slots, strict=True)
            ]
            return emit(statements, [block.out], names, scope)
        joins = next((block for block in each.blocks if block.join is not None), each.example)
        entry = joins.entry
        names = {entry: scope.fresh("x")}
        statements = []
        value = entry
        for slot in each.slots:
            inner = self.inner_statement(each, slot.example, slot)
            made = Op(slot.attr, "step", (), [value], inner.value.build)
            build = inner.build
            statements.append(Statement(made, [value], build, slot.attr, inner.repeats))
            value = made
        if joins.join is not None:
            other = entry
            if each.shortcut:
                other = Op("shortcut", "step", (), [entry], joins.join.build)
                several = [f"self.{slot.attr}" for slot in each.shortcut][:1]
                own = several[0].partition(".0")[0]
                statements.append(
                    Statement(other, [entry], lambda args: call(own, *args), "shortcut")
                )
            pair = [value, other] if joins.main_first else [other, value]
            total = Op("sum", "step", (), pair, joins.join.build)
            join = joins.join

            def build_join(args: Sequence[Expr]) -> Expr:
                made = join.build(args, [])
                if not each.residual:
                    return made
                alone = args[0] if joins.main_first else args[1]
                return Atom(f"{made.flat()} if self.residual else {alone.flat()}")

            statements.append(Statement(total, pair, build_join, "y", each.residual))
            value = total
        for place, op in enumerate(joins.tail):
            after = Op("tail", "step", (), [value], op.build)
            text = self.activation(each, f"tail{place}", op.function)

            def build_tail(args: Sequence[Expr], op: Op = op, text: str = text) -> Expr:
                return call(text, *args) if is_activation(op) else op.build(args, [])

            statements.append(Statement(after, [value], build_tail, "y"))
            value = after
        return emit(statements, [value], names, scope)

    def hold(self, attr: str, path: str) -> list[str]:
        """A tensor that an expression reads."""
        tensor = self.graph.tensor(path)
        empty = self.empty(tensor)
        if isinstance(tensor, torch.nn.Parameter):
            return statement(f"self.{attr} = ", call("nn.Parameter", empty))
        return statement("self.", call("register_buffer", Atom(f'"{attr}"'), empty))

    def empty(self, tensor: torch.Tensor) -> Expr:
        """A tensor of the same size, before the weights are loaded."""
        kind = {} if tensor.dtype == torch.float32 else {"dtype": literal(tensor.dtype)}
        return call("torch.zeros", *map(literal, tensor.shape or [()]), **kind)

    def call_statement(self, entry: Op, out: Op, attr: str) -> Statement:
        return Statement(out, [entry], lambda args: call(f"self.{attr}", *args), attr)

    def function_statement(self, block: Block, name: str) -> Statement:
        return Statement(block.out, [block.entry], lambda args: call(name, *args), name)

    def states(self, item: Item, prefix: str) -> Iterator[tuple[str, str]]:
        """(key in the written module, path in the imported one) under a prefix."""
        if isinstance(item, Op):
            if item.layer is not None:
                for name, path in item.layer.state.items():
                    yield f"{prefix}.{name}", path
            return
        owner = self.classes.of[item]
        place = owner.blocks.index(item)
        for slot in [*owner.slots, *owner.shortcut]:
            inner = slot.items[place]
            if inner is None or not needs_attribute(inner, self.classes):
                continue
            yield from self.states(inner, f"{prefix}.{slot.attr}")
            if isinstance(inner, Op):
                for number, path in enumerate(inner.held):
                    yield f"{prefix}.{holder(slot.attr, inner, number)}", path


def holder(attr: str, op: Op, number: int) -> str:
    """The attribute of a tensor that an item reads beside its layer."""
    return attr if op.layer is None and len(op.held) == 1 else f"{attr}_{number}"


def kept(each: Class, text: str) -> bool:
    """An expression is a parameter of the class, which its instances keep."""
    return text in {parameter.name for parameter in each.parameters}


def type_text(values: Sequence[Any], sample: Any) -> str:
    """The annotation of a parameter."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {Name}:
        return "Callable[[Tensor], Tensor]"
    if kinds == {bool}:
        return "bool"
    if kinds == {float}:
        return "float"
    if kinds <= {int, tuple}:
        return "int" if kinds == {int} else "int | tuple[int, ...]"
    return type(sample).__name__
