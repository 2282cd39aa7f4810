"""`.params` files against MXNet itself, and against damage."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxnet_files.reading.params_file import (
    BFLOAT16,
    DTYPES,
    SPARSE_LIMIT,
    ParamsFileError,
    bfloat16_to_float32,
    parse_params,
    read_params,
    write_params,
)

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
CPU_F32 = struct.pack("<iii", 1, 0, 0)
DATA = np.arange(6, dtype="<f4").tobytes()


@pytest.fixture(scope="module")
def mx() -> ModuleType:
    return pytest.importorskip("mxnet")


def file_of(*arrays: bytes, names: tuple[bytes, ...] = (b"x",), count: int | None = None) -> bytes:
    """A .params file put together by hand from encoded arrays."""
    head = struct.pack("<QQQ", 0x112, 0, len(arrays) if count is None else count)
    tail = struct.pack("<Q", len(names)) + b"".join(struct.pack("<Q", len(n)) + n for n in names)
    return head + b"".join(arrays) + tail


def v2(*shape: int, magic: int = V2, rest: bytes = CPU_F32 + DATA) -> bytes:
    return struct.pack(f"<Iii{len(shape)}q", magic, 0, len(shape), *shape) + rest


def csr(
    starts: tuple[int, ...], columns: tuple[int, ...], shape: tuple[int, ...] = (2, 3)
) -> bytes:
    """A csr array of float32, value 1 in every stored place."""
    head = struct.pack("<Iiiq", V2, 2, 1, len(columns))
    head += struct.pack(f"<i{len(shape)}q", len(shape), *shape) + CPU_F32
    head += struct.pack("<iiq", 6, 1, len(starts)) + struct.pack("<iiq", 6, 1, len(columns))
    values = np.ones(len(columns), "<f4").tobytes()
    return head + values + np.array(starts, "<i8").tobytes() + np.array(columns, "<i8").tobytes()


def rows(indices: tuple[int, ...], shape: tuple[int, ...], stored: tuple[int, ...]) -> bytes:
    """A row_sparse array of float32, value 1 in every stored place."""
    head = struct.pack(f"<Iii{len(stored)}q", V2, 1, len(stored), *stored)
    head += struct.pack(f"<i{len(shape)}q", len(shape), *shape) + CPU_F32
    head += struct.pack("<iiq", 6, 1, len(indices))
    return head + np.ones(stored, "<f4").tobytes() + np.array(indices, "<i8").tobytes()


def sample(dtype: np.dtype, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random bits of `dtype`: NaN payloads, denormals and negative zeros included."""
    rng = np.random.default_rng(seed)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    data = rng.integers(0, 256, int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    return data.view(dtype).reshape(shape)


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tobytes() == b.tobytes()


ARRAYS = {
    f"arg:x.{flag}": sample(dtype, shape, flag)
    for (flag, dtype), shape in zip(
        DTYPES.items(), [(3,), (2, 3), (1, 1), (4, 2, 1, 3), (5,), (2, 2), (1,), (7,), (3, 2)],
        strict=True,
    )
}  # fmt: skip


def to_mxnet(mx: ModuleType, array: np.ndarray) -> Any:
    """An MXNet array with the same bits; nd.array has no way in for bfloat16."""
    if array.dtype == BFLOAT16:
        return mx.nd.amp_cast(mx.nd.array(bfloat16_to_float32(array)), dtype=BFLOAT16)
    return mx.nd.array(array, dtype=array.dtype)


def test_every_dtype_comes_back_bit_equal_in_order(tmp_path: Path) -> None:
    write_params(tmp_path / "a.params", ARRAYS)
    back = read_params(tmp_path / "a.params")
    assert list(back) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert_same(back[name], array)


def test_files_are_byte_identical_to_those_of_mxnet(mx: ModuleType, tmp_path: Path) -> None:
    arrays = dict(ARRAYS) | {"arg:x.12": np.array([0x3FC0, 0xC000], "<u2").view(BFLOAT16)}
    mx.nd.save(str(tmp_path / "mx"), {k: to_mxnet(mx, v) for k, v in arrays.items()})
    write_params(tmp_path / "ours", arrays)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "mx").read_bytes()
    for name, array in read_params(tmp_path / "mx").items():
        assert_same(array, arrays[name])


