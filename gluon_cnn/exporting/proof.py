"""Whether the files of an export compute what the live net computes.

Bounds. `SymbolBlock.imports` runs the very operators of the live net, in the same settings, and
must be bit-equal. `mx.mod.Module` lets oneDNN fuse (BatchNorm into the convolution before it,
activations into what precedes them) and the engines have kernels of their own, so they round
elsewhere, and how far that may carry an output is measured: the net's float64 copy is run again
with relative noise of `NOISE` in every leaf's output. The bound is `FACTOR` times the largest move
that this makes, or the live net's own distance from float64 where that is larger. From lenet to
vgg19_bn, fresh or trained, 1.4 times was the most that was seen; a factor of 4 leaves room for the
kernels of other machines. BatchNorm's other default epsilon is already beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from cnn_harness.errors import CommandError
from gluon_cnn.exporting.reload import (
    BATCHES,
    LOADERS,
    ONNX_RUNTIME,
    SYMBOL_BLOCK,
    Reloaded,
    parameter_sums,
)
from gluon_cnn.exporting.runners import ENGINES

NOISE = 4 * 2.0**-24  # of an output's own size: four roundings of float32
FACTOR = 4.0
NOT_RELOADED = Reloaded(error="it was not reloaded")


@dataclass(frozen=True)
class Live:
    """What the live net computes. `referee` is float64 (n, classes), of the net's float64 copy."""

    outputs: dict[int, np.ndarray]  # by batch size, float32 (batch, classes), not hybridized
    referee: np.ndarray
    move: float  # largest change of the referee's outputs under the noise
    parameters: dict[str, str]  # name -> sha256 of its values

    @property
    def distance(self) -> float:
        """The largest |float32 − float64| of the live net."""
        return max(float(np.abs(y - self.referee[:n]).max()) for n, y in self.outputs.items())

    @property
    def bound(self) -> float:
        """How far from float64 other roundings may end."""
        return FACTOR * max(self.move, self.distance)


@dataclass(frozen=True)
class Check:
    """A comparison that held: one way of loading, one batch size."""

    loader: str
    batch: int
    error: float  # largest |difference|: from the live net where bound is 0, else from float64
    bound: float  # 0: bit-equal
    distance: float  # the live net's own from float64

    def __str__(self) -> str:
        what = "bit-equal to the live net"
        if self.bound:
            what = (
                f"{self.error:.1e} from float64, the live net {self.distance:.1e}, "
                f"allowed {self.bound:.1e}"
            )
        return f"{self.loader}, batch {self.batch}: {what}"


def observe(net: HybridBlock, inputs: np.ndarray) -> Live:
    """Run the net on the CPU, imperatively, in float32 and in float64, then hybridize it.

    `inputs` is float32 (max(BATCHES), …). The parameters are as before afterwards.
    Raises: CommandError where the outputs are not finite, or alike for all images (files that
    agree with those would prove nothing), or hybridizing changes them.
    """
    name = getattr(net, "model_name", net.name)
    net.hybridize(False)
    outputs = {n: net(mx.nd.array(inputs[:n])).asnumpy() for n in BATCHES}
    most = outputs[max(BATCHES)]
    if not np.isfinite(most).all():
        raise CommandError(
            f"{name} gives outputs that are not finite: nothing can be compared with it; "
            "train it again with a smaller --lr"
        )
    if not np.ptp(most, axis=0).any():
        raise CommandError(
            f"{name} gives {len(most)} images the same outputs to the last bit: files "
            "that agree with it would prove nothing; has it learnt anything?"
        )
    sums = parameter_sums(net)
    try:
        referee, move = _with_noise(net, inputs, "float64")
    except mx.MXNetError:  # an operator that MXNet has in float32 alone
        referee, move = _with_noise(net, inputs, "float32")
    net.hybridize()
    for n, expected in outputs.items():
        hybridized = net(mx.nd.array(inputs[:n])).asnumpy()
        if not np.array_equal(hybridized, expected):
            raise CommandError(
                f"{name} hybridized at batch {n} differs from itself imperative: "
                + _worst(hybridized, expected)
            )
    return Live(outputs, referee, move, sums)


