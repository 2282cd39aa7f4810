"""The documents' recipes as written, and our default for each model: the twin of Gluon's table.

Written a second time on purpose: a shared table would share its mistakes.
"""

from __future__ import annotations

from cnn_harness.config import TrainConfig

__all__ = ["DEFAULTS", "DOCUMENTS"]

DOCUMENTS: dict[str, TrainConfig] = {
    "lenet-sigmoid-fashion-mnist": TrainConfig(
        model="lenet_sigmoid", dataset="fashion_mnist", normalise="unit", initialiser="xavier",
        optimizer="sgd", lr=0.9, schedule="constant", batch_size=256, epochs=10,
    ),
    "cifar-cnn-cifar10": TrainConfig(
        model="cifar_cnn", dataset="cifar10", normalise="half", initialiser="xavier",
        optimizer="sgd", lr=0.001, momentum=0.9, schedule="constant", batch_size=4, epochs=10,
    ),
    "gluon-lenet-mnist": TrainConfig(
        model="lenet", dataset="mnist", normalise="raw", initialiser="xavier",
        optimizer="adam", lr=0.01, schedule="constant", batch_size=500, epochs=10,
    ),
    "bn-cnn-mnist": TrainConfig(
        model="mnist_bn_cnn", dataset="mnist", normalise="half", initialiser="xavier",
        optimizer="adam", lr=0.001, schedule="constant", batch_size=100, epochs=3,
    ),
}  # fmt: skip
# The names that the documents have in docs/sources.md: each the same recipe
DOCUMENTS |= {
    "doc-0": DOCUMENTS["lenet-sigmoid-fashion-mnist"],
    "doc-1": DOCUMENTS["cifar-cnn-cifar10"],
    "doc-2": DOCUMENTS["gluon-lenet-mnist"],
    "doc-3": DOCUMENTS["bn-cnn-mnist"],
}

_PHOTOGRAPHS = TrainConfig(
    model="alexnet", normalise="standard", augment="crop-flip", initialiser="he",
    optimizer="adam", lr=0.0002, schedule="cosine", warmup_epochs=1, batch_size=16, epochs=20,
)  # fmt: skip

DEFAULTS: dict[str, TrainConfig] = {
    "lenet": TrainConfig(
        model="lenet", normalise="standard", augment="shift", initialiser="xavier",
        optimizer="adam", lr=0.003, schedule="cosine", batch_size=64, epochs=15,
    ),
    "lenet_sigmoid": TrainConfig(
        model="lenet_sigmoid", normalise="standard", augment="none", initialiser="he",
        optimizer="adam", lr=0.01, schedule="cosine", batch_size=64, epochs=15,
    ),
    "lenet_linear": TrainConfig(
        model="lenet_linear", normalise="standard", augment="none", initialiser="xavier",
        optimizer="adam", lr=0.001, schedule="cosine", batch_size=64, epochs=20,
    ),
    "lenet5": TrainConfig(
        model="lenet5", normalise="lenet5", augment="none", initialiser="xavier",
        image_size=32, fit="pad",
        optimizer="adam", lr=0.004, schedule="cosine", batch_size=32, epochs=15,
    ),
    "cifar_cnn": TrainConfig(
        model="cifar_cnn", normalise="standard", augment="crop-flip", initialiser="he",
        optimizer="adam", lr=0.002, schedule="cosine", batch_size=64, epochs=20,
    ),
    "mnist_bn_cnn": TrainConfig(
        model="mnist_bn_cnn", normalise="standard", augment="shift", initialiser="he",
        optimizer="adam", lr=0.001, schedule="cosine", batch_size=100, epochs=3,
    ),
    "alexnet": _PHOTOGRAPHS,
    "vgg11": _PHOTOGRAPHS.replace(model="vgg11", lr=0.0001),
    "vgg13": _PHOTOGRAPHS.replace(model="vgg13", lr=0.0001),
    "vgg16": _PHOTOGRAPHS.replace(model="vgg16", lr=0.0001),
    "vgg19": _PHOTOGRAPHS.replace(model="vgg19", lr=0.0001),
    "vgg11_bn": _PHOTOGRAPHS.replace(model="vgg11_bn", lr=0.0001),
    "vgg13_bn": _PHOTOGRAPHS.replace(model="vgg13_bn", lr=0.0001),
    "vgg16_bn": _PHOTOGRAPHS.replace(model="vgg16_bn", lr=0.0001),
    "vgg19_bn": _PHOTOGRAPHS.replace(model="vgg19_bn", lr=0.0001),
}  # fmt: skip
