"""Inputs of integers: declared in the file or said, drawn, read, refused, and converted."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import import_symbol, load_symbol
from mxnet_files.__main__ import main
from mxnet_files.budget import Budget
from mxnet_files.errors import SymbolError
from mxnet_files.reading.inputs import asked_input, random_inputs, read_inputs
from mxnet_files.reading.params_file import write_params

pytestmark = pytest.mark.usefixtures("warm_model_files")

S = mx.sym
WHOLE = ["uint8", "int8", "int32", "int64"]
QUICK = [("uint8", "declared"), ("int32", "said")]


def wrapping(declared: str | None) -> Any:
    """An image minus a number that is too large for it, in its own dtype, and then a layer."""
    x = S.var("data", dtype=declared) if declared else S.var("data")
    moved = S.Cast(x - 200, dtype="float32")
    return S.FullyConnected(moved / 256, num_hidden=3, name="fc")


def files_of(folder: Path, symbol: Any) -> list[str]:
    rng = np.random.default_rng(0)
    arrays = {
        "arg:fc_weight": rng.normal(size=(3, 6)).astype(np.float32),
        "arg:fc_bias": rng.normal(size=3).astype(np.float32),
    }
    write_params(folder / "x-0000.params", arrays)
    (folder / "x-symbol.json").write_text(symbol.tojson())
    return [str(folder / "x-symbol.json"), str(folder / "x-0000.params")]


def of_mxnet(files: list[str], x: np.ndarray) -> np.ndarray:
    symbol = mx.sym.load(files[0])
    given = {name.split(":")[1]: value for name, value in mx.nd.load(files[1]).items()}
    given["data"] = mx.nd.array(x, dtype=x.dtype)
    return symbol.bind(mx.cpu(), given).forward()[0].asnumpy()


@pytest.mark.parametrize(
    ("dtype", "how"),
    [
        pytest.param(dtype, how, marks=() if (dtype, how) in QUICK else pytest.mark.slow)
        for dtype in WHOLE
        for how in ("declared", "said")
    ],
)
def test_a_folder_computes_with_integers_as_mxnet_does(
    dtype: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of(tmp_path, wrapping(dtype if how == "declared" else None))
    said = "data=4,6" if how == "declared" else f"data=4,6:{dtype}"
    out = tmp_path / "out"
    assert main(["convert", *files, "--input", said, "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["verified_against"] == f"MXNet {mx.__version__}"
    assert report["inputs"][0]["dtype"] == dtype
    with np.load(out / "samples.npz") as samples:
        x = samples["input 0"]
        assert x.dtype == dtype
        np.testing.assert_allclose(samples["output 0"], of_mxnet(files, x), rtol=1e-5, atol=1e-5)
    program = torch.export.load(out / "model.pt2").module()
    np.testing.assert_allclose(
        program(torch.from_numpy(x)).detach(), of_mxnet(files, x), rtol=1e-5, atol=1e-5
    )
    assert main(["verify", str(out)]) == 0
    assert main(["check", *files, "--input", said]) == 0
    assert "compared in float64" in capsys.readouterr().out


def test_wrapping_is_seen() -> None:
    """The drawn images have what the test is about: differences below 0, which uint8 wraps."""
    module = imported(json.loads(wrapping("uint8").tojson()))
    (x,) = random_inputs(module, [asked_input("4,6")]).values()
    assert (x < 200).any()
    assert (x >= 200).any()


def test_a_module_refuses_another_dtype_than_the_declared_one(tmp_path: Path) -> None:
    files = files_of(tmp_path, wrapping("uint8"))
    module = load_symbol(*files)
    with pytest.raises(ValueError, match="the file declares"):
        module(torch.zeros(1, 6))
    module(torch.zeros(1, 6, dtype=torch.uint8))
    scripted = torch.jit.script(module)
    with pytest.raises(torch.jit.Error, match="the file declares"):
        scripted(torch.zeros(1, 6))


def test_so_does_what_is_written(tmp_path: Path) -> None:
    files = files_of(tmp_path, S.var("data", dtype="uint8") - 200)  # without a Cast behind it
    out = tmp_path / "out"
    assert main(["convert", *files, "--input", "4,6", "--out", str(out)]) == 0
    scope: dict[str, Any] = {"__file__": str(out / "model.py"), "__name__": "model"}
    exec((out / "model.py").read_text(), scope)
    for net in (scope["load"](), torch.export.load(out / "model.pt2").module()):
        with pytest.raises((ValueError, RuntimeError)):
            net(torch.zeros(4, 6))
        assert int(net(torch.zeros(4, 6, dtype=torch.uint8)).max()) == 56


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--input", "data=4,6:int32"],
            "--input data is int32, the file declares uint8",
        ),
        (["--input", "data=4,6:complex64"], "got the dtype 'complex64', expected one of float32, "),
        (["--data", "half.npz"], "data holds float64 that are no uint8"),
        (["--data", "large.npz"], "data holds int64 that are no uint8"),
        (["--data", "nan.npz"], "data holds float32 that are no uint8"),
        (["--data", "good.npz", "--input", "data=4,7"], "has data (4, 6), --input says (4, 7)"),
    ],
)
def test_refusals(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = files_of(tmp_path, wrapping("uint8"))
    np.savez("half.npz", data=np.full((4, 6), 0.5))
    np.savez("large.npz", data=np.full((4, 6), 256))
    np.savez("nan.npz", data=np.full((4, 6), np.nan, np.float32))
    np.savez("good.npz", data=np.full((4, 6), 7))
    assert main(["convert", *files, *words, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_whole_numbers_of_any_dtype_are_read_as_the_declared_one(tmp_path: Path) -> None:
    files = files_of(tmp_path, wrapping("uint8"))
    data = tmp_path / "x.npz"
    np.savez(data, data=np.arange(0, 240, 10).reshape(4, 6).astype(np.float32))
    module = load_symbol(*files)
    for asked in ([], [asked_input("4,6:uint8")], [asked_input("data=4,6")]):
        (array,) = read_inputs(module, data, asked).values()
        assert array.dtype == np.uint8
        assert array.max() == 230


def test_a_table_is_looked_up_by_integers(tmp_path: Path) -> None:
    x = S.Embedding(S.var("data", dtype="int32"), input_dim=20, output_dim=2, name="table")
    symbol = S.FullyConnected(x, num_hidden=3, name="fc")
    files = files_of(tmp_path, symbol)
    arrays = mx.nd.load(files[1])
    arrays["arg:table_weight"] = mx.nd.random.normal(shape=(20, 2))
    mx.nd.save(files[1], arrays)
    out = tmp_path / "out"
    assert main(["convert", *files, "--input", "data=4,3", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["inputs"][0]["dtype"] == "int32"
    assert report["no_onnx"] == ""
    assert main(["verify", str(out)]) == 0


def test_a_declaration_that_mxnet_does_not_know() -> None:
    document = json.loads(wrapping("uint8").tojson())
    for text in ("foo", "99", "-2", "1e0", "3" * 30):
        document["nodes"][0]["attrs"]["__dtype__"] = text
        with pytest.raises(SymbolError, match=r"__dtype__=.*, expected the number of one of"):
            imported(document)
    document["nodes"][0]["attrs"]["__dtype__"] = "-1"
    imported(document)


def imported(document: Any) -> Any:
    arrays = {"fc_weight": np.ones((3, 6), np.float32), "fc_bias": np.zeros(3, np.float32)}
    return import_symbol(document, arrays)


def test_inputs_are_held_against_the_budget_before_they_are_drawn(tmp_path: Path) -> None:
    module = load_symbol(*files_of(tmp_path, wrapping("uint8")))
    with pytest.raises(SymbolError, match=r"take 7.84e\+10 values and the budget is 1e\+09"):
        random_inputs(module, [asked_input("100000000,784")])
    with pytest.raises(SymbolError, match="--budget bytes=24"):
        random_inputs(module, [asked_input("4,6")], Budget(bytes=23))


def npy(array: Any, header: bytes = b"", other: bytes = b"") -> bytes:
    """An array as a file, with other words in its header."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue().replace(header, other.ljust(len(header)))


