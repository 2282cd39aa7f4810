"""ONNX of every registered operator, run on other values than those that it was written with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mxnet_files import SymbolError, import_symbol
from mxnet_files.checking.recorded import difference
from mxnet_files.reading.inputs import required_inputs
from mxnet_files.registry import PARAMETER_SLOTS
from mxnet_files.running import run
from mxnet_files.save import WITHOUT_ONNX, onnx_bytes, run_onnx, same, tolerance
from mxnet_files.tests import (  # noqa: F401 (fill SPACES)
    spaces_control,
    spaces_int8,
    spaces_numpy,
    spaces_regions,
)
from mxnet_files.tests.spaces import SPACES, Case, case_of

pytestmark = [pytest.mark.filterwarnings("ignore")]
pytest.importorskip("onnxruntime")

NETS, OTHERS = 6, 3  # cases of an operator in the dtypes of nets, and in others
# What isn't finite goes other ways in ONNX Runtime: docs/operators.md
FINITE = {
    "Pooling_v1", "_contrib_sign_ste", "_maximum_scalar", "_minimum_scalar", "_mod",
    "_npi_rmod_scalar", "_npi_sign", "_rmod_scalar", "argmax", "argmin", "max", "min", "moments",
    "sign",
}  # fmt: skip


def drawn(main: str, nets: int, others: int) -> Iterator[Case]:
    """The same cases every time, that MXNet's files may hold."""
    left = {True: nets, False: others}
    for seed in range(400):
        if not any(left.values()):
            return
        try:
            case = case_of(main, seed)
        except (ValueError, IndexError, ZeroDivisionError):
            continue
        kinds = {x.dtype.name for x in case.inputs}
        net = "float32" in kinds and kinds.isdisjoint({"float16", "float64"})
        finite = all(np.isfinite(x).all() for x in case.inputs)
        if left[net] and (finite or main not in FINITE):
            left[net] -= 1
            yield case


def example(x: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """What the file is written with: random floats as the command has them, integers in range."""
    mixed = rng.normal(size=x.shape) if x.dtype.kind == "f" else rng.permutation(x.ravel())
    return torch.from_numpy(np.asarray(mixed).astype(x.dtype).reshape(x.shape))


def end(case: Case) -> str:
    """`equal`, why the operator is refused, or nothing where torch refuses the case."""
    slots = dict(zip(case.arrays, case.slots, strict=True))
    held = {name: x for name, x in case.arrays.items() if slots[name] in PARAMETER_SLOTS}
    try:
        module = import_symbol(case.document(), held)
        inputs = {name: torch.tensor(case.arrays[name]) for name in required_inputs(module)}
        wanted = run(module, list(inputs.values()))
    except SymbolError:
        return ""
    if not inputs:
        return ""  # arrays that the file describes are constants
    rng = np.random.default_rng(0)
    written = [example(x.numpy(), rng) for x in inputs.values()]
    try:
        if [y.shape for y in run(module, written)] != [y.shape for y in wanted]:
            raise SymbolError("of other shapes")
    except SymbolError:
        written = list(inputs.values())
    try:
        data, _, _ = onnx_bytes(module, written)
    except SymbolError as error:
        return str(error)
    for a, b in zip(run_onnx(data, inputs), wanted, strict=True):
        got = torch.from_numpy(a)
        if b.dtype == torch.float64:  # ONNX keeps numbers such as eps in float32
            same([b], [got], f"ONNX file of {case}", tolerance(module, list(inputs.values())))
        told = difference(got, b.numpy(), case.inputs, case.operator, {})
        assert not told or b.dtype == torch.float64, f"{case}\n{told.replace('MXNet', 'torch')}"
    return "equal"


@pytest.mark.slow
@pytest.mark.parametrize("main", sorted(SPACES))
def test_onnx_runtime_computes_the_same(main: str) -> None:
    ends = [told for case in drawn(main, NETS, OTHERS) if (told := end(case))]
    if main in WITHOUT_ONNX:
        assert ends
        assert [told for told in ends if not told.startswith(f"no ONNX form of {main} (")] == []
    else:
        assert not ends or "equal" in ends, ends


@pytest.mark.parametrize("main", ["BatchNorm", "diag", "max", "shape_array", "_npi_where"])
def test_onnx_runtime_computes_some_of_them(main: str) -> None:
    assert "equal" in [end(case) for case in drawn(main, 1, 0)]
