"""A user's own pair: inputs, labels, weights and mapping, through the command and in Python."""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files.reading.tensor_files import read_tensors, write_tensors
from parity_tests import check_parity
from parity_tests.__main__ import main
from parity_tests.backends.leaves import ParityError
from parity_tests.levels.quick import QUICK
from parity_tests.reporting.progress import progress_line, show
from parity_tests.tests.own_nets import NETS

LEVELS = ["--level", "structure,weights,forward,backward"]
X = np.random.default_rng(3).standard_normal((4, 3, 6, 6)).astype(np.float32)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with a user's nets in a folder of its own, where the commands run."""
    (tmp_path / "own_nets_of_a_user.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_nets_of_a_user", raising=False)
    importlib.invalidate_caches()
    return importlib.import_module("own_nets_of_a_user")


def own(gluon: str = "ours", theirs: str = "Theirs", *more: str) -> list[str]:
    module = "own_nets_of_a_user"
    return ["--gluon", f"{module}:{gluon}", "--torch", f"{module}:{theirs}", *more]


def test_labels_batches_and_factory_arguments(nets: Any, capsys: pytest.CaptureFixture) -> None:
    rows = np.random.default_rng(0)
    np.savez("d.npz", x=rows.standard_normal((9, 3, 6, 6)), y=rows.integers(0, 7, 9))
    argv = own("ours(classes=7, width=3)", "Theirs(classes=7, width=3)", "--input", "d.npz:x")
    argv += ["--labels", "d.npz:y", "--batches", "2", "--transfer", *LEVELS, "--report", "r"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "2 batches: of each comparison the worst is shown" in out
    assert "inputs of float64 were rounded to float32" in out
    report = json.loads(Path("r/report.json").read_text())["reports"][0]
    assert any(row["quantity"] == "loss" for row in report["rows"])
    assert report["remarks"]
    assert "2 batches" in Path("r/report.html").read_text()


def test_a_fault_that_only_a_later_batch_shows_is_named_with_it(nets: Any) -> None:
    class Late(nets.Theirs):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            return y * 1.5 if float(x[0, 0, 0, 0]) > 100 else y

    later = X.copy()
    later[0, 0, 0, 0] = 200
    report = check_parity(nets.ours(), Late(), X, transfer=True, batches=[(later, None)])
    assert not report.ok
    failed = [row for row in report.failures if row.level == "forward"]
    assert failed
    assert all(row.detail.startswith("batch 2: ") for row in failed)


def test_several_inputs_of_several_dtypes(nets: Any, capsys: pytest.CaptureFixture) -> None:
    argv = own("two", "TheirTwo", "--input", "3,6:int32<20", "--input", "3,2", "--transfer")
    assert main([*argv, *LEVELS]) == 0
    assert "100 % of gradients" in capsys.readouterr().out


def test_losses_of_both_sides_are_compared(nets: Any, capsys: pytest.CaptureFixture) -> None:
    argv = own("ours", "Theirs", "--input", "4,3,6,6", "--labels", "4,5", "--transfer")
    argv += ["--level", "backward", "--gluon-loss", "l2"]
    module = "own_nets_of_a_user"
    assert main([*argv, "--torch-loss", f"{module}:half_mse"]) == 0
    assert main([*argv, "--torch-loss", f"{module}:mse"]) == 1
    assert "(loss, float64, gluon, train)" in capsys.readouterr().err
    target = np.zeros((4, 5), np.float32)
    losses = mx.gluon.loss.L1Loss(), torch.nn.L1Loss()
    for loss, right in ((losses, True), ((losses[0], torch.nn.SmoothL1Loss()), False)):
        pair = nets.ours(), nets.Theirs()
        report = check_parity(*pair, X, target, ("backward",), loss=loss, transfer=True)
        assert report.ok is right


def test_weights_come_from_files_of_either_framework(
    nets: Any, capsys: pytest.CaptureFixture
) -> None:
    net = nets.ours()
    net.hybridize()
    net(mx.nd.array(X))
    net.save_parameters("saved.params")
    net.export("exported")
    argv = own("ours", "Theirs", "--input", "2,3,6,6", "--level", "weights,forward")
    weights = ["--save-mapped", "mapped.safetensors"]
    assert main([*argv, "--gluon-params", "saved.params", *weights]) == 0
    assert "8 of them Gluon's to the last bit" in capsys.readouterr().out
    loaded = nets.Theirs()
    loaded.load_state_dict({k: torch.tensor(v) for k, v in read_tensors(weights[1]).items()})
    expected = net(mx.nd.array(X)).asnumpy()
    assert np.allclose(loaded.eval()(torch.tensor(X)).detach().numpy(), expected, atol=1e-5)
    torch.save(loaded.state_dict(), "mapped.pt")
    exported = ["--gluon-params", "exported-0000.params"]
    symbol = ["--gluon", "exported-symbol.json", *argv[2:], *exported]
    for again in (
        [*argv, *exported, "--torch-weights", "mapped.pt"],
        [*symbol, "--torch-weights", "mapped.safetensors"],
    ):
        assert main(again) == 0
    other = read_tensors("mapped.safetensors")
    other["head.bias"][0] += 0.25
    write_tensors("other.safetensors", other)
    assert main([*symbol, "--torch-weights", "other.safetensors"]) == 1
    assert "head weights value" in capsys.readouterr().err


def test_what_is_saved_is_proven_or_not_written(
    nets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parity_tests.levels import saved

    def corrupted(path: Path) -> dict[str, np.ndarray]:
        tensors = read_tensors(path)
        tensors["head.weight"] = tensors["head.weight"][::-1].copy()
        return tensors

    monkeypatch.setattr(saved, "read_tensors", corrupted)
    report = check_parity(nets.ours(), nets.Theirs(), X, save_mapped=tmp_path / "m.safetensors")
    assert not report.ok
    assert "m.safetensors is not written" in report.remarks[-1]
    assert [row.path for row in report.failures if row.check == "saved"] == ["head", "(net)"]
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_mapping_pairs_what_the_alignment_would_not(
    nets: Any, capsys: pytest.CaptureFixture, refused: Any
) -> None:
    Path("map.json").write_text('{"a": "right", "b": "left"}')
    argv = own("branches", "TheirBranches", "--input", "3,4", "--level", "weights,forward")
    assert main([*argv, "--mapping", "map.json", "--save-mapped", "m.pt"]) == 0
    assert main([*argv, "--save-mapped", "plain.pt"]) == 0
    mapped, plain = read_tensors("m.pt"), read_tensors("plain.pt")
    assert np.array_equal(mapped["right.weight"], plain["left.weight"])
    gluon_net = nets.branches()
    theirs = nets.TheirBranches()
    crossed = {"b.weight": "left.weight"}
    report = check_parity(gluon_net, theirs, X[:, 0, 0, :4], transfer=True, mapping=crossed)
    assert report.ok, str(report)
    with pytest.raises(ParityError, match=r"'lefft'.*did you mean left\?"):
        check_parity(gluon_net, theirs, X[:, 0, 0, :4], mapping={"a": "lefft"})
    Path("map.json").write_text('{"a.wieght": "left.weight"}')
    capsys.readouterr()
    refused(main, [*argv, "--mapping", "map.json"], 2, "did you mean a.weight?")


def test_a_quick_look_says_that_it_is_one(nets: Any, capsys: pytest.CaptureFixture) -> None:
    argv = own("ours", "Theirs", "--input", "2,3,6,6", "--transfer", "--quick", "--report", "r")
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "ok (quick)" in out
    assert QUICK in out
    written = json.loads(Path("r/report.json").read_text())["reports"][0]
    assert written["quick"]
    assert {row["dtype"] for row in written["rows"] if row["level"] == "forward"} == {"float32"}
    assert "Parity, in a quick look" in Path("r/report.html").read_text()
    report = check_parity(nets.ours(), nets.Theirs(slope=0.01), X, transfer=True, quick=True)
    assert report.first_divergence is not None
    assert report.first_divergence.path == "leaky_relu"
    assert any(row.level == "forward" and row.status.failed for row in report.rows)


def test_another_structure_is_not_said_to_diverge(nets: Any, capsys: pytest.CaptureFixture) -> None:
    argv = own("ours", "Theirs(slope=0.01)", "--input", "2,3,6,6", "--transfer")
    assert main([*argv, "--level", "structure"]) == 1
    said = "".join(capsys.readouterr())
    assert "differs in structure" in said
    assert "diverge" not in said.lower()


def test_what_is_allowed_is_said_everywhere(nets: Any, capsys: pytest.CaptureFixture) -> None:
    argv = own("ours", "Theirs(slope=0.01)", "--input", "2,3,6,6", "--transfer", "--report", "r")
    argv += ["--level", "structure,forward", "--batches", "2"]
    assert main(argv) == 1
    capsys.readouterr()
    allow = [f"--allow={path}=a leaky one" for path in ("leaky_relu", "mean", "head", "(net)")]
    assert main([*argv, *allow]) == 0
    words = "allowed at leaky_relu, a leaky one: "
    assert words in capsys.readouterr().out
    assert words in Path("r/report.html").read_text()
    report = json.loads(Path("r/report.json").read_text())["reports"][0]
    assert any(words in remark for remark in report["remarks"])
    assert any(row["detail"].startswith("allowed, a leaky one: ") for row in report["rows"])


def test_float16_and_float64_nets_are_said(nets: Any) -> None:
    gluon_net, torch_net = nets.ours(), nets.Theirs()
    gluon_net.cast("float16")
    report = check_parity(gluon_net, torch_net.double(), X.astype(np.float16), transfer=True)
    said = " ".join(report.remarks)
    assert "Gluon's net is float16" in said
    assert "torch's net is float64" in said
    assert "inputs of float16 were rounded" in said


BAD = [
    (["--input", "2,3,6,x"], ["--input is '2,3,6,x'", "1,3,32,32"]),
    (["--input", "2,3:int46<4"], ["int46", "did you mean int64?"]),
    (["--input", "2,3:int64"], ["needs a limit"]),
    (["--input", "none.npz:x"], ["none.npz is no file"]),
    (["--input", "d.npz:imags"], ["did you mean images?"]),
    (["--input", "broken.npy"], ["broken.npy cannot be read"]),
    (["--input", "d.npz:images", "--batches", "5"], ["4 rows", "5 batches"]),
    (["--input", "4,3,6,6", "--labels", "3:int64<5"], ["4, 3 rows"]),
    (["--input", "4,3,6,6", "--labels", "4:int64<900"], ["expected classes (4,) from 0 to 4"]),
    (["--input", "4,3,6,6", "--labels", "4:int64<5", "--loss", "softmax_c"], ["softmax_ce?"]),
    (["--input", "4,3,6,6", "--loss", "l2"], ["--labels"]),
    (["--input", "4,3,6,6", "--labels", "4:int64<5", "--torch-loss", "l2"], ["--gluon-loss"]),
    (["--input", "4,3,6,6", "--gluon-params", "none.params"], ["none.params", "No such file"]),
    (["--input", "4,3,6,6", "--gluon-params", "wide.params"], ["stem.weight (6, 3, 3, 3) for"]),
    (["--input", "4,3,6,6", "--torch-weights", "w.safetensors"], ["lacks head.weight", "has x"]),
    (["--input", "4,3,6,6", "--torch-weights", "w.bin"], [".safetensors or .pt"]),
    (["--input", "4,3,6,6", "--mapping", "none.json"], ["--mapping none.json"]),
    (["--input", "4,3,6,6", "--save-mapped", "w.bin"], [".safetensors or .pt"]),
    (["--input", "4,3,6,6", "--quick", "--level", "backward"], ["--quick"]),
]


@pytest.mark.parametrize(("more", "words"), BAD)
def test_bad_input_is_one_line_and_2(
    more: list[str], words: list[str], nets: Any, refused: Any
) -> None:
    np.savez("d.npz", images=X, y=np.zeros(4))
    Path("broken.npy").write_bytes(b"\x93NUMPY\x01\x00")
    nets.ours(width=6).save_parameters("wide.params")
    write_tensors("w.safetensors", {"x": np.zeros(3)})
    refused(main, own("ours", "Theirs", *more), 2, *words)
    assert not Path("w.bin").exists()


@pytest.mark.parametrize(
    ("gluon", "word"),
    [
        ("raises(classes=3)", r"own_nets_of_a_user\.py:\d+\)"),
        ("ours(classes=open)", "expected literals"),
        ("ours(", "expected literals"),
        ("ours(depth=3)", "depth"),
        ("exported-symbol.json", "expected package|symbol"),
    ],
)
def test_a_factory_that_gives_no_net_is_one_line(
    gluon: str, word: str, nets: Any, refused: Any
) -> None:
    error = refused(main, own(gluon, "Theirs", "--input", "4,3,6,6"), 2)
    assert re.search(word, error), error


class Terminal:
    """A stream that says that it is, or is not, a terminal."""

    def __init__(self, answer: bool) -> None:
        self.text, self._answer = "", answer

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return self._answer


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_line_is_for_terminals(terminal: bool) -> None:
    stream: Any = Terminal(terminal)
    with progress_line("a pair", stream):
        show("forward", "features.0")
        show("backward", "features.1")
    show("forward", "nobody listens")
    assert ("a pair" in stream.text) is terminal