def test_mxnet_loads_what_we_write(mx: ModuleType, tmp_path: Path) -> None:
    write_params(tmp_path / "ours", ARRAYS)
    loaded = mx.nd.load(str(tmp_path / "ours"))
    assert list(loaded) == list(ARRAYS)
    for name, array in ARRAYS.items():
        back = loaded[name].asnumpy()
        assert back.dtype.itemsize == array.dtype.itemsize
        assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_lists_without_names(mx: ModuleType, tmp_path: Path, count: int) -> None:
    arrays = [np.full((2, i + 1), i, np.float32) for i in range(count)]
    mx.nd.save(str(tmp_path / "mx"), [mx.nd.array(a) for a in arrays])
    write_params(tmp_path / "ours", arrays)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "mx").read_bytes()
    back = read_params(tmp_path / "mx")
    assert list(back) == [str(i) for i in range(count)]
    for i, array in enumerate(arrays):
        assert_same(back[str(i)], array)


def test_names_that_are_not_ascii(mx: ModuleType, tmp_path: Path) -> None:
    arrays = {"": np.ones(1, np.float32), "é中\n": np.zeros(2, np.float32)}
    mx.nd.save(str(tmp_path / "mx"), {k: mx.nd.array(v) for k, v in arrays.items()})
    write_params(tmp_path / "ours", arrays)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "mx").read_bytes()
    assert list(read_params(tmp_path / "mx")) == list(arrays)


def test_v3_holds_scalars_and_empty_arrays(mx: ModuleType, tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((3, 0, 2), np.float64),
        "plain": np.arange(4, dtype=np.int8),
    }
    mx.npx.set_np()
    try:
        given = {k: mx.np.array(v, dtype=v.dtype) for k, v in arrays.items()}
        mx.npx.save(str(tmp_path / "mx"), given)
        write_params(tmp_path / "ours", arrays, np_shape=True)
        loaded = {k: v.asnumpy() for k, v in mx.npx.load(str(tmp_path / "ours")).items()}
    finally:
        mx.npx.reset_np()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "mx").read_bytes()
    back = read_params(tmp_path / "mx")
    for name, array in arrays.items():
        assert_same(back[name], array)
        assert_same(loaded[name], array)


@pytest.mark.parametrize(
    ("encoded", "shape"),
    [
        (struct.pack("<Ii2q", V1, 2, 2, 3) + CPU_F32 + DATA, (2, 3)),
        (struct.pack("<III", 2, 2, 3) + CPU_F32 + DATA, (2, 3)),
        (struct.pack("<Ii", V1, 0) + CPU_F32 + DATA[:4], ()),
        (struct.pack("<I", 0) + CPU_F32 + DATA[:4], ()),
        (struct.pack("<Iiq", V1, 1, 0) + CPU_F32, (0,)),
        (struct.pack("<II", 1, 0) + CPU_F32, (0,)),
        (v2(0, rest=CPU_F32), (0,)),
        (v2(2, 3, rest=struct.pack("<iii", 2, 3, 0) + DATA), (2, 3)),
    ],
    ids=["V1", "oldest", "V1 scalar", "oldest scalar", "V1 0", "oldest 0", "V2 0", "on gpu(3)"],
)
def test_old_layouts_are_read_as_mxnet_reads_them(
    mx: ModuleType, tmp_path: Path, encoded: bytes, shape: tuple[int, ...]
) -> None:
    (tmp_path / "old").write_bytes(file_of(encoded))
    ours = read_params(tmp_path / "old")["x"]
    theirs = mx.nd.load(str(tmp_path / "old"))["x"]
    assert ours.shape == theirs.shape == shape
    assert ours.dtype == theirs.dtype == np.float32
    if shape != ():  # outside numpy semantics MXNet reads a scalar and cannot show its value
        assert_same(ours, theirs.asnumpy())
    else:
        assert ours.tobytes() == DATA[:4]


def test_sparse_arrays_are_read_dense(mx: ModuleType, tmp_path: Path) -> None:
    sparse = mx.nd.sparse
    arrays = {
        "rows": sparse.row_sparse_array(([[1.0, 2], [3, 4]], [1, 3]), shape=(5, 2)),
        "no rows": sparse.zeros("row_sparse", (5, 2)),
        "csr": sparse.csr_matrix(([1.0, 2, 3], [0, 2, 1], [0, 2, 2, 3]), shape=(3, 4)),
        "no csr": sparse.zeros("csr", (3, 4)),
        "half": sparse.csr_matrix(([1.0], [3], [0, 0, 1]), shape=(2, 4), dtype="float16"),
        "dense": mx.nd.ones((2, 2)),
    }
    mx.nd.save(str(tmp_path / "mx"), arrays)
    back = read_params(tmp_path / "mx")
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert_same(back[name], array.asnumpy())


