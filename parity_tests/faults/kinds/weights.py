"""Faults in weights and buffers that the nets were given: what a conversion may do to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity_tests.faults.base import Fault
from parity_tests.faults.kinds.pairs import Plant, edited, exchanged, in_model
from parity_tests.reporting.verdicts import Level

Change = Callable[[np.ndarray], np.ndarray]


def ten_bits(array: np.ndarray) -> np.ndarray:
    """Rounded to a mantissa of 10 bits and a hidden one, ties away from zero: TF32's input."""
    fraction, exponent = np.frexp(array.astype(np.float64))
    scaled = np.abs(fraction) * 2.0**11
    return np.ldexp(np.copysign(np.floor(scaled + 0.5) / 2.0**11, fraction), exponent).astype(
        array.dtype
    )


def _bfloat16(array: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(array).view(np.uint32)
    even = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (even & np.uint32(0xFFFF0000)).view(np.float32)


def _step_ulps(array: np.ndarray, count: int) -> np.ndarray:
    value = array.reshape(-1)[array.size // 2 :][:1]
    for _ in range(count):
        value[:] = np.nextafter(value, np.float32(np.inf))
    return array


def _channels_last(array: np.ndarray, channels: int) -> np.ndarray:
    """Columns of a dense layer, from channels first to channels last."""
    out = array.shape[0]
    return array.reshape(out, channels, -1).swapaxes(1, 2).reshape(out, -1)


def _planted(
    name: str, model: str, tensor: str, plant: Plant, diagnosis: str, imitates: str, source: str,
    group: str = "weights",
) -> Fault:  # fmt: skip
    run, where, path = in_model(model, plant), f"torch {model}, {tensor}", tensor.rpartition(".")[0]
    return Fault(name, where, run, Level.WEIGHTS, path, diagnosis, imitates, source, group=group)


def _fault(name: str, model: str, tensor: str, change: Change, *said: str) -> Fault:
    return _planted(name, model, tensor, edited(tensor, change), *said)


def _swap(name: str, model: str, first: str, second: str, *said: str) -> Fault:
    return _planted(name, model, first, exchanged(first, second), "swapped tensors", *said)


WEIGHTS: tuple[Fault, ...] = (
    _swap("exchanged weights of one shape", "vgg11", "features.16.weight", "features.18.weight",
          "weights moved by position instead of by name",
          "the commonest converter: zip(ours.values(), theirs.values())", "weights"),
    _swap("gamma and beta exchanged", "mnist_bn_cnn", "features.4.weight", "features.4.bias",
          "BatchNorm's two vectors loaded in the wrong order",
          "Gluon stores gamma, beta, running_mean, running_var; Keras lists them alike",
          "batchnorm"),
    _swap("mean and variance exchanged", "mnist_bn_cnn", "features.8.running_mean",
          "features.8.running_var", "the two running statistics loaded in the wrong order",
          "Caffe keeps mean and variance as blobs 0 and 1, without names", "batchnorm"),
    _fault("transposed square matrix", "alexnet", "classifier.5.weight", lambda a: a.T,
           "transposed weight", "a dense matrix kept as (in, out), whose shape cannot tell",
           "TensorFlow and Keras keep dense kernels (in, out); torch and MXNet (out, in)"),
    _fault("channel axes exchanged", "vgg11", "features.8.weight", lambda a: a.swapaxes(0, 1),
           "transposed weight", "(out, in, h, w) taken for (in, out, h, w) in a square layer",
           "the layout of Deconvolution in MXNet and torch, and of Keras' transposed layers"),
    _fault("kernel with rows for columns", "lenet", "features.3.weight",
           lambda a: a.swapaxes(2, 3), "transposed kernel", "(out, in, w, h) taken for (…, h, w)",
           "MatConvNet and Theano exports; column-major files"),
    _fault("flipped kernel", "cifar_cnn", "features.3.weight", lambda a: a[:, :, ::-1, ::-1],
           "flipped kernel", "weights of a true convolution used for a cross-correlation",
           "Theano's Convolution2D, converted by Keras' convert_kernel; doc-4 computes a "
           "cross-correlation"),
    _fault("bias dropped", "lenet", "features.3.bias", np.zeros_like, "zeroed tensor",
           "a layer converted without its bias", "converters that list *.weight only"),
    _fault("one weight off by 64 ulp", "lenet", "classifier.3.weight",
           lambda a: _step_ulps(a, 64), "single value", "one damaged number in a file",
           "MXNet's .params has no checksum: altered data loads without a word"),
    _fault("one layer through float16", "vgg11", "features.16.weight",
           lambda a: a.astype(np.float16).astype(np.float32), "float16 rounding",
           "a checkpoint stored in half precision", "AMP checkpoints; MXNet's amp.convert_model"),
    _fault("one layer through TF32", "vgg11", "features.18.weight", ten_bits, "TF32 rounding",
           "weights read back from a tensor core's input", "NVIDIA A100 whitepaper: 10 bits of "
           "mantissa, on by default for fp32 on Ampere unless NVIDIA_TF32_OVERRIDE=0"),
    _fault("one layer through bfloat16", "cifar_cnn", "classifier.1.weight", _bfloat16,
           "bfloat16 rounding", "a checkpoint saved by a bfloat16 trainer",
           "torch.autocast and TPU checkpoints"),
    _fault("beta negated", "mnist_bn_cnn", "features.4.bias", np.negative, "negated",
           "a sign lost on the way, which |a| − |b| passes", "abs on both sides of a comparison",
           "batchnorm"),
    _fault("colours reversed in the first kernel", "cifar_cnn", "features.0.weight",
           lambda a: a[:, ::-1], "BGR channels", "a first layer trained on BGR images",
           "OpenCV reads BGR; Caffe's ImageNet models were trained on it"),
    _fault("dense columns in channels-last order", "lenet", "classifier.1.weight",
           lambda a: _channels_last(a, 16), "NHWC flatten order",
           "the first dense layer of a net that flattened (H, W, C)",
           "TensorFlow and Keras flatten channels last"),
    _fault("classes moved by one", "lenet", "classifier.5.weight", lambda a: np.roll(a, 1, axis=0),
           "rolled rows", "an output layer with a background class in front",
           "TF-Slim's ImageNet models have 1,001 classes, label 0 the background"),
    _fault("dense weights halved", "alexnet", "classifier.2.weight", lambda a: a / 2,
           "constant factor", "weights of a net whose dropout does not scale in training",
           "Srivastava et al. 2014, section 10: p·W at test time"),
    _fault("gamma never trained", "mnist_bn_cnn", "features.1.weight", np.ones_like, "gamma ≡ 1",
           "fix_gamma, the operator's default: gamma is 1 whatever is stored",
           "apache/mxnet issue 9624: the gamma in the file is not the gamma computed with",
           "batchnorm"),
    _fault("variance stored unbiased", "mnist_bn_cnn", "features.8.running_var",
           lambda a: a * np.float32(800 / 799), "variance ratio n/(n−1)",
           "running variances of cuDNN or torch, n/(n−1) larger",
           "apache/mxnet issues 14357 and 18751: CPU and cuDNN store different variances",
           "batchnorm"),
    _fault("statistics never divided", "mnist_bn_cnn", "features.4.running_mean",
           lambda a: a * np.float32(999.98), "constant factor",
           "Caffe's running sums, kept with a factor of their own",
           "BVLC/caffe batch_norm_layer.cpp: blobs_[2] holds the scale", "batchnorm"),
    _fault("permuted filters", "lenet", "features.0.weight",
           lambda a: a[[1, 0, 2, 3, 4, 5]], "permuted rows",
           "filters sorted or merged in another order", "pruning and filter-sorting tools"),
    _fault("weights quantized to 8 bits", "vgg11", "classifier.1.weight",
           lambda a: (np.round(a / (np.abs(a).max() / 127)) * (np.abs(a).max() / 127))
           .astype(np.float32), "int8 rounding", "a model dequantized again",
           "mxnet.contrib.quantization, symmetric int8 with the largest value at 127"),
    _fault("layer left as it was initialised", "lenet", "classifier.1.weight",
           lambda a: np.random.default_rng(99).uniform(-0.07, 0.07, a.shape).astype(np.float32),
           "", "a layer that load_parameters(ignore_extra, allow_missing) skipped",
           "Gluon's allow_missing=True; torch's strict=False"),
)  # fmt: skip
