"""MXNet that ends the process is a sentence, and what does not depend on it is compared."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import pytest

from mxnet_files import convert
from mxnet_files.checking import check
from mxnet_files.checking.oracle import Oracle

S = mx.sym


@pytest.fixture
def doomed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let MXNet die as it does in some operators: where a graph that runs holds one of them."""

    def doom(*ops: str, ended: int = signal.SIGSEGV, fused: bool | None = None) -> None:
        class Doomed(Oracle):
            def __init__(self, *args: Any, fuse: bool = False, **options: Any) -> None:
                super().__init__(*args, fuse=fuse, **options)
                nodes = json.loads(self.symbol.tojson())["nodes"]
                self.dies = fused in (None, fuse) and any(node["op"] in ops for node in nodes)

            def forward(self, train: bool = False) -> Any:
                if self.dies:
                    signal.raise_signal(ended)
                return super().forward(train)

            def by_node(self) -> Any:
                if self.dies:
                    signal.raise_signal(ended)
                return super().by_node()

        monkeypatch.setattr(check, "Oracle", Doomed)

    return doom


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two dense layers with a tanh between, and a cosine beside the second."""
    x = S.FullyConnected(S.var("data"), num_hidden=3, name="first")
    y = S.FullyConnected(S.tanh(x, name="act"), num_hidden=2, name="second")
    symbol = S.Group([y, S.cos(x, name="beside")])
    shapes, _, _ = symbol.infer_shape(data=(2, 4))
    named = dict(zip(symbol.list_arguments(), shapes, strict=True))
    state = {f"arg:{n}": mx.nd.random.normal(shape=s) for n, s in named.items() if n != "data"}
    symbol.save(str(tmp_path / "x-symbol.json"))
    mx.nd.save(str(tmp_path / "x-0000.params"), state)
    return [str(tmp_path / "x-symbol.json"), str(tmp_path / "x-0000.params"), "--input", "data=2,4"]


def test_a_crash_names_the_operator(
    files: list[str], doomed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    doomed("tanh")
    assert convert.check(files) == 1
    assert capsys.readouterr().err == (
        "error: MXNet crashed in tanh act: it was ended by SIGSEGV; "
        "2 of 4 nodes are compared, within their bounds\n"
    )


def test_several_operators_crash(
    files: list[str], doomed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    doomed("tanh", "cos", ended=signal.SIGFPE)
    assert convert.check(files) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "crashed in tanh act, cos beside: it was ended by SIGFPE; 1 of 4 nodes" in line


def test_the_default_backend_crashes(
    files: list[str], doomed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    doomed("tanh", fused=True)
    assert convert.check(files) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "equals MXNet's plain graph" in line
    assert "MXNET_SUBGRAPH_BACKEND=NONE" in line


@pytest.mark.slow
def test_a_folder_is_written_unverified(
    files: list[str],
    doomed: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What could not be compared with MXNet says so in its name, its report and the exit code."""
    doomed("tanh")
    out = tmp_path / "out"
    assert convert.main([*files, "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "crashed in tanh act" in line
    assert "model-unverified.py" in line
    report = json.loads((out / "report.json").read_text())
    assert not report["verified"]
    assert (
        report["verified_against"] == "nothing: MXNet crashed in tanh act: it was ended by SIGSEGV"
    )
    assert [row["name"] for row in report["nodes"]] == ["first", "beside"]
    assert convert.verify([str(out)]) == 0


def test_memory_that_runs_out_is_said_at_once(
    files: list[str], doomed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    doomed("tanh", ended=signal.SIGKILL)
    assert convert.check(files) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "was ended by SIGKILL, as when memory runs out" in line
