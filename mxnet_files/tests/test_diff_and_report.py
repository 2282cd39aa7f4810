"""`mxnet-files diff` and `report`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mxnet_files.__main__ import main
from mxnet_files.diff import compare_arrays
from mxnet_files.reading.params_file import write_params
from mxnet_files.tests.test_symbol_command import small_net, write

S = mx.sym
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 3)).astype(np.float32)
    return {"w": weight, "zeros": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}


def test_formats_and_names_do_not_matter(
    arrays: dict[str, np.ndarray], tmp_path: Path, capsys: Capture
) -> None:
    write_params(tmp_path / "a.params", {f"arg:{name}": value for name, value in arrays.items()})
    save_file({f"net.{name}": value for name, value in arrays.items()}, tmp_path / "b.safetensors")
    doubles = {name: torch.from_numpy(value).double() for name, value in arrays.items()}
    torch.save(doubles, tmp_path / "c.pt")
    assert main(["diff", str(tmp_path / "a.params"), str(tmp_path / "b.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "equal: 3 tensors, 3 of them under another name" in printed
    assert "w is net.w" in printed
    assert main(["diff", str(tmp_path / "a.params"), str(tmp_path / "c.pt")]) == 0
    assert "0 of them under another name" in capsys.readouterr().out


def test_every_difference_is_seen(
    arrays: dict[str, np.ndarray], tmp_path: Path, capsys: Capture
) -> None:
    other = {name: value.copy() for name, value in arrays.items()}
    other["w"][1, 2] = np.nextafter(other["w"][1, 2], np.float32(9))
    write_params(tmp_path / "a.params", arrays)
    write_params(tmp_path / "b.params", {**other, "more": np.ones(1, np.float32)})
    assert main(["diff", str(tmp_path / "a.params"), str(tmp_path / "b.params")]) == 1
    printed = capsys.readouterr().out
    assert "w: 1 of 6 numbers differ, by at most" in printed
    assert "only in" in printed
    assert "  more" in printed
    assert main(["diff", *[str(tmp_path / f"{n}.params") for n in "ab"], "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["same"]
    assert found["only_b"] == ["more"]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (np.array([np.nan, 1], np.float32), np.array([np.nan, 1], np.float64), True),
        (np.array([np.nan, 1], np.float32), np.array([0, 1], np.float32), False),
        (np.array([-0.0], np.float32), np.array([0.0], np.float32), True),
        (np.array([2**53 + 1], np.int64), np.array([2**53], np.int64), False),
        (np.array([1, 2], np.uint8), np.array([1, 2], np.float32), True),
        (np.zeros((0, 3)), np.zeros((0, 3)), True),
        (np.zeros((2, 3)), np.zeros((3, 2)), False),
    ],
)
def test_values(a: np.ndarray, b: np.ndarray, same: bool) -> None:
    for name in ("x", "y"):  # by name, and by value
        assert compare_arrays({"x": a}, {name: b}).same is same


def test_what_is_nan_all_over_is_told_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((*_, told),) = compare_arrays({"x": np.full(2, np.nan)}, {"x": np.ones(2)}).changed
    assert told == "all 2 numbers differ, by at most nan"


def test_a_tensor_counts_once() -> None:
    zero = np.zeros(3)
    found = compare_arrays({"a": zero, "b": zero}, {"c": zero})
    assert (len(found.equal), len(found.only_a), found.same) == (1, 1, False)


def test_damaged_files_are_one_line(tmp_path: Path, capsys: Capture) -> None:
    for name in ("a.params", "a.safetensors", "a.pt"):
        (tmp_path / name).write_bytes(b"no")
        assert main(["diff", str(tmp_path / name), str(tmp_path / name)]) == 1
        assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A net that opens, one of an unknown operator, one without parameters, one that is damaged."""
    (tmp_path / "good").mkdir()
    write(tmp_path / "good", small_net(), data=(1, 3, 10, 8), softmax_label=(1,))
    symbol: dict[str, Any] = json.loads(S.relu(S.var("data"), name="r").tojson())
    (tmp_path / "bare-symbol.json").write_text(json.dumps(symbol))
    for node in symbol["nodes"]:
        node["op"] = node["op"].replace("relu", "no_such_operator")
    (tmp_path / "unknown-symbol.json").write_text(json.dumps(symbol))
    (tmp_path / "cut-symbol.json").write_text('{"nodes": [')
    return tmp_path


def test_report(models: Path, capsys: Capture) -> None:
    assert main(["report", str(models)]) == 1
    printed = capsys.readouterr().out
    assert "2 of 4 models open" in printed
    assert "| good/x-symbol.json | 6 |" in printed
    assert "lacks no_such_operator: unknown-symbol.json" in printed
    assert "cut-symbol.json: " in printed
    assert main(["report", str(models / "good"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert row["params"] == "x-0000.params"
    assert row["parameters"] == (4 * 27 + 4) + (4 + 4) + (3 * 48 + 3)
    assert row["effort"] == "convert"
    assert row["bytes"] == (models / "good" / "x-0000.params").stat().st_size


def test_report_looks_behind_links_and_into_attributes_and_loops(
    tmp_path: Path, capsys: Capture
) -> None:
    x = S.var("data")
    S.relu(x).save(str(tmp_path / "linked-symbol.json"))
    (tmp_path / "linked-0000.params").symlink_to(tmp_path / "moved.params")
    (tmp_path / "gone-symbol.json").symlink_to(tmp_path / "moved.json")
    (tmp_path / "folder-symbol.json").mkdir()
    odd = S.Activation(x, act_type="relu", name="odd").tojson().replace('"relu"', '"rely"')
    (tmp_path / "odd-symbol.json").write_text(odd)
    _, (state,) = S.contrib.while_loop(
        lambda i: i < 3, lambda i: ([], [S.contrib.fft(i)]), [x], max_iterations=5
    )
    state.save(str(tmp_path / "loop-symbol.json"))
    assert main(["report", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    rows = {row["symbol"].removesuffix("-symbol.json"): row for row in found["models"]}
    assert (found["open"], list(rows)) == (0, ["gone", "linked", "loop", "odd"])
    assert "moved.json" in rows["gone"]["problem"] or "gone-symbol" in rows["gone"]["problem"]
    assert "linked-0000.params" in rows["linked"]["problem"]
    assert "act_type='rely'" in rows["odd"]["problem"]
    assert rows["loop"]["lacking"] == {"_contrib_fft": 1}
    assert main(["report", str(tmp_path)]) == 1
    assert "0 of 4 models open" in capsys.readouterr().out


def test_report_of_nothing(tmp_path: Path, capsys: Capture) -> None:
    for place, said in ((tmp_path, "holds no *-symbol.json"), (tmp_path / "no", "is no folder")):
        assert main(["report", str(place)]) == 2
        assert said in capsys.readouterr().err
