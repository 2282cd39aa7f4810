"""The map between Gluon's and torch's names, and the command that rewrites files with it."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mxnet_files.reading.params_file import (
    BFLOAT16,
    SPARSE_LIMIT,
    read_params,
    write_params,
)
from mxnet_files.reading.tensor_files import DTYPES, TensorFileError, read_tensors, write_tensors
from torch_ref.transfer import TransferError, main, to_gluon, to_torch

GLUON = {
    "features.0.weight": (4, 1, 3, 3),
    "features.0.bias": (4,),
    "features.1.gamma": (4,),
    "features.1.beta": (4,),
    "features.1.running_mean": (4,),
    "features.1.running_var": (4,),
    "features.3.weight": (4, 4, 3, 3),
    "features.3.bias": (4,),
    "classifier.1.weight": (10, 4),
    "classifier.1.bias": (10,),
    "classifier.2.bitmaps": (10, 4),
}
BATCH_NORM = ("gamma", "beta", "running_mean", "running_var")


def fingerprints(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Float32 arrays of which no two share a value, so that a swap of equal shapes shows."""
    arrays, start = {}, 1
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        arrays[name] = np.arange(start, start + size, dtype=np.float32).reshape(shape)
        start += size
    return arrays


def assert_same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name, array in a.items():
        assert (array.dtype, array.shape) == (b[name].dtype, b[name].shape)
        assert array.tobytes() == b[name].tobytes()


def torch_like() -> dict[str, np.ndarray]:
    """What a torch net of the same layers holds, its batch counter included."""
    return to_torch(fingerprints(GLUON)) | {"features.1.num_batches_tracked": np.array(0)}


def exported(prefix: str = "tiny_") -> dict[str, np.ndarray]:
    """`GLUON` as `export` names it."""
    arrays = {}
    for name, array in fingerprints(GLUON).items():
        kind = "aux:" if "running" in name else "arg:"
        arrays[kind + prefix + name.replace(".", "_")] = array
    return arrays


def test_every_name_maps_to_the_same_tensor_by_role() -> None:
    arrays = fingerprints(GLUON)
    moved = to_torch(arrays)
    assert list(moved) == [
        "features.0.weight",
        "features.0.bias",
        "features.1.weight",
        "features.1.bias",
        "features.1.running_mean",
        "features.1.running_var",
        "features.3.weight",
        "features.3.bias",
        "classifier.1.weight",
        "classifier.1.bias",
        "classifier.2.bitmaps",
    ]
    for (name, array), (new, got) in zip(arrays.items(), moved.items(), strict=True):
        assert got.tobytes() == array.tobytes(), (name, new)


@pytest.mark.parametrize("like", [False, True])
def test_round_trips_are_bit_equal(like: bool) -> None:
    arrays = fingerprints(GLUON)
    there = to_torch(arrays, torch_like() if like else None)
    assert_same(to_gluon(there, arrays if like else None), arrays)
    assert_same(to_torch(to_gluon(there)), there)


def test_results_are_copies() -> None:
    arrays = fingerprints(GLUON)
    moved = to_torch(arrays)
    moved["features.0.weight"][:] = 0
    assert arrays["features.0.weight"].all()


def test_a_broken_map_is_seen_by_the_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    """gamma and beta have one shape: only values can tell a map that swaps them."""
    good = to_torch(fingerprints(GLUON))
    monkeypatch.setattr("torch_ref.transfer.ROLES", {
        "weight": "weight", "bias": "bias", "gamma": "bias", "beta": "weight",
        "running_mean": "running_mean", "running_var": "running_var", "bitmaps": "bitmaps",
    })  # fmt: skip
    bad = to_torch(fingerprints(GLUON), torch_like())
    assert set(bad) == set(good)
    assert all(bad[name].shape == good[name].shape for name in good)
    with pytest.raises(AssertionError):
        assert_same({n: bad[n] for n in good}, good)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.lists(st.sampled_from(["a", "0", "b_c", "features", "é"]), max_size=3).map(tuple),
        st.sampled_from([("weight",), ("weight", "bias"), BATCH_NORM]),
    )
)
def test_any_structure_makes_the_round_trip(blocks: dict[tuple[str, ...], tuple]) -> None:
    shapes = {".".join((*path, role)): (2,) for path, roles in blocks.items() for role in roles}
    arrays = fingerprints(shapes)
    moved = to_torch(arrays)
    assert len(moved) == len(arrays)
    assert_same(to_gluon(moved), arrays)