def test_hand_made_sparse_arrays_are_what_the_refused_ones_differ_from() -> None:
    got = parse_params(file_of(csr((0, 1, 3), (1, 0, 2)), rows((0, 2), (3, 2), (2, 2)), names=()))
    assert got["0"].tolist() == [[0, 1, 0], [1, 0, 1]]
    assert got["1"].tolist() == [[1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    "encoded",
    [
        csr((0, 1, 2), (1, 0, 2)),
        csr((1, 1, 3), (1, 0, 2)),
        csr((0, 3, 2), (1, 0)),
        csr((0, -1, 2), (1, 0)),
        csr((0, 2**63 - 1, -2, 2), (1, 0), (3, 3)),
        csr((0, 1, 2), (1, 3)),
        csr((0, 1, 2), (1, -1)),
        csr((0, 0, 2), (1, 1)),
        csr((0, 2), (1, 0)),
        csr((0, 1, 2), (1, 0), (2, 3, 1)),
        rows((0, 3), (3, 2), (2, 2)),
        rows((-1, 1), (3, 2), (2, 2)),
        rows((1, 1), (3, 2), (2, 2)),
        rows((2, 0), (3, 2), (2, 2)),
        rows((0, 2**63 - 1, -(2**63), 1), (3, 2), (4, 2)),
        rows((0,), (3, 2), (2, 2)),
        rows((0, 1), (3, 2), (2, 1)),
        rows((), (), ()),
    ],
)
def test_contradictory_sparse_arrays_are_refused(encoded: bytes) -> None:
    with pytest.raises(ParamsFileError, match="does not fit the shape"):
        parse_params(file_of(encoded))


def test_few_sparse_bytes_cannot_take_much_memory() -> None:
    wide = SPARSE_LIMIT // 8
    bomb = rows((0,), (2**40, 1), (1, 1))
    with pytest.raises(ParamsFileError, match="dense it passes"):
        parse_params(file_of(bomb))
    third = rows((), (1, wide), (0, wide))  # 512 MiB each once dense
    with pytest.raises(ParamsFileError, match="array 2 is sparse"):
        parse_params(file_of(third, third, third, names=()))


def test_writing_makes_contiguous_little_endian_copies(tmp_path: Path) -> None:
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    odd = {"big": plain.astype(">f4"), "turned": np.asfortranarray(plain), "view": plain[:, ::-1]}
    write_params(tmp_path / "a", odd)
    back = read_params(tmp_path / "a")
    assert_same(back["big"], plain)
    assert_same(back["turned"], plain)
    assert_same(back["view"], plain[:, ::-1].copy())
    assert odd["big"].dtype == ">f4"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(2, np.int16)}, "'x' is int16.*cast it first"),
        ({"x": np.ones(2, np.complex64)}, "complex64"),
        ({"x": np.array([None])}, "object"),
        ({"x": np.float32(3)}, "np_shape=True"),
        ({"x": np.zeros((2, 0), np.float32)}, "np_shape=True"),
        ({"\udc80": np.ones(2, np.float32)}, "UTF-8"),
        ({3: np.ones(2, np.float32)}, "name 3"),
        ([np.ones(2, np.uint16)], "array 0 is uint16"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_and_the_old_file_stays(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(ParamsFileError, match=message):
        write_params(tmp_path / "a", arrays)
    assert (tmp_path / "a").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    write_params(tmp_path / "a", {"x": np.ones(2, np.float32)})
    before = (tmp_path / "a").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_params(tmp_path / "a", {"y": np.ones(3, np.float32)})
    assert (tmp_path / "a").read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ParamsFileError, match="regular file"):
            read_params(path)
    with pytest.raises(FileNotFoundError):
        read_params(tmp_path / "none")


HEADER = 24  # magic, reserved, count
WHOLE = file_of(
    v2(2, 3),
    v2(3, rest=struct.pack("<iii", 1, 0, 7) + b"\1\0\1"),
    csr((0, 1, 3), (1, 0, 2)),
    struct.pack("<Iiq", V1, 1, 6) + CPU_F32 + DATA,
    names=(b"arg:a", b"aux:b", b"c", b"d"),
)


def arrays_or_none(data: bytes) -> dict[str, np.ndarray] | None:
    """What is read, or None where it is refused; any other exception goes through."""
    reason = ""
    try:
        return parse_params(data)
    except ParamsFileError as error:
        reason = str(error)
    assert reason.startswith("bytes: ")
    assert "\n" not in reason
    return None


def test_every_truncation_is_refused() -> None:
    assert len(parse_params(WHOLE)) == 4
    for length in range(len(WHOLE)):
        with pytest.raises(ParamsFileError, match="bytes"):
            parse_params(WHOLE[:length])


def test_every_extension_is_refused() -> None:
    for extra in (b"\0", b"\0" * 8, WHOLE):
        with pytest.raises(ParamsFileError, match="follow the last name"):
            parse_params(WHOLE + extra)


def test_every_flipped_byte_is_refused_or_read_as_arrays() -> None:
    """Data carries no checksum, so a flip there is read; nothing but ParamsFileError comes out."""
    refused = 0
    for place in range(len(WHOLE)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(WHOLE)
            damaged[place] ^= mask
            arrays = arrays_or_none(bytes(damaged))
            refused += arrays is None
            assert arrays is None or (place >= HEADER and len(arrays) == 4)
    assert refused > len(WHOLE)


HUGE = [2**63, 2**64 - 1, 2**32, 2**62 // 4]


@pytest.mark.parametrize(
    "damaged",
    [
        *(file_of(v2(2, 3), count=n) for n in HUGE),
        *(file_of(v2(2, 3))[:-17] + struct.pack("<Q", n) + bytes(9) for n in HUGE),
        *(file_of(v2(2, 3))[:-9] + struct.pack("<Q", n) + b"x" for n in HUGE),
        *(file_of(v2(n // 2, 3)) for n in HUGE),
        file_of(v2(2**62, 2**62)),
        file_of(v2(*[2**62] * 32)),
        file_of(v2(0, 2**62, 2**62, rest=CPU_F32)),
        file_of(v2(0, 2**62, 2**62, rest=CPU_F32, magic=V3)),
        file_of(v2(-1)),
        file_of(struct.pack("<Iii", V2, 0, 2**31 - 1) + bytes(64)),
        file_of(struct.pack("<Iii", V2, 0, -1) + bytes(64)),
        file_of(struct.pack("<Iii", V2, 0, 33) + bytes(33 * 8)),
        file_of(struct.pack("<Iii", V2, 0, 0)),
        file_of(struct.pack("<Iii", V3, 1, 1) + bytes(64)),
        file_of(struct.pack("<Iii", V2, 3, 1) + bytes(64)),
        file_of(struct.pack("<I", 33) + bytes(256)),
        file_of(v2(2, 3, rest=struct.pack("<iii", 1, 0, 99) + DATA)),
        file_of(v2(2, 3, rest=struct.pack("<iii", 77, 0, 0) + DATA)),
        file_of(v2(6, rest=struct.pack("<iii", 1, 0, 7) + b"\1\0\2\0\0\0")),
        file_of(v2(2, 3), v2(2, 3), names=(b"same", b"same")),
        file_of(v2(2, 3), v2(2, 3), names=(b"one",)),
        file_of(v2(2, 3), names=(b"one", b"two")),
        file_of(v2(2, 3), names=(b"\xff",)),
    ],
)  # fmt: skip
def test_hostile_headers_are_refused_without_taking_memory(damaged: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ParamsFileError):
            parse_params(damaged)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([0, 8, 16, HEADER, HEADER + 4, HEADER + 12]))
def test_garbage_is_refused(garbage: bytes, kept: int) -> None:
    arrays_or_none(WHOLE[:kept] + garbage)


WORDS = [0, 1, 2, 3, 6, 7, 12, 32, 33, 2**31, 2**32 - 1, V1, V2, V3]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=24), st.sampled_from([0, 1, 2, 2**63]))
def test_plausible_garbage_is_refused(words: list[int], count: int) -> None:
    body = struct.pack("<QQQ", 0x112, 0, count) + struct.pack(f"<{len(words)}I", *words)
    arrays_or_none(body)
