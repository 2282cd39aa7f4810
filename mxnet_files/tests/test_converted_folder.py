"""`convert --out DIR` and `verify DIR`: what is written, what is refused, what is noticed."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gluon_cnn_parity.atomic import sha256
from gluon_cnn_parity.child import Tell, follow
from mxnet_files.__main__ import main
from mxnet_files.checking import apart, recorded
from mxnet_files.errors import SymbolError
from mxnet_files.proving import artefacts
from mxnet_files.proving.certificate import read_claims
from mxnet_files.proving.page import page
from mxnet_files.registry import OPERATORS
from mxnet_files.save import newest_opset
from mxnet_files.tests.test_symbol_command import SHAPE, small_net, write

pytestmark = pytest.mark.usefixtures("warm_model_files")

S = mx.sym
FILES = ["model.onnx", "model.pt2", "model.py", "model.safetensors", "report.html", "samples.npz"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the files that came, and `out`, what convert made of them."""
    place = tmp_path_factory.mktemp("converted")
    files = write(place, small_net(), data=(2, 3, 10, 8), softmax_label=(2,))
    assert main(["convert", *files, "--input", "data=2,3,10,8", "--out", str(place / "out")]) == 0
    return place


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of what was written, to be damaged."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_the_folder_and_its_report(made: Path) -> None:
    out = made / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "report.json"])
    assert sorted(path.name for path in made.iterdir()) == ["out", "x-0000.params", "x-symbol.json"]
    report = report_of(out)
    assert report["verified_against"] == "MXNet 1.9.1"
    assert [row["name"] for row in report["written"]] == FILES
    of_programs = report["written"][:3]
    assert {row["verified_against"] for row in of_programs} == {"MXNet 1.9.1"}
    assert all(row["verified"] for row in of_programs)
    assert report["source"][0]["sha256"] == sha256(made / "x-symbol.json")
    assert {row["operator"] for row in report["nodes"]} >= {"Convolution", "BatchNorm", "Pooling"}
    assert all(row["units"] <= row["bound"] for row in report["nodes"])
    (output,) = report["outputs"]
    assert set(output["errors"]) == {"model.py", "model.pt2", "model.onnx"}
    assert all(error <= output["bound"] for error in output["errors"].values())
    assert report["opset"] == newest_opset()
    assert report["heads"] is None
    assert set(report["weights"].values()) >= {"conv_weight", "bn_moving_mean", "fc_bias"}
    assert set(load_file(out / "model.safetensors")) == set(report["weights"])
    html = (out / "report.html").read_text()
    assert "Equal to MXNet 1.9.1 within rounding" in html
    assert "conv_weight" in html
    assert all(row["sha256"] in html for row in report["written"] if row["name"] != "report.html")