def archive(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.npy", content)
    return stream.getvalue()


def with_word(place: int, value: int) -> bytes:
    """An archive with another word of 16 bits in both heads of its member."""
    content = bytearray(archive(npy(np.full((4, 6), 7))))
    second = content.index(b"PK\x01\x02")
    for start in (place, second + 2 + place):
        content[start : start + 2] = value.to_bytes(2, "little")
    return bytes(content)


WHOLE_FILE = archive(npy(np.full((4, 6), 7)))
DAMAGED_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "an array": (lambda: npy(np.ones(2)), "File is not a zip file"),
    "cut off": (lambda: WHOLE_FILE[:-9], "File is not a zip file"),
    "bits": (lambda: WHOLE_FILE[:60] + b"\xff" + WHOLE_FILE[61:], ""),
    "packed otherwise": (lambda: with_word(8, 99), "compression method is not supported"),
    "with a password": (lambda: with_word(6, 1), "encrypted"),
    "text": (lambda: archive(b"no array"), "magic string is not correct"),
    "nothing": (lambda: archive(b""), "EOF"),
    "objects": (lambda: archive(npy(np.array([{}]))), "object of shape"),
    "a larger array": (
        lambda: archive(npy(np.ones(9), b"(9,), }         ", b"(9000000000,), }")),
        r"float64 of shape \(9000000000,\) in 72 bytes",
    ),
    "a header of no Python": (lambda: archive(npy(np.ones(9), b"(9,)", b"(9 9)")), "header"),
}


@pytest.mark.parametrize("kind", DAMAGED_FILES)
def test_a_damaged_npz_is_one_line(kind: str, tmp_path: Path) -> None:
    make, said = DAMAGED_FILES[kind]
    (tmp_path / "x.npz").write_bytes(make())
    module = imported(json.loads(wrapping("uint8").tojson()))
    with pytest.raises(SymbolError, match=f"x.npz: expected arrays by name.*: .*{said}") as caught:
        read_inputs(module, tmp_path / "x.npz", [])
    assert "\n" not in str(caught.value)


def test_arrays_are_held_against_the_budget_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(WHOLE_FILE)
    module = imported(json.loads(wrapping(None).tojson()))
    assert read_inputs(module, path, [], Budget(bytes=320))["data"].shape == (4, 6)
    with pytest.raises(SymbolError, match=r"--data data \(4, 6\): the inputs alone take 24 values"):
        read_inputs(module, path, [], Budget(values=23))
    monkeypatch.delattr("zipfile.ZipFile.open")
    with pytest.raises(SymbolError, match="takes 320 bytes and the budget is 319: raise it with"):
        read_inputs(module, path, [], Budget(bytes=319))
