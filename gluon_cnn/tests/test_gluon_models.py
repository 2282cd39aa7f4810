"""Every model: its size, its names, and that it computes the same in every form it can take."""

from __future__ import annotations

import math
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import SymbolBlock, nn

from gluon_cnn.models import (
    MODELS,
    ClassicCNN,
    ModelError,
    first_layers,
    get_model,
    least_input_size,
    leaves,
    output_size,
    same_padding,
)
from gluon_cnn.models.arithmetic import WindowError
from gluon_cnn.models.layers import conv

# name: (input, trainable parameters at 10 classes, untrained ones, least input size)
FIGURES = {
    "lenet": ((1, 28, 28), 44_426, 0, 16),
    "lenet_sigmoid": ((1, 28, 28), 61_706, 0, 12),
    "lenet_linear": ((1, 28, 28), 61_610, 0, 12),
    "lenet5": ((1, 32, 32), 60_000, 840, 32),
    "cifar_cnn": ((3, 32, 32), 76_922, 0, 12),
    "mnist_bn_cnn": ((1, 28, 28), 2_328_298, 480, 16),
    "alexnet": ((3, 224, 224), 45_510_474, 0, 67),
    "vgg11": ((3, 224, 224), 128_807_306, 0, 32),
    "vgg13": ((3, 224, 224), 128_991_818, 0, 32),
    "vgg16": ((3, 224, 224), 134_301_514, 0, 32),
    "vgg19": ((3, 224, 224), 139_611_210, 0, 32),
    "vgg11_bn": ((3, 224, 224), 128_812_810, 5_504, 32),
    "vgg13_bn": ((3, 224, 224), 128_997_706, 5_888, 32),
    "vgg16_bn": ((3, 224, 224), 134_309_962, 8_448, 32),
    "vgg19_bn": ((3, 224, 224), 139_622_218, 11_008, 32),
}

# The order of the leaves, which the twins in torch_ref share.
LEAVES = {
    "lenet": "conv relu maxpool conv relu maxpool | flatten dense relu dense relu dense",
    "lenet_sigmoid": (
        "conv sigmoid avgpool conv sigmoid avgpool | flatten dense sigmoid dense sigmoid dense"
    ),
    "lenet_linear": "conv maxpool conv maxpool | flatten dense dense dense",
    "lenet5": (
        "conv scaledtanh trainablesubsampling scaledtanh tableconv scaledtanh "
        "trainablesubsampling scaledtanh conv scaledtanh | flatten dense scaledtanh rbfoutput"
    ),
    "cifar_cnn": "conv relu maxpool conv relu maxpool | flatten dense relu dense",
    "mnist_bn_cnn": (
        "conv batchnorm relu conv batchnorm relu maxpool conv batchnorm relu conv batchnorm relu "
        "maxpool | flatten dense relu dense dense"
    ),
    "alexnet": (
        "conv relu maxpool conv relu maxpool conv relu conv relu conv relu maxpool | "
        "flatten dropout dense relu dropout dense relu dense"
    ),
    "vgg11": (
        "conv relu maxpool conv relu maxpool conv relu conv relu maxpool conv relu conv relu "
        "maxpool conv relu conv relu maxpool | flatten dense relu dropout dense relu dropout dense"
    ),
}


def count(net: mx.gluon.Block, trained: bool) -> int:
    parameters = net.collect_params().values()
    return sum(math.prod(p.shape) for p in parameters if (p.grad_req != "null") == trained)


def initialised(name: str, **sizes: int) -> mx.gluon.HybridBlock:
    """A net whose signal neither dies nor explodes, with no weight, bias or statistic left at 0."""
    mx.random.seed(1)
    generator = np.random.default_rng(1)
    net = get_model(name, **sizes)
    net.initialize(mx.init.Xavier(factor_type="in", magnitude=6))  # He et al. 2015, uniform
    for path, parameter in net._collect_params_with_prefix().items():
        if len(parameter.shape) == 1:
            positive = path.endswith(("weight", "gamma", "running_var"))
            low, high = (0.5, 1.5) if positive else (-0.1, 0.1)
            parameter.set_data(mx.nd.array(generator.uniform(low, high, parameter.shape)))
    return net


def samples(net: mx.gluon.HybridBlock, n: int = 2) -> mx.nd.NDArray:
    pixels = np.random.default_rng(0).uniform(-1, 1, (n, *net.input_shape))
    return mx.nd.array(pixels)


def test_every_model_has_its_figures_here() -> None:
    assert list(MODELS) == list(FIGURES)


@pytest.mark.parametrize("name", MODELS)
def test_size_is_the_documents(name: str) -> None:
    shape, trained, untrained, least = FIGURES[name]
    net = get_model(name)
    assert (net.model_name, net.input_shape, net.classes) == (name, shape, 10)
    assert MODELS[name].input_shape == shape
    assert count(net, trained=True) == trained
    assert count(net, trained=False) == untrained
    assert least_input_size(name) == least
    assert net.smallest_wins == (name == "lenet5")


