"""What is chosen before MXNet loads: seen from outside, in processes of its own."""

import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnn_harness.errors import CommandError
from gluon_cnn.runtime import command as runtime_command
from gluon_cnn.runtime import machine, pages, tuning
from gluon_cnn.runtime import settings as runtime

NAMES = (*tuning.NAMES, "OMP_WAIT_POLICY", "XDG_CACHE_HOME", "DMLC_ROLE", runtime.MARK)


def _environment(**given: str) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if k not in NAMES}, **given}


def _shown(cache: Path, *argv: str, **given: str) -> tuple[dict, str]:
    """Settings that a new process reports, name to value, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "gluon_cnn.runtime", "--json", *argv],
        env=_environment(XDG_CACHE_HOME=str(cache), **given),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    return {name: s["value"] for name, s in shown["settings"].items()}, done.stderr


def test_one_cpu_device_gets_every_core_and_no_queue(tmp_path: Path) -> None:
    shown, err = _shown(tmp_path)
    assert shown["OMP_NUM_THREADS"] == str(machine.cores())
    assert shown["MXNET_ENGINE_TYPE"] == "NaiveEngine"
    assert ("GOMP_SPINCOUNT" in shown) != ("OMP_WAIT_POLICY" in shown)
    assert err == ""


def test_one_variable_switches_it_off(tmp_path: Path) -> None:
    shown, err = _shown(tmp_path, GLUON_CNN_SETTLE="0")
    assert (shown, err) == ({}, "")
    code = (
        "import os; before = dict(os.environ); import gluon_cnn.models, mxnet\n"
        "assert {k: v for k, v in os.environ.items() if before.get(k) != v} == {}"
    )
    subprocess.run([sys.executable, "-c", code], env=_environment(GLUON_CNN_SETTLE="0"), check=True)


def _chosen(monkeypatch, others: int, cpus: tuple[int, ...] = (0, 1)) -> dict[str, str | None]:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "others_running", lambda: others)
    monkeypatch.setattr(machine, "open_cpus", lambda: cpus)
    monkeypatch.setattr(machine, "quota", lambda cgroup: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    return {choice.name: choice.value for choice in runtime._choices()}


def test_threads_spin_on_cores_of_their_own_where_there_is_room(monkeypatch) -> None:
    chosen = _chosen(monkeypatch, others=2)
    assert (chosen["GOMP_SPINCOUNT"], chosen["GOMP_CPU_AFFINITY"]) == (runtime.SPINS, "0-1")
    assert "OMP_WAIT_POLICY" not in chosen


def test_threads_make_way_where_others_run(monkeypatch) -> None:
    chosen = _chosen(monkeypatch, others=3)
    assert (chosen["OMP_WAIT_POLICY"], chosen["GOMP_CPU_AFFINITY"]) == ("passive", None)
    assert "GOMP_SPINCOUNT" not in chosen
    assert chosen["OMP_NUM_THREADS"] == "2"  # what is computed stays the same


def test_others_are_counted_without_this_thread(tmp_path: Path) -> None:
    file = tmp_path / "loadavg"
    for text, count in (("0.20 0.18 0.12 3/80 11206\n", 2), ("9.9 9.9 9.9 1/80 1\n", 0),
                        ("odd", 0)):  # fmt: skip
        file.write_text(text)
        assert machine.others_running(file, pause=0) == count
    assert machine.others_running(tmp_path / "none") == 0


def test_the_user_always_wins(tmp_path: Path) -> None:
    theirs = {"OMP_NUM_THREADS": "1", "MXNET_ENGINE_TYPE": "ThreadedEngine",
              "OMP_WAIT_POLICY": "active"}  # fmt: skip
    shown, _ = _shown(tmp_path, **theirs)
    assert {name: shown[name] for name in theirs} == theirs
    assert "GOMP_SPINCOUNT" not in shown  # libgomp would heed it before the policy
    assert shown["GOMP_CPU_AFFINITY"] is None


@pytest.mark.parametrize(
    ("argv", "devices"),
    [("python -m gluon_cnn.train --ctx cpu:0,1", 2), ("python -m gluon_cnn.train --ctx=cpu:0,1", 2),
     ("python -m gluon_cnn.train --ctx cpu", 1), ("python -m gluon_cnn.train", 1),
     ("python script.py --ctx cpu:0,1", 1), ("python -m gluon_cnn.train --ctx", 1),
     ("python", 1)],
)  # fmt: skip
def test_devices_are_read_from_the_command(argv: str, devices: int) -> None:
    assert runtime.cpu_devices(argv.split()) == devices


@pytest.mark.parametrize("devices", [2, 3])
def test_several_devices_get_the_threaded_engine(devices: int, monkeypatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    chosen = {c.name: c.value for c in runtime._choices(devices)}
    assert chosen["MXNET_ENGINE_TYPE"] is None
    assert chosen["GOMP_CPU_AFFINITY"] is None
    assert chosen["OMP_NUM_THREADS"] == str(max(1, machine.cores() // devices))


def test_a_distributed_role_gets_the_threaded_engine(monkeypatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DMLC_ROLE", "worker")
    assert {c.name: c.value for c in runtime._choices()}["MXNET_ENGINE_TYPE"] is None


def test_a_quota_below_the_open_cores_binds_no_thread(monkeypatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "open_cpus", lambda: (0, 1, 2, 3, 8))
    assert runtime._pinning(5, False).value == "0-3 8"
    assert runtime._pinning(2, False).value is None
    assert runtime._pinning(1, False).value is None


def test_bound_threads_leave_the_others_every_core(tmp_path: Path) -> None:
    """libgomp binds the thread that loads it: batches would be prepared on its core only."""
    code = (
        "import os; before = os.sched_getaffinity(0)\n"
        "import gluon_cnn; assert os.sched_getaffinity(0) == before\n"
        "print(len(before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=_environment(XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_environment_for_a_child_is_the_users(monkeypatch) -> None:
    own = {s.name for s in runtime.settled() if s.reason != runtime.BY_USER}
    assert own
    found = runtime.child_environment({"A": "b"})
    assert found["A"] == "b"
    assert not {*own, runtime.MARK} & set(found)


def test_importing_mxnet_first_is_said_once(tmp_path: Path) -> None:
    code = "import mxnet_compat, mxnet, gluon_cnn, gluon_cnn.models, gluon_cnn.train"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=_environment(XDG_CACHE_HOME=str(tmp_path)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("mxnet was imported before gluon_cnn") == 1


def test_loading_mxnet_loads_no_statistics_packages(tmp_path: Path) -> None:
    code = (
        "import sys, gluon_cnn\n"
        "loaded = {'sklearn', 'scipy.stats', 'pandas', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"  # and what stands in for them is gone again
        "import gc, mxnet\n"
        "assert gc.isenabled()\n"
        "young, frozen = len(gc.get_objects(0) + gc.get_objects(1)), gc.get_freeze_count()\n"
        "assert young < 2000 and not frozen, (young, frozen)\n"
        "assert mxnet.contrib.quantization.stats.entropy([1.0]) == 0.0\n"
        "assert mxnet.test_utils.ss.norm.cdf(0) == 0.5\n"
        "import scipy.stats\n"
        "assert mxnet.contrib.quantization.stats.norm is scipy.stats.norm"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=_environment(XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_quotas_of_both_kinds_are_read(tmp_path: Path) -> None:
    assert machine.quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.quota(tmp_path) == 1.5
    assert machine.cores(tmp_path) == min(2, len(machine.open_cpus()))
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.quota(tmp_path) is None
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert machine.cores(tmp_path) == 1
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1")
    assert machine.quota(tmp_path) is None


def test_memory_is_the_machines_cut_by_the_containers_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert machine.available_memory(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal:  9 kB\n")
    assert machine.available_memory(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal:  9 kB\nMemAvailable:  8 kB\n")
    assert machine.available_memory(meminfo, tmp_path) == 8192
    for folder, most, used in (
        (tmp_path, "memory.max", "memory.current"),
        (tmp_path / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / used).write_text("1000\n")
        for limit, left in (("max", 8192), ("9000000", 8192), ("3000", 2000), ("900", 0)):
            (folder / most).write_text(limit)
            assert machine.available_memory(meminfo, tmp_path) == left
        (folder / most).unlink()


def test_blocks_follow_the_vector_width(tmp_path: Path) -> None:
    for flags, block in (("fpu avx2", 8), ("avx2 avx512f", 16)):
        info = tmp_path / flags.replace(" ", "-")
        info.write_text(f"processor : 0\nmodel name : X\nmodel : 1\nflags : {flags}\n\nprocessor :")
        assert machine.channel_block(info) == block
        assert machine.cpu_model(info) == "X (1)"
    assert machine.channel_block(tmp_path / "none") == 8


SETTINGS = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "77", "GOMP_CPU_AFFINITY": None,
            "MXNET_ENGINE_TYPE": "ThreadedEnginePerDevice"}  # fmt: skip


def test_what_was_tuned_is_used_by_later_processes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stored = tuning.Stored(SETTINGS, "lenet", "2026-01-02", 5.0)
    tuning.store(runtime.cache_file(), stored, [])
    assert tuning.load(runtime.cache_file()) == stored
    shown, err = _shown(tmp_path)
    assert {name: shown[name] for name in SETTINGS} == SETTINGS
    assert err == ""
    shown, _ = _shown(tmp_path, GOMP_SPINCOUNT="5")
    assert shown["GOMP_SPINCOUNT"] == "5"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": "other"}', "\x00\xff", "[" * 100_000,
     json.dumps({"format": tuning.FORMAT, "settings": {"LD_PRELOAD": "/x"}, "model": "lenet",
                 "date": "2026-01-02", "images_per_second": 1}),
     json.dumps({"format": tuning.FORMAT, "settings": {**SETTINGS, "GOMP_SPINCOUNT": "-1; x"},
                 "model": "lenet", "date": "2026-01-02", "images_per_second": 1})],
)  # fmt: skip
def test_a_damaged_file_is_a_value_error_of_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"file\.json.*--tune") as caught:
        tuning.load(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_ignored_with_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = runtime.cache_file()
    path.parent.mkdir()
    path.write_text("{}")
    shown, err = _shown(tmp_path)
    assert shown["OMP_NUM_THREADS"] == str(machine.cores())
    assert err.count("\n") == 1
    assert str(path) in err


def _measure(speeds: dict[str, list[float]]):
    """Images a second of each turn by engine, spins or `default`; the last one is repeated."""
    turns: dict[str, int] = {}
    default = tuning.candidates(machine.cores(), runtime.affinity())[0]

    def measure(model, batch, settings, seconds, limit) -> float:
        key = "default" if settings == default else "another"
        if settings["MXNET_ENGINE_TYPE"] in speeds:
            key = settings["MXNET_ENGINE_TYPE"]
        turns[key] = turns.get(key, 0) + 1
        found = speeds.get(key, [50.0])
        speed = found[min(turns[key], len(found)) - 1]
        if not speed:
            raise CommandError("broken")
        return batch / speed

    return measure


THREADED = "ThreadedEnginePerDevice"


@pytest.mark.parametrize(
    ("threaded", "kept"),
    [
        ([200.0, 190.0, 195.0], THREADED),
        ([300.0, 100.0, 200.0, 205.0, 190.0, 299.0, 298.0], THREADED),  # until three agree
        ([104.0], "NaiveEngine"),  # too little for other bits
        ([0.0], "NaiveEngine"),
        ([200.0, 0.0], "NaiveEngine"),  # one measurement is no measurement
    ],
)
def test_tuning_keeps_what_is_faster_again_and_again(threaded: list[float], kept: str) -> None:
    lines: list[str] = []
    measured = runtime_command.tune(
        "lenet", lines.append, measure=_measure({"default": [100.0], THREADED: threaded})
    )
    best = runtime_command.choose(measured)
    assert measured[0]["settings"] == tuning.candidates(machine.cores(), runtime.affinity())[0]
    assert best["settings"]["MXNET_ENGINE_TYPE"] == kept
    assert best["measured"] >= runtime_command.AGREEING
    assert best["spread"] <= runtime_command.SPREAD
    failed = sum("broken" in line for line in lines)
    assert len(lines) == sum(one["measured"] for one in measured) + failed


def test_a_busy_machine_is_said_and_nothing_is_stored(tmp_path: Path, monkeypatch, refused) -> None:
    """Speeds that never agree end at the limit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    now = [0.0]
    monkeypatch.setattr(runtime_command.time, "monotonic", lambda: now[0])

    def measure(model, batch, settings, seconds, limit) -> float:
        now[0] += 5.0
        return 1.5 ** now[0]  # each a fraction of the one before

    monkeypatch.setattr(runtime_command, "_in_a_process", measure)
    said = "too busy to tune: after 150 s the same settings still differ by"
    refused(runtime_command.main, ["--tune", "lenet"], 1, said)
    assert not list(tmp_path.rglob("*"))


