"""Exported files that are not the net: each way of opening them must say so, and where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import HybridBlock
from mxnet.gluon import nn as gluon_nn
from torch import nn

from gluon_cnn_parity import is_installed
from parity_tests import check_parity
from parity_tests.backends.base import leaves_of
from parity_tests.backends.runs import NET, Arrays, Objective
from parity_tests.cases.pairs import Case, project_case
from parity_tests.levels.artefacts import files
from parity_tests.levels.artefacts.exported import OF_ONNX, WAYS
from parity_tests.levels.artefacts.files import exported_rows
from parity_tests.levels.artefacts.hybridized import artefacts_rows
from parity_tests.levels.referee import Subject
from parity_tests.pairing.align import pair_leaves
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.table import table
from parity_tests.reporting.verdicts import Check, Level

Tamper = Callable[[Path], Any]
FLAT = np.random.default_rng(11).standard_normal((4, 6)).astype(np.float32)


def subject_of(gluon_net: Any, torch_net: nn.Module, inputs: Arrays) -> Subject:
    pairing = pair_leaves(leaves_of(gluon_net), leaves_of(torch_net))
    return Subject(gluon_net, torch_net, pairing, inputs, Objective())


@pytest.fixture(scope="module")
def case() -> Case:
    return project_case("mnist_bn_cnn")


@pytest.fixture(scope="module")
def subject(case: Case) -> Subject:
    return subject_of(case.gluon_net, case.torch_net, (case.inputs,))


def bad(rows: list[Row]) -> dict[str, Row]:
    """The first failure of each way."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.status in ("diverged", "not compared"):
            found.setdefault(row.check, row)
    return found


def edit_symbol(change: Callable[[dict[str, Any]], object]) -> Tamper:
    def tamper(folder: Path) -> None:
        path = folder / "net-symbol.json"
        document = json.loads(path.read_text())
        before = json.dumps(document)
        change(document)
        assert json.dumps(document) != before
        path.write_text(json.dumps(document))

    return tamper


def edit_node(name: str, **attributes: str) -> Tamper:
    def change(document: dict[str, Any]) -> None:
        (node,) = (node for node in document["nodes"] if node["name"] == name)
        node["attrs"].update(attributes)

    return edit_symbol(change)


def edit_params(change: Callable[[dict[str, mx.nd.NDArray]], object]) -> Tamper:
    def tamper(folder: Path) -> None:
        path = str(folder / "net-0000.params")
        arrays = mx.nd.load(path)
        change(arrays)
        mx.nd.save(path, arrays)

    return tamper


def edit_onnx(change: Callable[[Any], object]) -> Tamper:
    def tamper(folder: Path) -> None:
        import onnx

        model = onnx.load(str(folder / "net.onnx"))
        change(model)
        onnx.save(model, str(folder / "net.onnx"))

    return tamper


# What reads the ONNX file here
READERS = {Check.ONNX_RUNTIME, *([Check.OPENVINO] if is_installed("openvino") else [])}


def test_clean_files_are_equal_every_way(subject: Subject) -> None:
    if Check.OPENVINO not in READERS:
        pytest.skip("openvino is not installed")
    rows, coverage = exported_rows(subject)
    assert bad(rows) == {}
    assert {row.check for row in rows} == {Check.FILES, *WAYS}
    assert not [row for row in rows if row.status == "note"]
    assert set(coverage.percent().values()) == {100.0}
    nodes = dict.fromkeys(WAYS, 0)
    for row in rows:
        nodes[row.check] = nodes.get(row.check, 0) + row.quantity.startswith("output of")
    assert nodes[Check.SYMBOL_BLOCK] == nodes[Check.MODULE] == nodes[Check.ONNX_RUNTIME] > 10
    assert nodes[Check.OPENVINO] == nodes[Check.ONNX_RUNTIME]
    assert nodes[Check.TORCH_IMPORT] == 2 * nodes[Check.SYMBOL_BLOCK]  # in float32 and float64
    stream = [
        row
        for row in rows
        if row.check in (Check.SYMBOL_BLOCK, Check.MODULE) and "of" in row.quantity
    ]
    assert all(row.error == 0 for row in stream)
    outputs = {row.check: row for row in rows if row.quantity == "output"}
    assert outputs.keys() == WAYS.keys()
    assert outputs[Check.SYMBOL_BLOCK].error == 0


MEAN = "mnist_bn_cnn_features_1_running_mean"
BETA = "mnist_bn_cnn_features_4_beta"


