"""Runs an executed MXNet operator again, on other arrays and in another dtype."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import repeat
from typing import Any, cast
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet.gluon import Block
from mxnet.ndarray import NDArray, register

from parity_tests.backends.files.gluon_script import UNWRITTEN, substitute
from parity_tests.backends.gluon.numpy_mode import like
from parity_tests.backends.gluon.tracing.dtypes import taken_for
from parity_tests.backends.runs import rounded
from parity_tests.backends.tracing import flatten

Replay = Callable[[Sequence[Any], str], list[Any]]

_FLOATS = ("float32", "float64")

# The operators whose gradient MXNet's sources register as zeros (MakeZeroGradNodes)
_COMPARED = r"(not_)?equal|(greater|lesser|less)(_equal)?|logical_(and|or|xor)"
_FLAT = re.compile(
    rf"BlockGrad|(_npi_|_|broadcast_|_npi_broadcast_)({_COMPARED})(_scalar)?"
    r"|(_np_|_npi_)?(argm(ax|in)|argsort|ceil|fix|floor|isfinite|isinf|isnan|isneginf|isposinf"
    r"|logical_not|ones_like|rint|round|trunc|zeros_like)"
    r"|argmax_channel|one_hot|shape_array|size_array|_contrib_arange_like|_full_like"
    r"|_npi_(around|full_like)|_npx_(one_hot|arange_like)"
)


def passes_no_gradient(kind: str) -> bool:
    """Whether an operator's gradient is 0 whatever it is given.

    MXNet 1.9.1 makes these zeros without a shape, and crashes on its way on from them: into a
    convolution, a sum, or an addition at the net's end. Not recorded, they send back nothing.

    >>> passes_no_gradient("broadcast_lesser_equal"), passes_no_gradient("broadcast_maximum")
    (True, False)
    """
    return _FLAT.fullmatch(kind) is not None


# Those whose gradient it registers as zeros, and which have one; and what to write instead
_LACKING = {
    "_npi_var": ("np.var", "the mean of squares, np.square(x - x.mean(…, keepdims=True)).mean(…)"),
    "_npi_std": ("np.std", "the root of a mean of squares of x - x.mean(…, keepdims=True)"),
    "_npi_percentile": ("np.percentile", "what np.sort gives, with weights beside it"),
    **{
        f"_npi_{name}": (f"np.linalg.{name}", "mx.nd.linalg.syevd, which has a gradient")
        for name in ("eig", "eigh", "eigvals", "eigvalsh")
    },
    **dict.fromkeys(
        ("_npi_pinv", "_npi_pinv_scalar_rcond"),
        ("np.linalg.pinv", "its definition, with np.linalg.inv"),
    ),
}


def lacks_gradient(kind: str) -> str:
    """Why MXNet does not train through an operator that has a gradient; empty where it does."""
    if kind in ("_npi_where_lscalar", "_npi_where_rscalar"):
        return (
            "MXNet sends the gradient of `np.where` with a number to the places that took the "
            "number (apache/mxnet issue 17893); write np.full_like(x, number) for it"
        )
    if kind not in _LACKING:
        return ""
    name, instead = _LACKING[kind]
    return (
        f"MXNet cannot differentiate `{name}`: 0 comes back from it, and a step may end the "
        f"process; write it as {instead}"
    )


def replay_operator(
    kind: str,
    handle: int,
    attributes: Mapping[str, str],
    dtype: str,
    dtypes: Sequence[str],
    is_numpy: bool,
    paused: bool,
) -> Replay:
    """An operator of the C interface; `dtype` is what the net computed in when it was recorded.

    What it gave in that dtype, as `dtypes` says, it gives in that of the run: `one_hot` gives
    float32 whatever it is given, and so does a mean of whole numbers. What it makes of no array
    starts from the numbers that the net has, as parameters do: 0.1 is that of float32. What MXNet
    refuses in float64 (LRN) is computed in float32.
    """
    return _widening(
        dtypes,
        lambda same: _in_single_precision_if_refused(
            _operator(kind, handle, attributes, dtype, dtypes, same, is_numpy, paused)
        ),
        dtype,
    )


# What takes lengths, and along which axis unless it is told
_WITH_LENGTHS = {
    "SequenceLast": 0, "SequenceReverse": 0, "softmax": -1, "log_softmax": -1, "softmin": -1,
}  # fmt: skip


def refuse_overrun(
    kind: str, arrays: Sequence[NDArray], attributes: Mapping[str, str | int]
) -> None:
    """Raise ValueError where MXNet 1.9.1 would read or write beyond the end of an array.

    It does not look whether a scale has as many values as the input has channels, nor whether a
    sequence is as long as the array, also in a softmax of lengths, and its backward pass of
    `SequenceLast` reads lengths that nobody gave. The process may end then, at once or later.
    """
    if kind == "BatchNorm":
        x, scale = arrays[:2]
        channels = x.shape[int(attributes.get("axis", 1))]
        if scale.size != channels:
            raise ValueError(f"the input {x.shape} has {channels} channels, not {scale.size}")
    if kind == "SequenceLast" and len(arrays) == 1 and mx.autograd.is_recording():
        raise ValueError("MXNet cannot train SequenceLast without lengths, it crashes: write x[-1]")
    if kind in _WITH_LENGTHS and len(arrays) > 1:
        along = int(attributes.get("axis", _WITH_LENGTHS[kind]))
        steps, longest = arrays[0].shape[along], arrays[1].asnumpy().max()
        if longest > steps:
            raise ValueError(f"a sequence of {steps} steps has the length {longest:g}")


def _operator(
    kind: str,
    handle: int,
    attributes: Mapping[str, str],
    dtype: str,
    dtypes: Sequence[str],
    same: Container[str],
    is_numpy: bool,
    paused: bool,
) -> Replay:
    """The operator, that gives in the dtype of the run what it gave in one of the `same`."""
    unwritten, op_kind = UNWRITTEN.get(kind, ()), kind
    makes_floats = dtype in dtypes

    def read(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        whole = kind == "float64" and all(np.dtype(x.dtype).kind != "f" for x in arrays)
        return [x.astype(kind) for x in arrays] if whole and makes_floats else [*arrays]

    def run(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        given = {k: kind if k == "dtype" and v in same else v for k, v in attributes.items()}
        refuse_overrun(op_kind, arrays, attributes)
        if unwritten:
            arrays = [x.detach() if i in unwritten else x for i, x in enumerate(arrays)]
        with mx.autograd.pause(mx.autograd.is_training()) if paused else nullcontext():
            outputs = register._imperative_invoke(
                handle, read(arrays, kind), list(given), list(given.values()), None, is_numpy, True
            )
        outputs = [y.as_nd_ndarray() for y in outputs]  # whose arithmetic takes both classes
        made = zip(outputs if arrays else [_cast(y, dtype) for y in outputs], dtypes, strict=False)
        return [_cast(y, kind) if own in same or not arrays else y for y, own in made]

    return run


def replay_copy(own: str, dtype: str, paused: bool) -> Replay:
    """`x.copy()` and `x.astype(own)`, whose operator runs only where it is given its output."""

    def made(same: Container[str]) -> Replay:
        def run(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
            with mx.autograd.pause(mx.autograd.is_training()) if paused else nullcontext():
                return [arrays[0].astype(kind if own in same else own)]

        return run

    return _widening([own], made, dtype)


def _widening(
    dtypes: Sequence[str], made: Callable[[Container[str]], Replay], dtype: str
) -> Replay:
    """A replay that gives in the dtype of the run what the net gave in its own and in float64.

    Its `widened` does so with what the net gave in float16, too.
    """
    replay: Any = made((dtype, "float64"))
    if "float16" in dtypes:
        replay.widened = made((dtype, "float64", "float16"))
    return cast(Replay, replay)


def _in_single_precision_if_refused(run: Replay) -> Replay:
    single: list[bool] = []  # what the first run in float64 showed

    def attempt(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        if kind == "float64" and not single:
            try:
                outputs = run(arrays, kind)
                for y in outputs:  # operators run later, and raise where somebody waits for them
                    y.wait_to_read()
            except mx.MXNetError:
                single.append(True)
            else:
                single.append(False)
                return outputs
        if kind != "float64" or not single[0]:
            return run(arrays, kind)
        return [_cast(y, kind) for y in run([_cast(x, "float32") for x in arrays], "float32")]

    return attempt


def _cast(array: NDArray, kind: str) -> NDArray:
    name = np.dtype(array.dtype).name
    return array.astype(kind) if name in _FLOATS and name != kind else array


def replay_method(method: Callable[..., Any], args: Any, kwargs: Any) -> Replay:
    """A method of NDArray that goes to the C interface without an operator."""

    def run(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        made = flatten(method(arrays[0], *args, **kwargs), NDArray)
        return [y.as_nd_ndarray() for y in made]

    return run


def replay_index(index: Callable[..., Any], key: Any) -> Replay:
    """`x[key]`, the arrays of the key given anew."""
    template = substitute(key, repeat(_Slot()))

    def run(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        x, *others = arrays
        if index is not NDArray.__getitem__:
            x = x.as_np_ndarray()
        given = (like(other, x) for other in others)
        return [index(x, substitute(template, given, _Slot)).as_nd_ndarray()]

    return run


def replay_assignment(assign: Callable[..., Any], key: Any, value: Any) -> Replay:
    """`x[key] = value`, on a copy of x."""

    constant = None if isinstance(value, NDArray) else value
    if isinstance(value, (float, np.ndarray)):  # as what is made of no array
        constant = rounded(np.asarray(value), "float32")
        constant = constant if constant.ndim else constant.item()

    def run(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        changed = arrays[0].copy()
        if assign is not NDArray.__setitem__:
            changed = changed.as_np_ndarray()
        given = like(arrays[1], changed) if len(arrays) > 1 else constant
        assign(changed, key, given)
        return [changed.as_nd_ndarray()]

    return run


def replay_function(function: mx.autograd.Function, same: Container[str]) -> Replay:
    """A function with a gradient of its own that was not called yet: each can be once.

    Its code may name dtypes both ways: `same` are those that are that of the run.
    """
    made: Any = type(function)

    def run(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        def taking(call: Callable[..., Any]) -> Callable[..., Any]:
            def taken(*args: Any) -> Any:
                with taken_for(same, kind):
                    return call(*args)

            return taken

        ways = {"forward": taking(made.forward), "backward": taking(made.backward)}
        uncalled = copy.copy(function)
        uncalled.__class__ = type(made.__name__, (made,), ways)
        return list(flatten(uncalled(*arrays), NDArray))

    return _in_single_precision_if_refused(run)


class _Slot:
    """The place of an array."""


def replay_block(block: Block, args: Any, names: Sequence[str]) -> Replay:
    """A recurrent layer or cell, which counts as one operation, with its parameters given anew.

    Dropout between its layers passes its input on, as it does as a leaf. A layer that is given
    lengths heeds them.
    """
    heeds = getattr(block, "_use_sequence_length", False)
    skip = getattr(block, "skip_states", False)
    count = len(list(flatten(args, NDArray)))
    template = substitute(args, repeat(_Slot()))  # the arrays themselves are let go
    settings: dict[str, Any] = {"skip_states": skip and not heeds, "_dropout": 0}
    if heeds:
        settings["_use_sequence_length"] = False

    def run(arrays: Sequence[NDArray], kind: str) -> list[NDArray]:
        given = substitute(template, iter(arrays[:count]), _Slot)
        parameters = dict(zip(names, arrays[count:], strict=True))
        forward = partial(block.hybrid_forward, mx.nd, **parameters)
        with mock.patch.multiple(block, create=True, **settings):
            out = _by_lengths(block, forward, *given) if heeds else forward(*given)
        return list(flatten(out[0] if heeds and skip else out, NDArray))

    return run


def _by_lengths(
    block: Block, forward: Callable[..., Any], x: NDArray, states: Any, lengths: NDArray
) -> Any:
    """Each sequence by itself, and zeros behind its end.

    So does cuDNN. On a CPU MXNet 1.9.1 computes all steps, or refuses: "RNN use_sequence_length
    option is only available for cuDNN".
    """
    time = block._layout.find("T")
    steps = x.shape[time]
    outputs, ends = [], []
    for row, length in enumerate(np.clip(lengths.asnumpy().astype(int), 1, steps)):
        own = x.slice_axis(axis=1 - time, begin=row, end=row + 1)
        own = own.slice_axis(axis=time, begin=0, end=int(length))
        given = [state.slice_axis(axis=1, begin=row, end=row + 1) for state in states]
        out, end = forward(own, given)
        rest = list(out.shape)
        rest[time] = steps - int(length)
        if rest[time]:
            out = mx.nd.concat(out, mx.nd.zeros(rest, dtype=out.dtype), dim=time)
        outputs.append(out)
        ends.append(end)
    last = [mx.nd.concat(*of_all, dim=1) for of_all in zip(*ends, strict=True)]
    return mx.nd.concat(*outputs, dim=1 - time), last
