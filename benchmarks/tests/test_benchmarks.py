"""The machinery of the benchmarks, at toy size: what it says is what was measured."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gluon_cnn_parity import is_installed
from benchmarks import __main__ as command
from benchmarks import cases, child, ratios, results, runner, source_script
from benchmarks.cases import Case, Group
from cnn_data import ArraySplit, load_dataset

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"cpu": "X", "threads": 2, "memory_mb": 2048, "mxnet": "1", "torch": "2", "numpy": "3",
         "python": "3.11", "date": "2026-01-02"}  # fmt: skip


def _result(name: str, **speeds: list[float]) -> dict:
    runs = {side: [{"images_per_second": v, "peak_mb": 100.0} for v in found]
            for side, found in speeds.items()}  # fmt: skip
    return {"about": ABOUT, "group": name, "cases": {}, "runs": runs, "failures": {}}


def test_a_ratio_is_taken_turn_by_turn() -> None:
    # The machine was half as fast in the second turn: for both
    found = ratios.ratio([20.0, 10.0, 22.0], [10.0, 5.0, 10.0])
    assert (found.median, found.least, found.most, found.count) == (2.0, 2.0, 2.2, 3)
    with pytest.raises(ValueError, match="2 and 1 turns"):
        ratios.ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no numbers"):
        ratios.middle([])


def test_the_best_other_is_the_one_with_the_highest_median() -> None:
    result = _result("x", eager=[1.0, 9.0, 2.0], channels_last=[3.0, 3.0, 3.0])
    assert ratios.best(result, cases.TRAINING) == "channels_last"
    assert ratios.best(_result("x", eager=[1.0]), cases.TRAINING) == "eager"
    with pytest.raises(ValueError, match="was measured"):
        ratios.best(_result("x"), cases.TRAINING)


def test_accuracy_is_reached_once_and_first() -> None:
    curve = [[1.0, 0.90], [2.0, 0.975], [3.0, 0.96], [4.0, 0.991]]
    assert ratios.reached(curve, 0.97) == 2.0
    assert ratios.reached(curve, 0.99) == 4.0
    assert ratios.reached(curve, 0.999) is None


def test_a_row_says_who_is_best_and_how_ours_stands_to_the_best_other() -> None:
    train = _result("train alexnet 32", ours=[9.0, 4.0], eager=[8.0, 5.0], untuned=[99.0, 99.0],
                    channels_last=[10.0, 5.0], own_loop=[12.0, 6.0])  # fmt: skip
    (row,) = (line for line in results.table({"train alexnet 32": train}).splitlines()
              if line.startswith("| alexnet 32"))  # fmt: skip
    assert row.endswith(
        "| MXNet as it comes | 0.85 (0.80–0.90) | 1.35 (1.20–1.50) | 1.20 (1.20–1.20) |"
    )
    infer = _result("infer lenet 1", ours=[1.0, 1.0], auto=[4.0, 2.0], eager=[1.0, 1.0])
    for run, again in zip(infer["runs"]["auto"], (2.2, 1.1), strict=True):
        speeds = {"openvino": run["images_per_second"] / 2, "onnxruntime": 1.0, "again": again}
        run |= {
            "engine": "openvino, parts of 16",
            "beside": {side: {"images_per_second": speed} for side, speed in speeds.items()},
        }
    (row,) = (line for line in results.table({"infer lenet 1": infer}).splitlines()
              if line.startswith("| lenet 1 "))  # fmt: skip
    assert "| **3 (2–4) openvino, parts of 16** | 1 (1–1) |" in row
    assert row.endswith(
        "| 1 (1–1) | 1.5 (1–2) | – | gluon_cnn --engine auto | 2.00 (2.00–2.00) "
        "| 1.100 (1.100–1.100) |"
    )
    # What was not measured equally often is not compared
    assert results.compared(_result("x", ours=[1.0], eager=[1.0, 2.0]), "train") is None


def test_time_to_an_accuracy_is_told_in_epochs_of_the_source_script() -> None:
    curves = {
        "source": [[[10.0, 0.92]], [[20.0, 0.92]]],
        "ours": [[[4.0, 0.97], [8.0, 0.991]], [[5.0, 0.975], [10.0, 0.993]]],
        "eager": [[[4.0, 0.95], [9.0, 0.9901]], [[5.0, 0.96], [9.0, 0.98]]],
    }
    runs = {
        side: [{"curve": curve, "peak_mb": 1.0} for curve in found]
        for side, found in curves.items()
    }
    table = results.table({"accuracy": {**_result("accuracy"), "runs": runs}})
    source, ours, twin = table.partition("MNIST")[2].splitlines()[2:5]
    assert source.startswith("| the source script | 0.9200 (0.9200–0.9200) | not in 2 of 2 runs |")
    assert ours == (
        "| gluon_cnn | 0.9920 (0.9910–0.9930) | 4.5 (4.0–5.0) | 9.0 (8.0–10.0) | 0.65 (0.50–0.80) |"
    )
    assert twin.endswith(
        "| 9.0 (9.0–9.0), not in 1 of 2 runs | 0.90 (0.90–0.90), not in 1 of 2 runs |"
    )


def test_what_is_measured_already_is_left_out_where_asked() -> None:
    group = Group("g", (Case("train", "ours"), Case("train", "eager")), 2)
    whole = _result("g", ours=[1.0, 2.0], eager=[1.0, 2.0])
    about = whole["about"]
    assert command.is_measured(whole, group, about)
    assert not command.is_measured(None, group, about)
    assert not command.is_measured(whole, group, {**about, "date": "another day"})
    assert not command.is_measured({**whole, "failures": {"eager": "broken"}}, group, about)
    for runs in ({"ours": [1.0, 2.0]}, {"ours": [1.0, 2.0], "eager": [1.0]}):
        assert not command.is_measured(_result("g", **runs), group, about)


class Side:
    """A side that is ready: it notes what happens to it, and fails where it is told to."""

    def __init__(self, case: Case, seen: list[str], peak_mb: float, failing: str | None) -> None:
        self.peak_mb = peak_mb
        self._name, self._seen, self._failing = case.side, seen, failing
        seen.append(f"start {case.side}")

    def wait(self) -> None:
        self._seen.append(f"{self._name} is ready")

    def __call__(self, turn: int) -> dict:
        if self._name == self._failing and turn == 1:
            raise child.Failure(f"{self._name}: exit code 1: no such thing")
        self._seen.append(f"{self._name} {turn}")
        return {"images_per_second": float(len(self._seen)), "peak_mb": self.peak_mb}

    def close(self) -> None:
        self._seen.append(f"end {self._name}")


def _sides(
    seen: list[str], peak_mb: float = 1.0, failing: str | None = None, memory: float = 1e6
) -> Callable[[], runner.Sides]:
    """Sides that note what happens to them, on a machine with so much memory for them."""

    def available() -> float:
        started = sum(line.startswith("start ") for line in seen)
        return memory - peak_mb * (started - sum(line.startswith("end ") for line in seen))

    return lambda: runner.Sides(lambda case: Side(case, seen, peak_mb, failing), available)


def test_sides_are_ready_before_they_take_turns_and_the_order_changes() -> None:
    seen: list[str] = []
    group = Group("g", (Case("train", "ours"), Case("train", "eager")), 3)
    result = runner.run_group(group, print, _sides(seen))
    assert seen == [
        "start ours", "ours is ready", "start eager", "eager is ready",
        "ours 0", "eager 0", "eager 1", "ours 1", "ours 2", "eager 2", "end ours", "end eager",
    ]  # fmt: skip
    assert ratios.values(result, "ours") == [5.0, 8.0, 9.0]


def test_who_has_no_room_is_started_for_each_turn_and_who_compiles_stays() -> None:
    seen: list[str] = []
    sides = ("ours", "eager", "fused_adam", "compiled")
    group = Group("g", tuple(Case("train", side) for side in sides), 2)
    result = runner.run_group(group, print, _sides(seen, peak_mb=10.0, memory=35.0))
    assert [len(found) for found in result["runs"].values()] == [2] * 4
    # Ready before the first turn: those that leave room for one more, who comes and goes
    assert [line for line in seen[:6] if line.startswith("start ")] == [
        "start compiled", "start ours", "start eager",
    ]  # fmt: skip
    assert seen[4] == "ours 0"
    starts = [line for line in seen if line.startswith("start ")]
    assert {line: starts.count(line) for line in starts} == {
        "start compiled": 1, "start ours": 1, "start eager": 2, "start fused_adam": 2,
    }  # fmt: skip
    alive = 0
    for line in seen:
        alive += line.startswith("start ") - line.startswith("end ")
        assert alive <= 3
    assert alive == 0


def test_auto_has_a_process_of_its_own_in_every_turn() -> None:
    seen: list[str] = []
    group = Group("g", (Case("infer", "eager"), Case("infer", "auto")), 2)
    result = runner.run_group(group, print, _sides(seen))
    assert seen == [
        "start eager", "eager is ready", "eager 0",
        "start auto", "auto is ready", "auto 0", "end auto",
        "start auto", "auto is ready", "auto 1", "end auto", "eager 1", "end eager",
    ]  # fmt: skip
    assert [len(found) for found in result["runs"].values()] == [2, 2]
    only = runner.run_group(Group("g", group.cases[1:], 1), print, _sides(seen))
    assert len(only["runs"]["auto"]) == 1


def test_a_side_that_fails_is_reported_and_the_others_go_on() -> None:
    said: list[str] = []
    group = Group("train lenet 64", (Case("train", "ours"), Case("train", "eager")), 3)
    result = runner.run_group(group, said.append, _sides([], failing="eager"))
    assert result["failures"] == {"eager": "eager: exit code 1: no such thing"}
    assert len(ratios.values(result, "ours")) == 3
    assert ratios.values(result, "eager") == []
    assert sum("no such thing" in line for line in said) == 1
    table = results.table({group.name: {**result, "about": ABOUT}})
    assert "failed" in table
    assert "Failed: eager: exit code 1: no such thing" in table


def _fake(folder: Path, code: str) -> str:
    """An interpreter that runs this code, whatever it is asked."""
    script = folder / "fake"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import sys; sys.exit('broken: why')", "exit code 1: broken: why"),
     ("import os; os.abort()", "exit code -6"), ("print('no json')", "printed no result"),
     ("pass", "printed no result"), ("import time; time.sleep(60)", "no result after")],
)  # fmt: skip
def test_a_child_that_fails_is_a_failure_with_its_reason(
    code: str, reason: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "executable", _fake(tmp_path, code))
    monkeypatch.setattr(child, "TIMEOUT", 0.5 if "sleep" in code else 60.0)
    with (
        pytest.raises(child.Failure, match=f"train lenet 64 ours.*{reason}"),
        runner.start(Case("train", "ours")),
    ):
        pass


# A thread that never sleeps, as those of OpenMP may while they wait for work
SPINNING = """
import threading, time
from benchmarks.child import serve
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()
serve(lambda: lambda turn: print("said") or {"turn": turn, "cpu": time.process_time()})
"""


def test_a_child_that_waits_uses_no_processor() -> None:
    with child.Child("spinning", [sys.executable, "-c", SPINNING], cwd=ROOT) as each:
        before = each(0)["cpu"]
        time.sleep(0.3)
        again = each(7)
    assert again["turn"] == 7
    assert again["cpu"] - before < 0.15


def test_a_child_that_waits_ends_with_whoever_started_it() -> None:
    code = (
        "import os, sys\n"
        "from benchmarks.child import Child\n"
        f"each = Child('x', [sys.executable, '-c', {SPINNING!r}])\n"
        "each.wait()\n"
        "print(each._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == -9, ended.stderr
    status = Path(f"/proc/{int(ended.stdout)}/status")
    deadline = time.monotonic() + 20
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < deadline, status.read_text()
        time.sleep(0.02)


def test_nobodys_threads_reach_a_child(monkeypatch) -> None:
    for name in runner.THREADS:
        monkeypatch.setenv(name, "7")
    assert not set(runner.THREADS) & set(runner.environment(Case("train", "untuned")))
    assert runner.environment(Case("train", "eager", threads=2))["OMP_NUM_THREADS"] == "2"
    whole = Case("train", "ours", threads=runner.runtime.cores())
    assert "OMP_NUM_THREADS" not in runner.environment(whole)


def _measured(case: Case) -> Mapping[str, Any]:
    with runner.start(case) as ready:
        return ready(0)


@pytest.mark.parametrize(
    ("part", "side"),
    [
        pytest.param(part, side, marks=() if side in ("ours", "eager") else pytest.mark.slow)
        for part in ("train", "infer")
        for side in ("untuned", "own_loop", "ours", "eager", "channels_last")
        if (part, side) != ("infer", "own_loop")
    ],
)
def test_a_child_measures(part: str, side: str) -> None:
    found = _measured(Case(part, side, batch=4, seconds=0.01))
    assert found["steps"] >= 1
    assert found["images_per_second"] == pytest.approx(4 / found["seconds"])
    assert found["peak_mb"] > 50
    if side in ("untuned", "own_loop", "ours"):
        assert bool(found["settings"]) == (side != "untuned")


@pytest.mark.slow
def test_waiting_is_a_share_of_an_epoch_over_photographs(tmp_path: Path) -> None:
    case = Case("waiting", "ours", "cifar_cnn", batch=8, images=80)
    group = command.with_files(Group("waiting cifar_cnn 8", (case,), 1), tmp_path)
    assert len(list(tmp_path.rglob("*.jpg"))) == 80
    found = _measured(group.cases[0])
    assert len(found["waited"]) == 2
    assert all(0 < share < 1 for share in found["waited"])
    table = results.table({group.name: {**_result(group.name), "runs": {"ours": [found]}}})
    assert "| cifar_cnn 8 | " in table


@pytest.mark.parametrize("side", cases.OF_AN_EXPORT)
def test_an_engine_is_measured_on_the_exported_file(side: str, exports: Path) -> None:
    if side != "auto":
        pytest.importorskip(side)
    group = command.with_files(
        Group("infer lenet 4", (Case("infer", side, batch=4, seconds=0.01),), 1), exports
    )
    found = _measured(group.cases[0])
    assert found["images_per_second"] == pytest.approx(4 / found["seconds"])
    assert ("engine" in found) == ("beside" in found) == (side == "auto")
    if side == "auto":
        peers = {name for name in cases.BESIDE if is_installed(name)}
        assert set(found["beside"]) - {"again"} == peers
        assert ("again" in found["beside"]) == (found["engine"].partition(",")[0] in peers)


def test_programs_of_one_process_take_turns() -> None:
    calls: list[str] = []

    def program(name: str, seconds: float) -> Callable[[], None]:
        def step() -> None:
            calls.append(name)
            time.sleep(seconds)

        return step

    programs = {"fast": program("fast", 0.001), "slow": program("slow", 0.004)}
    times = cases.side_by_side(programs, 0.01)
    assert [len(found) for found in times.values()] == [cases.ROUNDS] * 2
    assert 1.5 < min(times["slow"]) / min(times["fast"]) < 8
    # both are warmed, and whoever ends a round begins the next
    assert sum(a != b for a, b in pairwise(calls)) == 2 + cases.ROUNDS


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime")
    return tmp_path_factory.mktemp("exports")


def test_the_peak_counts_both_operations_of_a_product() -> None:
    found = _measured(Case("peak", "numpy", batch=64, seconds=0.01))
    assert found["flops"] >= 2 * 64**3 / found["seconds"]


def test_training_flop_are_three_products_but_for_the_first_layer() -> None:
    # lenet: conv 6·25·24·24 = 86,400, conv 16·6·25·8·8, dense 256·120 + 120·84 + 84·10
    products = 86_400 + 153_600 + 30_720 + 10_080 + 840
    assert results.flop_of_training("lenet") == 2 * (3 * products - 86_400)


def test_the_source_script_learns() -> None:
    digits = load_dataset("mnist5k")
    parts = [
        ArraySplit(split.images(np.arange(n)), split.labels[:n])
        for split, n in ((digits.train, 4000), (digits.test, 500))
    ]
    curve = source_script.train(parts[0], parts[1], batch=200, epochs=4)
    assert [len(point) for point in curve] == [2] * 4
    assert curve[0][0] < curve[1][0]
    assert curve[3][1] > 0.5  # raw pixels and a high rate: it starts late
    weights = source_script.build()
    weights(source_script.mx.nd.zeros((1, 1, 28, 28)))
    assert sum(p.data().size for p in weights.collect_params().values()) == 44_426


def test_the_table_says_how_long_training_waited_for_photographs() -> None:
    runs = [{"waited": [0.1, 0.0], "peak_mb": 1.0}, {"waited": [0.3, 0.01], "peak_mb": 1.0}]
    result = {**_result("waiting alexnet 32"), "runs": {"ours": runs}}
    table = results.table({"waiting alexnet 32": result})
    assert "| alexnet 32 | 20.0 (10.0–30.0) | 0.5 (0.0–1.0) |" in table


def test_an_import_is_timed_in_a_process_of_its_own() -> None:
    found = _measured(Case("import", "ours"))
    runs = {"ours": [found], "untuned": [{"seconds": 2 * found["seconds"], "peak_mb": 1.0}]}
    table = results.table({"import": {**_result("import"), "runs": runs}})
    assert 0.1 < found["seconds"] < 60
    assert re.search(r"import mxnet` \| [\d.]+ \([\d.–]+\) \| 0.50 \(0.50–0.50\) \|", table)


def test_results_are_written_read_and_drawn(tmp_path: Path) -> None:
    name = "train lenet 64"
    result = _result(name, ours=[2.0, 3.0], eager=[1.0, 1.0])
    results.write(tmp_path, result, ABOUT)
    assert results.read(tmp_path) == {name: result}
    results.picture({name: result}, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "| gluon_cnn | 2.50 (2.00–3.00) |" in results.table({name: result})


def test_the_command_lists_runs_and_refuses(tmp_path: Path, monkeypatch, capsys) -> None:
    assert command.main(["--list", "--only", "train lenet"]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["train lenet 64", "train lenet 500"]
    assert command.main(["--only", "nothing like it"]) == 2
    assert command.main(["--table", "--out", str(tmp_path / "none")]) == 1

    def run_group(group: Group, say) -> dict:
        broken = {"eager": "broken"} if group.name.startswith("infer") else {}
        return {**_result(group.name, ours=[2.0]), "failures": broken, "turns_seconds": 1.0}

    monkeypatch.setattr(command, "run_group", run_group)
    monkeypatch.setattr(command, "with_files", lambda group, folder: group)
    out = tmp_path / "results"
    argv = ["--out", str(out), "--quick", "--json", "--only"]
    capsys.readouterr()
    assert command.main([*argv, "train lenet"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"1 groups of processes that take turns, about \d+ minutes left", said[0])
    assert said[-1].endswith("1 s in turns; about 0 minutes left")
    assert json.loads((out / "train-lenet-64.json").read_text())["about"]["mxnet"]
    assert command.main([*argv, "lenet 64"]) == 1  # a failure is not forgotten
    assert "Failed: broken" in (out / "table.md").read_text()


def test_what_is_left_follows_from_what_others_took() -> None:
    groups = [Group(name, (Case("peak", "numpy", seconds=60.0),), 10) for name in ("a", "b")]
    clock = command.Remaining(groups)
    assert str(clock) == "about 20 minutes left"
    clock.note(groups[0], 1200.0)  # twice as long as it was expected to take
    assert str(clock) == "about 20 minutes left"


def test_a_turn_counts_what_ends_after_others_had_the_caches(monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(cases.time, "perf_counter", lambda: clock[0])

    def step(seconds: float) -> Callable[[], None]:
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    assert cases.step_times(step(5.0), 0.5) == [5.0]  # longer than a turn: it is one
    assert cases.step_times(step(0.0625), 0.15) == [0.0625] * 3  # of four, but for the first


def test_quick_is_small_and_the_whole_covers_every_model() -> None:
    quick = cases.groups(2, None, quick=True, repeats=5, compiler=False)
    photographs = {"cifar_cnn"}
    assert {case.model for group in quick for case in group.cases} == {"lenet", *photographs}
    whole = cases.groups(2, "/mnist", quick=False, repeats=5, compiler=True)
    names = {group.name for group in whole}
    assert {"train lenet 64", "train lenet 500"} < names
    six = ("lenet", "lenet5", "mnist_bn_cnn", "cifar_cnn", "alexnet", "vgg16")
    assert {f"infer {model} {batch}" for model in six for batch in (1, 64, 500)} < names
    (longest,) = (group for group in whole if group.name == "infer vgg16 500")
    assert {case.side for case in longest.cases} == {"openvino", "auto"}
    (crowded,) = (group for group in whole if group.name == "infer vgg16 64")
    assert crowded.repeats == longest.repeats == 3
    sides = {c.side for group in whole for c in group.cases}
    assert sides == set(cases.SIDES)
    quickly = {c.side for g in quick for c in g.cases} | {*cases.BESIDE}  # in the process of auto
    assert not sides - quickly - {*cases.COMPILED, "source"}
    assert {"accuracy", "peak", "memory of a full MNIST run"} < names
    assert len(names) == len(whole)
    for group in (longest, crowded):
        whole.remove(group)
    assert all(g.repeats >= 5 for g in whole if g.name.startswith(("train", "infer", "accuracy")))
