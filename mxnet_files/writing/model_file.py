"""`model.py`: an imported graph as a PyTorch class that a person could have written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from mxnet_files.reading.names import attribute_name, identifier, local_name, numbered
from mxnet_files.writing.borrowed import IMPORTS
from mxnet_files.writing.class_source import ClassSource
from mxnet_files.writing.classes import (
    GENERIC,
    OF_INPUTS,
    Classes,
    common_tokens,
    letters,
    plain_words,
    shorten,
    shortened,
    stem,
    tokens,
)
from mxnet_files.writing.fans import (
    INDEX,
    Fan,
    Ladder,
    Part,
    find_fans,
    find_ladders,
    find_sections,
    read_by,
)
from mxnet_files.writing.layout import Atom, Brackets, Expr, call, loop, statement
from mxnet_files.writing.lowering import lower
from mxnet_files.writing.ops import Op
from mxnet_files.writing.statements import (
    LONGEST_NAME,
    MOVES,
    Scope,
    Statement,
    emit,
    name_columns,
    safe_hint,
    shape_text,
)
from mxnet_files.writing.structure import (
    WEIGHTED,
    Block,
    Item,
    Run,
    find_blocks,
    ops_of,
    shared,
)

SCORES, BOXES = ("score_heads", "scores"), ("box_heads", "offsets")  # heads, what they give
PURPOSES = {"softmax": SCORES, "sigmoid": SCORES, "box_decode": BOXES, "multibox_detection": BOXES}
LONGEST_VALUE = 24  # characters of a value's name, beyond which its last two words are left
METHODS = {  # what they say, and what they give
    "detect": (
        "Boxes of what the layers give, decoded; of those that overlap, the best is kept.",
        "detections",
    ),
    "propose": (
        "Regions that may hold an object, decoded; of those that overlap, the best is kept.",
        "regions",
    ),
}
RESERVED = {"self", "torch", "nn", "F", "Tensor", "Path", "load", "load_file", "math", "Any"}
RESERVED |= {"Callable", "super", "range", "zip", INDEX}


@dataclass(frozen=True)
class Written:
    """The text of `model.py`, its weights by their keys in it, MXNet's names of those."""

    text: str
    state: Mapping[str, Tensor]
    names: Mapping[str, str]
    class_name: str


def write_model(module: fx.GraphModule, name: str) -> Written:
    """Write an imported module as source.

    Args:
        module: what `load_symbol` returned, each node's `meta["shape"]` filled in.
        name: of the model, such as `resnet50_v1`; the class is called by it.
    """
    return _Writer(module, name).write()


