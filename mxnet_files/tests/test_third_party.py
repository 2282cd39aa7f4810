"""The run over nets by others: its verdicts and table here, the nets themselves when slow."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mxnet_files import SymbolError
from mxnet_files.__main__ import main
from mxnet_files.checking import third_party
from mxnet_files.checking.check import CheckReport
from mxnet_files.checking.third_party import NETS, Net, Outcome, Verdict, run_all, run_net, summary
from mxnet_files.checking.third_party_export import gluoncv_net

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
NET = Net("gluon.rnn", "RNN 2", (7, 2, 6))


def pretend(monkeypatch: pytest.MonkeyPatch, exported: str, checked: tuple[str, str]) -> None:
    """Replace the two processes: files appear unless `exported` is an error."""

    def python(
        arguments: Sequence[str], timeout: float, variables: Mapping[str, str] | None = None
    ) -> tuple[str, str]:
        if "mxnet_files" in arguments:
            return report() if variables == {"MXNET_SUBGRAPH_BACKEND": "NONE"} else checked
        if not exported:
            for name in ("net-symbol.json", "net-0000.params"):
                (Path(arguments[-1]) / name).touch()
        return "", exported

    monkeypatch.setattr(third_party, "python", python)


def report(**more: Any) -> tuple[str, str]:
    found = {"ok": True, "compared": 3, "nodes": 3, "dtype": "float64", "worst_local_units": 1.5}
    return json.dumps({"check": {**found, **more}}), ""


@pytest.mark.parametrize(
    ("exported", "checked", "verdict"),
    [
        ("", report(), Verdict.AGREES),
        ("", report(ok=False), Verdict.DIFFERS),
        ("", report(compared=2), Verdict.DIFFERS),
        ("", report(compared=0, nodes=0), Verdict.DIFFERS),
        ("", ("", "error: the import differs from MXNet: a is 99 units"), Verdict.DIFFERS),
        ("", ("", "error: unsupported operators (1): x"), Verdict.REFUSED),
        ("", ("", "exit status -11"), Verdict.REFUSED),
        ("MXNetError: shapes", report(), Verdict.NOT_EXPORTED),
    ],
)
def test_verdicts(
    exported: str, checked: tuple[str, str], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, exported, checked)
    row = run_net(NET, 1.0)
    assert row.verdict == verdict
    assert row.detail == (exported or checked[1])
    assert third_party.report([row]) == (verdict in (Verdict.DIFFERS, Verdict.REFUSED))


def test_a_fault_of_mxnet_itself_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are those of the command, which is tried on such a graph elsewhere."""
    said = CheckReport(1, (), 1e-7, 1e-7, default_error=0.32).backend_problem
    pretend(monkeypatch, "", ("", f"error: {said}"))
    row = run_net(NET, 1.0)
    assert row.verdict == Verdict.AGREES
    assert row.nodes == 3
    assert row.detail == "MXNet's default backend is off by 3.2e-01 of its largest output"


@pytest.mark.parametrize(("off", "right"), [(1e-5, True), (0.32, False), (math.inf, False)])
def test_a_default_backend_is_held_against_float32_that_overflows(off: float, right: bool) -> None:
    found = CheckReport(1, (), math.inf, math.inf, overflows=True, default_error=off)
    assert found.default_ok == right


def test_a_run_goes_on_where_it_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "", report())
    said: list[str] = []
    results = tmp_path / "rows.json"
    nets = [Net("gluoncv2", name, (1, 3, 8, 8)) for name in "abc"]
    assert len(run_all(nets[:2], 1.0, results, said.append)) == 2
    rows = run_all(nets, 1.0, results, said.append)
    assert [row.name for row in rows] == ["a", "b", "c"]
    assert len(said) == 3
    assert said[2] == "| gluoncv2 | c | 1×3×8×8 | agrees | 3 | 1.5 (float64) |  |"
    results.write_text("{}")
    assert len(run_all([], 1.0, results, said.append)) == 0
    results.write_text('[{"net": 1}]')
    with pytest.raises(SymbolError, match="not the results of this command"):
        run_all(nets, 1.0, results, said.append)


def test_the_summary_counts_what_mxnet_could_export() -> None:
    verdicts = [Verdict.AGREES, Verdict.AGREES, Verdict.REFUSED, Verdict.NOT_EXPORTED]
    rows = [Outcome("s", str(i), "1", verdict) for i, verdict in enumerate(verdicts)]
    assert summary(rows).startswith("2 of 3 nets that MXNet can export open and agree, 0 differ, 1")


def test_the_list_names_each_net_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert len({(net.source, net.name) for net in NETS}) == len(NETS) > 100
    assert main(["zoo", "--others", "resnet19"]) == 2
    assert "unknown models resnet19" in capsys.readouterr().err


def test_the_page_has_a_row_for_each_net() -> None:
    text = PAGE.read_text()
    names = "|".join({net.source for net in NETS})
    cells = [line.split(" | ") for line in re.findall(rf"^\| ((?:{names}) \| .*)", text, re.M)]
    rows = [
        Outcome(source, name, shape, Verdict(verdict)) for source, name, shape, verdict, *_ in cells
    ]
    shown = sorted((row.source, row.name, row.shape) for row in rows)
    assert shown == sorted((net.source, net.name, "×".join(map(str, net.shape))) for net in NETS)
    assert f"\n{summary(rows)}.\n" in text
    agree = sum(row.verdict == Verdict.AGREES for row in rows)
    assert f"[{agree} nets by others](docs/zoo.md)" in (PAGE.parents[1] / "README.md").read_text()
    assert f"`mxnet-files zoo --others` takes {len(NETS)} nets of" in text


@pytest.mark.parametrize("refusal", [TypeError, Warning])
def test_a_net_of_gluoncv_without_a_base_is_made(
    refusal: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_model(name: str, **options: Any) -> Any:
        if "pretrained_base" in options:
            raise refusal("it should only accept kwargs {'params', or 'prefix'}")
        return name

    for name in ("gluoncv", "gluoncv.model_zoo"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(get_model=get_model))
    assert gluoncv_net("darknet53") == "darknet53"


@pytest.mark.slow
def test_a_recurrent_net_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--others", "GRU 1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["nets"]
    assert (row["verdict"], row["name"]) == ("agrees", "GRU 1")
    assert row["nodes"] > 3


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gluoncv", "gluoncv2")),
    reason="gluoncv and gluoncv2 are not installed",
)
def test_nets_by_others_open_and_agree_many() -> None:
    rows = run_all(NETS, 600.0, None, print)
    print("\n".join(map(third_party.line, rows)))
    verdicts = [row.verdict for row in rows]
    assert Verdict.DIFFERS not in verdicts
    exported = len(rows) - verdicts.count(Verdict.NOT_EXPORTED)
    assert verdicts.count(Verdict.AGREES) >= 0.9 * exported