def test_exported_names_become_structural() -> None:
    moved = to_torch(exported(), torch_like())
    assert_same(moved, to_torch(fingerprints(GLUON)))
    assert_same(to_torch(exported(prefix="")), moved)
    assert_same(to_torch(exported(prefix="my_features_2_net_")), moved)
    assert_same(to_gluon(moved, exported()), exported())


def test_two_exported_nets_in_one_file_are_refused() -> None:
    a, b = exported("a_"), exported("b_")
    with pytest.raises(TransferError, match=r"exported names of 2 nets: 'a', 'b'.*both become"):
        to_torch(a | b)
    split = {"a_features_0_weight": np.ones(1), "b_features_1_weight": np.ones(1)}
    with pytest.raises(TransferError, match="2 nets"):
        to_torch(split)


def test_other_flat_names_keep_their_path() -> None:
    shapes = {f"batchnorm0_{role}": (2,) for role in BATCH_NORM} | {"arg:net_dense1_weight": (3,)}
    moved = to_torch(fingerprints(shapes))
    assert list(moved) == [
        "batchnorm0_weight",
        "batchnorm0_bias",
        "batchnorm0_running_mean",
        "batchnorm0_running_var",
        "net_dense1_weight",
    ]
    assert list(to_gluon(moved))[:2] == ["batchnorm0_gamma", "batchnorm0_beta"]


def test_a_module_checkpoint_has_moving_statistics() -> None:
    """`save_checkpoint` writes what a symbol calls its auxiliary states."""
    arrays = fingerprints({
        "arg:bn_gamma": (4,), "arg:bn_beta": (4,),
        "aux:bn_moving_mean": (4,), "aux:bn_moving_var": (4,),
    })  # fmt: skip
    moved = to_torch(arrays)
    assert list(moved) == ["bn_weight", "bn_bias", "bn_running_mean", "bn_running_var"]
    assert moved["bn_running_var"].tobytes() == arrays["aux:bn_moving_var"].tobytes()
    assert_same(to_gluon(moved, arrays), arrays)


def test_like_tells_which_underscores_are_dots() -> None:
    shapes = {"arg:c_weight": (3,), "arg:b_1_gamma": (3,), "aux:b_1_moving_mean": (3,)}
    arrays = fingerprints(shapes)
    like = {n: np.zeros(3, np.float32) for n in ("c.weight", "b_1.weight", "b_1.running_mean")}
    moved = to_torch(arrays, like)
    assert list(moved) == list(like)
    assert [a.tobytes() for a in moved.values()] == [a.tobytes() for a in arrays.values()]
    assert_same(to_gluon(moved, arrays), arrays)
    with pytest.raises(TransferError, match="unexpected 'arg:c_weight'"):
        to_torch({"arg:c_weight": np.ones(3)}, {"d.weight": np.ones(3)})
    # two that read alike without dots: neither is guessed
    two = {"a.b_weight": np.ones(3), "a_b.weight": np.zeros(3)}
    with pytest.raises(TransferError, match="unexpected 'arg:a_b_weight'"):
        to_torch({"arg:a_b_weight": np.ones(3)}, two)


def test_a_single_layer_has_bare_roles() -> None:
    arrays = fingerprints(dict.fromkeys(BATCH_NORM, (2,)))
    assert list(to_torch(arrays)) == ["weight", "bias", "running_mean", "running_var"]
    assert_same(to_gluon(to_torch(arrays)), arrays)