def test_verify_agrees_without_mxnet(out: Path, torch_python: list[str]) -> None:
    code = (
        "import sys; sys.modules.update(mxnet=None, mxnet_compat=None);"
        f"from mxnet_files.__main__ import main; sys.exit(main(['verify', {str(out)!r}]))"
    )
    command = [*torch_python, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "6 files are those of the report" in done.stdout
    assert all(f"model.{ending}: " in done.stdout for ending in ("py", "pt2", "onnx"))
    assert "the folder is what its report says: verified against MXNet 1.9.1" in done.stdout
    assert not (out / "__pycache__").exists()


def rehash(out: Path, name: str) -> None:
    """As a forger would: the report names the changed file."""
    report = report_of(out)
    for row in report["written"]:
        if row["name"] == name:
            row["sha256"] = sha256(out / name)
    (out / "report.json").write_text(json.dumps(report))


def change_weights(out: Path) -> None:
    state = load_file(out / "model.safetensors")
    state = {key: value + 0.01 for key, value in state.items()}
    save_file(state, out / "model.safetensors")


def change_samples(out: Path) -> None:
    with np.load(out / "samples.npz") as file:
        arrays = dict(file)
    arrays["output 0"] = arrays["output 0"] + np.array([1e-3, -1e-3, 0])
    np.savez(out / "samples.npz", **arrays)


def append(name: str) -> Callable[[Path], Any]:
    def damage(out: Path) -> None:
        with (out / name).open("ab") as file:
            file.write(b"\n")

    return damage


def say(value: Any, *keys: Any) -> Callable[[Path], Any]:
    """Another value at a place of the report."""

    def damage(out: Path) -> None:
        row = report = report_of(out)
        for key in keys[:-1]:
            row = row[key]
        row[keys[-1]] = value
        (out / "report.json").write_text(json.dumps(report))

    return damage


def link(out: Path) -> None:
    (out / "model.py").rename(out.parent / "m.py")
    (out / "model.py").symlink_to(out.parent / "m.py")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{name: (append(name), f"{name} is not the file that was written") for name in FILES},
    "missing": (lambda out: (out / "model.pt2").unlink(), "model.pt2 is missing"),
    "extra": (lambda out: (out / "more.py").write_text(""), "more.py is not in the report"),
    "link": (link, "model.py is missing"),
    "outside": (say("../x-symbol.json", "written", 0, "name"), "which is no file of the folder"),
    "no report": (lambda out: (out / "report.json").unlink(), "no report.json"),
    "cut off": (lambda out: (out / "report.json").write_text("{"), "convert the net anew"),
    "another format": (lambda out: (out / "report.json").write_text("{}"), "expected a report"),
    "damaged": (say([{"bound": None}], "outputs"), "damaged: outputs[0].bound is None"),
    "bound 0": (say(0.0, "outputs", 0, "bound"), "[0].bound is 0.0, expected a number above 0"),
    "no bound": (say(float("inf"), "outputs", 0, "bound"), "[0].bound is inf, expected a number"),
    "no hash": (say(7, "written", 5, "sha256"), "written[5].sha256 is 7, expected text"),
    "no file": (say(None, "written", 0), "written[0].name is None, expected text"),
    "no inputs": (say({}, "inputs"), "inputs is {}, expected a list"),
    "perhaps verified": (say("yes", "verified"), "verified is 'yes', expected true or false"),
    "against nothing": (say(None, "verified_against"), "verified_against is None, expected text"),
    "long name": (say("x" * 999, "written", 0, "name"), "xxx is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_notices(kind: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, said = DAMAGE[kind]
    damage(out)
    assert main(["verify", str(out)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    if "report.json" not in error:
        assert f"{out} is not what convert wrote: " in error
        assert "; put the files back, or convert again" in error


@pytest.mark.parametrize(
    ("name", "damage"),
    [("model.safetensors", change_weights), ("samples.npz", change_samples)],
)
def test_verify_runs_what_it_hashes(
    name: str, damage: Callable[[Path], None], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a report that names the changed file, the outputs give it away."""
    damage(out)
    rehash(out, name)
    assert main(["verify", str(out), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert any("model.py: " in problem for problem in found["problems"])


def test_a_report_of_before_that_says_nothing_of_each_file_is_read(out: Path) -> None:
    claims = read_claims(out)
    report = report_of(out)
    for row in report["written"]:
        row.pop("verified", None)
        row.pop("verified_against", None)
    (out / "report.json").write_text(json.dumps(report))
    assert read_claims(out) == claims
    assert claims.verified_against == "MXNet 1.9.1"


def flip(out: Path) -> None:
    path = out / "samples.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)


def save_samples(out: Path, **changed: Any) -> None:
    path = out / "samples.npz"
    with np.load(path) as file:
        arrays = {**file, **{name.replace("_", " "): x for name, x in changed.items()}}
    np.savez(path, **{name: x for name, x in arrays.items() if x is not None})


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "bits": (flip, "not the samples of a report (convert the net anew"),
    "no archive": (lambda out: (out / "samples.npz").write_text("no archive"), "not a zip file"),
    "text": (lambda out: save_samples(out, output_0=np.array(["a"])), "0 is <U1, expected numbers"),
    "objects": (lambda out: save_samples(out, output_0=np.array([{}])), "object of shape (1,)"),
    "no input": (lambda out: save_samples(out, input_0=None), "'input 0' is missing"),
    "more": (lambda out: save_samples(out, more=np.ones(2)), "'output 1' is missing"),
    "an output": (lambda out: save_samples(out, output_1=np.ones(2)), "holds other outputs than"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_damaged_samples_that_the_report_names_are_one_line(
    kind: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, said = SPOILT[kind]
    damage(out)
    rehash(out, "samples.npz")
    assert main(["verify", str(out)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_samples_are_held_against_the_budget_before_they_are_unpacked(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("zipfile.ZipFile.open")
    assert main(["verify", str(out), "--budget", "bytes=1K"]) == 1
    error = capsys.readouterr().err
    assert "bytes and the budget is 1e+03: raise it with --budget bytes=" in error
    assert error.count("\n") == 1


def test_what_running_a_file_raises_is_a_problem(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another shape is infinitely far, which JSON has no number for."""

    def fails(*words: Any) -> Any:
        raise ValueError("two\nlines")

    runners = {".py": fails, ".pt2": lambda path, inputs: [np.zeros((1, 1))]}
    monkeypatch.setattr("mxnet_files.proving.certificate.RUNNERS", runners)
    assert main(["verify", str(out), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == {"model.pt2": [None]}
    assert found["problems"][0].startswith("model.pt2: inf from the stored outputs")
    assert found["problems"][1] == "model.py: two"


def test_an_output_that_overflows_in_float32_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = S.Convolution(S.var("data"), num_filter=2, kernel=(1, 1), no_bias=True, name="c")
    files = write(tmp_path, S.Group([x, S.exp(x * 1e2)]), data=(1, 3, 4, 4))
    out = tmp_path / "out"
    assert main(["convert", *files, "--input", "data=1,3,4,4", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "output 1 overflows: infinite or NaN in float32" in error
    assert error.count("\n") == 1
    assert not out.exists()
    assert main(["check", *files, "--input", "data=1,3,4,4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["check"]
    assert told["ok"]
    assert told["mxnet_float32_error"] is None
    assert any("outputs overflow" in remark for remark in told["remarks"])


def test_a_model_file_that_does_not_end(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefacts, "LONGEST_RUN", 0.01)
    with pytest.raises(SymbolError, match=r"^model.py runs for more than 0.01 s$"):
        artefacts.run_model_file(out / "model.py", {})


def test_an_older_result_is_replaced_and_nothing_else(
    made: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    words = ["convert", *files, "--input", "data=4,3,10,8", "--out", str(out), "--heads", "fc"]
    assert main(words) == 0
    report = report_of(out)
    assert (report["inputs"][0]["shape"], report["heads"]) == ([4, 3, 10, 8], ["fc"])
    assert "Outputs: fc, not the file's own." in (out / "report.html").read_text()
    assert "softmax" not in (out / "model.py").read_text()
    (out / "report.json").unlink()
    assert main(words) == 2
    assert "holds other files than convert writes" in capsys.readouterr().err
    assert (out / "model.py").exists()
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


@pytest.mark.parametrize("name", ["run_model_file", "run_program", "run_onnx"])
def test_what_computes_otherwise_never_appears(
    name: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending = {"run_model_file": ".py", "run_program": ".pt2", "run_onnx": ".onnx"}[name]
    genuine = artefacts.RUNNERS[ending]
    wrong = {**artefacts.RUNNERS, ending: lambda *words: [y + 1e-3 for y in genuine(*words)]}
    monkeypatch.setattr(artefacts, "RUNNERS", wrong)
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    assert main(["convert", *files, *SHAPE, "--out", str(tmp_path / "out")]) == 1
    assert f"model{ending} is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_inputs(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    x = np.random.default_rng(0).integers(0, 255, (3, 3, 10, 8), np.uint8)
    np.savez(tmp_path / "mine.npz", data=x)
    words = ["convert", *files, "--out", str(tmp_path / "out"), "--data"]
    assert main([*words, str(tmp_path / "mine.npz")]) == 0
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        np.testing.assert_array_equal(samples["input 0"], x.astype(np.float32))
    assert report_of(tmp_path / "out")["inputs"][0]["values"] == "mine.npz"
    np.savez(tmp_path / "other.npz", image=x)
    np.savez(tmp_path / "pickled.npz", data=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("no archive")
    for name, code, said in (
        ("other.npz", 2, "the graph's inputs are ['data']"),
        ("pickled.npz", 1, "expected arrays by name"),
        ("text.npz", 1, "expected arrays by name"),
        ("none.npz", 1, "No such file"),
    ):
        assert main([*words, str(tmp_path / name)]) == code
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """MXNet is not installed."""

    def fails() -> Any:
        raise ModuleNotFoundError("no MXNet", name="mxnet")

    monkeypatch.setattr(apart, "import_mxnet", fails)


@pytest.mark.usefixtures("absent")
def test_without_mxnet_every_operator_is_held_against_recorded_values(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    out = tmp_path / "out"
    assert main(["convert", *files, *SHAPE, "--out", str(out)]) == 0
    assert "recorded results of MXNet 1.9.1 for its" in capsys.readouterr().out
    report = report_of(out)
    assert report["verified"] is True
    assert report["recorded"]["cases"] >= 3 * report["recorded"]["operators"] > 9
    assert {"model.py", "model.pt2", "model.onnx"} < {path.name for path in out.iterdir()}
    page = (out / "report.html").read_text()
    assert "Every operator computes what MXNet computed for it." in page
    assert "MXNet itself did not run the graph" in page
    assert main(["verify", str(out)]) == 0
    assert " recorded results of MXNet 1.9.1 for its" in capsys.readouterr().out


@pytest.mark.usefixtures("absent")
def test_without_mxnet_an_operator_that_computes_something_else_is_named(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As another release of torch may."""
    right = OPERATORS["Pooling"]

    def wrong(w: Any, a: Any, x: Any) -> Any:
        return w.call(torch.mul, right.build(w, a, x), 1.001)

    monkeypatch.setitem(OPERATORS, "Pooling", replace(right, build=wrong))
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    assert main(["convert", *files, *SHAPE, "--out", str(tmp_path / "out")]) == 1
    assert "Pooling does not compute here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("absent")
def test_what_is_not_recorded_says_so_in_its_name(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version, cases = recorded.read()
    monkeypatch.setattr(recorded, "FILE", tmp_path / "few.jsonl.gz")
    recorded.write(version, [case for case in cases if case.operator != "Pooling"])
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    out = tmp_path / "out"
    assert main(["convert", *files, *SHAPE, "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert {"model-unverified.py", "model-unverified.pt2", "model-unverified.onnx"} < names
    assert report_of(out)["verified"] is False
    assert "Not verified." in (out / "report.html").read_text()
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    told = capsys.readouterr().out
    assert "not verified against nothing: MXNet is not installed" in told
    assert "nothing is recorded of Pooling" in told


def test_onnx_that_was_not_run_says_so_in_its_name_and_report(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """onnx's checker looks at the form of a file alone."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(artefacts.RUNNERS, ".py")  # which takes its time
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    out = tmp_path / "out"
    assert main(["convert", *files, *SHAPE, "--out", str(out)]) == 0
    nothing = "compared with nothing: onnxruntime is not installed"
    assert f" bytes, {nothing}\n" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert {"model-unverified.onnx", "model.py", "model.pt2"} < names
    assert "model.onnx" not in names
    report = report_of(out)
    rows = {row["name"]: row for row in report["written"]}
    assert report["verified"] is rows["model.pt2"]["verified"] is True
    assert rows["model-unverified.onnx"]["verified"] is False
    assert f"compared with {rows['model-unverified.onnx']['verified_against']}" == nothing
    assert f"model-unverified.onnx is {nothing}." in (out / "report.html").read_text()
    assert main(["verify", str(out)]) == 0
    said = "model-unverified.onnx: not run, onnxruntime is not installed"
    assert said in capsys.readouterr().out


def test_outputs_that_rounding_decides_prove_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a detector that is not trained, whose boxes float32 puts in another order."""
    monkeypatch.setattr(artefacts, "RUNNERS", {})  # which take their time
    files = write(tmp_path, S.sin(S.FullyConnected(S.var("data"), num_hidden=3) * 1e9), data=(2, 5))
    out = tmp_path / "out"
    assert main(["convert", *files, "--input", "data=2,5", "--out", str(out)]) == 0
    report = report_of(out)
    assert report["verified"] is False
    assert "from float64 on these inputs, so that any would pass" in report["verified_against"]
    assert all(row["units"] <= row["bound"] for row in report["nodes"])
    assert {"model-unverified.py", "model-unverified.pt2"} < {path.name for path in out.iterdir()}


@pytest.mark.slow
def test_a_part_of_a_training_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it predicts: neither its loss nor what only that takes."""
    scores = S.FullyConnected(S.var("data"), num_hidden=4, name="scores")
    loss = S.MakeLoss(S.square(scores - S.var("target")), name="loss")
    symbol = S.Group([loss, S.SoftmaxOutput(scores, name="softmax")])
    files = write(tmp_path, symbol, data=(3, 5), target=(3, 4), softmax_label=(3,))
    out = tmp_path / "out"
    words = ["convert", *files, "--input", "data=3,5", "--heads", "softmax_output"]
    assert main([*words, "--out", str(out)]) == 0
    report = report_of(out)
    assert (report["verified"], report["heads"]) == (True, ["softmax_output"])
    assert [row["name"] for row in report["nodes"]] == ["scores", "softmax"]
    assert [row["shape"] for row in report["outputs"]] == [[3, 4]]
    assert "Outputs: softmax_output, not the file's own." in (out / "report.html").read_text()
    assert "loss" not in (out / "model.py").read_text()
    assert main(["verify", str(out)]) == 0
    assert "verified against MXNet 1.9.1" in capsys.readouterr().out


def test_bad_usage(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    file = tmp_path / "file"
    file.write_text("")
    for words, said in (
        (["--out", str(file)], "is a file, expected a folder or a new name"),
        (["--out", str(tmp_path / "x.onnx")], "ends in .pt2"),
        (["--data", "x.npz"], "--data goes with --out FOLDER"),
    ):
        assert main(["convert", *files, *words]) == 2
        assert said in capsys.readouterr().err


def test_the_page_escapes_what_comes_from_files(made: Path) -> None:
    report = report_of(made / "out")
    evil = "<script>alert('x')</script>"
    report["nodes"][0]["name"] = report["model"] = report["inputs"][0]["name"] = evil
    report["weights"], report["heads"] = {evil: evil}, [evil]
    report["written"][0] |= {"name": evil, "verified_against": evil}
    report["source"][0]["name"] = report["verified_against"] = evil
    assert "<script" not in page(report)


def test_a_written_program_takes_any_batch(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does model.py, here in a Python that has imported nothing."""
    monkeypatch.setattr(artefacts, "PYTHON", [sys.executable])
    program = torch.export.load(made / "out" / "model.pt2").module()
    x = torch.randn(5, 3, 10, 8)
    spec = artefacts.run_model_file(made / "out" / "model.py", {"data": x.numpy()})
    torch.testing.assert_close(program(x), torch.from_numpy(spec[0]), rtol=1e-5, atol=1e-6)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def convert(_: Tell) -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        return main(["convert", *_words(made), "--out", str(tmp_path / "out")])

    told: dict[str, Any] = {}
    assert follow(convert, told.__setitem__) == 0
    assert told["gave"] == 1
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"error: {tmp_path / 'out'}: File too large; ")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_memory_that_is_enough_changes_nothing(made: Path) -> None:
    most = 16 * 2**30
    done = subprocess.run(
        [sys.executable, "-m", "mxnet_files", "check", *_words(made)],
        capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _words(made: Path) -> list[str]:
    files = [str(made / "x-symbol.json"), str(made / "x-0000.params")]
    return [*files, "--input", "data=2,3,10,8"]