def test_tuning_shows_what_it_stored_and_reset_forgets_it(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        runtime_command, "_in_a_process", _measure({"default": [100.0], THREADED: [200.0]})
    )
    file = runtime.cache_file()
    assert runtime_command.main(["--tune", "lenet"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "MXNET_ENGINE_TYPE=ThreadedEnginePerDevice is 2.00 times as fast" in last
    assert str(file) in last
    stored = tuning.load(file)
    assert stored is not None
    assert stored.images_per_second == 200.0
    assert runtime_command.main(["--reset"]) == 0
    assert capsys.readouterr().out == f"{file} is removed\n"
    assert not file.exists()
    assert runtime_command.main(["--reset", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forgotten"] is False
    tuning.store(file, stored, [])
    monkeypatch.setattr(runtime_command, "_in_a_process", _measure({"default": [100.0]}))
    assert runtime_command.main(["--tune", "lenet"]) == 0  # the default is best now
    assert "nothing is stored" in capsys.readouterr().out
    assert not file.exists()


def test_a_run_names_the_stored_settings_that_it_uses(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuning.store(runtime.cache_file(), tuning.Stored(SETTINGS, "lenet", "2026-01-02", 5.0), [])
    done = subprocess.run(
        [sys.executable, "-m", "gluon_cnn.predict", str(tmp_path / "none"), "x.png"],
        env=_environment(XDG_CACHE_HOME=str(tmp_path)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    first = done.stderr.splitlines()[0]
    assert first == (
        "gluon_cnn: OMP_NUM_THREADS=1 GOMP_SPINCOUNT=77 MXNET_ENGINE_TYPE=ThreadedEnginePerDevice, "
        "measured on this machine with lenet, 2026-01-02; gluon-cnn runtime --reset forgets it"
    )


def test_tuning_that_measures_nothing_says_why() -> None:
    def measure(*args) -> float:
        raise CommandError("out of memory")

    with pytest.raises(CommandError, match="out of memory"):
        runtime_command.tune("lenet", lambda line: None, measure=measure)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_candidates_are_distinct_and_can_be_stored(threads: int) -> None:
    found = tuning.candidates(threads, "0-7")
    assert len({json.dumps(one) for one in found}) == len(found)
    for one in found:
        assert tuning.parse(one) == one


@pytest.mark.slow
def test_tuning_stores_the_best_or_says_that_the_machine_is_busy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gluon_cnn.runtime", "--tune", "lenet", "--json"],
        env=_environment(XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True, text=True, check=False, timeout=runtime_command.LIMIT + 15,
    )  # fmt: skip
    if done.returncode == 1 and "too busy" in done.stderr:
        assert not list(tmp_path.rglob("runtime-*"))
        return
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    shown, _ = _shown(tmp_path)
    best = found["best"]["settings"]
    assert {name: shown[name] for name in best} == best


def _in_huge_pages(memory: mmap.mmap) -> int:
    """How many bytes of the area of memory that this lies in are in huge pages."""
    address = np.frombuffer(memory, np.uint8).ctypes.data
    for area in re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.M)[1:]:
        start, end = (int(part, 16) for part in area.split(maxsplit=1)[0].split("-"))
        if start <= address < end:
            return 1024 * int(re.search(r"AnonHugePages: +(\d+) kB", area)[1])  # type: ignore[index]
    raise AssertionError(f"no area has {address:x}")


def _filled(count: int = 8) -> mmap.mmap:
    """Memory of 8 huge pages, of which so many hold something."""
    memory = mmap.mmap(-1, 8 * pages.HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(b"x" * (count * pages.HUGE))
    return memory


def test_what_is_allocated_inside_is_in_huge_pages_and_holds_what_it_held() -> None:
    if not pages._on_request():
        pytest.skip("this kernel does not give huge pages on request")
    before = _filled()
    with pages.huge_pages():
        inside = _filled()
    if not _in_huge_pages(inside):
        pytest.skip("this kernel moves nothing into huge pages: Linux 6.1 does")
    assert _in_huge_pages(inside) >= 7 * pages.HUGE
    assert inside[:] == b"x" * len(inside)
    # The kernel may show both as one area
    assert _in_huge_pages(before) <= 8 * pages.HUGE


def test_memory_that_is_hardly_used_is_not_filled() -> None:
    """Such as the stacks of threads."""
    with pages.huge_pages():
        memory = _filled(3)
        for block in range(3, 8):
            memory[block * pages.HUGE] = 1
    assert _resident(memory) <= 4 * pages.HUGE


def _resident(memory: mmap.mmap) -> int:
    start = np.frombuffer(memory, np.uint8).ctypes.data
    present = (ctypes.c_ubyte * (len(memory) // mmap.PAGESIZE))()
    assert not ctypes.CDLL(None).mincore(
        ctypes.c_void_p(start), ctypes.c_size_t(len(memory)), present
    )
    return mmap.PAGESIZE * sum(present)


def test_nothing_is_asked_of_a_kernel_that_gives_huge_pages_to_all_or_none(
    tmp_path: Path, monkeypatch
) -> None:
    file = tmp_path / "enabled"
    for text, asked in (
        ("always [madvise] never", True), ("[always] madvise never", False),
        ("always madvise [never]", False),
    ):  # fmt: skip
        file.write_text(text)
        assert pages._on_request(file) is asked
    assert not pages._on_request(tmp_path / "none")
    file.write_text("always [madvise] never\n")
    assert not pages._on_request(file, maps=tmp_path / "none")
    monkeypatch.setattr(pages, "_on_request", lambda: False)
    monkeypatch.setattr(pages, "_anonymous", lambda: pytest.fail("the memory is read"))
    with pages.huge_pages():
        pass


def test_only_memory_of_this_process_alone_is_moved(tmp_path: Path) -> None:
    file = tmp_path / "maps"
    file.write_text(
        "1000-2000 r-xp 00000000 08:01 42 /usr/lib/with a space.so\n"
        "2000-3000 rw-p 00001000 08:01 42 /usr/lib/with a space.so\n"
        "4000-9000 rw-p 00000000 00:00 0 [heap]\n"
        "a000-b000 rw-s 00000000 00:01 7\n"
        "c000-f000 rw-p 00000000 00:00 0 \n"
        "f000-ff00 rw-p 00000000 00:00 0 [stack]\n"
    )
    assert pages._anonymous(file) == [(0x4000, 0x9000), (0xC000, 0xF000)]
    beyond = pages._beyond([(0, 10), (20, 30), (40, 50)], [(2, 3), (5, 6), (20, 30), (39, 45)])
    assert list(beyond) == [(0, 2), (3, 5), (6, 10), (45, 50)]