def test_normalisation_without_statistics_needs_like() -> None:
    arrays = fingerprints({"norm.gamma": (2,), "norm.beta": (2,), "act.alpha": (1,)})
    moved = to_torch(arrays)
    assert list(moved) == ["norm.weight", "norm.bias", "act.weight"]
    assert list(to_gluon(moved)) == list(moved)
    assert_same(to_gluon(moved, arrays), arrays)


def test_the_batch_counter_is_ignored_both_ways() -> None:
    state = torch_like()
    assert "features.1.num_batches_tracked" not in to_torch(fingerprints(GLUON), state)
    assert list(to_gluon(state)) == list(GLUON)
    assert list(to_gluon({"num_batches_tracked": np.array(0), "weight": np.ones(1)})) == ["weight"]


def test_one_error_lists_everything_that_does_not_fit() -> None:
    arrays = fingerprints(GLUON)
    del arrays["features.0.bias"]
    arrays["features.9.weight"] = np.ones(1, np.float32)
    arrays["features.3.weight"] = np.ones((4, 4, 5, 5), np.float32)
    arrays["classifier.1.weight"] = arrays["classifier.1.weight"].astype(np.float64)
    expected = [
        "unexpected 'features.9.weight'",
        "missing 'features.0.bias' (4,)",
        "wrong shape 'features.3.weight': (4, 4, 5, 5), expected (4, 4, 3, 3)",
        "wrong dtype 'classifier.1.weight': float64, expected float32",
    ]
    with pytest.raises(TransferError) as caught:
        to_torch(arrays, torch_like())
    assert all(part in str(caught.value) for part in expected)
    assert "\n" not in str(caught.value)
    state = to_torch(arrays)
    with pytest.raises(TransferError) as caught:
        to_gluon(state, fingerprints(GLUON))
    assert all(part in str(caught.value) for part in expected)


def test_unknown_roles_pass_only_where_like_has_them() -> None:
    arrays = {"scale": np.ones(1), "block.temperature": np.ones(2)}
    for move in (to_torch, to_gluon):
        with pytest.raises(TransferError, match=r"'scale'.*'block\.temperature'"):
            move(arrays)
        assert_same(move(arrays, arrays), arrays)
        with pytest.raises(TransferError, match=r"missing 'block\.temperature'"):
            move({"scale": np.ones(1)}, arrays)


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(TransferError, match=r"'a\.weight' and 'a\.gamma' both become 'a\.weight'"):
        to_torch({"a.weight": np.ones(1), "a.gamma": np.ones(1)})
    with pytest.raises(TransferError, match="both become"):
        to_torch({"arg:a.weight": np.ones(1), "a.weight": np.ones(1)})
    with pytest.raises(TransferError, match="two names of `like`"):
        to_gluon({"a.weight": np.ones(1)}, {"a.weight": np.ones(1), "a.gamma": np.ones(1)})


def test_dtypes_are_kept() -> None:
    arrays = {f"{code}.weight": np.zeros(3, dtype) for code, dtype in DTYPES.items()}
    assert_same(to_torch(arrays), arrays)
    assert_same(to_gluon(arrays), arrays)