def test_other_sizes() -> None:
    assert count(get_model("lenet", input_size=32), trained=True) == 61_706  # doc-2
    assert count(get_model("vgg16", classes=1000), trained=True) == 138_357_544  # the paper's 138 M
    assert get_model("vgg16", input_size=32).classifier[1].weight.shape == (4096, 512)
    assert get_model("lenet", classes=3, in_channels=3).features[0].weight.shape == (6, 3, 5, 5)


@pytest.mark.parametrize("name", LEAVES)
def test_every_operation_is_a_leaf_in_the_agreed_order(name: str) -> None:
    def kind(leaf: mx.gluon.HybridBlock) -> str:
        if isinstance(leaf, nn.Activation):
            return leaf._act_type
        return type(leaf).__name__.lower().removesuffix("2d")

    net = get_model(name)
    parts = (" ".join(kind(leaf) for leaf in part) for part in (net.features, net.classifier))
    assert " | ".join(parts) == LEAVES[name]
    paths = [f"{part}.{i}" for part in ("features", "classifier") for i in range(99)]
    assert [path for path, _ in leaves(net)] == [
        p for p in paths if int(p.split(".")[1]) < len(getattr(net, p.split(".")[0]))
    ]


@pytest.mark.parametrize("name", MODELS)
def test_names_follow_the_place_whatever_was_built_before(name: str) -> None:
    first = get_model(name)
    nn.Dense(1), nn.HybridSequential()
    with nn.HybridSequential().name_scope():
        nn.Conv2D(1, 1)
    second = get_model(name)
    full = [parameter.name for parameter in first._collect_params_with_prefix().values()]
    assert full == [f"{name}_{path.replace('.', '_')}" for path in paths_of(first)]
    assert full == list(second.collect_params()) == list(first.collect_params())
    data = mx.sym.var("data")
    assert first(data).tojson() == second(data).tojson()


def paths_of(net: mx.gluon.HybridBlock) -> list[str]:
    return list(net._collect_params_with_prefix())


def test_structural_names() -> None:
    assert paths_of(get_model("lenet"))[:3] == [
        "features.0.weight",
        "features.0.bias",
        "features.3.weight",
    ]
    assert "classifier.3.bitmaps" in paths_of(get_model("lenet5"))
    assert "features.1.running_mean" in paths_of(get_model("vgg11_bn"))


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # SymbolBlock finds it at the first call
@pytest.mark.parametrize("name", MODELS)
def test_hybridized_exported_and_reloaded_it_computes_the_same(name: str, tmp_path: Path) -> None:
    net = initialised(name, input_size=least_input_size(name))
    x = samples(net)
    imperative = net(x).asnumpy()
    assert imperative.shape == (2, 10)
    assert np.abs(imperative[0] - imperative[1]).max() > 1e-3  # the input does matter

    net.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_array_equal(net(x).asnumpy(), imperative)

    net.export(str(tmp_path / name))
    symbol, params = tmp_path / f"{name}-symbol.json", tmp_path / f"{name}-0000.params"
    reloaded = SymbolBlock.imports(str(symbol), ["data"], str(params))
    params.unlink()  # pytest keeps the folder, and these are up to 150 MB
    np.testing.assert_array_equal(reloaded(x).asnumpy(), imperative)