class _Writer(ClassSource):
    def __init__(self, module: fx.GraphModule, name: str) -> None:
        self.module = module
        self.title = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:LONGEST_NAME]
        words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
        camel = "".join(word[0].upper() + word[1:] for word in words)[:LONGEST_NAME]
        self.class_name = identifier(camel or "Model")
        graph = lower(module)
        self.order, self.inputs, self.outputs = graph.order, graph.inputs, graph.outputs
        name_columns(self.order)
        self.short = shorten(self.order)
        self.prefix = len(common_tokens(self.order))  # words that begin every name
        self.most, spare = self.shared_word()
        self.scope = self.most if spare else ""
        self.spare = self.spare_words()
        said = {word for op in self.order for word in tokens(op.name)}
        said |= {word for op in self.order for path in op.held for word in self.words_of(path)}
        # words that differ in their numbers alone
        self.numbered = Counter(letters(word) for word in said if letters(word) != word)
        needs = [need for op in self.order for need in op.needs]
        self.needs = list(dict.fromkeys(needs))
        self.borrowed, self.imports = graph.borrowed.sources(self.needs)
        reserved = RESERVED | set(self.borrowed)
        classes = Classes(find_blocks(self.order, self.outputs), reserved)
        super().__init__(graph, classes, reserved)
        while self.class_name in self.reserved or local_name(self.class_name) != self.class_name:
            self.class_name += "_"
        self.reserved.add(self.class_name)
        for each in self.classes.all:
            self.protect(each)
        self.attrs: dict[int, str] = {}  # of the top's items, by id of item or layer
        self.held: dict[str, str] = {}  # attribute of a tensor that the top holds, by path
        self.lists: dict[int, str] = {}  # attribute of a row of a fan's layers or tensors, by id
        self.state: dict[str, str] = {}

    # the file

    def write(self) -> Written:
        items = self.parts()
        self.sections = find_sections(items, self.classes, self.outputs)
        self.name_items(items)
        body = [
            *self.function_sources(),
            *(self.class_source(each) for each in self.classes.all if not each.is_function),
            self.top_source(items),
            self.load_source(),
        ]
        layers = [text for text in self.borrowed.values() if text.startswith("class ")]
        others = {name: x for name, x in self.borrowed.items() if x not in layers}
        constants = [text for text in others.values() if not text.startswith(("def ", "@"))]
        functions = {name: text for name, text in others.items() if text not in constants}
        whole = "\n".join(body)
        # what a class has as an argument, and what that calls, before the classes
        own = "\n".join(self.function_sources())
        early = {*re.findall(r"(?:\] = |activation=)(\w+)", whole), *re.findall(r"\w+", own)}
        for name, text in reversed(functions.items()):
            if name in early:
                early.update(re.findall(r"\w+", text))
        first = [text for name, text in functions.items() if name in early]
        rest = [text for text in functions.values() if text not in first]
        body = ["\n".join(constants)] * bool(constants) + first + layers + body + rest
        text = "\n\n\n".join(body)
        header = self.header(text)
        self.collect_state(items)
        state = {key: self.graph.tensor(path).detach() for key, path in self.state.items()}
        mxnet = self.module.meta["mxnet_names"]
        names = {key: mxnet.get(path, path) for key, path in self.state.items()}
        return Written(header + "\n\n\n" + text + "\n", state, names, self.class_name)

    def header(self, text: str) -> str:
        used = {name for name in IMPORTS if re.search(rf"(?<![\w.]){name}\b", text)} | self.imports
        used |= {"torch", "nn", "Tensor"} & set(re.findall(r"\b(?:torch|nn|Tensor)\b", text))
        plain = [IMPORTS[name] for name in ("math",) if name in used]
        standard = ["from pathlib import Path"]
        if re.search(r"\bCallable\[", text):
            standard.insert(0, "from collections.abc import Callable")
        if "Any" in used:
            standard.append(IMPORTS["Any"])
        torch_lines = [IMPORTS[name] for name in ("torch", "F") if name in used]
        third = [*torch_lines, "from safetensors.torch import load_file"]
        both = [name for name in ("Tensor", "nn") if name in used]
        third.append(f"from torch import {', '.join(both)}")
        shapes = ", ".join(f"{shape_text(op.shape)}" for op in self.inputs if not op.optional)
        results = ", ".join(shape_text(op.shape) for op in self.outputs)
        doc = (
            f'"""{self.title}, read from MXNet\'s files by mxnet-files convert.\n\n'
            f"{shapes} -> {results}\n"
            '"""'
        )
        return "\n".join([doc, "", *plain, *standard, "", *third])

    def load_source(self) -> str:
        return "\n".join(
            [
                f'def load(weights: str | Path = "", device: str = "cpu") -> {self.class_name}:',
                '    """The model with its weights (model.safetensors beside), to infer."""',
                f"    model = {self.class_name}()",
                '    beside = Path(__file__).with_name("model.safetensors")',
                "    state = load_file(weights or beside, device=device)",
                "    model.load_state_dict(state, assign=True)",
                "    return model.eval()",
            ]
        )

    # the top

    def parts(self) -> list[Part]:
        """Blocks of one class in a row, by the size of their results; fans and ladders."""
        pinned = shared(self.order)
        items = find_fans(self.classes, self.outputs, pinned)
        readers: Counter[Op] = Counter()
        for item in items:
            readers.update(set(read_by(item)))
        readers.update(self.outputs)
        out: list[Part] = []
        for item in items:
            last = out[-1] if out else None
            if isinstance(item, Block) and not self.classes.of[item].is_function:
                if (
                    isinstance(last, Run)
                    and self.classes.of[last.blocks[0]] is self.classes.of[item]
                    and last.out is item.entry
                    and readers[item.entry] == 1
                    and self.belongs(item, last)
                ):
                    last.blocks.append(item)
                    continue
                out.append(Run([item]))
                continue
            out.append(item)
        out = [
            item.blocks[0] if isinstance(item, Run) and len(item.blocks) == 1 else item
            for item in out
        ]
        return find_ladders(out, self.classes, self.outputs, pinned)

    def belongs(self, block: Block, run: Run) -> bool:
        """By name, or by size where the run is none by name."""

        def named(blocks: Sequence[Block]) -> bool:
            words = common_tokens([op for each in blocks for op in each.ops])[self.prefix :]
            return words not in ([], [self.most])

        if named([*run.blocks, block]):
            return True
        alone = len(run.blocks) == 1 or not named(run.blocks)
        return alone and spatial(run.out) == spatial(block.out)

    def shared_word(self) -> tuple[str, bool]:
        """The word behind the net's own that begins the names of most layers, and if it may go.

        It has no numbered sisters, as stages have. What it leaves begins no other name, and with no
        number: features_0 stays.
        """
        kept = [op for op in self.order if op.layer is not None or op.held]
        rows = [row for op in kept if (row := tokens(op.name)[self.prefix :])]
        if not rows:
            return "", False
        word, count = Counter(row[0] for row in rows).most_common(1)[0]
        others = {row[0] for row in rows if row[0] != word}
        inner = {row[1] for row in rows if row[0] == word and row[1:]}
        if 2 * count <= len(rows) or any(letters(other) == letters(word) for other in others):
            return "", False
        return word, not others & inner and not any(name.isdigit() for name in inner)

    def spare_words(self) -> set[tuple[str, ...]]:
        """A word that may go before a second one, which was called by it and stands alone so."""
        rows = [row for op in self.order if (row := tokens(op.name)[self.prefix :])]
        pairs = {tuple(row[:2]) for row in rows}
        firsts = {row[0] for row in rows}
        return {
            (outer, word)
            for (outer, _), word in self.short.items()
            if (outer, word) in pairs
            and word not in firsts
            and sum(pair[-1] == word for pair in pairs) == 1
        }

    def words_of(self, path: str) -> list[str]:
        """The words of MXNet's name of a tensor."""
        name = self.module.meta["mxnet_names"].get(path, path)
        return shortened(tokens(name), self.short)

    def depth(self, ops: Sequence[Op]) -> int:
        """How many words these names begin with that the attributes leave out."""
        place = self.prefix
        names = [tokens(op.name) for op in ops]
        scoped = bool(self.scope) and all(name[place : place + 1] == [self.scope] for name in names)
        heads = {tuple(name[place : place + 2]) for name in names}
        return place + (scoped or (len(heads) == 1 and heads <= self.spare))

    def name_items(self, items: Sequence[Part]) -> None:
        """Attributes of the top."""
        taken: set[str] = {*self.sections}

        def take(name: str) -> str:
            base = attribute_name(identifier(name))[:LONGEST_NAME]
            if re.match("__|_$", base):
                base = f"x{base}"  # within a class, self.__a is another name
            return numbered(base, taken)

        every = [
            tokens(op.name)[self.depth([op]) :] for op in self.order if op.kind not in OF_INPUTS
        ]
        keep = [op for op in self.order if op.layer is not None or op.held]
        kept = [tokens(op.name)[self.depth([op]) :] for op in keep]

        def own(ops: Sequence[Op], others: Sequence[list[str]] = every) -> list[str]:
            """The fewest words that begin the names of these operations, and of no others."""
            words = common_tokens(ops)[self.depth(ops) :]
            for count in range(1, len(words) + 1):
                if sum(other[:count] == words[:count] for other in others) <= len(ops):
                    return words[:count]
            return []

        wanted: list[tuple[dict[Any, str], Any, str]] = []  # where a name goes, and the name
        numbers: Counter[str] = Counter()
        for item in items:
            if isinstance(item, Fan):
                wanted += self.fan_names(item)
            elif isinstance(item, Ladder):
                wanted.append((self.lists, id(item), self.ladder_name(item)))
            elif isinstance(item, Run):
                words = own([op for block in item.blocks for op in block.ops])
                name = "_".join(words)
                if not words:
                    first = item.blocks[0]
                    whole = re.sub(r"_?\d+$", "", stem(first, self.depth(first.ops)))
                    base = letters(plain_words(whole.split("_"))[-1]) or "layer"
                    numbers[base] += 1
                    name = f"{plural(base)}{numbers[base]}"
                wanted.append((self.attrs, id(item), name))
            elif isinstance(item, Block):
                if not self.classes.of[item].is_function:
                    words = own(item.ops) or (own(item.ops, kept) if item.body else [])
                    main = min(item.ops, key=lambda op: (op.kind not in WEIGHTED, op.layer is None))
                    name = "_".join(words) or stem(main, self.depth([main]))
                    wanted.append((self.attrs, id(item), name))
            else:
                if item.layer is not None:
                    name = "_".join(own([item])) or stem(item, self.depth([item]))
                    wanted.append((self.attrs, id(item.layer), name))
                for path in item.held:
                    words = self.words_of(path)
                    start = [*tokens(self.order[-1].name)[: self.prefix], self.scope]
                    for count in (self.prefix + bool(self.scope), self.prefix):
                        if words[:count] == start[:count]:
                            words = words[count:]
                            break
                    words = words[tuple(words[:2]) in self.spare :]
                    wanted.append((self.held, path, "_".join(words)))
        short = Counter(
            {(id(where), key): self.spoken(name) for where, key, name in wanted}.values()
        )
        for where, key, name in wanted:
            if key not in where:
                said = self.spoken(name)
                where[key] = take(said if short[said] == 1 else self.own_words(name))

    def fan_names(self, fan: Fan) -> list[tuple[dict[Any, str], Any, str]]:
        """The lists of a fan: of its layers by what they are or are for, of its tensors."""
        found: list[tuple[dict[Any, str], Any, str]] = []
        for row in fan.layers:
            base = letters("_".join(tokens(stem(row[0], self.depth(ops_of(row[0]))))[:1]))
            base = "head" if base in GENERIC else base
            found.append((self.lists, id(row), self.purpose(fan.out)[0] or plural(base)))
        for paths in fan.held:
            words = self.words_of(paths[0])
            words = [word for word in map(letters, words) if word]
            words = words[:-1] if words[1:] and words[-1] in ("weight", "bias") else words
            found.append((self.lists, id(paths), plural(words[-1] if words else "tensor")))
        return found

    def ladder_name(self, ladder: Ladder) -> str:
        """The list of a ladder, by the word that begins the names of its first step."""
        ops = [op for item in ladder.steps[0] for op in ops_of(item)]
        base = letters("".join(common_tokens(ops)[self.depth(ops) :][:1]))
        return plural("stage" if base in GENERIC else base)

    def purpose(self, op: Op) -> tuple[str, str]:
        """What heads are for by what first reads their results, and what those are then called."""
        while True:
            readers = [other for other in self.order if op in other.inputs]
            if len(readers) != 1 or readers[0].kind not in {*PURPOSES, *MOVES}:
                return "", ""
            op = readers[0]
            if op.kind in PURPOSES:
                return PURPOSES[op.kind]

    def top_source(self, items: Sequence[Part]) -> str:
        lines = [f"class {self.class_name}(nn.Module):", "    def __init__(self) -> None:"]
        lines.append("        super().__init__()")
        done: set[str] = set()
        written: list[list[Statement]] = []  # of each item
        scope = Scope(self.reserved)
        rows = [tuple(row) for item in items if isinstance(item, Fan) for row in item.varying]
        tuples: dict[tuple[Op, ...], Op | None] = {
            row: None for row, count in Counter(rows).items() if count > 1
        }
        for item in items:
            made: list[str] = []
            statements: list[Statement] = []
            written.append(statements)
            if isinstance(item, Fan):
                for row in item.layers:
                    listed = Brackets("", tuple(self.make(layer) for layer in row), "[]")
                    listed = call("nn.ModuleList", listed)
                    made += statement(f"self.{self.lists[id(row)]} = ", listed)
                for paths in item.held:
                    made += self.hold_all(self.lists[id(paths)], paths)
                statements += self.fan_statements(item, scope, tuples)
            elif isinstance(item, Ladder):
                attr = self.lists[id(item)]
                listed = Brackets("", tuple(map(self.sequence, item.steps)), "[]")
                made = statement(f"self.{attr} = ", call("nn.ModuleList", listed))
                statements.append(self.ladder_statement(item, scope, tuples))
            elif isinstance(item, Run):
                attr = self.attrs[id(item)]
                made = statement(f"self.{attr} = ", self.sequence(item.blocks))
                statements.append(self.call_statement(item.blocks[0].entry, item.out, attr))
            elif isinstance(item, Block):
                if self.classes.of[item].is_function:
                    name = self.classes.of[item].name
                    statements.append(self.function_statement(item, name))
                    continue
                attr = self.attrs[id(item)]
                made = statement(f"self.{attr} = ", self.make(item))
                statements.append(self.call_statement(item.entry, item.out, attr))
            else:
                own = []
                if item.layer is not None:
                    attr = self.attrs[id(item.layer)]
                    own.append(f"self.{attr}")
                    if attr not in done:
                        made = statement(f"self.{attr} = ", self.make(item))
                        done.add(attr)
                for path in item.held:
                    attr = self.held[path]
                    own.append(f"self.{attr}")
                    if attr not in done:
                        made += self.hold(attr, path)
                        done.add(attr)
                statements.append(self.op_statement(item, own))
            lines += made
        if len(lines) == 3 and not any(line.startswith("        self.") for line in lines):
            lines = [lines[0]]  # nothing to keep
        else:
            lines.append("")
        methods = [line for name in self.sections for line in self.method(name, written, scope)]
        signature = [Atom("self")]
        names: dict[Op, str] = {}
        sole = sum(not op.optional for op in self.inputs) == 1
        for op in self.inputs:
            wanted = "x" if sole and not op.optional else local_name(op.name)[:LONGEST_NAME]
            names[op] = scope.fresh(wanted)
            kind = "Tensor | None = None" if op.optional else "Tensor"
            signature.append(Atom(f"{names[op]}: {kind}"))
        several = len(self.outputs) > 1
        kind = f"tuple[{', '.join(['Tensor'] * len(self.outputs))}]" if several else "Tensor"
        head = Brackets("forward", tuple(signature), after=f" -> {kind}:")
        lines += statement("def ", head, indent=1)
        every = [one for row in written for one in row]
        results = [one.value for one in every if one.value.kind == "section"] or self.outputs
        lines += emit(every, results, names, scope, comments=True)
        return "\n".join([*lines, *methods])

    def method(self, name: str, written: list[list[Statement]], scope: Scope) -> list[str]:
        """A section of the forward as a method, whose call takes its place in `written`."""
        places = self.sections[name]
        inner = [one for place in places for one in written[place]]
        made = {one.value for one in inner}
        hints = {one.value: one.value.noun or one.hint for row in written for one in row}
        read = dict.fromkeys(op for one in inner for op in one.inputs)
        given = [op for op in read if op not in made]
        if any(op.optional or (op.several and op.kind != "tuple") for op in given):
            return []
        final = made.issuperset(self.outputs)
        outputs = self.outputs if final else [inner[-1].value]
        own = Scope(self.reserved | {*scope.kept.values()})
        names = {op: own.fresh(safe_hint(hints.get(op, "x"))) for op in given}
        arguments = [Atom(f"{names[op]}: {type_of(op)}") for op in given]
        whole = outputs[0]
        if final:
            whole = Op(name, "section", (), given, outputs[0].build, several=len(outputs) > 1)
            whole.shape = None if whole.several else outputs[0].shape
        several = f"tuple[{', '.join(map(type_of, outputs))}]"
        after = f" -> {several if len(outputs) > 1 else type_of(whole)}:"
        head = Brackets(name, (Atom("self"), *arguments), after=after)
        lines = ["", *statement("def ", head, indent=1)]
        said, hint = METHODS[name.partition("_")[0]]
        lines.append(f'        """{said}"""')
        lines += emit(inner, outputs, names, own, comments=True)
        for place in places:
            written[place] = []

        def build(args: Sequence[Expr]) -> Expr:
            return call(f"self.{name}", *args)

        written[places[-1]] = [Statement(whole, given, build, hint, section=True)]
        return lines

    def own_words(self, name: str) -> str:
        """`mobilenetv3classifier0_conv0` of a mobilenetv3_large is classifier0_conv0."""
        first = re.split(r"[^a-z0-9]", self.title.lower())[0]
        words = name.split("_")
        for place, word in enumerate(words):
            rest = word[len(first) :]
            if first and word.lower().startswith(first) and rest[:1].isalpha():
                words[place] = rest
        return "_".join(words)

    def spoken(self, name: str) -> str:
        """A name without what says nothing: `lstm0_rnn0` of the only LSTM is lstm."""
        words = plain_words(self.own_words(name).split("_"))
        return "_".join(
            word[:-1]
            if word[1:] and word[-1] == "0" and self.numbered[letters(word)] == 1
            else word
            for word in words
        )

    def fan_statements(
        self, fan: Fan, scope: Scope, tuples: dict[tuple[Op, ...], Op | None]
    ) -> list[Statement]:
        """The loop; before it, what several loops run over, where it is the first of them."""
        out: list[Statement] = []
        kinds = ["layer" if len(fan.layers) > 1 else "head"] * len(fan.layers)
        kinds += ["feature" if len(row[0].shape or ()) == 4 else "part" for row in fan.varying]
        kinds += [singular(self.lists[id(paths)]) for paths in fan.held]
        names = [scope.lasting(kind) for kind in kinds]
        inputs: list[Op] = list(fan.shared)
        places: list[list[int]] = []
        for row in fan.varying:
            key = tuple(row)
            if key in tuples:
                made = tuples[key]
                if made is None:
                    made = tuples[key] = Op("features", "tuple", (), row, fan.out.build)
                    made.several = True
                    every = list(row)
                    out.append(
                        Statement(made, every, lambda args: Brackets("", tuple(args)), "features")
                    )
                row = [made]
            inputs += row
            places.append([inputs.index(op) for op in row])

        def build(args: Sequence[Expr]) -> Expr:
            over: list[Expr] = [Atom(f"self.{self.lists[id(row)]}") for row in fan.layers]
            for place in places:
                values = tuple(args[number] for number in place)
                over.append(values[0] if len(values) == 1 else Brackets("", values))
            over += [Atom(f"self.{self.lists[id(paths)]}") for paths in fan.held]
            return fan.written(names, over, args[: len(fan.shared)])

        rows = [*fan.layers, *fan.held]
        hint = self.lists[id(rows[-1])] if rows else stem(fan.out, self.prefix)
        hint = self.purpose(fan.out)[1] or hint
        return [*out, Statement(fan.out, inputs, build, hint, True)]

    def ladder_statement(
        self, ladder: Ladder, scope: Scope, tuples: dict[tuple[Op, ...], Op | None]
    ) -> Statement:
        """The loop that makes of some features the rest, all of them one value."""
        attr = self.lists[id(ladder)]
        made = Op("features", "tuple", (), ladder.row, ladder.row[0].build)
        made.several = True
        tuples[tuple(ladder.row)] = made

        def build(args: Sequence[Expr]) -> Expr:
            return Brackets("", tuple(args[:-1]))

        over = f"{scope.lasting(singular(attr))} in self.{attr}"
        return Statement(made, [*ladder.before, ladder.entry], build, "features", over=over)

    def hold_all(self, attr: str, paths: Sequence[str]) -> list[str]:
        """Tensors that a loop reads, one after the other."""
        made = [self.empty(self.graph.tensor(path)) for path in paths]
        listed = Brackets("", tuple(made), "[]")
        return statement(f"self.{attr} = ", call("nn.ParameterList", listed))

    def op_statement(self, op: Op, own: Sequence[str]) -> Statement:
        words = tokens(op.name)[self.depth([op]) :] or tokens(op.name)[-1:] or ["value"]
        said = self.spoken("_".join(words))
        said = "_".join(said.split("_")[-2:]) if len(said) > LONGEST_VALUE else said
        hint = attribute_name(identifier(said))[:LONGEST_NAME]
        return Statement(op, list(op.inputs), lambda args: op.build(args, own), hint, op.repeats)

    def sequence(self, items: Sequence[Item]) -> Expr:
        """nn.Sequential of several layers, those made alike in a loop."""
        made = [self.make(item) for item in items]
        if len(made) == 1:
            return made[0]
        parts: list[Expr] = []
        place = 0
        while place < len(made):
            count = 1
            while place + count < len(made) and made[place + count] == made[place]:
                count += 1
            steps = progression(made[place:])
            if steps > max(count, 2):
                parts.append(in_range(made[place : place + steps]))
                place += steps
                continue
            one = made[place]
            parts.append(one if count == 1 else loop(one, f"_ in range({count})"))
            place += count
        return call("nn.Sequential", *parts)

    # weights

    def collect_state(self, items: Sequence[Part]) -> None:
        for item in items:
            if isinstance(item, Fan):
                for row in item.layers:
                    for number, layer in enumerate(row):
                        self.state.update(self.states(layer, f"{self.lists[id(row)]}.{number}"))
                for paths in item.held:
                    name = self.lists[id(paths)]
                    self.state.update({f"{name}.{i}": path for i, path in enumerate(paths)})
            elif isinstance(item, Ladder):
                for number, step in enumerate(item.steps):
                    for place, layer in enumerate(step):
                        inner = f".{place}" if len(step) > 1 else ""
                        prefix = f"{self.lists[id(item)]}.{number}{inner}"
                        self.state.update(self.states(layer, prefix))
            elif isinstance(item, Run):
                for number, block in enumerate(item.blocks):
                    self.state.update(self.states(block, f"{self.attrs[id(item)]}.{number}"))
            elif isinstance(item, Block):
                if not self.classes.of[item].is_function:
                    self.state.update(self.states(item, self.attrs[id(item)]))
            else:
                if item.layer is not None:
                    self.state.update(self.states(item, self.attrs[id(item.layer)]))
                self.state.update({self.held[path]: path for path in item.held})


