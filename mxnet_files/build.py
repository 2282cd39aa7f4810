"""From a checked symbol graph and its arrays to a `torch.fx.GraphModule`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from mxnet_files import operators  # noqa: F401 (fills OPERATORS)
from mxnet_files.codegen import make_readable
from mxnet_files.errors import SymbolError
from mxnet_files.functions import mx_dtype
from mxnet_files.reading.attributes import Attributes, read_attributes
from mxnet_files.reading.names import local_name
from mxnet_files.reading.params_file import BFLOAT16, DTYPES, bfloat16_to_float32, strip_prefixes
from mxnet_files.reading.reader import Entry, Node, SymbolGraph
from mxnet_files.registry import AUXILIARY, OPERATORS, PARAMETER_SLOTS, Operator, Wiring
from mxnet_files.running import refusals

AUX_STATES_ARE_INPUTS = 900  # since MXNet 0.9 files list auxiliary states among the inputs
SHOWN = 12  # names listed in one error
STRUCTURAL = (*PARAMETER_SLOTS, "running_mean", "running_var")  # of a block without children

# Operators whose result has as many axes as their first input; keeps generated code short.
# Layers whose label only a gradient needs: it comes last, and may be left out.
OUTPUT_LAYERS = ("Softmax", "LinearRegression", "LogisticRegression", "MAERegression", "SVM")
# What an array may meet whose sizes MXNet infers (states that begin as zeros of shape (0, H)).
SAME_SIZE = ("elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div")
EACH_ELEMENT = ("Activation", "LeakyReLU", "sigmoid", "tanh", "relu", "Cast", "Dropout")
KEEPS_AXES = ("Activation", "LeakyReLU", "Dropout", "BatchNorm", "clip", "relu", "sigmoid", "tanh")


@dataclass
class Step:
    """One operator node, ready to be built. `inputs` are entries, or names of implied variables."""

    number: int
    node: Node
    operator: Operator
    attributes: Attributes
    inputs: list[Entry | str]
    slots: list[str]


@dataclass
class Part:
    """A subgraph, read: its variables by name, in MXNet's order, and what each one feeds."""

    graph: SymbolGraph
    steps: list[Step]
    slots: dict[str, set[str]]


def build_module(
    graph: SymbolGraph, arrays: Mapping[str, np.ndarray], inputs: Sequence[str] | None = None
) -> fx.GraphModule:
    """Wire `graph` as a torch module that holds `arrays` under MXNet's names.

    `arrays` are keyed as in a `.params` file, `arg:` and `aux:` prefixes optional. Variables that
    it lacks become inputs of `forward`, in file order, labels last and optional; those in the place
    of a weight are an error. `inputs` names the inputs instead. Raises `SymbolError`.
    """
    values, auxiliary = strip_prefixes(arrays)
    steps = plan(graph)
    names = variables(graph, steps)
    if structural(arrays) and not values.keys() & names.keys():
        raise SymbolError(
            f"the parameters were saved by save_parameters (they are called {next(iter(arrays))!r}"
            " and the like, which no graph names); use net.export, which writes both files"
        )
    required, optional = choose_inputs(names, set(values), inputs)
    builder = Builder(graph, values)
    for name in required:
        builder.placeholder(name, optional=False)
    for name in optional:
        builder.placeholder(name, optional=True)
    builder.check_dtypes(required)
    for step in steps:
        builder.add(step)
    held = auxiliary | {name for name, slots in names.items() if slots & set(AUXILIARY)}
    return builder.finish(held)


def structural(names: Collection[str]) -> bool:
    """Every name is a path of blocks, such as `features.0.weight`, or the end of one."""
    return all("." in name or name in STRUCTURAL for name in names) if names else False


