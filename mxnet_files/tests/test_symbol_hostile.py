"""Files by strangers: whatever they ask for, one line, in bounded time and memory, nothing written.

What a graph takes is worked out from shapes, so the sizes here are never computed.
"""

from __future__ import annotations

import copy
import json
import math
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from mxnet_files import SymbolError, freeze, import_symbol, load_symbol, optimise
from mxnet_files.__main__ import main
from mxnet_files.budget import Budget, rehearse
from mxnet_files.layers import BatchNorm
from mxnet_files.proving.certificate import describe, read_report
from mxnet_files.reading.attributes import REQUIRED, Attributes, read_attributes
from mxnet_files.reading.params_file import write_params
from mxnet_files.reading.reader import MOST_NODES, MOST_VALUES
from mxnet_files.registry import OPERATORS, PARAMETER_SLOTS
from mxnet_files.running import run
from mxnet_files.tests import spaces_control  # noqa: F401 (fills SPACES)
from mxnet_files.tests.spaces import cases
from mxnet_files.tests.test_quantised_operators import spoiled

Document = dict[str, Any]


def graph(*nodes: tuple[str, dict[str, str], list[int]]) -> Document:
    """A symbol file of one input and operators with (name, attributes, numbers of the inputs)."""
    rows = [{"op": "null", "name": "data", "inputs": []}]
    for number, (op, attributes, inputs) in enumerate(nodes, 1):
        given = [[source, 0, 0] for source in inputs]
        rows.append({"op": op, "name": f"n{number}", "attrs": attributes, "inputs": given})  # type: ignore[dict-item]
    version = {"mxnet_version": ["int", 10901]}
    return {"nodes": rows, "arg_nodes": [0], "heads": [[len(nodes), 0, 0]], "attrs": version}


def one(op: str, **attributes: str) -> Document:
    return graph((op, attributes, [0]))


RESIZE = "_contrib_BilinearResize2D"
REFUSED: dict[str, tuple[Document, str]] = {
    "repeat": (one("repeat", repeats="10000000"), "(repeat): the graph takes 2.56e+09 bytes"),
    "adaptive pool": (
        one("_contrib_AdaptiveAvgPooling2D", output_size="(30000, 30000)"),
        "bytes=",
    ),
    "doubling": (graph(*[("Concat", {"num_args": "2"}, [i, i]) for i in range(60)]), "bytes="),
    "view": (one("broadcast_axis", axis="0", size="1000000000000"), "values"),
    "tile": (one("tile", reps="(100000, 100000)"), "bytes"),
    "pad": (
        one("Pad", mode="constant", pad_width="(0,0,0,0,100000,100000,100000,100000)"),
        "bytes",
    ),
    "infinite scale": (
        one(RESIZE, scale_height="inf", scale_width="2"),
        "node 'n1' (_contrib_BilinearResize2D): the graph cannot run on inputs of shape (1, 4",
    ),
    "block of 0": (one("depth_to_space", block_size="0"), "by zero"),
    "large window": (one("Pooling", kernel="(9,9)", pad="(1000000,1000000)"), "node 'n1'"),
    "stride beyond": (one("slice_axis", axis="1", begin="0", end="9" * 18), "inside the axis"),
    "many axes": (one("Reshape", shape="(" + "1," * 50 + "-1)"), "array of 51 dimensions"),
    "one_hot": (one("one_hot", depth="1000000000"), "budget"),
    "large constant": (
        graph(*[("_zeros", {"shape": "(4096, 4096)"}, [])] * 5, ("add_n", {}, [1, 2, 3, 4, 5])),
        "elements of constants",
    ),
}  # fmt: skip


def files(
    folder: Path, document: Document, arrays: Mapping[str, np.ndarray] | None = None
) -> list[str]:
    (folder / "x-symbol.json").write_text(json.dumps(document))
    write_params(folder / "x-0000.params", arrays or {})
    return [str(folder / "x-symbol.json"), str(folder / "x-0000.params")]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("flag", ["--out", "--check"])