@pytest.mark.parametrize(
    ("tamper", "path", "ways", "word"),
    [
        (  # the statistics were never written
            edit_params(lambda arrays: arrays.pop(f"aux:{MEAN}")),
            "features.1", (Check.FILES,), "is missing",
        ),
        (  # they were, as those of a fresh net
            edit_params(lambda a: a.update({f"aux:{MEAN}": a[f"aux:{MEAN}"] * 0})),
            "features.1", (Check.FILES, Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT), "",
        ),
        (  # parameters of before the last step
            edit_params(lambda a: a.update({f"arg:{BETA}": a[f"arg:{BETA}"] * (1 + 2.0**-22)})),
            "features.4", (Check.FILES, Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT), "",
        ),
        (  # the operator's eps in the place of the layer's
            edit_node("mnist_bn_cnn_features_4_fwd", eps="0.001"),
            "features.4", (Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT), "bound 16",
        ),
        (
            edit_node("mnist_bn_cnn_features_2_fwd", act_type="softrelu"),
            "features.2", (Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT), "",
        ),
        (  # the operator's default, where the layer trains its scale
            edit_node("mnist_bn_cnn_features_1_fwd", fix_gamma="True"),
            "features.1", (Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT), "",
        ),
    ],
    ids=["lost aux", "reset aux", "stale params", "eps", "activation", "fixed gamma"],
)  # fmt: skip
def test_wrong_files_are_caught_at_their_layer(
    subject: Subject, tamper: Tamper, path: str, ways: tuple[str, ...], word: str
) -> None:
    rows, _ = exported_rows(subject, tamper)
    found = bad(rows)
    for way in ways:
        assert found[way].path == path, found[way].message
        assert word in found[way].detail
    assert not READERS & found.keys()  # their file was made before


def test_a_lost_state_does_not_load(subject: Subject) -> None:
    rows, _ = exported_rows(subject, edit_params(lambda arrays: arrays.pop(f"aux:{MEAN}")))
    found = bad(rows)
    for way in (Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT):
        assert MEAN in found[way].detail


def _eps(model: Any) -> None:
    node = next(n for n in model.graph.node if "features_4_fwd" in n.output[0])
    (attribute,) = (a for a in node.attribute if a.name == "epsilon")
    attribute.f = 1e-3


def _stale(model: Any) -> None:
    import onnx

    (tensor,) = (t for t in model.graph.initializer if t.name == BETA)
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1 + 2.0**-22)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _rewired(model: Any) -> None:
    """features.3 reads what features.1 gave: the activation between is passed by."""
    node = next(n for n in model.graph.node if "features_3_fwd" in n.output[0])
    node.input[0] = "mnist_bn_cnn_features_1_fwd"


@pytest.mark.parametrize(
    ("change", "path"), [(_eps, "features.4"), (_stale, "features.4"), (_rewired, "features.3")]
)
def test_a_wrong_onnx_file_is_caught_at_its_layer(
    subject: Subject, change: Callable[[Any], None], path: str
) -> None:
    rows, _ = exported_rows(subject, edit_onnx(change))
    found = bad(rows)
    assert found.keys() == READERS
    assert {row.path for row in found.values()} == {path}, found


def test_onnx_runtimes_sigmoid_rounds_against_a_half() -> None:
    case = project_case("lenet_sigmoid")
    rows, _ = exported_rows(subject_of(case.gluon_net, case.torch_net, (case.inputs,)))
    assert bad(rows) == {}

    def coarse(model: Any) -> None:  # another slope: wrong by far more than rounding
        node = next(n for n in model.graph.node if n.op_type == "Sigmoid")
        node.op_type = "HardSigmoid"

    tampered, _ = exported_rows(
        subject_of(case.gluon_net, case.torch_net, (case.inputs,)), edit_onnx(coarse)
    )
    assert {bad(tampered)[reader].path for reader in READERS} == {"features.1"}


@pytest.mark.slow
def test_a_scale_that_is_fixed_is_one_whatever_the_files_hold() -> None:
    x = np.random.default_rng(3).standard_normal((2, 3, 6, 6)).astype(np.float32)
    net = gluon_nn.HybridSequential(prefix="fixed_")
    with net.name_scope():
        net.add(
            gluon_nn.Conv2D(4, 3, in_channels=3), gluon_nn.BatchNorm(scale=False, in_channels=4)
        )
    net.initialize(mx.init.Xavier())
    net[1].gamma.set_data(mx.nd.full(4, 3))
    torch_net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    report = check_parity(net, torch_net, x, levels=(Level.ARTEFACTS,), transfer=True)
    assert report.ok, str(report)
    rows, _ = exported_rows(
        subject_of(net, torch_net, (x,)), edit_node("fixed_batchnorm0_fwd", fix_gamma="False")
    )
    assert {row.path for row in bad(rows).values()} == {"1"}
    assert bad(rows).keys() >= {Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT}