def test_a_gluon_net_and_a_torch_net_exchange_their_weights(tmp_path: Path) -> None:
    mx = pytest.importorskip("mxnet")
    gluon_net = mx.gluon.nn.HybridSequential()
    gluon_net.add(
        mx.gluon.nn.Conv2D(3, 3, in_channels=2),
        mx.gluon.nn.BatchNorm(in_channels=3),
        mx.gluon.nn.Dense(4, in_units=12),
    )
    gluon_net.initialize(mx.init.Uniform(1))
    gluon_net[1].running_var.set_data(mx.nd.array([1, 2, 3]))
    torch_net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(12, 4)
    ).eval()
    gluon_net.save_parameters(str(tmp_path / "net.params"))
    like = {name: tensor.numpy() for name, tensor in torch_net.state_dict().items()}
    moved = to_torch(read_params(tmp_path / "net.params"), like)
    torch_net.load_state_dict({name: torch.from_numpy(a) for name, a in moved.items()})
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    expected = gluon_net(mx.nd.array(x)).asnumpy()
    with torch.no_grad():
        features = torch_net[1](torch_net[0](torch.from_numpy(x)))
        got = torch_net[2](features.flatten(1)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

    state = {name: tensor.numpy() * 2 for name, tensor in torch_net.state_dict().items()}
    back = to_gluon(state, read_params(tmp_path / "net.params"))
    write_params(tmp_path / "back.params", back)
    gluon_net.load_parameters(str(tmp_path / "back.params"))
    for name, parameter in gluon_net._collect_params_with_prefix().items():
        assert parameter.data().asnumpy().tobytes() == back[name].tobytes()


# The files of state dicts.

MIXED = {
    f"x.{code}": np.arange(6).astype(dtype).reshape(2, 3)
    if dtype != BFLOAT16
    else np.arange(0x3F80, 0x3F83, dtype="<u2").view(BFLOAT16)
    for code, dtype in DTYPES.items()
} | {"scalar": np.array(7), "empty": np.zeros((0, 2), np.float32), "é\n": np.ones(1, np.int8)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_state_dict_files_keep_names_order_and_bits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_tensors(path, MIXED)
    assert_same(read_tensors(path), MIXED)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_torch_reads_the_files_itself(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_tensors(path, MIXED)
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert state["x.BF16"].dtype == torch.bfloat16
    assert state["x.BF16"].float().tolist() == [1.0, 1.0078125, 1.015625]
    assert state["x.F32"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state["scalar"].shape == ()
    if suffix == ".pt":
        torch.save(state, path)
        assert_same(read_tensors(path), MIXED)


def test_views_and_strided_tensors_are_read_as_their_values(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    torch.save({"t": base.T, "row": base[1], "p": torch.nn.Parameter(base)}, tmp_path / "a.pt")
    back = read_tensors(tmp_path / "a.pt")
    assert back["t"].tolist() == base.T.tolist()
    assert back["row"].tolist() == [3, 4, 5]
    assert back["p"].tolist() == base.tolist()


class Exploit:
    """What a hostile .pt holds: an object whose loading would run a command."""

    def __reduce__(self) -> tuple:
        return (os.system, (f"touch {os.environ['EXPLOIT_FILE']}",))


def test_a_pt_file_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLOIT_FILE", str(tmp_path / "owned"))
    torch.save({"x": Exploit()}, tmp_path / "a.pt")
    with pytest.raises(TensorFileError, match="no plain state dict"):
        read_tensors(tmp_path / "a.pt")
    assert not (tmp_path / "owned").exists()
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "owned").exists()  # the file was a real exploit


@pytest.mark.parametrize(
    "content", [{"x": 3}, [torch.ones(1)], {1: torch.ones(1)}, {"x": {"y": torch.ones(1)}}]
)
def test_a_pt_file_of_anything_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(TensorFileError, match=r"net\.state_dict"):
        read_tensors(tmp_path / "a.pt")


def test_tensors_that_numpy_cannot_hold_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(2).to_sparse()}, tmp_path / "a.pt")
    with pytest.raises(TensorFileError, match="no dense tensor"):
        read_tensors(tmp_path / "a.pt")
    torch.save({"x": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "a.pt")
    with pytest.raises(TensorFileError, match="float8"):
        read_tensors(tmp_path / "a.pt")
    with pytest.raises(TensorFileError, match="object"):
        write_tensors(tmp_path / "b.pt", {"x": np.array([None])})
    with pytest.raises(TensorFileError, match="expected a file named"):
        write_tensors(tmp_path / "b.npz", {})


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_every_truncated_state_dict_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_tensors(path, {"x": np.ones(3, np.float32), "y": np.ones(2, np.int8)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 1 if suffix == ".safetensors" else 29):
        path.write_bytes(whole[:length])
        with pytest.raises(TensorFileError) as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)


def test_only_regular_state_dicts_are_opened(tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(TensorFileError, match="regular file"):
            read_tensors(tmp_path / name)


def test_safetensors_of_unknown_dtype_or_size_is_refused(tmp_path: Path) -> None:
    def put(dtype: str, shape: list[int]) -> None:
        text = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, 1]}}).encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\1")

    put("F8_E4M3", [1])
    with pytest.raises(TensorFileError, match="unknown dtype F8_E4M3"):
        read_tensors(tmp_path / "a.safetensors")
    put("U8", [2**62, 2**62])
    with pytest.raises(TensorFileError, match="no sound"):
        read_tensors(tmp_path / "a.safetensors")