def test_what_is_too_much_is_one_line_before_it_is_computed(
    name: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, said = REFUSED[name]
    argv = files(tmp_path, document)
    more = [flag, str(tmp_path / "x.pt2"), "--onnx"] if flag == "--out" else [flag]
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main([*argv, *more, "--input-shape", "1,4,4,4"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-0000.params", "x-symbol.json"]


@pytest.mark.parametrize("out", ["x.pt2", "x"])
def test_a_graph_without_inputs_is_no_program(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = files(tmp_path, graph(("_arange", {"start": "0", "stop": "3"}, [])))
    assert main([*argv, "--out", str(tmp_path / out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the graph takes no input")
    assert error.count("\n") == 1
    assert len([*tmp_path.iterdir()]) == 2


def test_operations_are_counted_while_a_graph_is_wired(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node has up to 4,096 outputs, each one an operation of torch."""
    monkeypatch.setattr("mxnet_files.registry.MOST_STEPS", 10_000)
    document = graph(*[("SliceChannel", {"num_outputs": "4096"}, [0])] * 3)
    document["heads"] = [[number, 0, 0] for number in (1, 2)]
    import_symbol(document, {})
    document["heads"].append([3, 0, 0])
    with pytest.raises(SymbolError, match=r"node 'n3' .*: more than 10,000 operations of torch"):
        import_symbol(document, {})


def test_loops_that_an_attribute_lengthens_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxnet_files.budget.MOST_CALLS", 50)
    chain: list[tuple[str, dict[str, str], list[int]]] = [("relu", {}, [i]) for i in range(50)]
    rehearse(import_symbol(graph(*chain), {}), [torch.zeros(1)])
    module = import_symbol(graph(*chain, ("relu", {}, [50])), {})
    with pytest.raises(SymbolError, match=r"node 'n51' .*: more than 50 operations"):
        rehearse(module, [torch.zeros(1)])


def test_the_budget_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = graph(("relu", {}, [0]), ("relu", {}, [1]))
    argv = ["check", *files(tmp_path, document), "--input-shape", "1,3,40,40"]
    assert main(argv) == 0
    for name, most in (("values", 4799), ("bytes", 19199)):
        assert main([*argv, "--budget", f"{name}={most}"]) == 1
        assert "--input data (1, 3, 40, 40): the inputs alone take" in capsys.readouterr().err
    for name, most, node in (("values", 9599, 2), ("bytes", 38399, 2), ("operations", 100, 1)):
        assert main([*argv, "--budget", f"{name}={most}"]) == 1
        error = capsys.readouterr().err
        assert f"node 'n{node}' (relu): the graph takes" in error
        assert f"{name} up to here and the budget is" in error
        assert f"raise it with --budget {name}=" in error
    assert main([*argv, "--budget", "values=9600,bytes=1M,operations=1G"]) == 0
    for text in ("bytes", "time=3", "bytes=1X", "values=-1", "bytes=٣"):
        assert main([*argv, "--budget", text]) == 2
        assert "expected such as bytes=16G" in capsys.readouterr().err


def test_a_cost_is_what_a_run_takes() -> None:
    """A sum of two ReLUs, and a convolution: values, the peak of memory, multiply-adds."""
    kernel = {"kernel": "(3,3)", "num_filter": "8", "no_bias": "True"}
    conv = {"op": "Convolution", "name": "c", "attrs": kernel, "inputs": [[0, 0], [1, 0]]}
    document = graph(("relu", {}, [0]), ("relu", {}, [1]), ("elemwise_add", {}, [2, 1]))
    cost = rehearse(import_symbol(document, {}), [torch.zeros(2, 3, 10, 10)])
    assert (cost.values, cost.bytes) == (1800, 3 * 600 * 4)  # both summands and the sum
    document["nodes"].insert(1, {"op": "null", "name": "w", "inputs": []})
    document["nodes"][2:] = [conv]
    document["heads"] = [[2, 0, 0]]
    module = import_symbol(document, {}, inputs=["data", "w"])
    cost = rehearse(module, [torch.zeros(2, 3, 10, 10), torch.zeros(8, 3, 3, 3)])
    assert cost.values == 2 * 8 * 64
    assert cost.operations == 2 * cost.values * 27


class Choose(nn.Module):
    """Keeps what is positive: how much that is, only the values tell."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x[x > 0]
        return kept.reshape(-1, 1) * kept.reshape(1, -1)


def test_what_depends_on_values_is_measured_while_it_runs() -> None:
    module = fx.GraphModule(nn.Module(), fx.Graph())
    module.add_module("choose", Choose())
    x = module.graph.placeholder("x")
    module.graph.output(module.graph.call_module("choose", (x,)))
    module.recompile()
    cost = rehearse(module, [torch.ones(1000)])
    assert cost.values == 10**6
    assert cost.bytes >= 4 * 10**6
    with pytest.raises(SymbolError, match="bytes up to here"):
        rehearse(module, [torch.ones(100_000)])  # 40 GB
    assert rehearse(module, [-torch.ones(100_000)]).values == 0


@pytest.mark.slow
def test_a_graph_at_the_limit_is_read_in_linear_time_and_small_memory(tmp_path: Path) -> None:
    took = {}
    for count in (MOST_NODES // 4, MOST_NODES - 1):
        document = graph(*[("relu", {}, [i]) for i in range(count)])
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps(document))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        load_symbol(path)
        took[count] = time.process_time() - start
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 2**10
    quarter, whole = took.values()
    assert whole < 8 * quarter
    path.write_text(json.dumps(graph(*[("relu", {}, [i]) for i in range(MOST_NODES)])))
    with pytest.raises(SymbolError, match="expected a list of at most 50,000"):
        load_symbol(path)


def test_json_of_many_values_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x-symbol.json"
    path.write_text('{"nodes": [' + "[]," * MOST_VALUES + "[]]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SymbolError, match="more than 4,000,000 values"):
        load_symbol(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10


def test_one_file_that_cannot_be_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program is there already when ONNX turns out to be impossible."""

    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such symbolic\nand more lines")

    monkeypatch.setattr(torch.onnx, "export", fails)
    argv = [*files(tmp_path, one("relu")), "--input-shape", "1,3"]
    assert main([*argv, "--out", str(tmp_path / "x.pt2"), "--onnx"]) == 1
    error = capsys.readouterr().err
    assert error == "error: torch cannot write this graph as ONNX: no such symbolic\n"
    assert not list(tmp_path.glob("*.pt2"))


# Attributes at random, most of them such that their operator's reader takes them.

SIZES = ["0", "1", "2", "3", "-1", "-2", "-4", "7", "100", "30000", "10000000", "1000000000000",
         "9223372036854775807", "-9223372036854775808", "None"]  # fmt: skip
NUMBERS = [*SIZES, "inf", "-inf", "nan", "1e-30", "1e30", "0.5", "-0.5", "True", "False", ""]
WORDS = ["max", "avg", "sum", "lp", "valid", "full", "NCHW", "NHWC", "NCW", "relu", "leaky", "elu",
         "nearest", "bilinear", "constant", "edge", "reflect", "clip", "wrap", "size", "like",
         "float32", "float64", "int32", "uint8", "bool", "instance", "channel", "lstm", "gru",
         "always", "both", "value", "mask", "indices"]  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(NUMBERS[:8]),
    st.lists(st.sampled_from(SIZES[:8]), max_size=5).map(lambda sizes: f"({','.join(sizes)})"),
    st.lists(st.sampled_from(SIZES), max_size=40).map(lambda sizes: f"({','.join(sizes)})"),
    st.sampled_from(WORDS),
)


def reads(kind: Any, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


@dataclass
class Hostile:
    """A symbol file, the shapes of its inputs, and the arrays of its parameters."""

    document: Document
    shapes: dict[str, tuple[int, ...]]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


SMALL = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)
Drawn = dict[str, dict[str, st.SearchStrategy[str]]]
BETWEEN: Drawn = {
    "BatchNorm": {"fix_gamma": st.sampled_from(["True", "False"])},
    "Activation": {"act_type": st.just("relu")},
    "clip": {"a_min": st.just("0"), "a_max": st.just("6")},
    "Dropout": {},
}
# Every operator, or by the number of axes what is folded, fused and frozen; attributes that fit
KNOWN: dict[int, Drawn] = {
    0: {name: {} for name in sorted(OPERATORS)},
    2: {"FullyConnected": {"num_hidden": st.sampled_from("1234")}, **BETWEEN},
    4: {
        "Convolution": {
            "kernel": st.sampled_from(["(1,1)", "(2,2)", "(1,3)"]),
            "num_filter": st.sampled_from("1234"),
            "no_bias": st.sampled_from(["True", "False"]),
        },
        "Pooling": {"kernel": st.just("(2,2)"), "pool_type": st.sampled_from(["max", "avg"])},
        **BETWEEN,
    },
}


@st.composite
def numbers(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """Parameters, and what makes their folding divide by 0 or overflow."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    value = rng.uniform(0.5, 1.5, shape).astype("float32")
    odd = draw(st.sampled_from([None, None, None, 0.0, -1.0, np.inf, np.nan, 1e38, 1e-45]))
    return value if odd is None else np.where(rng.random(shape) < 0.5, odd, value).astype("float32")


def fitting(read: dict[str, Any], slot: str, width: int) -> tuple[int, ...]:
    """The shape of a parameter beside so many channels, where that is small."""
    out = read.get("num_filter", read.get("num_hidden", width))
    shape = (out, width, *read.get("kernel", ())) if slot == "weight" else (out,)
    small = all(size and 0 < size < 50 for size in shape) and math.prod(shape) < 10_000
    return shape if small else (width,)


@st.composite
def hostile(draw: st.DrawFn) -> Hostile:
    """A graph of one to three operators, or of layers, with shapes and parameters."""

    def odd() -> bool:
        return draw(st.integers(0, 15)) == 9  # not at an end, which is drawn more often

    layers = draw(st.sampled_from([0, 0, 2, 4]))  # how many axes they have, if they are layers
    case = Hostile({}, {"data": draw(SMALL)})
    if layers:
        case.shapes["data"] = draw(st.tuples(*[st.integers(1, 5)] * layers))
    nodes: list[dict[str, Any]] = [{"op": "null", "name": "data", "inputs": []}]
    ends = [(0, case.shapes["data"][1 if layers else 0])]  # and how many channels it has
    for step in range(draw(st.integers(1, 5 if layers else 3))):
        known = list(KNOWN[layers])
        if layers and step < 2:  # weights, and mostly what is folded into them
            known = [known[0] if step == 0 or odd() else "BatchNorm"]
        op = draw(st.sampled_from(known))
        attributes = {key: draw(text) for key, text in KNOWN[layers][op].items()}
        for key, attribute in OPERATORS[op].attributes.items():
            needed = attribute.default is REQUIRED and key not in attributes
            if needed or (odd() if layers else draw(st.booleans())):
                texts = draw(st.lists(TEXTS, min_size=8, max_size=8))
                attributes[key] = next((t for t in texts if reads(attribute.kind, t)), texts[0])
        read: dict[str, Any] = {}
        try:
            read = read_attributes(op, attributes, OPERATORS[op].attributes)
            # without its subgraphs: what is refused when the graph is read
            empty = SimpleNamespace(steps=[], slots={})
            inner = {"inner": [empty] * OPERATORS[op].graphs}
            slots = OPERATORS[op].inputs(Attributes({**read, **inner}))
        except (SymbolError, ValueError):
            slots = ("data",)
        count = draw(st.integers(1, 3)) if slots is None else len(slots)
        inputs = []
        width = 1
        for place in range(count):
            slot = "" if slots is None else slots[place]
            held = slot in PARAMETER_SLOTS
            if place == 0 or slots is None or (odd() if held else draw(st.booleans())):
                end, width = ends[-1] if layers else draw(st.sampled_from(ends))
                inputs.append([end, 0, 0])
                continue
            inputs.append([len(nodes), 0, 0])
            name = f"v{len(nodes)}"
            shape = draw(st.one_of(SMALL, st.just(case.shapes["data"][1:2] or (1,))))
            if held and not odd():
                shape = fitting(read, slot, width)
            if held and not odd():
                case.arrays[name] = draw(numbers(shape))
            else:
                case.shapes[name] = shape
            nodes.append({"op": "null", "name": name, "inputs": []})
        if "num_args" in attributes:
            attributes["num_args"] = str(count)
        out = read.get("num_filter", read.get("num_hidden", width))
        ends.append((len(nodes), out if isinstance(out, int) and 0 < out < 50 else width))
        nodes.append({"op": op, "name": f"n{len(nodes)}", "attrs": attributes, "inputs": inputs})
    version = {"mxnet_version": ["int", 10901]}
    case.document |= {"nodes": nodes, "heads": [[ends[-1][0], 0, 0]], "attrs": version}
    return case


def every_graph(document: Document) -> Iterator[Document]:
    """It, and those within its nodes."""
    yield document
    for node in document["nodes"]:
        for inner in node.get("subgraphs", []):
            yield from every_graph(inner)


def damage(draw: st.DrawFn, document: Document) -> None:
    """One fault somewhere in a graph, or in one within it."""
    graphs = list(every_graph(document))
    graph = graphs[draw(st.integers(0, len(graphs) - 1))]
    rows = graph["nodes"]
    node = rows[draw(st.integers(0, len(rows) - 1))]
    said, inputs, inner = node.get("attrs", {}), node["inputs"], node.get("subgraphs", [])
    entry = st.tuples(st.integers(0, len(rows)), st.integers(0, 2), st.just(0)).map(list)
    kinds = ["op", "more", "heads"] + ["text", "lack"] * bool(said)
    kinds += ["input", "less"] * bool(inputs) + ["inner", "lost", "twice", "itself"] * bool(inner)
    match draw(st.sampled_from(kinds)):
        case "op":
            node["op"] = draw(st.sampled_from(["null", "none", *sorted(OPERATORS)]))
        case "more":
            inputs.append(draw(entry))
        case "heads":
            graph["heads"] = draw(st.lists(entry, max_size=3))
        case "text":
            said[draw(st.sampled_from(sorted(said)))] = draw(TEXTS)
        case "lack":
            del said[draw(st.sampled_from(sorted(said)))]
        case "input":
            inputs[draw(st.integers(0, len(inputs) - 1))] = draw(entry)
        case "less":
            inputs.pop()
        case "inner":
            inner.reverse()
        case "lost":
            inner.pop()
        case "twice":
            inner.append(copy.deepcopy(inner[0]))
        case "itself":
            inner[0] = copy.deepcopy(document)


JOINED: dict[str, Any] = {"attrs": {"quantized": "false"}, "inputs": [[0, 0, 0], [1, 0, 0]]}
WITH_GRAPHS = ("_foreach", "_while_loop", "_cond", "_sg_mkldnn_conv")


@st.composite
def damaged(draw: st.DrawFn) -> Hostile:
    """A loop, a branch or a joined layer, as MXNet writes it, with up to three faults."""
    op = draw(st.sampled_from(WITH_GRAPHS))
    if op == "_sg_mkldnn_conv":
        plain = draw(st.booleans())
        document = spoiled(**copy.deepcopy(JOINED) if plain else {})
        shapes: dict[str, tuple[int, ...]] = {"data": (1, 3, 4, 4), "weight": (2, 3, 1, 1)}
        shapes |= {} if plain else {"low": (1,), "high": (1,)}
    else:
        case = draw(cases(op))
        document = case.document()
        shapes = {name: array.shape for name, array in case.arrays.items()}
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        damage(draw, document)
    return Hostile(document, shapes)


CASES = st.one_of(hostile(), hostile(), damaged())
TINY = Budget(values=10**8, bytes=2 * 10**8, operations=10**9)


def take_apart(case: Hostile, reached: Counter[str] | None = None) -> str:
    """Everything that a file can be handed to, but the commands; what it was refused with.

    `reached` counts what came how far.
    """
    reached = Counter() if reached is None else reached
    try:
        module = import_symbol(case.document, case.arrays, inputs=list(case.shapes))
        inputs = [torch.ones(case.shapes[name]) for name in module.meta["mxnet_inputs"].values()]
        rehearse(module, inputs, TINY)
        run(module, inputs)
        operators = {node["op"] for node in case.document["nodes"]}
        reached.update(operators.intersection(WITH_GRAPHS))
        fast = optimise(module)
        reached["folded"] += count_norms(module) > count_norms(fast)
        run(fast, inputs)
        freeze(module, *inputs, budget=TINY)
        reached["frozen"] += 1
    except SymbolError as error:
        return str(error)
    return ""


def count_norms(module: nn.Module) -> int:
    return sum(isinstance(layer, BatchNorm) for layer in module.modules())


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=120, deadline=20_000, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_hostile_attributes(case: Hostile) -> None:
    assert "\n" not in take_apart(case)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_hostile_attributes_many() -> None:
    """Enough of them run, are folded and frozen: else nothing of that would be tried."""
    reached: Counter[str] = Counter()

    @settings(max_examples=5_000, deadline=60_000, suppress_health_check=list(HealthCheck))
    @given(CASES)
    def one(case: Hostile) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert "\n" not in take_apart(case, reached)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB

    one()
    assert {
        kind: reached[kind] for kind in (*WITH_GRAPHS, "folded", "frozen") if reached[kind] < 10
    } == {}


def command(case: Hostile, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The commands on a drawn graph: 0 and everything written, or one line and nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = [f"--input-shape={name}={','.join(map(str, s))}" for name, s in case.shapes.items()]
        limits = "--budget=values=100M,bytes=200M,operations=1G"
        out = folder / ("x" if kind == "folder" else "x.pt2")
        more = {"check": ["--check"], "folder": ["--out", str(out)],
                "program": ["--out", str(out), "--onnx"]}[kind]  # fmt: skip
        argv = files(folder, case.document, case.arrays)
        came = {*folder.iterdir()}
        capfd.readouterr()
        code = main([*argv, *given, limits, *more])
        told = capfd.readouterr().err
        assert code in (0, 1, 2)
        assert re.fullmatch(r"" if code == 0 else r"([\w .-]+: )?error: .+\n", told), told
        made = {*folder.iterdir()} - came
        if kind == "folder" and code == 1 and "holds model" in told:  # MXNet died of the graph
            assert made == {out}
        else:
            assert len(made) == (code == 0) * {"check": 0, "folder": 1, "program": 2}[kind]
        if kind == "folder" and made:
            there = [describe(path) for path in sorted(out.iterdir()) if path.name != "report.json"]
            written = read_report(out)["written"]
            assert there == [{key: row[key] for key in there[0]} for row in written]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["program", "check"])
@settings(max_examples=8, deadline=60_000, suppress_health_check=list(HealthCheck))
@given(case=CASES)
def test_hostile_attributes_at_the_commands(
    kind: str, case: Hostile, capfd: pytest.CaptureFixture[str]
) -> None:
    command(case, kind, capfd)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=3, deadline=60_000, suppress_health_check=list(HealthCheck))
@given(case=CASES)
def test_hostile_attributes_into_a_folder(case: Hostile, capfd: pytest.CaptureFixture[str]) -> None:
    command(case, "folder", capfd)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["program", "check", "folder"])
@settings(max_examples=500, deadline=60_000, suppress_health_check=list(HealthCheck))
@given(case=CASES)
def test_hostile_attributes_at_the_commands_many(
    kind: str, case: Hostile, capfd: pytest.CaptureFixture[str]
) -> None:
    command(case, kind, capfd)
