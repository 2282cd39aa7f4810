"""The table of models: counts, shapes, leaf order, errors; and the layers they share."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from mxnet_files.reading.params_file import read_params, write_params
from torch_ref.models import (
    MODELS,
    ClassicCNN,
    ModelError,
    first_layers,
    get_model,
    least_input_size,
    leaves,
)
from torch_ref.models.layers import MXBatchNorm2d, conv, output_shape
from torch_ref.transfer import to_gluon, to_torch

# doc-0 to doc-3, and Simonyan and Zisserman 2014 with ten classes
PARAMETERS = {
    "lenet": 44_426,
    "lenet_sigmoid": 61_706,
    "lenet_linear": 61_610,
    "lenet5": 60_000,
    "cifar_cnn": 76_922,
    "mnist_bn_cnn": 2_328_298,
    "alexnet": 45_510_474,
    "vgg11": 128_807_306,
    "vgg13": 128_991_818,
    "vgg16": 134_301_514,
    "vgg19": 139_611_210,
    "vgg11_bn": 128_812_810,
    "vgg13_bn": 128_997_706,
    "vgg16_bn": 134_309_962,
    "vgg19_bn": 139_622_218,
}
SMALL = ("lenet", "lenet_sigmoid", "lenet_linear", "lenet5", "cifar_cnn", "mnist_bn_cnn")

# one letter a leaf: convolution, Normalisation, Relu, Sigmoid, Tanh, Max and Average pooling,
# suBsampling, Flatten, Dropout, dense (linear), Euclidean output
LEAVES = {
    "lenet": ("cRMcRM", "FlRlRl"),
    "lenet_sigmoid": ("cSAcSA", "FlSlSl"),
    "lenet_linear": ("cMcM", "Flll"),
    "lenet5": ("cTBTcTBTcT", "FlTE"),
    "cifar_cnn": ("cRMcRM", "FlRl"),
    "mnist_bn_cnn": ("cNRcNRMcNRcNRM", "FlRll"),
    "alexnet": ("cRMcRMcRcRcRM", "FDlRDlRl"),
    "vgg11": ("cRM" "cRM" "cRcRM" "cRcRM" "cRcRM", "FlRDlRDl"),
    "vgg16": ("cRcRM" "cRcRM" "cRcRcRM" "cRcRcRM" "cRcRcRM", "FlRDlRDl"),
    "vgg13_bn": ("cNRcNRM" * 5, "FlRDlRDl"),
}  # fmt: skip
LETTERS = {
    "Conv2d": "c", "TableConv2D": "c", "MXBatchNorm2d": "N", "ReLU": "R", "Sigmoid": "S",
    "ScaledTanh": "T", "MaxPool2d": "M", "AvgPool2d": "A", "TrainableSubsampling": "B",
    "Flatten": "F", "Dropout": "D", "Linear": "l", "RBFOutput": "E",
}  # fmt: skip


def on_meta(name: str, **options: object) -> ClassicCNN:
    """A net of shapes alone, so that the largest costs nothing."""
    with torch.device("meta"):
        return get_model(name, **options)  # type: ignore[arg-type]


def leaf_shapes(net: ClassicCNN, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """What every leaf really puts out, for a batch of `shape`."""
    shapes = []
    x = torch.empty(shape, device="meta")
    for _, leaf in leaves(net.eval()):
        x = leaf(x)
        shapes.append(tuple(x.shape))
    return shapes


def test_the_table_holds_the_documents_models() -> None:
    assert list(MODELS) == list(PARAMETERS)


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name: str) -> None:
    net = on_meta(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


def test_lenet_on_larger_pictures_has_the_other_count_of_doc_2() -> None:
    assert sum(p.numel() for p in get_model("lenet", input_size=32).parameters()) == 61_706


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_are_single_operations_in_order(name: str) -> None:
    net = on_meta(name)
    for part, letters in zip((net.features, net.classifier), LEAVES[name], strict=True):
        assert "".join(LETTERS[type(leaf).__name__] for leaf in part) == letters
    assert [path for path, _ in leaves(net)] == [
        *(f"features.{i}" for i in range(len(net.features))),
        *(f"classifier.{i}" for i in range(len(net.classifier))),
    ]


def test_the_batch_norm_variants_only_add_normalisation() -> None:
    for base in ("vgg11", "vgg13", "vgg16", "vgg19"):
        plain, normalised = on_meta(base), on_meta(f"{base}_bn")
        kept = [str(m) for m in normalised.features if not isinstance(m, MXBatchNorm2d)]
        assert kept == [str(m) for m in plain.features]
        for before, after in pairwise(normalised.features):
            assert isinstance(after, MXBatchNorm2d) == isinstance(before, nn.Conv2d)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_on_its_own_input(name: str) -> None:
    net = on_meta(name)
    entry = MODELS[name]
    assert net.model_name == name
    assert net.input_shape == entry.input_shape
    assert net.classes == 10
    assert net.smallest_wins == (name == "lenet5")
    assert leaf_shapes(net, (3, *net.input_shape))[-1] == (3, 10)


def test_shapes_of_the_documents() -> None:
    sigmoid = leaf_shapes(on_meta("lenet_sigmoid"), (1, 1, 28, 28))
    assert sigmoid == [
        (1, 6, 28, 28), (1, 6, 28, 28), (1, 6, 14, 14),
        (1, 16, 10, 10), (1, 16, 10, 10), (1, 16, 5, 5),
        (1, 400), (1, 120), (1, 120), (1, 84), (1, 84), (1, 10),
    ]  # fmt: skip
    lenet = leaf_shapes(on_meta("lenet", input_size=32), (1, 1, 32, 32))
    assert [lenet[i][1:] for i in (0, 2, 3, 5)] == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5),
    ]  # fmt: skip
    assert leaf_shapes(on_meta("alexnet"), (1, 3, 224, 224))[12] == (1, 256, 5, 5)
    assert leaf_shapes(on_meta("vgg16"), (1, 3, 224, 224))[30] == (1, 512, 7, 7)


@pytest.mark.parametrize("name", MODELS)
def test_the_least_input_size_is_the_least_that_works(name: str) -> None:
    least = least_input_size(name)
    net = on_meta(name, input_size=least)
    assert leaf_shapes(net, (1, *net.input_shape))[-1] == (1, 10)
    with pytest.raises(ModelError, match=rf"too small: features\.\d+ .* size is {least}$"):
        on_meta(name, input_size=least - 1)


def test_an_input_too_small_names_the_layer() -> None:
    with pytest.raises(ModelError) as caught:
        get_model("vgg16", input_size=16)
    assert "an input of 16×16 is too small" in str(caught.value)
    assert "features.30 (MaxPool2d 2×2) would get 1×1" in str(caught.value)


def test_channels_classes_and_sizes_can_be_chosen() -> None:
    net = get_model("cifar_cnn", classes=3, in_channels=4, input_size=20)
    assert net.input_shape == (4, 20, 20)
    assert net.classes == 3
    assert net(torch.zeros(2, 4, 20, 20)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet6", {}, "unknown model 'lenet6'; known: lenet, .*, vgg19_bn; did you mean lenet"),
        ("lenet", {"classes": 0}, "classes is 0, expected a whole number of at least 1"),
        ("lenet", {"in_channels": -1}, "in_channels is -1"),
        ("lenet", {"input_size": 0}, "input_size is 0"),
        ("lenet", {"classes": 2.5}, "classes is 2.5"),
        ("lenet", {"classes": True}, "classes is True"),
        ("lenet", {"dropout": 0.1}, "lenet has no option dropout; it has none"),
        ("alexnet", {"logit_relu": True}, "no option logit_relu; it has dropout"),
        ("alexnet", {"dropout": 1.0}, "dropout is 1.0"),
        ("vgg11", {"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        get_model(name, **options)


def test_logit_relu_appends_the_documents_relu() -> None:
    net = get_model("cifar_cnn", logit_relu=True)
    assert [type(m).__name__ for m in net.classifier][-2:] == ["Linear", "ReLU"]
    assert net(torch.randn(4, 3, 32, 32)).min() >= 0


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn"])
def test_dropout_reaches_every_dropout(name: str) -> None:
    for net, p in ((on_meta(name), 0.5), (on_meta(name, dropout=0.125), 0.125)):
        assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [p, p]


def test_first_layers_share_the_nets_parameters() -> None:
    net = get_model("lenet").eval()
    x = torch.randn(2, *net.input_shape)
    steps = [x]
    for _, leaf in leaves(net):
        steps.append(leaf(steps[-1]))
    for n in range(1, 13):
        assert torch.equal(first_layers(net, n)(x), steps[n])
    assert torch.equal(steps[-1], net(x))
    cut = first_layers(net, 4)
    assert cut[0].weight is net.features[0].weight
    assert cut[3].bias is net.features[3].bias
    for n in (0, -1, 13):
        with pytest.raises(ModelError, match=f"lenet cannot be cut after {n} layers, expected"):
            first_layers(net, n)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2),
    st.sampled_from(["conv", "max", "average"]),
)  # fmt: skip
def test_shape_arithmetic_is_torchs(n: int, f: int, s: int, p: int, kind: str) -> None:
    assume(kind == "conv" or p <= f // 2)  # torch's pools refuse more
    layer: nn.Module = {
        "conv": nn.Conv2d(2, 3, f, s, p),
        "max": nn.MaxPool2d(f, s, p),
        "average": nn.AvgPool2d(f, s, p),
    }[kind]
    expected = output_shape(layer, (2, n, n + 1))
    x = torch.zeros(1, 2, n, n + 1)
    if expected is None:
        with pytest.raises(RuntimeError):
            layer(x)
    else:
        assert tuple(layer(x).shape[1:]) == expected


def test_convolution_by_hand() -> None:
    """doc-4's numbers."""
    one, two = torch.tensor([[0.0, 1], [2, 3]]), torch.tensor([[1.0, 2], [3, 4]])
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    layer = nn.Conv2d(1, 1, 2, bias=False)
    layer.weight.data = one[None, None]
    assert layer(x).flatten().tolist() == [19, 25, 37, 43]
    layer = nn.Conv2d(2, 1, 2, bias=False)
    layer.weight.data = torch.stack([one, two])[None]
    assert layer(torch.cat([x, x + 1], dim=1))[0, 0, 0, 0] == 56


