"""MXNet's Adam with most of the Python around its operator taken away.

`mx.optimizer.Adam` calls one operator for each parameter, and checks and spells out every argument
each time. For LeNet's ten small parameters the calls cost more than what is computed in them: a
sixth of a step at batch 64. Large arrays are updated without the operator (`adam_blocks`), where
that is quicker.
"""

from __future__ import annotations

import ctypes
import math
import time
from functools import lru_cache
from typing import Any

import mxnet as mx
from mxnet import gluon
from mxnet.base import _LIB, NDArrayHandle, c_handle_array, c_str_array, check_call

from gluon_cnn.fast.adam_blocks import BlockedCall, suits

_NAMES = c_str_array(["lr", "beta1", "beta2", "epsilon", "wd", "rescale_grad", "clip_gradient"])
_COUNT = len(_NAMES)
TURNS = 3  # of each way to update a large array, before the quicker one is known
UNCLIPPED = -1.0  # the operator's way to say that it should not


class QuickAdam(mx.optimizer.Adam):
    """`mx.optimizer.Adam`: the same arithmetic on the same slots, so the same bits, sooner.

    For dense parameters; sparse ones go MXNet's own way.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._calls: dict[int, _Call | _Quicker] = {}  # by the identity of the parameter's array

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: Any) -> None:
        arrays = (weight, grad, *state)
        call = self._calls.get(id(weight))
        if call is None or any(a is not b for a, b in zip(call.arrays, arrays, strict=True)):
            if any(a.stype != "default" for a in arrays):
                super().update(index, weight, grad, state)
                return
            call = _Quicker(arrays) if suits(arrays) else _Call(arrays)
            self._calls[id(weight)] = call
        self._update_count(index)
        t = self._index_update_count[index]
        rate = self._get_lr(index) * (math.sqrt(1.0 - self.beta2**t) / (1.0 - self.beta1**t))
        clip = self.clip_gradient or UNCLIPPED
        numbers = (
            rate, self.beta1, self.beta2, self.epsilon, self._get_wd(index), self.rescale_grad, clip
        )  # fmt: skip
        call(numbers)

    @classmethod
    def take_over(cls, trainer: gluon.Trainer) -> None:
        """Let the trainer's optimizer, which stays the object that it is, update like this one.

        Nothing happens where it is anything but MXNet's own Adam.
        """
        for updater in trainer._updaters:
            rule = updater.optimizer
            if type(rule) is mx.optimizer.Adam:
                rule.__class__ = cls
                rule._calls = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """As MXNet's own, which reads it anywhere; the prepared calls point into this process."""
        state: dict[str, Any] = mx.optimizer.Adam.__getstate__(self)
        del state["_calls"]
        return mx.optimizer.Adam, (), state


@lru_cache(maxsize=8)  # mostly the same for all parameters of a step
def _spelt(numbers: tuple[float, ...]) -> Any:
    """The operator's attributes, as the text that it reads."""
    return c_str_array([repr(float(number)) for number in numbers])


class _Call:
    """`mx.nd.adam_update` on arrays that stay, with its C arguments prepared."""

    def __init__(self, arrays: tuple[mx.nd.NDArray, ...]) -> None:
        self.arrays = arrays  # the handles live as long as they do
        self._operator = ctypes.c_void_p()
        check_call(_LIB.NNGetOpHandle(b"adam_update", ctypes.byref(self._operator)))
        self._inputs = c_handle_array(arrays)
        self._out = c_handle_array(arrays[:1])
        self._outputs = ctypes.cast(self._out, ctypes.POINTER(NDArrayHandle))
        self._one = ctypes.c_int(1)
        self._types = ctypes.POINTER(ctypes.c_int)()

    def __call__(self, numbers: tuple[float, ...]) -> None:
        check_call(
            _LIB.MXImperativeInvokeEx(
                self._operator,
                ctypes.c_int(len(self.arrays)),
                self._inputs,
                ctypes.byref(self._one),
                ctypes.byref(self._outputs),
                ctypes.c_int(_COUNT),
                _NAMES,
                _spelt(numbers),
                ctypes.byref(self._types),
            )
        )


class _Quicker:
    """Both ways to update a large array, in turns until it shows which takes less time here.

    They give the same bits. On 2 cores of an Intel Xeon (Emerald Rapids) the operator takes 0.65 of
    numpy's time for 38 million weights, on those of an AMD EPYC (Zen 3 to 5) it takes more.
    """

    def __init__(self, arrays: tuple[mx.nd.NDArray, ...]) -> None:
        self.arrays = arrays
        self._ways: tuple[_Call | BlockedCall, ...] = (_Call(arrays), BlockedCall(arrays))
        self._seconds: list[list[float]] = [[] for _ in self._ways]

    def __call__(self, numbers: tuple[float, ...]) -> None:
        if len(self._ways) == 1:
            self._ways[0](numbers)
            return
        turn = sum(map(len, self._seconds)) % 2
        for array in self.arrays:
            array.wait_to_read()  # the gradient is another's time
        start = time.perf_counter()
        self._ways[turn](numbers)
        self.arrays[0].wait_to_read()
        self._seconds[turn].append(time.perf_counter() - start)
        if len(self._seconds[-1]) == TURNS:
            best = [min(of_way) for of_way in self._seconds]
            self._ways = (self._ways[best.index(min(best))],)