def write_safetensors(path: Path, dtype: str, shape: list[int], data: bytes) -> Path:
    offsets = [0, len(data)]
    header = {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "said"),
    [
        ("U8", [1] * 70, b"\1", "'x' has 70 dimensions: expected at most 32"),
        ("BOOL", [3], b"\0\1\7", "'x' is bool and holds other bytes than 0 and 1"),
        ("F32", [2**62, 0], b"", "impossible shape"),
        ("F32", [0, 2**40, 2**40], b"", "impossible shape"),
    ],
)
def test_safetensors_beyond_numpy_are_refused(
    dtype: str, shape: list[int], data: bytes, said: str, tmp_path: Path
) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", dtype, shape, data)
    with pytest.raises(TensorFileError, match=re.escape(said)):
        read_tensors(path)


def test_a_pt_file_is_held_against_its_own_size(tmp_path: Path) -> None:
    """1.5 KB that stand for 40 TB, and a tensor that packs zeros."""
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(1).expand(10**13)}, path)
    assert path.stat().st_size < 2000
    with pytest.raises(TensorFileError, match=r"'x' of shape \(10000000000000,\) is far larger"):
        read_tensors(path)
    torch.save({f"x{i}": torch.zeros(1).expand(2**26) for i in range(5)}, path)  # 256 MiB each
    with pytest.raises(TensorFileError, match="'x4' of shape"):
        read_tensors(path)
    torch.save({"x": torch.ones(1).expand(3, 2), "y": torch.ones([1] * 40)}, path)
    with pytest.raises(TensorFileError, match="'y' has 40 dimensions"):
        read_tensors(path)
    torch.save({"x": torch.ones(1).expand(3, 2)}, path)
    assert read_tensors(path)["x"].tolist() == [[1, 1]] * 3
    torch.save({"x": torch.tensor([0, 1, 7], dtype=torch.uint8).view(torch.bool)}, path)
    with pytest.raises(TensorFileError, match="'x' is bool"):
        read_tensors(path)