# Weights there and back.


@pytest.mark.parametrize("name", MODELS)
def test_every_name_of_every_model_makes_the_round_trip(name: str) -> None:
    """One unique value a tensor; names only, so that the largest nets cost nothing."""
    names = [n for n in on_meta(name).state_dict() if not n.endswith("num_batches_tracked")]
    state = {n: np.array([i], np.float32) for i, n in enumerate(names)}
    gluon = to_gluon(state)
    assert len(gluon) == len(state)
    back = to_torch(gluon, state)
    assert {n: a.tolist() for n, a in back.items()} == {n: a.tolist() for n, a in state.items()}
    roles = {n.rpartition(".")[2] for n in gluon}
    normalised = {"gamma", "beta", "running_mean", "running_var"}
    assert roles & normalised == (normalised if "bn" in name else set())


@pytest.mark.parametrize("name", SMALL)
def test_a_params_file_carries_a_whole_net(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = get_model(name).eval()
    for module in net.modules():
        if isinstance(module, MXBatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_mean"))
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
            nn.init.uniform_(module.weight)
            nn.init.uniform_(module.bias)
    state = {n: t.numpy() for n, t in net.state_dict().items()}
    write_params(tmp_path / "net.params", to_gluon(state))
    torch.manual_seed(2)
    other = get_model(name).eval()
    like = {n: t.numpy() for n, t in other.state_dict().items()}
    moved = to_torch(read_params(tmp_path / "net.params"), like)
    other.load_state_dict({n: torch.from_numpy(a) for n, a in moved.items()})
    x = torch.randn(3, *net.input_shape)
    assert torch.equal(net(x), other(x))


# The layers with conventions of their own.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.9, 0.1])
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (2, 3, 1, 1), (1, 3, 1, 1)])
def test_batch_norm_keeps_mxnets_statistics(
    dtype: str, momentum: float, shape: tuple[int, ...]
) -> None:
    mx = pytest.importorskip("mxnet")
    rng = np.random.default_rng(3)
    start = {name: rng.uniform(0.5, 2, 3).astype(dtype) for name in
             ("gamma", "beta", "running_mean", "running_var")}  # fmt: skip
    theirs = mx.gluon.nn.BatchNorm(in_channels=3, momentum=momentum)
    theirs.cast(dtype)
    theirs.initialize()
    for name, values in start.items():
        getattr(theirs, name).set_data(mx.nd.array(values, dtype=dtype))
    ours = MXBatchNorm2d(3, momentum=momentum).to(getattr(torch, dtype))
    ours.load_state_dict({n: torch.from_numpy(a) for n, a in to_torch(start).items()})
    u = float(np.finfo(dtype).eps) / 2
    for _ in range(4):
        x, dy = (rng.normal(1, 3, shape).astype(dtype) for _ in range(2))
        theirs_x = mx.nd.array(x, dtype=dtype)
        theirs_x.attach_grad()
        with mx.autograd.record():
            theirs_y = theirs(theirs_x)
        theirs_y.backward(mx.nd.array(dy, dtype=dtype))
        ours_x = torch.from_numpy(x).requires_grad_()
        ours_y = ours(ours_x)
        ours_y.backward(torch.from_numpy(dy))
        for name in ("running_mean", "running_var"):
            expected = getattr(theirs, name).data().asnumpy()
            got = ours.get_buffer(name).numpy()
            assert np.abs(got - expected).max() <= 32 * u * np.abs(expected).max()
        sums = scales(x.astype(float), dy.astype(float), start["gamma"], start["beta"])
        pairs = ((ours_y, theirs_y), (ours_x.grad, theirs_x.grad))
        for (got, expected), scale in zip(pairs, sums, strict=True):
            error = np.abs(got.detach().numpy() - expected.asnumpy())
            assert (error <= 16 * u * scale).all()
    x = rng.normal(1, 3, shape).astype(dtype)
    got = ours.eval()(torch.from_numpy(x)).detach().numpy()
    expected = theirs(mx.nd.array(x, dtype=dtype)).asnumpy()
    assert np.abs(got - expected).max() <= 64 * u * np.abs(expected).max()
    assert ours.num_batches_tracked == 4


