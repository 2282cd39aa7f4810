"""The summary command: the documents' tables, and what it says to wrong input."""

from __future__ import annotations

import json

import mxnet as mx
import pytest

from gluon_cnn.models import MODELS, first_layers, get_model, leaves
from gluon_cnn.summary import main, summarise, table

# doc-0: layer, output, parameters, connections (the output's parameters are fixed)
DOC_0 = [
    ("C1", (6, 28, 28), 156, 122_304),
    ("S2", (6, 14, 14), 12, 5_880),
    ("C3", (16, 10, 10), 1_516, 151_600),
    ("S4", (16, 5, 5), 32, 2_000),
    ("C5", (120, 1, 1), 48_120, 48_120),
    ("F6", (84,), 10_164, 10_164),
    ("output", (10,), 840, 840),
]

# doc-4: the shapes of lenet_sigmoid
DOC_4 = [
    ("Conv2D", (6, 28, 28)),
    ("Sigmoid", (6, 28, 28)),
    ("AvgPool2D", (6, 14, 14)),
    ("Conv2D", (16, 10, 10)),
    ("Sigmoid", (16, 10, 10)),
    ("AvgPool2D", (16, 5, 5)),
    ("Flatten", (400,)),
    ("Dense", (120,)),
    ("Sigmoid", (120,)),
    ("Dense", (84,)),
    ("Sigmoid", (84,)),
    ("Dense", (10,)),
]


def test_lenet5_is_doc_0s_table() -> None:
    summary = summarise(get_model("lenet5"))
    named = [row for row in summary.rows if row.name]
    assert [
        (row.name, row.output, row.parameters + row.fixed, row.connections) for row in named
    ] == DOC_0
    assert [(row.parameters, row.fixed) for row in named][-1] == (0, 840)
    others = [row for row in summary.rows if not row.name]
    assert {row.operation for row in others} == {"ScaledTanh", "Flatten"}
    assert all(row.parameters == row.connections == row.multiply_adds == 0 for row in others)
    assert summary.total("parameters") == 60_000
    assert summary.total("fixed") == 840
    assert summary.total("connections") == 340_908  # the paper's own count, section II.B


def test_lenet_sigmoid_is_doc_4s_table() -> None:
    rows = summarise(get_model("lenet_sigmoid")).rows
    assert [(row.operation.split()[0], row.output) for row in rows] == DOC_4


def test_doc_2s_shapes_at_32() -> None:
    rows = summarise(get_model("lenet", input_size=32)).rows
    shapes = [row.output for row in rows if row.operation.startswith(("Conv", "MaxPool"))]
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5)]


def test_full_size_nets_are_summed_without_a_weight_in_memory() -> None:
    net = get_model("vgg16", classes=1000)
    summary = summarise(net)
    assert summary.total("parameters") == 138_357_544
    # 13 convolutions of 9·in·out·H·W and three dense layers
    assert summary.total("multiply_adds") == 15_470_264_320
    assert all(parameter._data is None for parameter in net.collect_params().values())
    assert summarise(get_model("alexnet")).rows[12].output == (256, 5, 5)


@pytest.mark.parametrize("name", [name for name in MODELS if "vgg" not in name])
def test_shapes_and_parameters_are_those_of_a_real_pass(name: str) -> None:
    net = get_model(name, in_channels=2, input_size=71)
    net.initialize()
    summary = summarise(net)
    x = mx.nd.zeros((1, *net.input_shape))
    assert [row.path for row in summary.rows] == [path for path, _ in leaves(net)]
    for n, row in enumerate(summary.rows, start=1):
        assert first_layers(net, n)(x).shape == (1, *row.output)
    stored = sum(parameter.data().size for parameter in net.collect_params().values())
    assert stored == sum(map(summary.total, ("parameters", "fixed", "statistics")))


def test_work_of_each_kind_of_layer() -> None:
    rows = {row.path: row for row in summarise(get_model("mnist_bn_cnn")).rows}
    conv, norm, pool = rows["features.3"], rows["features.4"], rows["features.6"]
    outputs = 32 * 24 * 24
    assert (conv.connections, conv.multiply_adds) == (outputs * (9 * 16 + 1), outputs * 9 * 16)
    assert (norm.parameters, norm.statistics, norm.multiply_adds) == (64, 64, outputs)
    assert (pool.connections, pool.multiply_adds) == (32 * 12 * 12 * 4, 0)
    dense = rows["classifier.1"]
    assert (dense.connections, dense.multiply_adds) == (2049 * 1024, 2048 * 1024)


def test_unknown_layers_are_not_counted_as_free() -> None:
    net = get_model("lenet")
    net.features.add(mx.gluon.nn.GlobalAvgPool2D())
    with pytest.raises(TypeError, match=r"features\.6: the work of a GlobalAvgPool2D"):
        summarise(net)


def test_table_as_text() -> None:
    lines = table(summarise(get_model("lenet5"))).splitlines()
    assert lines[0] == "lenet5: input 1×32×32, 10 classes"
    words = {line.split()[0]: " ".join(line.split()) for line in lines if line}
    assert words["C3"] == "C3 features.4 TableConv2D 5×5 16×10×10 1,516 151,600 150,000"
    assert words["output"] == "output classifier.3 RBFOutput 10 840 fixed 840 840"
    assert words["features.1"] == "features.1 ScaledTanh 6×28×28 – – –"
    assert words["total"] == "total 60,000 340,908 328,096"
    assert len({len(line) for line in lines[2:-2]}) == 1  # the columns end where they should
    assert lines[-1].startswith("60,000 trainable parameters, 840 fixed;")
    assert "running statistics" in table(summarise(get_model("vgg11_bn")))
    assert "stride 4" in table(summarise(get_model("alexnet")))
    assert "C1" not in table(summarise(get_model("lenet")))


def test_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vgg16", "--input-size", "32", "--classes", "3", "--in-channels", "1"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("vgg16: input 1×32×32, 3 classes\n")
    assert output == table(summarise(get_model("vgg16", 3, 1, 32))) + "\n"


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lenet5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    named = [row for row in found["rows"] if row["name"]]
    assert [
        (row["name"], tuple(row["output"]), row["parameters"] + row["fixed"], row["connections"])
        for row in named
    ] == DOC_0
    assert found["totals"]["parameters"] == 60_000
    assert found["input_shape"] == [1, 32, 32]
    assert found["least_input_size"] == 32


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resnet"], 2, "invalid choice: 'resnet'"),
        ([], 2, "MODEL"),
        (["lenet", "--classes", "0"], 2, "got '0'"),
        (["lenet", "--input-size", "x"], 2, "got 'x'"),
        (["lenet", "--input-size", "9"], 1, "the least input size is 16"),
        (["lenet5", "--classes", "3"], 1, "lenet5 has 10 classes, not 3"),
    ],
)
def test_command_refuses_in_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_help_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "(default: 10)" in capsys.readouterr().out
