"""MXNet's Adam on a large float32 array of the CPU: the operator's arithmetic, in numpy, by blocks.

`adam_update` takes square root and quotient of one value at a time, which a fully connected layer
of 38 million weights feels: a seventh of AlexNet's step. numpy takes eight at a time. Each thread
works on a block that stays in the cache through the dozen passes; numpy lets others run meanwhile.

Every value is rounded as the operator rounds it, in its order
(https://github.com/apache/mxnet/blob/1.9.1/src/operator/optimizer_op-inl.h, AdamUpdateKernel).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache
from typing import NamedTuple

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from gluon_cnn.runtime import settings as runtime

# From this many values on threads share the work. LeNet's 400,000 are updated sooner by two than by
# one, but the whole step, which wakes a second thread while OpenMP's own still wait, takes longer.
SHARED = 1 << 20
ALONE = 1 << 17  # from here on one thread takes less time than the operator's, where those are
FEW = 2
BLOCK = 1 << 18  # a mebibyte of each array
THREADS = 8  # memory is no faster for more

_ONE = np.float32(1)


class Numbers(NamedTuple):
    """The operator's numbers, as it reads them."""

    lr: np.float32
    beta1: np.float32
    beta2: np.float32
    epsilon: np.float32
    wd: np.float32
    rescale_grad: np.float32
    clip_gradient: np.float32  # negative: not clipped


def suits(arrays: Sequence[mx.nd.NDArray]) -> bool:
    """Whether weight, gradient and slots are what is computed here."""
    smallest = ALONE if runtime.threads() <= FEW else SHARED
    return arrays[0].size >= smallest and all(
        a.stype == "default" and a.dtype == np.float32 and a.context.device_type == "cpu"
        for a in arrays
    )


class BlockedCall:
    """`mx.nd.adam_update` on arrays that stay: weight, gradient, mean and variance."""

    def __init__(self, arrays: tuple[mx.nd.NDArray, ...]) -> None:
        self.arrays = arrays

    def __call__(self, values: tuple[float, ...]) -> None:
        """Update by the operator's numbers: lr, beta1, beta2, epsilon, wd, rescale_grad, clip."""
        numbers = Numbers(*map(parse_as_mxnet_float32, values))
        views = [_memory(array) for array in self.arrays]
        size = views[0].size
        threads = max(1, min(runtime.threads(), THREADS)) if size >= SHARED else 1
        block = min(BLOCK, -(-size // threads)) if threads > 1 else size
        starts = iter(range(0, size, block))  # shared: next() on it is one step of Python
        others: list[Future[None]] = [
            _pool(os.getpid()).submit(_work, views, starts, block, numbers)
            for _ in range(threads - 1)
        ]
        _work(views, starts, block, numbers)
        for other in others:
            other.result()


@lru_cache(maxsize=64)
def parse_as_mxnet_float32(value: float) -> np.float32:
    """The float32 that an operator makes of a number, which it is given as text.

    dmlc-core reads digit by digit, and 3 in 10 small numbers come out a unit or two off.
    """
    weight, gradient = _units()
    return np.float32(-mx.nd.sgd_update(weight, gradient, lr=value, wd=0.0).asscalar())


@cache
def _units() -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    return mx.nd.zeros(1, ctx=mx.cpu()), mx.nd.ones(1, ctx=mx.cpu())


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """This process's threads: a forked one has none of its parent's."""
    return ThreadPoolExecutor(THREADS - 1, thread_name_prefix="adam")


def _memory(array: mx.nd.NDArray) -> np.ndarray:
    """The array's own memory, when nothing is left to write or read it.

    Asked for at each update: oneDNN's inference leaves weights in an order of its own, and asking
    puts them back.
    """
    address = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    check_call(_LIB.MXNDArrayWaitToWrite(array.handle))
    if address.value is None:
        raise ValueError("the array has no memory")
    return np.frombuffer((ctypes.c_float * array.size).from_address(address.value), np.float32)


def _work(views: Sequence[np.ndarray], starts: Iterator[int], block: int, numbers: Numbers) -> None:
    """Update one block after another, while there are any."""
    first, second = np.empty((2, block), np.float32)
    with np.errstate(all="ignore"):  # each thread has its own; the operator says nothing either
        for start in starts:
            parts = [view[start : start + block] for view in views]
            size = parts[0].size
            _update(parts, first[:size], second[:size], numbers)


def _update(parts: Sequence[np.ndarray], a: np.ndarray, b: np.ndarray, numbers: Numbers) -> None:
    """One block; `a` and `b` are as large, for what is between."""
    weight, gradient, mean, variance = parts
    np.multiply(gradient, numbers.rescale_grad, out=a)
    if numbers.wd:  # the operator adds 0 · weight too, which changes nothing but the sign of a zero
        np.multiply(weight, numbers.wd, out=b)
        np.add(a, b, out=a)
    if numbers.clip_gradient >= 0:
        np.clip(a, -numbers.clip_gradient, numbers.clip_gradient, out=a)
    np.multiply(mean, numbers.beta1, out=mean)
    np.multiply(a, _ONE - numbers.beta1, out=b)
    np.add(mean, b, out=mean)
    np.multiply(variance, numbers.beta2, out=variance)
    np.multiply(a, _ONE - numbers.beta2, out=b)
    np.multiply(b, a, out=b)
    np.add(variance, b, out=variance)
    np.multiply(mean, numbers.lr, out=a)
    np.sqrt(variance, out=b)
    np.add(b, numbers.epsilon, out=b)
    np.divide(a, b, out=a)
    np.subtract(weight, a, out=weight)