class GluonDifference(HybridBlock):
    """Two inputs that must not be exchanged, and a function that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a = gluon_nn.Dense(4, in_units=6)
        self.b = gluon_nn.Dense(4, in_units=6)

    def hybrid_forward(self, F: Any, x: Any, y: Any) -> Any:
        return self.a(x) - self.b(y)


class TorchDifference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)
        self.b = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.a(x) - self.b(y)


@pytest.fixture(scope="module")
def difference() -> Subject:
    net = GluonDifference()
    mx.random.seed(1)
    net.initialize(mx.init.Normal(0.3))
    return subject_of(net, TorchDifference(), (FLAT, FLAT[::-1].copy()))


def _exchange_names(document: dict[str, Any]) -> None:
    for node in document["nodes"]:
        node["name"] = {"data0": "data1", "data1": "data0"}.get(node["name"], node["name"])


def _exchange_operands(document: dict[str, Any]) -> None:
    node = next(n for n in document["nodes"] if "minus" in n["name"] or "sub" in n["op"])
    node["inputs"].reverse()


def test_exchanged_inputs_are_caught_where_they_enter(difference: Subject) -> None:
    rows, _ = exported_rows(difference, edit_symbol(_exchange_names))
    found = bad(rows)
    for way in (Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT):
        assert found[way].path == "a", found[way].message


def test_exchanged_operands_are_caught_outside_a_layer(difference: Subject) -> None:
    rows, _ = exported_rows(difference, edit_symbol(_exchange_operands))
    for way in (Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT):
        assert bad(rows)[way].path == NET
        assert "output of " in bad(rows)[way].quantity


def test_what_onnx_cannot_hold_is_said(difference: Subject) -> None:
    rows, coverage = exported_rows(difference)
    assert bad(rows) == {}
    notes = [row for row in rows if row.status == "note"]
    assert {note.check for note in notes} == {Check.ONNX_RUNTIME, Check.OPENVINO}
    assert all("one input" in note.detail for note in notes)
    assert not coverage.missing()


def test_a_damaged_file_is_a_divergence(subject: Subject) -> None:
    def cut(folder: Path) -> None:
        path = folder / "net-symbol.json"
        path.write_text(path.read_text()[:2000])

    found = bad(exported_rows(subject, cut)[0])
    assert found.keys() >= {Check.SYMBOL_BLOCK, Check.MODULE, Check.TORCH_IMPORT}


def test_without_onnx_the_report_says_so(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    genuine = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] in ("onnx", "onnxruntime"):
            raise ImportError(f"No module named {name!r}", name=name)
        return genuine(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    levels = (Level.ARTEFACTS,)
    report = check_parity(case.gluon_net, case.torch_net, case.inputs, levels=levels)
    assert report.ok
    assert {note.check for note in report.notes} == {Check.ONNX_RUNTIME, Check.OPENVINO}
    assert all("pip install" in note.detail for note in report.notes)
    assert "ONNX Runtime not compared: " in table([report], levels)


def test_without_openvino_it_alone_is_not_compared(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "is_installed", lambda package: package != "openvino")
    rows, _ = exported_rows(subject)
    (note,) = (row for row in rows if row.status == "note")
    assert note.check == Check.OPENVINO
    assert note.detail.endswith("openvino is not installed: pip install -e '.[openvino]'")
    assert bad(rows) == {}


class Own(HybridBlock):
    """An operator that the import does not have."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.random_pdf_exponential(x, F.ones_like(F.sum(x, axis=1)))


class TorchOwn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(-x)


def test_an_operator_without_import_is_said() -> None:
    net = gluon_nn.HybridSequential()
    net.add(gluon_nn.Dense(5, in_units=6), Own())
    net.initialize()
    torch_net = nn.Sequential(nn.Linear(6, 5), TorchOwn())
    report: Report = check_parity(net, torch_net, FLAT, levels=(Level.ARTEFACTS,), transfer=True)
    assert report.ok, str(report)
    notes = {row.check: row.detail for row in report.notes}
    assert notes.keys() == {Check.ONNX_RUNTIME, Check.OPENVINO, Check.TORCH_IMPORT}
    assert "pdf_exponential" in notes[Check.TORCH_IMPORT]


def test_layers_called_twice_are_told_apart() -> None:
    class Twice(HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.a = gluon_nn.Dense(6, in_units=6)
            self.act = gluon_nn.Activation("tanh")

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self.act(self.a(self.act(self.a(x))))

    class TorchTwice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.act = nn.Tanh()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.a(self.act(self.a(x))))

    net = Twice()
    mx.random.seed(1)
    net.initialize(mx.init.Normal(0.3))
    rows, coverage = artefacts_rows(subject_of(net, TorchTwice(), (FLAT,)))
    assert bad(rows) == {}
    four = 4 * (len(WAYS) - len(OF_ONNX) + len(READERS))  # nodes, each way
    assert coverage.counts()["graph nodes"] == (four, four)