def plan(graph: SymbolGraph) -> list[Step]:
    """The operator nodes that the heads need, attributes read. Raises one error for all unknown."""
    unknown: dict[str, list[str]] = {}
    for node in graph.operations():
        if node.op not in OPERATORS:
            unknown.setdefault(node.op, []).append(node.name)
    if unknown:
        listed = "; ".join(f"{op} ({', '.join(names)})" for op, names in unknown.items())
        raise SymbolError(f"unsupported operators ({len(unknown)}), with their nodes: {listed}")
    numbers = graph.reachable()
    return [read_step(graph, number) for number in numbers if graph.nodes[number].op != "null"]


def every_step(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps, and those of their subgraphs."""
    for step in steps:
        yield step
        for part in getattr(step.attributes, "inner", ()):
            yield from every_step(part.steps)


def read_part(node: Node, graph: SymbolGraph) -> Part:
    """A subgraph of a node. Raises `SymbolError`."""
    steps = plan(graph)
    slots = variables(graph, steps)
    names = [graph.nodes[number].name for number in graph.variables()]
    if len(names) != len(slots):
        raise SymbolError(f"{node.where}: variables of its subgraph share a name, or are implied")
    return Part(graph, steps, {name: slots[name] for name in names})


def read_step(graph: SymbolGraph, number: int) -> Step:
    """Attributes and inputs of one node, checked against its operator."""
    node = graph.nodes[number]
    operator = OPERATORS[node.op]
    read = read_attributes(node.where, node.attributes, operator.attributes, strict=node.strict)
    if len(node.inner) != operator.graphs:
        said = f"has {len(node.inner)} subgraphs" if node.inner else "has no subgraph"
        said = said if operator.graphs else "joins no others"
        raise SymbolError(f"{node.where}: {said}, expected otherwise")
    if node.inner:
        read["inner"] = [read_part(node, graph) for graph in node.inner]
    attributes = Attributes(read)
    inputs: list[Entry | str] = list(node.inputs)
    with refusals(node.where):
        slots = operator.inputs(attributes)
    if slots is None:
        if "num_args" in node.attributes and getattr(attributes, "num_args", None) != len(inputs):
            raise SymbolError(
                f"{node.where}: {len(inputs)} inputs beside num_args={node.attributes['num_args']}"
            )
        if not inputs:
            raise SymbolError(f"{node.where}: has no inputs")
        return Step(number, node, operator, attributes, inputs, ["data"] * len(inputs))
    if len(inputs) < len(slots) and graph.version < AUX_STATES_ARE_INPUTS:
        inputs += [f"{node.name}_{slot}" for slot in slots[len(inputs) :]]
    if len(inputs) != len(slots):
        raise SymbolError(
            f"{node.where}: {len(inputs)} inputs, expected {len(slots)} ({', '.join(slots)})"
        )
    return Step(number, node, operator, attributes, inputs, list(slots))


def variables(graph: SymbolGraph, steps: Sequence[Step]) -> dict[str, set[str]]:
    """Every variable the heads need, in file order, with the slots that it feeds."""
    found: dict[str, set[str]] = {
        graph.nodes[number].name: set()
        for number in graph.reachable()
        if graph.nodes[number].op == "null"
    }
    for step in steps:
        label_is_optional = step.operator.name.removesuffix("Output") in OUTPUT_LAYERS
        for source, slot in zip(step.inputs, step.slots, strict=True):
            if slot == "label" and not label_is_optional:
                slot = "data"
            if isinstance(source, str):
                found.setdefault(source, set()).add(slot)
            elif graph.nodes[source.node].op == "null":
                found[graph.nodes[source.node].name].add(slot)
    return found


def choose_inputs(
    names: Mapping[str, set[str]], stored: set[str], inputs: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Names of the required inputs and of the optional ones (labels)."""
    absent = [name for name in names if name not in stored]
    if inputs is not None:
        unknown = [name for name in inputs if name not in names]
        if unknown:
            raise SymbolError(f"inputs {unknown} are no variables of the graph: {list(names)[:5]}…")
        missing = [name for name in absent if name not in inputs and names[name] != {"label"}]
        absent = [*inputs, *(name for name in absent if name not in inputs)]
    else:
        missing = [name for name in absent if names[name] & set(PARAMETER_SLOTS)]
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (" …" if len(missing) > SHOWN else "")
        hint = ""
        if stored and not stored & set(names):
            hint = f"; the parameters hold other names, such as {sorted(stored)[0]!r}"
        raise SymbolError(f"missing parameters ({len(missing)}): {shown}{hint}")
    labels = [name for name in absent if names[name] == {"label"}]
    return [name for name in absent if name not in labels], labels


def declared_dtypes(graph: SymbolGraph) -> dict[str, torch.dtype]:
    """Variables that the file declares as integers or booleans; floating point comes in any width.

    Raises `SymbolError`.
    """
    found: dict[str, torch.dtype] = {}
    for node in graph.nodes:
        text = node.attributes.get("__dtype__", "-1").strip()
        if node.op != "null" or text == "-1":
            continue
        array = (
            DTYPES.get(int(text)) if text.isascii() and text.isdigit() and len(text) < 4 else None
        )
        if array is None:
            raise SymbolError(
                f"{node.where}: __dtype__={text[:20]!r}, expected the number of one of MXNet's "
                f"dtypes, such as 0 for float32"
            )
        if array.kind in "iub":
            found[node.name] = torch.from_numpy(np.zeros(0, array)).dtype
    return found


class Builder:
    """Adds nodes to the fx graph one by one."""

    def __init__(self, graph: SymbolGraph, values: Mapping[str, np.ndarray]) -> None:
        self.source = graph
        self.values = values
        self.wiring = Wiring()
        self.variables: dict[str, fx.Node] = {}  # by MXNet's name
        self.results: dict[Entry, fx.Node] = {}
        self.passed: set[tuple[int, int]] = set()  # outputs that are an input of their node
        self.inputs: dict[str, str] = {}  # name in forward -> MXNet's name
        self.spare = itertools.count(1)  # never the same again: many names that clash stay quick
        self.paths: dict[str, str] = {}  # MXNet's name -> path in the module
        self.declared = declared_dtypes(graph)
        self.dtypes: dict[str, torch.dtype] = {}  # of inputs that are no floating point
        self.wiring.body, self.wiring.np_shape = self.body, graph.np_shape

    def placeholder(self, name: str, *, optional: bool) -> None:
        """An argument of forward."""
        safe = base = local_name(name)
        while safe in self.inputs:
            safe = f"{base}_{next(self.spare)}_"
        kind, default = (torch.Tensor | None, (None,)) if optional else (None, ())
        node = self.wiring.graph.create_node(
            "placeholder", safe, default, {}, name=safe, type_expr=kind
        )
        node.meta["mxnet"] = ("null", name, 0)
        self.inputs[safe] = name
        self.variables[name] = node

    def check_dtypes(self, names: Iterable[str]) -> None:
        """Hold inputs against what the file declares, once the name of every argument is taken."""
        for name in names:
            dtype = self.declared.get(name)
            if dtype is not None:
                self.dtypes[name] = dtype
                self.wiring.begin(name, f"input {name!r}", "null")
                given = self.variables[name]
                node = self.wiring.call(mx_dtype.expect, given, dtype, part="checked")
                node.meta["mxnet"] = ("null", name, 0)
                self.variables[name] = node

    def variable(self, name: str) -> fx.Node:
        """An input, or the fetch of a parameter."""
        if name not in self.variables:
            path = self.wiring.paths.parameter(name)
            node = self.wiring.graph.create_node("get_attr", path, name=local_name(name))
            node.meta["mxnet"] = ("null", name, 0)
            self.paths[name] = path
            self.variables[name] = node
            tensor = to_tensor(name, self.values[name])
            self.wiring.values[node.name] = tensor
            if tensor.is_floating_point():
                self.wiring.floating.add(node)
        return self.variables[name]

    def fetch(self, source: Entry | str, where: str) -> fx.Node:
        """The fx node of one input or head."""
        if isinstance(source, str):
            return self.variable(source)
        node = self.source.nodes[source.node]
        if node.op == "null" and source.index == 0:
            return self.variable(node.name)
        if source not in self.results:
            raise SymbolError(f"{where}: uses output {source.index} of {node.where}, not there")
        return self.results[source]

    def add(self, step: Step) -> None:
        """Build one node."""
        wiring = self.wiring
        wider = step.operator.gives_float32(step.node.attributes)
        wiring.begin(step.node.name, step.node.where, step.operator.name, wider=wider)
        arguments = [self.fetch(source, step.node.where) for source in step.inputs]
        dtypes = step.operator.dtypes
        entered = dtypes.enter(wiring, arguments)
        with refusals(step.node.where):
            built = step.operator.build(wiring, step.attributes, *entered)
        for each in every_step([step]):
            if unread := each.attributes.unread(each.operator.attributes):
                raise wiring.refuse(f"{', '.join(unread)} is not supported: it would be left out")
        built = built if isinstance(built, tuple) else (built,)
        outputs = tuple(dtypes.leave(wiring, arguments, output) for output in built)
        self.infer_size(step, arguments, outputs)
        for index, output in enumerate(outputs):
            self.results[Entry(step.number, index)] = output
            if output in arguments:  # an identity adds no node
                self.passed.add((step.number, index))
            else:
                output.meta["mxnet"] = (step.operator.name, step.node.name, index)
                output.meta["mxnet_number"] = step.number  # names may repeat, numbers do not
            if output in wiring.unsized:  # it broadcasts to the size that MXNet infers
                output.meta["mxnet_unsized"] = True
        name = step.operator.name
        if name in KEEPS_AXES and arguments[0] in wiring.flat:
            wiring.flat.add(outputs[0])
        if dtypes.gives_floats(wiring, step.attributes, arguments):
            wiring.floating.update(outputs)

    def body(self, part: Part, given: Mapping[str, fx.Node]) -> tuple[fx.GraphModule, list[bool]]:
        """A subgraph as a module of the variables that `given` has, in its order.

        Beside it, which of the outputs are sure to be floating point where those nodes go in.
        """
        outer, builder = self.wiring, Builder(part.graph, {})
        wiring = builder.wiring
        wiring.constants, wiring.steps = outer.constants, outer.steps
        wiring.np_shape = outer.np_shape
        for name in given:
            builder.placeholder(name, optional=False)
        builder.check_dtypes(given)
        for name, source in given.items():
            if source in outer.floating:
                wiring.floating.add(builder.variables[name])
            if source in outer.unsized:
                wiring.unsized[builder.variables[name]] = outer.unsized[source]
        for step in part.steps:
            builder.add(step)
        heads = [builder.fetch(head, "heads") for head in part.graph.heads]
        module = builder.finish(set())
        outer.constants, outer.steps = wiring.constants, wiring.steps
        return module, [head in wiring.floating for head in heads]

    def infer_size(
        self, step: Step, arguments: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> None:
        """Follow arrays of unknown size to where they broadcast; refuse what needs the size."""
        unsized = self.wiring.unsized
        sizes = [unsized[argument] for argument in arguments if argument in unsized]
        if not sizes:
            return
        name, size = step.operator.name, sizes[0]
        if name == "_foreach":  # its body has followed them
            data, states = step.attributes.in_data_locs, step.attributes.in_state_locs
            if {*arguments} & {*unsized} <= {*arguments[len(data) :][: len(states)]}:
                return
        if name in SAME_SIZE and len(sizes) < len(arguments):
            return
        if name == "RNN" and {*arguments} & {*unsized} <= {*arguments[2:4]} and size[0] and size[2]:
            return
        if name == "where" and arguments[0] not in unsized and len(sizes) == 1:
            return  # the condition and the other array have the size
        batch = not size[0] and all(size[1:])
        rows = batch and len(size) == 2
        if name in SAME_SIZE or name in EACH_ELEMENT:
            unsized.update(dict.fromkeys(outputs, size))
        elif name == "FullyConnected" and rows and len(sizes) == 1 and arguments[0] in unsized:
            unsized.update(dict.fromkeys(outputs, (0, step.attributes.num_hidden)))
        elif (
            name == "Convolution"
            and batch
            and arguments[0] in unsized
            and len(sizes) == 1
            and step.attributes.layout in (None, "NCW", "NCHW", "NCDHW")
        ):
            with refusals(step.node.where):
                unsized[outputs[0]] = (0, *convolved(step.attributes, size))
        elif name == "SliceChannel" and (
            (rows and step.attributes.axis == -1) or (batch and step.attributes.axis == 1)
        ):
            width = size[1] // step.attributes.num_outputs
            unsized.update(dict.fromkeys(outputs, (0, width, *size[2:])))
        else:
            raise self.wiring.refuse(f"reads an array of shape {size}, whose 0 it cannot infer")

    def finish(self, held: set[str]) -> fx.GraphModule:
        """The module; parameters in `held` and integers become buffers."""
        wiring = self.wiring
        heads = [self.fetch(head, "heads") for head in self.source.heads]
        if unsized := [wiring.unsized[head] for head in heads if head in wiring.unsized]:
            raise SymbolError(f"an output has the shape {unsized[0]}, whose 0 nothing infers")
        wiring.graph.output(heads[0] if len(heads) == 1 else tuple(heads))
        module = fx.GraphModule(wiring.root, fx.Graph(), class_name="Symbol")
        for name, path in self.paths.items():
            tensor = wiring.values[self.variables[name].name]
            place(module, path, tensor, trained=name not in held)
        for path, layer in wiring.root.named_children():
            module.add_module(path, layer)
        for path, value in wiring.root.named_buffers():
            module.register_buffer(path, value, persistent=False)
        make_readable(wiring.graph)
        wiring.graph.owning_module = module
        wiring.graph.eliminate_dead_code()
        module.graph = wiring.graph  # generates the code, which takes long
        module.graph.lint()
        fetched = {node.target for node in module.graph.nodes if node.op == "get_attr"}
        for path, parameter in module.named_parameters():
            parameter.requires_grad_(path in fetched)  # fix_gamma leaves its gamma unused
        module.meta["mxnet_inputs"] = self.inputs
        module.meta["mxnet_dtypes"] = self.dtypes
        module.meta["mxnet_passed"] = self.passed
        module.meta["mxnet_names"] = {path: name for name, path in self.paths.items()}
        return module.eval()


def convolved(attributes: Attributes, size: Sequence[int]) -> list[int]:
    """Channels and spatial sizes of a convolution of channels at axis 1."""
    axes = len(size) - 2
    stride, dilate = attributes.stride or (1,) * axes, attributes.dilate or (1,) * axes
    pad = attributes.pad or (0,) * axes
    sizes = zip(size[2:], attributes.kernel, stride, dilate, pad, strict=True)
    return [
        attributes.num_filter,
        *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, d, p in sizes),
    ]


def to_tensor(name: str, array: np.ndarray) -> torch.Tensor:
    """A tensor that owns its memory."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(bfloat16_to_float32(array)).to(torch.bfloat16)
    try:
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise SymbolError(f"parameter {name} has dtype {array.dtype}, which torch lacks") from None


def place(root: nn.Module, path: str, tensor: torch.Tensor, *, trained: bool) -> None:
    """Set a parameter, or a buffer, at a dotted path, making containers on the way."""
    *folders, leaf = path.split(".")
    owner: Any = root
    for folder in folders:
        if not hasattr(owner, folder):
            owner.add_module(folder, nn.Module())
        owner = getattr(owner, folder)
    if trained and tensor.is_floating_point():
        owner.register_parameter(leaf, nn.Parameter(tensor))
    else:
        owner.register_buffer(leaf, tensor)