def plural(word: str) -> str:
    """`head` -> heads."""
    return word if word.endswith("s") else f"{word}s"


def type_of(op: Op) -> str:
    """The annotation of a value: a tensor, or as many of them as a loop runs over."""
    return f"tuple[{', '.join(['Tensor'] * len(op.inputs))}]" if op.several else "Tensor"


def singular(name: str) -> str:
    """`anchors_2` -> anchor."""
    return re.sub(r"s(_\d+)?$", "", name)


def progression(made: Sequence[Expr]) -> int:
    """How many calls, from the first, differ in their first number alone, by the same step."""
    count = 1
    step = 0
    while count < len(made):
        a, b = first_number(made[count - 1]), first_number(made[count])
        if a is None or b is None or a[1] != b[1] or b[0] <= a[0]:
            break
        if count > 1 and b[0] - a[0] != step:
            break
        step = b[0] - a[0]
        count += 1
    return count


def first_number(value: Expr) -> tuple[int, str] | None:
    """The first argument of a call, where it is a number, and the rest of the call."""
    if not isinstance(value, Brackets) or not value.items:
        return None
    text = value.items[0].flat()
    return (int(text), call(value.before, *value.items[1:]).flat()) if text.isdigit() else None


def in_range(made: Sequence[Expr]) -> Expr:
    """Calls of a progression in a loop."""
    first, second, last = (first_number(made[place]) for place in (0, 1, -1))
    assert first is not None
    assert second is not None
    assert last is not None
    assert isinstance(made[0], Brackets)
    one = call(made[0].before, Atom("channels"), *made[0].items[1:])
    step = second[0] - first[0]
    return loop(one, f"channels in range({first[0]}, {last[0] + step}, {step})")


def spatial(op: Op) -> tuple[Any, ...] | None:
    """Height and width, or all but the batch of a flat array."""
    shape = op.shape
    if shape is None:
        return None
    return tuple(shape[2:]) if len(shape) > 2 else tuple(shape[1:])