def scales(
    x: np.ndarray, dy: np.ndarray, gamma: np.ndarray, beta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The sums of absolute values behind a batch norm's output and its input's gradient."""

    def mean(a: np.ndarray) -> np.ndarray:
        return a.mean((0, 2, 3), keepdims=True)

    sigma = np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    size = (np.abs(x) + np.abs(mean(x))) / sigma  # |x̂| before x and its mean cancel
    gamma, beta = gamma[:, None, None], beta[:, None, None]
    dy = np.abs(dy)
    return gamma * size + beta, gamma / sigma * (dy + mean(dy) + size * mean(dy * size))


def test_torchs_own_batch_norm_would_not_do() -> None:
    x = torch.randn(2, 3, 4, 4)
    ours, torchs = MXBatchNorm2d(3, momentum=0.9), nn.BatchNorm2d(3, momentum=1 - 0.9)
    assert torch.equal(ours(x), torchs(x))
    assert torch.allclose(ours.get_buffer("running_mean"), torchs.get_buffer("running_mean"))
    batch, torchs_batch = (m.get_buffer("running_var") - 0.9 for m in (ours, torchs))
    ratio = torchs_batch / batch
    assert torch.allclose(ratio, torch.tensor(32 / 31), rtol=1e-4)
    assert ours.momentum == pytest.approx(0.1)


def test_a_window_that_no_input_fits_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no input of 4096 pixels a side fits features\.0"):
        ClassicCNN("wide", (conv(1, 5000),), (), 10, 1, 28)
