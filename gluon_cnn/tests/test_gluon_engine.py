"""Engines: chosen by speed, used only once they compute what the net computes, named in results."""

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from gluon_cnn_parity import is_installed
from cnn_harness.errors import CommandError, MissingExtra, UsageError
from gluon_cnn import engine, evaluate, export, predict
from gluon_cnn.exporting import proof, runners, speeds
from gluon_cnn.exporting.exported import add_to_manifest, open_saved, read_manifest
from gluon_cnn.exporting.reload import Reloaded
from gluon_cnn.runtime import machine
from gluon_cnn.training.saved import SavedRun

OTHERS = [name for name in runners.ENGINES if name != "mxnet"]


def _needs(*names: str) -> None:
    for name in names:
        if not is_installed(runners.ENGINES[name].package):
            pytest.skip(f"{runners.ENGINES[name].package} is not installed")


def _fresh() -> SavedRun:
    return export.fresh_net("lenet", classes=4, seed=3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """An export with ONNX, every installed engine proven and timed by one call."""
    out = tmp_path_factory.mktemp("exports") / "lenet"
    export.export_net(_fresh(), out, onnx=is_installed("onnxruntime"), engine="auto")
    return out


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/gluon_cnn"


def _images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 1, 28, 28), dtype=np.float32)


def _manifest(folder: Path) -> dict[str, Any]:
    return read_manifest(folder / "lenet.json")


def _with_speeds(folder: Path, by_engine: dict[str, tuple[float, float]]) -> None:
    """Make the manifest say that the engines are that fast at batch 1 and 64."""
    measured = {n: dict(zip(("1", "64"), s, strict=True)) for n, s in by_engine.items()}
    add_to_manifest(folder / "lenet.json", engines=speeds.make_record(measured))


def _never(*_: object, **__: object) -> Any:
    raise AssertionError("was called")


@pytest.mark.parametrize("name", runners.ENGINES)
@pytest.mark.parametrize("of_export", [True, False], ids=["an export", "an open net"])
def test_every_engine_computes_what_the_net_computes(
    name: str, of_export: bool, exported: Path
) -> None:
    _needs(name)
    saved = _fresh()
    net = engine.load(exported, name) if of_export else engine.load_saved(saved, name)
    x = _images()
    expected = saved.net(mx.nd.array(x)).asnumpy()
    outputs = net(x)
    assert (net.name, outputs.dtype, outputs.shape) == (name, np.float32, (5, 4))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=2e-6)
    assert np.ptp(expected, axis=0).min() > 1e-3
    first = outputs.copy()
    net(x[::-1])
    assert np.array_equal(outputs, first)  # an array of its own


@pytest.mark.parametrize("name", runners.ENGINES)
def test_an_engine_answers_several_threads_and_batches_of_any_size(
    name: str, exported: Path
) -> None:
    _needs(name)
    net = engine.load(exported, name)
    batches = [np.repeat(_images()[:1] * k, n, axis=0) for k, n in enumerate((1, 1, 3, 1, 100))]
    alone = [net(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(net, batches * 50))
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, alone[number % len(batches)])


def test_an_export_says_how_fast_each_engine_is_here(exported: Path) -> None:
    record = _manifest(exported)["engines"]
    assert record["machine"]["fingerprint"] == machine.fingerprint()
    names = [n for n in runners.installed() if not runners.ENGINES[n].onnx or
             (exported / "lenet.onnx").exists()]  # fmt: skip
    assert list(record["measured"]) == names
    for name in names:
        of_engine = record["measured"][name]
        assert of_engine["version"] == runners.ENGINES[name].version
        assert set(of_engine["images_per_second"]) == {"1", "64"}
        assert all(speed > 0 for speed in of_engine["images_per_second"].values())
        assert speeds.proven(record, name)


def test_auto_takes_the_fastest_for_the_batch(exported: Path, monkeypatch) -> None:
    _needs("torch")
    names = runners.installed()
    slow = dict.fromkeys(names, (1.0, 1.0))
    monkeypatch.setattr(engine, "observe", _never)  # it was proven here
    monkeypatch.setattr(engine, "_has_onnx", lambda _: True)
    before = _manifest(exported)["engines"]
    try:
        _with_speeds(exported, {**slow, "mxnet": (9.0, 1.0), "torch": (1.0, 9.0)})
        for batch, name in ((1, "mxnet"), (4, "mxnet"), (16, "torch"), (500, "torch")):
            assert engine.load(exported, batch=batch).name == name
    finally:
        add_to_manifest(exported / "lenet.json", engines=before)