def test_a_packed_pt_file_is_refused(tmp_path: Path) -> None:
    """torch stores its archives as they are; a packed one could unfold to any size."""
    torch.save({"x": torch.zeros(10**6)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(TensorFileError, match="torch packs nothing"):
        read_tensors(tmp_path / "b.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_state_dicts_are_refused_or_read_within_their_size(
    suffix: str, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_tensors(path, MIXED)
        whole = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(whole)
        try:
            arrays, said = read_tensors(path), ""
        except TensorFileError as error:
            arrays, said = {}, str(error)
        assert "\n" not in said
        assert sum(array.nbytes for array in arrays.values()) <= len(whole) + SPARSE_LIMIT


# The command.


@pytest.fixture
def net(tmp_path: Path) -> Path:
    write_params(tmp_path / "net.params", fingerprints(GLUON))
    return tmp_path / "net.params"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_command_moves_a_file_there_and_back(
    net: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there, back = net.with_name(f"net{suffix}"), net.with_name("back.params")
    assert main([str(net), str(there)]) == 0
    assert capsys.readouterr().out == f"{there}: 11 arrays, 294 values\n"
    assert_same(read_tensors(there), to_torch(fingerprints(GLUON)))
    assert main([str(there), str(back), "--like", str(net), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "source": str(there), "destination": str(back), "arrays": 11, "values": 294, "ignored": [],
    }  # fmt: skip
    assert back.read_bytes() == net.read_bytes()


def test_the_command_reads_exported_files_and_counts_what_it_ignores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(tmp_path / "tiny-0000.params", exported())
    write_tensors(tmp_path / "like.safetensors", torch_like())
    out = tmp_path / "tiny.safetensors"
    argv = [str(tmp_path / "tiny-0000.params"), str(out)]
    assert main([*argv, "--like", str(tmp_path / "like.safetensors")]) == 0
    assert_same(read_tensors(out), to_torch(fingerprints(GLUON)))
    capsys.readouterr()
    assert main([str(tmp_path / "like.safetensors"), str(tmp_path / "b.params"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ignored"] == ["features.1.num_batches_tracked"]


def test_overwriting_needs_force(net: Path, refused: Any) -> None:
    out = net.with_name("net.safetensors")
    out.write_bytes(b"mine")
    refused(main, [str(net), str(out)], 1, "pass --force")
    assert out.read_bytes() == b"mine"
    assert main([str(net), str(out), "--force"]) == 0
    assert len(read_tensors(out)) == len(GLUON)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 2, "required: SRC, DST"),
        (["a.params", "b.params"], 2, "one of SRC and DST"),
        (["a.pt", "b.safetensors"], 2, "one of SRC and DST"),
        (["a.params", "b.npz"], 2, "b.npz: expected a file named"),
        (["a.params", "b.pt", "--like", "c.params"], 2, "--like to be as DST"),
        (["a.params", "b.pt"], 1, "a.params: No such file or directory"),
        (["a.pt", "b.params"], 1, "a.pt: No such file or directory"),
        (["bad.params", "b.pt"], 1, "bad.params: the file header needs 24 bytes"),
        (["bad.safetensors", "b.params"], 1, "bad.safetensors: no sound"),
        (["bad.pt", "b.params"], 1, "bad.pt: no plain state dict"),
        (["list.params", "b.pt"], 1, "no known role in '0'"),
        (["wide.safetensors", "b.params"], 1, "int16"),
        (["list.params", "none/b.pt", "--like", "x.pt"], 1, "x.pt: No such file"),
        (["good.params", "none/b.pt"], 1, "No such file or directory"),
    ],
)
def test_bad_usage_and_bad_files_give_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in ("params", "safetensors", "pt"):
        Path(f"bad.{suffix}").write_bytes(b"garbage")
    write_params("list.params", [np.ones(2, np.float32)])
    write_params("good.params", {"weight": np.ones(2, np.float32)})
    write_tensors("wide.safetensors", {"weight": np.ones(2, np.int16)})
    before = sorted(os.listdir())
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert sorted(os.listdir()) == before


def test_the_command_runs_as_a_module_and_needs_neither_framework(net: Path) -> None:
    """With torch and mxnet made unimportable, .params <-> .safetensors still works."""
    blocked = (
        "import sys, runpy; sys.modules.update(torch=None, mxnet=None);"
        "sys.argv[0] = 'transfer'; runpy.run_module('torch_ref.transfer', run_name='__main__')"
    )
    run = [sys.executable, "-c", blocked, str(net)]
    there, never = str(net.with_name("a.safetensors")), str(net.with_name("a.pt"))
    done = subprocess.run([*run, there], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*run, never], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith(": error: torch is not installed: pip install -e '.[torch]'\n")
    assert done.stderr.count("\n") == 1