def _with_noise(net: HybridBlock, inputs: np.ndarray, dtype: str) -> tuple[np.ndarray, float]:
    """Outputs of the net's copy in a dtype, and the largest move of one when noise is added.

    Every image has noise of its own, so that one pass makes as many draws as there are images.
    """
    generator = np.random.default_rng(0)

    def disturb(block: HybridBlock, given: Any, output: Any) -> None:
        if isinstance(output, mx.nd.NDArray):
            noise = mx.nd.array(generator.standard_normal(output.shape), dtype=dtype)
            output[:] = output * (1 + NOISE * noise)

    hooks: list[Any] = []

    def hook(block: HybridBlock) -> None:
        if not block._children:
            hooks.append(block.register_forward_hook(disturb))

    net.cast(dtype)  # and back: float32 to float64 to float32 is exact
    try:
        x = mx.nd.array(inputs, dtype=dtype)
        referee = net(x).asnumpy().astype(np.float64)
        net.apply(hook)
        moved = net(x.copy()).asnumpy()
    finally:
        for handle in hooks:
            handle.detach()
        net.cast("float32")
    return referee, float(np.abs(moved - referee).max())


def judge(name: str, live: Live, loaded: Mapping[str, Reloaded], *, onnx: bool) -> list[Check]:
    """The checks that an export's files passed, all that there ought to be.

    Raises: CommandError naming the files, how they were loaded, the batch, the error and the
    bound, for the first that failed.
    """
    return [
        check
        for loader in LOADERS
        if onnx or loader != ONNX_RUNTIME
        for check in judge_one(name, live, loader, loaded.get(loader, NOT_RELOADED))
    ]


def judge_one(name: str, live: Live, loader: str, reloaded: Reloaded) -> list[Check]:
    """The checks that one way of loading passed, or one engine. Raises: CommandError."""
    reads_onnx = loader.partition(",")[0] in (e.label for e in ENGINES.values() if e.onnx)
    files = f"{name}.onnx" if reads_onnx else f"{name}-symbol.json with {name}-0000.params"
    told = f"{files} by {loader}"
    if reloaded.error is not None:
        raise CommandError(f"{told}: {reloaded.error}")
    if loader == SYMBOL_BLOCK:
        _same_parameters(told, reloaded.parameters, live.parameters)
    batches = dict.fromkeys((*BATCHES, *reloaded.outputs))
    return [_compare(told, loader, n, live, reloaded.outputs[n]) for n in batches]


def _same_parameters(told: str, loaded: Mapping[str, str], live: Mapping[str, str]) -> None:
    wrong = sorted(n for n in {*loaded, *live} if loaded.get(n) != live.get(n))
    if wrong:
        raise CommandError(
            f"{told}: {len(wrong)} of {len(live)} parameters are not the live net's: "
            + ", ".join(wrong[:5])
        )


def _compare(told: str, loader: str, n: int, live: Live, actual: np.ndarray) -> Check:
    whole = live.outputs[max(BATCHES)]  # of more images than that, they begin again
    expected = live.outputs.get(n, np.resize(whole, (n, *whole.shape[1:])))
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise CommandError(
            f"{told}, batch {n}: {actual.dtype} of {actual.shape}, "
            f"expected {expected.dtype} of {expected.shape}"
        )
    exact = loader == SYMBOL_BLOCK
    reference = expected if exact else np.resize(live.referee, expected.shape)
    bound = 0.0 if exact else live.bound
    error = float(np.abs(actual.astype(np.float64) - reference).max())
    good = actual.tobytes() == expected.tobytes() if exact else error <= bound  # NaN fails
    if not good:
        raise CommandError(
            f"{told}, batch {n}: {_worst(actual, reference)}, expected "
            + ("bit-equality" if exact else f"at most {bound:.1e}")
        )
    return Check(loader, n, error, bound, live.distance)


def _worst(actual: np.ndarray, expected: np.ndarray) -> str:
    off = np.abs(actual.astype(np.float64) - expected)
    index = np.unravel_index(int(np.argmax(off)), off.shape)
    where = ", ".join(map(str, index))
    return f"{actual[index]:.9g} for {expected[index]:.9g} at ({where}), {off[index]:.1e} off"