def test_another_machine_measures_again_and_remembers(
    exported: Path, cache: Path, monkeypatch
) -> None:
    measured = []

    def images_per_second(run: runners.Runner, images: np.ndarray) -> dict[str, float]:
        measured.append(run(images[:1]).shape)
        return dict.fromkeys(("1", "64"), float(len(measured)))

    monkeypatch.setattr(machine, "fingerprint", lambda: "another machine")
    monkeypatch.setattr(engine, "images_per_second", images_per_second)
    names = [n for n in runners.installed() if (exported / "lenet.onnx").exists()
             or not runners.ENGINES[n].onnx]  # fmt: skip
    assert engine.load(exported).name == names[-1]
    assert measured == [(1, 4)] * len(names)
    (file,) = cache.iterdir()
    assert engine.load(exported).name == names[-1]
    assert len(measured) == len(names)
    for text in ("{", '{"format": "another"}', json.dumps({"format": speeds.FORMAT})):
        file.write_text(text)
        measured.clear()
        assert engine.load(exported).name == names[-1]
        assert len(measured) == len(names)


@pytest.fixture
def timed(monkeypatch) -> None:
    monkeypatch.delenv("GLUON_CNN_TIMING", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("timed")
def test_an_export_is_timed_in_every_way_and_size(tmp_path: Path) -> None:
    _needs("onnxruntime")
    out = tmp_path / "lenet"
    found = export.export_net(_fresh(), out, engine="onnxruntime")
    measured = _manifest(out)["engines"]["measured"]
    assert set(measured["onnxruntime"]["images_per_second"]) == {"1", "64", "500"}
    for way in measured.keys() - {"mxnet", "onnxruntime"}:
        label = runners.Way.parse(way).label
        assert [check["batch"] for check in found["checks"] if check["loader"] == label][:2] == [
            1,
            8,
        ]
        assert speeds.proven(_manifest(out)["engines"], way)


@pytest.mark.parametrize(
    ("way", "text", "label"),
    [(("onnxruntime",), "onnxruntime", "ONNX Runtime"),
     (("onnxruntime", 0, 1), "onnxruntime, 1 thread", "ONNX Runtime, 1 thread"),
     (("openvino", 16), "openvino, parts of 16", "OpenVINO, parts of 16"),
     (("openvino", 32, 2), "openvino, parts of 32 on 2 threads",
      "OpenVINO, parts of 32 on 2 threads")],
)  # fmt: skip
def test_a_way_has_a_text(way: tuple[Any, ...], text: str, label: str) -> None:
    assert (str(runners.Way(*way)), runners.Way(*way).label) == (text, label)
    assert runners.Way.parse(text) == runners.Way(*way)


@pytest.mark.parametrize("text", ["", "caffe", "torch, parts of", "torch on 2 threads and more"])
def test_what_is_no_way_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no way to run an engine"):
        runners.Way.parse(text)


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("how", [", 1 thread", ", parts of 3", ", parts of 3 on 2 threads"])
def test_every_way_computes_what_the_engine_does(
    engine_name: str, how: str, exported: Path
) -> None:
    _needs(engine_name)
    opener = runners.Opener(exported, "lenet")
    own, run = opener(engine_name), opener(engine_name + how)
    x = np.random.default_rng(1).standard_normal((17, 1, 28, 28), dtype=np.float32)
    for count in (17, 1, 2, 3, 4, 17):
        outputs = run(x[:count])
        assert (outputs.dtype, outputs.shape) == (np.float32, (count, 4))
        np.testing.assert_allclose(outputs, own(x[:count]), rtol=0, atol=2e-6)


def test_a_large_net_runs_in_huge_pages_from_its_opening_on(exported: Path, monkeypatch) -> None:
    entered = []

    @contextmanager
    def huge_pages() -> Iterator[None]:
        entered.append(True)
        yield

    x = np.random.default_rng(1).standard_normal((5, 1, 28, 28), dtype=np.float32)
    small = runners.Opener(exported, "lenet")("mxnet")(x)
    monkeypatch.setattr(runners, "huge_pages", huge_pages)
    runners.Opener(exported, "lenet")("mxnet")(x)
    assert not entered
    monkeypatch.setattr(runners, "SMALL", 0)
    run = runners.Opener(exported, "lenet")("mxnet")
    for count, expected in ((2, 2), (1, 2), (2, 2), (5, 3)):  # opened, and each larger batch
        np.testing.assert_allclose(run(x[:count]), small[:count], rtol=0, atol=2e-6)
        assert len(entered) == expected


def test_parts_run_at_once_and_an_error_in_one_is_raised() -> None:
    both = threading.Barrier(2)
    ended = []

    def run(x: np.ndarray) -> np.ndarray:
        both.wait(10)  # until the other thread has a part, too
        if x[0] in wrong:
            raise RuntimeError("no kernel")
        ended.append(threading.current_thread())
        return 2 * x

    x = np.arange(8, dtype=np.float32)
    wrong: list[float] = []
    np.testing.assert_array_equal(runners.InParts([run, run], 2)(x), 2 * x)
    assert len(set(ended)) == 2
    for first in (4.0, 6.0):  # whichever thread has it
        ended.clear()
        wrong[:] = [first]
        with pytest.raises(RuntimeError, match="no kernel"):
            runners.InParts([run, run], 2)(x)
        assert len(ended) == 3  # nothing runs on behind


def test_only_engines_with_threads_of_their_own_have_ways(monkeypatch) -> None:
    monkeypatch.setattr(runners.settings, "threads", lambda: 3)
    assert runners.ways("mxnet", 64) == runners.ways("torch", 64) == []
    assert [str(way) for way in runners.ways("onnxruntime", 1)] == ["onnxruntime, 1 thread"]
    assert [str(way) for way in runners.ways("openvino", 64)] == [
        "openvino, parts of 16", "openvino, parts of 32",
        "openvino, parts of 16 on 3 threads", "openvino, parts of 32 on 3 threads",
    ]  # fmt: skip
    monkeypatch.setattr(runners.settings, "threads", lambda: 1)
    assert runners.ways("onnxruntime", 1) == []
    assert all(way.rows and not way.threads for way in runners.ways("onnxruntime", 64))


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize("gain", [1.2, 1.01])
def test_a_way_is_kept_where_it_gains(monkeypatch, gain: float) -> None:
    faster = runners.ways("onnxruntime", 64)[1]

    def opened(way: str) -> runners.Runner:
        if way.startswith("openvino,"):
            raise RuntimeError("no such option")
        return lambda x: np.array(way)

    def speed_of(run: runners.Runner, x: np.ndarray, seconds: float) -> float:
        way = str(run(x))
        return 1e4 * (gain if way == str(faster) else 0.9 if "," in way else 1.0)

    monkeypatch.setattr(speeds, "_speed_of", speed_of)
    monkeypatch.setattr(speeds, "PAUSE", 0.0)
    measured = {name: {"1": 1e4, "64": 1e4} for name in ("onnxruntime", "openvino")}
    speeds.settle(measured, np.zeros((1, 1, 2, 2), np.float32), opened, in_ways=True)
    assert measured.pop(str(faster), None) == ({"64": 1e4 * gain} if gain == 1.2 else None)
    assert list(measured) == ["onnxruntime", "openvino"]


def test_auto_runs_an_engine_in_its_fastest_way(exported: Path, monkeypatch) -> None:
    _needs("onnxruntime")
    way = "onnxruntime, parts of 16 on 2 threads"
    monkeypatch.setattr(engine, "observe", _never)  # it was proven here
    names = [name for name in runners.installed() if name != "mxnet"]
    before = _manifest(exported)["engines"]
    measured = {name: {"1": 9.0, "64": 1.0} for name in ("mxnet", *names)}
    try:
        measured[way] = {"500": 7.0}
        add_to_manifest(exported / "lenet.json", engines=speeds.make_record(measured))
        assert engine.load(exported, batch=1).way == "mxnet"
        net = engine.load(exported, batch=400)
        assert (net.name, net.way) == ("onnxruntime", way)
        assert net(_images()).shape == (5, 4)
    finally:
        add_to_manifest(exported / "lenet.json", engines=before)
    assert not speeds.proven(before, way)


def test_a_way_that_computes_something_else_is_left_out(monkeypatch, capsys) -> None:
    _needs("onnxruntime")
    way = "onnxruntime, parts of 16 on 2 threads"

    def settle(measured: dict[str, dict[str, float]], *_: Any, **__: Any) -> None:
        measured[way] = {"64": 1e9}

    def threads(folder: Path, name: str, count: int) -> list[runners.Runner]:
        run = right.open(folder, name)
        return [lambda x: run(x) + (len(x) == 16)] * count  # wrong in whole parts alone

    right = runners.ENGINES["onnxruntime"]
    monkeypatch.setattr(engine, "installed", lambda: ["mxnet", "onnxruntime"])
    monkeypatch.setattr(engine, "settle", settle)
    assert engine.load_saved(_fresh(), "auto").way == way
    monkeypatch.setattr(speeds, "FORMAT", "another")  # so that it is measured again
    monkeypatch.setitem(runners.ENGINES, "onnxruntime", replace(right, open_threads=threads))
    assert "," not in engine.load_saved(_fresh(), "auto").way
    said = capsys.readouterr().err
    assert re.match(rf"{way} is left out: .*2 threads, batch 40: .* off, expected", said)


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_an_export_keeps_the_ways_that_are_proven(monkeypatch, off: float) -> None:
    way = "onnxruntime, parts of 16 on 2 threads"
    saved = _fresh()
    images = np.random.default_rng(0).standard_normal((8, 1, 28, 28), dtype=np.float32)
    live = proof.observe(saved.net, images)
    right = Reloaded(live.outputs, live.parameters, speeds={"1": 1.0, "64": 1.0})
    outputs = {**live.outputs, 40: np.resize(live.outputs[8], (40, 4))}
    outputs[40][39, 0] += off
    found = dict.fromkeys(("SymbolBlock.imports", "mx.mod.Module", "ONNX Runtime"), right)
    found["ONNX Runtime, so"] = Reloaded(outputs, speeds={"64": 2.0}, way=way)
    monkeypatch.setattr(export, "reload", lambda *_: [found])
    said: list[str] = []
    _, measured = export.check_files(
        saved, Path("x"), live, images, ["onnxruntime"], onnx=False, say=said.append
    )
    assert measured.get(way) == (None if off else {"64": 2.0})
    assert any("ONNX Runtime, so is left out: lenet.onnx by" in line for line in said) == bool(off)


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize("unit", [1000.0, 10.0], ids=["small", "large"])
def test_engines_are_timed_again_in_turns(monkeypatch, unit: float) -> None:
    """All of a small net's, else those close to the fastest: the others would be in memory too."""

    def opened(name: str) -> runners.Runner:
        return lambda x: np.array([name, len(x)])

    now = {"a": 0.9 * unit, "b": 1.0 * unit, "c": 2.0 * unit}
    slow = iter([0.5] * 4 + [1.0] * 100)  # the machine, in the first turns
    order = []

    def speed_of(run: runners.Runner, x: np.ndarray, seconds: float) -> float:
        name, size = run(x)
        order.append((str(name), int(size)))
        return now[str(name)] * next(slow)

    monkeypatch.setattr(speeds, "_speed_of", speed_of)
    monkeypatch.setattr(speeds, "PAUSE", 0.0)
    measured = {"a": {"1": 1.1 * unit, "64": 1.0}, "b": {"1": 0.95 * unit, "64": 9.0},
                "c": {"1": 0.5 * unit, "64": 8.0}, "d": dict(speeds.LEFT_OUT)}  # fmt: skip
    speeds.settle(measured, np.zeros((3, 1, 2, 2), np.float32), opened)
    assert measured["a"]["1"] == now["a"]
    assert measured["b"]["1"] == now["b"]
    among = ["a", "b", "c"] if unit == 1000.0 else ["a", "b"]
    assert order == [(name, 1) for name in among] * speeds.TURNS  # 64 images take seconds
    # whatever ran beside it when it was alone, the small net's fastest is found
    assert measured["c"] == {"1": now["c"] if unit == 1000.0 else 0.5 * unit, "64": 8.0}


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize(
    ("rate", "memory", "timed_at"),
    [(130.0, 2**50, {64, 500}), (130.0, 0, {64}), (130.0, None, {64}), (10.0, 2**50, set()),
     (1e4, 2**50, set())],
    ids=["large", "little memory", "memory unknown", "larger", "small"],
)  # fmt: skip
def test_a_large_nets_close_engines_are_timed_at_500(
    monkeypatch, rate: float, memory: int | None, timed_at: set[int]
) -> None:
    """One at a time in memory, since it may be large; one that fails is none for 500 images."""
    held: set[str] = set()
    order = []

    class Run:
        def __init__(self, name: str) -> None:
            assert not held
            self.name = name
            held.add(name)

        def __call__(self, x: np.ndarray) -> np.ndarray:
            if self.name == "onnxruntime" and len(x) == 500:
                raise MemoryError
            return x

        def __del__(self) -> None:
            held.clear()

    def speed_of(run: Run, x: np.ndarray, seconds: float) -> float:
        order.append((run.name, len(run(x))))
        return rate * (1.1 if run.name == "openvino" else 1.0) * (len(x) == 500 or 0.5)

    monkeypatch.setattr(speeds, "_speed_of", speed_of)
    monkeypatch.setattr(machine, "available_memory", lambda: memory)
    at_64 = {"onnxruntime": rate, "openvino": 0.9 * rate, "torch": 0.9 * rate, "mxnet": 0.5 * rate}
    close = list(at_64)[:3]
    measured = {name: {"1": 1.0, "64": speed} for name, speed in at_64.items()}
    speeds._time_long(measured, np.zeros((1, 1, 2, 2), np.float32), Run)
    assert order == [(name, size) for name in close for size in sorted(timed_at)
                     if (name, size) != ("onnxruntime", 500)]  # fmt: skip
    assert {name: found["64"] for name, found in measured.items()} == at_64  # the better of two
    at_500 = {name: found["500"] for name, found in measured.items() if "500" in found}
    assert at_500 == ({"openvino": 1.1 * rate, "torch": rate} if 500 in timed_at else {})
    best = speeds.fastest({"measured": {name: {"images_per_second": found}
                           for name, found in measured.items()}}, list(measured), 300)  # fmt: skip
    assert best == ("openvino" if 500 in timed_at else "onnxruntime")


@pytest.mark.usefixtures("timed")
def test_threads_that_still_wait_by_turning_slow_no_other_engine(monkeypatch) -> None:
    monkeypatch.setattr(speeds, "TURN", 0.01)
    awake: dict[str, float] = {}  # until when an engine's threads wait by turning

    def opened(name: str) -> runners.Runner:
        def run(x: np.ndarray) -> np.ndarray:
            now = time.perf_counter()
            disturbed = any(until > now for other, until in awake.items() if other != name)
            time.sleep(0.02 if disturbed else 0.001 if name == "fast" else 0.002)
            if not disturbed:
                awake[name] = time.perf_counter() + 0.03
            return x

        return run

    measured = {name: {"1": 500.0, "64": 1.0} for name in ("slow", "fast")}
    speeds.settle(measured, np.zeros((1, 1, 2, 2), np.float32), opened)
    assert measured["fast"]["1"] > measured["slow"]["1"] > 200


def _off(engine_: runners.Engine, by: float) -> runners.Engine:
    """The engine with one output of the last image moved."""

    def opened(folder: Path, name: str) -> runners.Runner:
        run = engine_.open(folder, name)

        def wrong(x: np.ndarray) -> np.ndarray:
            outputs = run(x).copy()
            outputs[-1, 2] += by
            return outputs

        return wrong

    return replace(engine_, open=opened)


def test_an_engine_that_computes_something_else_is_not_used(monkeypatch, capsys) -> None:
    _needs("torch")
    saved = _fresh()
    images = _images()[:1].repeat(8, 0)
    images[:, 0] += np.arange(8, dtype=np.float32)[:, None, None] / 8
    bound = proof.observe(saved.net, images).bound
    right = runners.ENGINES["torch"]
    monkeypatch.setitem(runners.ENGINES, "torch", _off(right, 100 * bound))
    with pytest.raises(CommandError, match=r"by PyTorch frozen, batch 1: .* off, expected at most"):
        engine.load_saved(saved, "torch")
    others = [name for name in runners.ENGINES if name != "torch"]
    monkeypatch.setattr(engine, "installed", lambda: ["mxnet", "torch"])
    assert engine.load_saved(saved, "auto").name == "mxnet"
    assert re.match(r"engine torch is left out: .* off", capsys.readouterr().err)
    assert others
    monkeypatch.setattr(engine, "observe", _never)  # remembered, the refusal too
    assert engine.load_saved(saved, "auto").name == "mxnet"
    record = speeds.recall(saved)
    assert speeds.proven(record, "mxnet")
    assert not speeds.proven(record, "torch")


def test_an_engine_that_does_not_run_is_said_in_one_line(monkeypatch) -> None:
    def opened(folder: Path, name: str) -> runners.Runner:
        raise RuntimeError("no\nkernel")

    _needs("torch")
    broken = replace(runners.ENGINES["torch"], open=opened)
    monkeypatch.setitem(runners.ENGINES, "torch", broken)
    with pytest.raises(CommandError, match=r"lenet by PyTorch frozen: RuntimeError: no kernel$"):
        engine.load_saved(_fresh(), "torch")


def test_another_release_is_proven_again(exported: Path, monkeypatch) -> None:
    _needs("torch")
    seen = []

    def observe(*arguments: Any) -> proof.Live:
        seen.append(arguments)
        return proof.observe(*arguments)

    monkeypatch.setattr(engine, "observe", observe)
    engine.load(exported, "torch")
    assert not seen
    monkeypatch.setattr(runners.metadata, "version", lambda _: "0.1")
    engine.load(exported, "torch")
    assert len(seen) == 1


def test_a_graph_of_another_version_runs_in_mxnet_alone(exported: Path, monkeypatch) -> None:
    _needs("torch")
    saved = open_saved(exported, [mx.cpu()])
    assert runners.rebuild(saved) is not None
    other = export.get_model("lenet_sigmoid", 4)
    monkeypatch.setattr(runners, "get_model", lambda *sizes: other)
    # Another net's parameters have other names; another graph of the same ones is what is meant
    other.collect_params = saved.net.collect_params
    assert runners.rebuild(saved) is None
    monkeypatch.setattr(engine, "proven", lambda *_: False)
    with pytest.raises(CommandError, match="another graph than this version's lenet"):
        engine.load(exported, "torch")
    assert engine.load(exported, "mxnet")(_images()).shape == (5, 4)


def test_results_carry_the_engines_name(exported: Path, tmp_path: Path, capsys) -> None:
    from PIL import Image

    digit = tmp_path / "digit.png"
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(digit)
    answers = {}
    for name in runners.installed():
        if runners.ENGINES[name].onnx and not (exported / "lenet.onnx").exists():
            continue
        capsys.readouterr()
        assert predict.main([str(exported), str(digit), "--engine", name, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["engine"] == name
        answers[name] = found["predictions"][0]["probability"]
    assert max(answers.values()) - min(answers.values()) < 1e-6


def test_an_unknown_engine_is_answered_with_the_nearest(exported: Path, refused) -> None:
    with pytest.raises(UsageError, match=r"expected one of auto, .*did you mean onnxruntime\?"):
        engine.load(exported, "onnxruntim")
    for command in (evaluate, predict, export):
        argv = [str(exported), "x.png", "--engine", "openvin"]
        refused(command.main, argv, 2, "did you mean openvino?")


@pytest.mark.parametrize("name", OTHERS)
def test_a_missing_extra_is_one_line(name: str, exported: Path, monkeypatch, refused) -> None:
    monkeypatch.setattr(runners, "is_installed", lambda package: package == "mxnet")
    with pytest.raises(MissingExtra, match=rf"engine {name}: {name} is not installed: pip install"):
        engine.load(exported, name)
    assert runners.installed() == ["mxnet"]
    out = str(exported.parent / "new")
    refused(export.main, ["--model", "lenet", "--out", out, "--engine", name], 2)
    assert not Path(out).exists()


def test_engines_other_than_mxnet_are_for_the_cpu() -> None:
    gpu = [mx.gpu()]
    saved = _fresh()
    assert engine.for_command(saved, "mxnet", gpu, 1) is None
    assert engine.for_command(saved, "auto", gpu, 1) is None
    with pytest.raises(UsageError, match="--engine torch computes on the CPU: pass --ctx cpu"):
        engine.for_command(saved, "torch", gpu, 1)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 1, 28, 28)), np.zeros((1, 28, 28), np.float32), [[0.0]],
     np.zeros((2, 3, 28, 28), np.float32), np.zeros((0, 1, 28, 28), np.float32)],
)  # fmt: skip
def test_images_of_another_shape_or_dtype_are_refused(images: Any) -> None:
    with pytest.raises(ValueError, match=r"got .*, expected"):
        engine.load_saved(_fresh(), "mxnet")(images)


def test_images_are_looked_at_in_every_call() -> None:
    net = engine.load_saved(_fresh(), "mxnet")
    x = _images()
    outputs = net(x)
    np.testing.assert_array_equal(net(np.asfortranarray(x)), outputs)
    wrongs: tuple[Any, ...] = (x.astype(np.float64), x.byteswap().view(">f4"), list(x))
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"got .*, expected a float32 array"):
            net(wrong)