# One VGG stands for all: they differ in the number of convolutions alone.
@pytest.mark.parametrize("name", [n for n in MODELS if n == "vgg11_bn" or "vgg" not in n])
def test_float64_with_gradients(name: str) -> None:
    net = initialised(name, input_size=least_input_size(name))
    x = samples(net, 1)
    single = net(x).asnumpy()
    net.cast("float64")
    assert {parameter.data().dtype for parameter in net.collect_params().values()} == {np.float64}
    x = x.astype("float64")
    x.attach_grad()
    with mx.autograd.record(train_mode=False):
        double = net(x)
    double.backward()
    assert double.dtype == np.float64
    np.testing.assert_allclose(double.asnumpy(), single, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(double.asnumpy(), single)  # it did compute in another precision
    assert x.grad.dtype == np.float64
    assert np.abs(x.grad.asnumpy()).max() > 0


def test_cast_before_initialisation() -> None:
    net = get_model("lenet5")
    net.cast("float64")
    net.initialize()
    assert net(samples(net).astype("float64")).dtype == np.float64


def test_cut_after_the_first_layers_shares_parameters() -> None:
    net = initialised("cifar_cnn")
    x = samples(net)
    blocks = [leaf for _, leaf in leaves(net)]
    for n in range(1, len(blocks) + 1):
        cut = first_layers(net, n)
        x_n = x
        for block in blocks[:n]:
            x_n = block(x_n)
        np.testing.assert_array_equal(cut(x).asnumpy(), x_n.asnumpy())
    np.testing.assert_array_equal(cut(x).asnumpy(), net(x).asnumpy())
    assert first_layers(net, 4)[3].weight is net.features[3].weight
    assert list(first_layers(net, 4).collect_params()) == list(net.collect_params())[:4]


@pytest.mark.parametrize("n", [0, -1, 13, 1.5, True])
def test_cut_out_of_range(n: int) -> None:
    with pytest.raises(ModelError, match="whole number from 1 to 12"):
        first_layers(get_model("lenet"), n)


def test_logit_relu_puts_the_documents_fault_back() -> None:
    plain, faulty = initialised("cifar_cnn"), get_model("cifar_cnn", logit_relu=True)
    faulty.initialize()
    for path, parameter in faulty._collect_params_with_prefix().items():
        parameter.set_data(plain._collect_params_with_prefix()[path].data())
    x = samples(plain)
    logits = plain(x).asnumpy()
    assert (logits < 0).any()
    np.testing.assert_array_equal(faulty(x).asnumpy(), np.maximum(logits, 0))


def test_dropout_rate_is_an_option() -> None:
    assert [
        leaf._rate for leaf in get_model("vgg11").classifier if isinstance(leaf, nn.Dropout)
    ] == [
        0.5,
        0.5,
    ]
    assert get_model("alexnet", dropout=0.25).classifier[1]._rate == 0.25


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("resnet", {}, "unknown model 'resnet'; known: lenet, lenet_sigmoid, .*vgg19_bn"),
        ("lenet", {"classes": 0}, "classes is 0, expected"),
        ("lenet", {"classes": True}, "classes is True, expected"),
        ("lenet", {"in_channels": -1}, "in_channels is -1, expected"),
        ("lenet", {"input_size": 0}, "input_size is 0, expected"),
        ("lenet", {"input_size": 2.5}, "input_size is 2.5, expected"),
        ("lenet", {"input_size": 15}, r"features.5 \(MaxPool2D 2×2\) would get 1×1.* size is 16"),
        ("lenet", {"input_size": 4}, r"features.0 \(Conv2D 5×5\) would get 4×4.* size is 16"),
        ("lenet5", {"input_size": 31}, r"features.8 \(Conv2D 5×5\) would get 4×4.* size is 32"),
        ("lenet5", {"classes": 26}, "lenet5 has 10 classes, not 26.*lenet_sigmoid"),
        ("vgg16", {"input_size": 31}, r"features.30 \(MaxPool2D 2×2\) would get 1×1.* size is 32"),
        ("vgg16", {"logit_relu": True}, "vgg16 has no option logit_relu; it has dropout"),
        ("lenet", {"dropout": 0.5}, "lenet has no option dropout; it has none"),
        ("alexnet", {"dropout": 1.0}, "dropout is 1.0, expected a probability"),
        ("alexnet", {"dropout": "high"}, "dropout is 'high', expected a probability"),
        ("lenet", {"classes": 2**31 - 1}, "lenet_classifier_5_weight would have 180,388,626,348"),
        ("lenet", {"input_size": 100_000}, "10,000,000,000 values, MXNet's arrays hold"),
    ],
)
def test_errors_teach_in_one_line(name: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        get_model(name, **sizes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_the_least_size_is_the_least(name: str) -> None:
    least = least_input_size(name)
    get_model(name, input_size=least)
    with pytest.raises(ModelError, match=f"least input size is {least}"):
        get_model(name, input_size=least - 1)


def test_output_size_counts_the_windows_that_fit() -> None:
    for n, f, p, s in np.ndindex(9, 6, 3, 4):
        n, f, s = n + 1, f + 1, s + 1
        starts = [start for start in range(-p, n + p, s) if start + f <= n + p]
        if starts:
            assert output_size(n, f, p, s) == len(starts)
        else:
            with pytest.raises(WindowError):
                output_size(n, f, p, s)


@pytest.mark.parametrize("numbers", [(0, 1, 0, 1), (1, 0, 0, 1), (1, 1, -1, 1), (1, 1, 0, 0)])
def test_output_size_refuses_nonsense(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        output_size(*numbers)


def test_same_padding_keeps_the_width() -> None:
    for f in (1, 3, 5, 11):
        assert output_size(28, f, same_padding(f)) == 28
    for f in (0, 2, -1):
        with pytest.raises(ValueError, match="odd"):
            same_padding(f)


def test_convolution_is_the_cross_correlation_of_doc_4() -> None:
    def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        layer = conv(1, 2)((len(x), 3, 3), "c_")
        layer.initialize()
        layer.weight.set_data(mx.nd.array(kernel[None]))
        return layer(mx.nd.array(x[None])).asnumpy()[0, 0]

    one, kernel = np.arange(9).reshape(1, 3, 3), np.arange(4).reshape(1, 2, 2)
    np.testing.assert_array_equal(correlate(one, kernel), [[19, 25], [37, 43]])
    two, kernels = np.concatenate([one, one + 1]), np.concatenate([kernel, kernel + 1])
    np.testing.assert_array_equal(correlate(two, kernels), [[56, 72], [104, 120]])


def test_a_window_that_no_input_fits_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no input of 4096 pixels a side fits features\.0"):
        ClassicCNN("wide", (conv(1, 5000),), (), 10, 1, 28)
