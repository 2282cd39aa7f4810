"""Settles threads and engine before MXNet loads; the only file that touches `os.environ`.

MXNet reads its settings once, while it is imported. Left alone it uses half the cores and an
engine whose workers each start a thread pool of their own, which costs small nets a third of
their speed and large ones half. What the user has set in the environment always wins.

`python -m gluon_cnn.runtime` shows what was chosen and why; `--tune MODEL` measures other choices
and keeps the best for this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gluon_cnn_parity import cache_folder, started, version_of
from gluon_cnn.runtime import machine, tuning
from gluon_cnn.runtime.cuda import WHEEL, Cuda, probe
from gluon_cnn.runtime.loading import load_quietly
from gluon_cnn.runtime.machine import cores

BY_USER = "set by the user"
MARK = "GLUON_CNN_SETTLED"  # what this process chose itself, for its children to know
SWITCH = "GLUON_CNN_SETTLE"  # 0: choose nothing
TRIAL = "GLUON_CNN_TRIAL"  # settings that a process of `--tune` is to measure, as JSON
TIMING = "GLUON_CNN_TIMING"  # 0: one call of an engine is timed, and no more

# Spins of a waiting thread before it sleeps: a fifth of a millisecond. Asleep at once ("passive")
# LeNet's short loops wait for the kernel to wake threads and take twice as long. libgomp's own
# 300,000 keep the core from whatever else runs: beside one other busy thread LeNet took six times
# as long as with threads that sleep at once, and with 10,000 spins on bound threads twice.
SPINS = "10000"

# Commands that compute nothing: `--help` alone, and those that start other processes, each of which
# settles for itself.
WITHOUT_MXNET = ("", "launch", "prepare")

# Commands that say which stored settings they run with
THAT_COMPUTE = ("train", "evaluate", "predict", "export")

MEASURED = "measured on this machine"  # how the reason begins for what `--tune` stored

_settled: tuple[Setting, ...] = ()
_CUDA: Cuda | None = None


@dataclass(frozen=True)
class Setting:
    """One environment variable, its value in force (None: not set), and why."""

    name: str
    value: str | None
    reason: str


def settle() -> tuple[Setting, ...]:
    """Choose and set what MXNet will read; called once, by `import gluon_cnn`.

    GLUON_CNN_SETTLE=0 in the environment switches it off: MXNet then loads as it is. Where MXNet
    is already imported nothing can be changed any more: that is said in a warning, and nothing is
    set. Only a command of this package has its flags read here (`--ctx`, `--tf32`, `--autotune`),
    never the program of somebody else that imports it.
    """
    global _settled
    if _command(sys.orig_argv) in WITHOUT_MXNET:
        return ()
    if os.environ.get(SWITCH) == "0":
        load_quietly()
        return ()
    if "mxnet" in sys.modules:
        warnings.warn(
            "mxnet was imported before gluon_cnn: its threads and engine stay as they are; "
            "import gluon_cnn first to have them tuned",
            RuntimeWarning,
            stacklevel=3,
        )
        return ()
    _forget_parents_choices()
    choices = _choices(cpu_devices(sys.orig_argv))
    _settled = tuple(_set(choice) for choice in _tuned(choices))
    own = {s.name: s.value for s in _settled if s.reason != BY_USER and s.value is not None}
    if _command(sys.orig_argv) in THAT_COMPUTE:
        _name_tuned(_settled)
    os.environ[MARK] = json.dumps(own)
    if version_of(WHEEL):
        global _CUDA
        _CUDA = probe()
    if os.environ.get("DMLC_ROLE") in ("server", "scheduler"):
        import mxnet_compat  # it needs numpy, which reads the number of threads as it loads

        mxnet_compat.install()
        import mxnet  # noqa: F401  (serves until the job ends, and then exits: never silence it)
    cpus = machine.open_cpus()
    if started() is not None:  # hundreds of lines where oneDNN is switched off, on what no net has
        os.environ.setdefault("MXNET_STORAGE_FALLBACK_LOG_VERBOSE", "0")
    load_quietly()
    if "GOMP_CPU_AFFINITY" in own:
        # libgomp has bound this thread too, and every thread that it starts would share its core:
        # those that prepare batches. The loop's own thread finds the core that is free.
        os.sched_setaffinity(0, cpus)
    return _settled


def settled() -> tuple[Setting, ...]:
    """What `settle` chose in this process; nothing where MXNet was imported first."""
    return _settled


def is_worker() -> bool:
    """Whether this process is a worker of a distributed job (`gluon_cnn.launch`)."""
    return os.environ.get("DMLC_ROLE") == "worker"


def servers() -> int:
    """How many parameter servers the job of this worker has."""
    return int(os.environ.get("DMLC_NUM_SERVER", "1"))


def report_rank(rank: int) -> None:
    """Tell the node that runs this worker which rank the parameter server has given it."""
    descriptor = os.environ.pop("GLUON_CNN_REPORT", "")
    if descriptor.isdigit():
        with contextlib.suppress(OSError):
            os.write(int(descriptor), f"{rank}\n".encode())


def _forget_parents_choices() -> None:
    """Unset what a parent process chose for itself: it need not fit this one, and no user set it.

    A worker that a tuned process starts must not inherit the engine for one CPU device.
    """
    try:
        chosen = dict(json.loads(os.environ.pop(MARK, "{}")))
    except (TypeError, ValueError):
        return
    for name, value in chosen.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def times_engines() -> bool:
    """Whether an engine is timed long enough to tell its speed."""
    return os.environ.get(TIMING) != "0"


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment as the user gave it, without what was settled here, with `changes`."""
    own = {s.name for s in _settled if s.reason != BY_USER}
    inherited = {k: v for k, v in os.environ.items() if k not in own and k != MARK}
    return {**inherited, **changes}


def cpu_devices(argv: Sequence[str]) -> int:
    """How many CPU devices the `--ctx` of a command line such as `sys.orig_argv` names; 1 without.

    MXNet has to be told before it is imported, which is before any command parses its flags.
    """
    asked = ""
    if _command(argv) is not None:
        for flag, value in zip(argv, [*argv[1:], ""], strict=True):
            if flag == "--ctx":
                asked = value
            elif flag.startswith("--ctx="):
                asked = flag.removeprefix("--ctx=")
    return len(asked.split(",")) if asked.startswith("cpu:") else 1


def _command(argv: Sequence[str]) -> str | None:
    """Which of this package's commands a command line starts, such as "train"; None for none."""
    process = started(argv)
    return process.command if process is not None and process.package == "gluon_cnn" else None


def _choices(devices: int = 1) -> list[Setting]:
    threads = max(1, cores() // devices)
    reason = f"{cores()} core{'s are' if cores() > 1 else ' is'} open to this process"
    if devices > 1:
        reason += f", for {devices} devices"
    choices = [Setting("OMP_NUM_THREADS", str(threads), reason)]
    if version_of(WHEEL):  # a GPU needs the engine that has threads
        passive = Setting("OMP_WAIT_POLICY", "passive", "waiting threads leave their core")
        return [*choices, passive, *gpu_choices(sys.orig_argv)]
    # Several devices work at the same time, and several processes while they exchange gradients.
    if devices > 1 or "DMLC_ROLE" in os.environ:
        return [
            *choices,
            Setting("OMP_WAIT_POLICY", "passive", "several thread pools share the cores"),
            Setting("GOMP_CPU_AFFINITY", None, "several thread pools share the cores"),
            Setting("MXNET_ENGINE_TYPE", None, "MXNet's threaded engine, for several devices"),
        ]
    others = machine.others_running()
    crowded = others + threads > (os.cpu_count() or 1)
    return [
        *choices,
        _waiting(others if crowded else 0),
        _pinning(threads, crowded),
        Setting("MXNET_ENGINE_TYPE", "NaiveEngine", "one CPU device: no queue, no second pool"),
        Setting("MXNET_GPU_MEM_POOL_TYPE", None, "MXNet pools no memory on the CPU"),
    ]


def gpu_choices(argv: Sequence[str]) -> list[Setting]:
    """What CUDA's libraries are told, by the flags of a command line such as `sys.orig_argv`.

    They read it when they load, which is before any command parses its flags.
    """
    choices = []
    flags = () if _command(argv) is None else argv
    if "--tf32" not in flags:
        # TF32 keeps 10 bits of a float32 mantissa: a silent change on Ampere and newer
        choices.append(Setting("NVIDIA_TF32_OVERRIDE", "0", "float32 means float32"))
    if "--autotune" not in flags:
        choices += [
            Setting("MXNET_CUDNN_AUTOTUNE_DEFAULT", "0", "no choice of algorithm by stopwatch"),
            Setting("MXNET_ENFORCE_DETERMINISM", "1", "the same bits every time"),
        ]
    return choices


def switched_off() -> set[str]:
    """Those of `--tf32` and `--autotune` that were not given when this process started."""
    names = {"--tf32": "NVIDIA_TF32_OVERRIDE", "--autotune": "MXNET_CUDNN_AUTOTUNE_DEFAULT"}
    return {flag for flag, name in names.items() if os.environ.get(name) == "0"}


def cuda() -> Cuda | None:
    """What the GPU wheel found when it was loaded; None with the wheel for the CPU."""
    return _CUDA


def _waiting(others: int) -> Setting:
    """Whether threads spin for the next loop: not where `others` want the cores meanwhile."""
    if others or "OMP_WAIT_POLICY" in os.environ:
        running = f"{others} other threads run here now: waiting threads leave their core"
        return Setting("OMP_WAIT_POLICY", "passive", running)
    return Setting("GOMP_SPINCOUNT", SPINS, "threads spin 0.2 ms for the next loop, then sleep")


def _pinning(threads: int, crowded: bool) -> Setting:
    """Each OpenMP thread on a core of its own, where that cannot crowd anybody else's."""
    cpus = machine.open_cpus()
    free = None
    if threads < 2:
        free = "one thread needs no core of its own"
    elif crowded:
        free = "bound threads could not make way for the others"
    elif not hasattr(os, "sched_setaffinity"):
        free = "this system binds no threads"
    elif {"OMP_PROC_BIND", "OMP_PLACES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"} & set(os.environ):
        free = "the user chooses the threads"
    elif threads < len(cpus):
        free = f"a quota of {threads} cores floats over {len(cpus)}"
    if free is not None:
        return Setting("GOMP_CPU_AFFINITY", None, free)
    # Unbound, two spinning threads may meet on one core and wait for each other there.
    return Setting("GOMP_CPU_AFFINITY", affinity(), "each OpenMP thread has a core of its own")


def affinity() -> str:
    """The CPUs open to this process as libgomp reads them: `0-3 8-11`."""
    parts: list[list[int]] = []
    for cpu in machine.open_cpus():
        if parts and cpu == parts[-1][1] + 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _tuned(choices: list[Setting]) -> list[Setting]:
    """The choices for one CPU device, replaced where `--tune` has measured better ones here."""
    names = {choice.name for choice in choices if choice.value is not None}
    if "MXNET_ENGINE_TYPE" not in names or "OMP_NUM_THREADS" in os.environ:
        return choices
    if TRIAL in os.environ:
        settings, reason = tuning.parse(json.loads(os.environ[TRIAL])), "on trial"
    else:
        try:
            stored = tuning.load(cache_file())
        except ValueError as error:
            print(f"gluon_cnn: ignored the tuned settings: {error}", file=sys.stderr)
            return choices
        if stored is None:
            return choices
        settings = stored.settings
        reason = f"{MEASURED} with {stored.model}, {stored.date}"
    others = [c for c in choices if c.name not in (*tuning.NAMES, "OMP_WAIT_POLICY")]
    theirs = [c for c in choices if c.name == "OMP_WAIT_POLICY" and c.name in os.environ]
    skipped = bool(theirs)
    return [
        *theirs,
        *(
            Setting(name, settings[name], reason)
            for name in tuning.NAMES
            if not (skipped and name == "GOMP_SPINCOUNT")
        ),
        *others,
    ]


def _name_tuned(settings: Sequence[Setting]) -> None:
    """Another number of threads adds in another order: who runs with stored settings is told."""
    stored = [s for s in settings if s.reason.startswith(MEASURED)]
    if stored:
        written = " ".join(f"{s.name}={s.value}" for s in stored if s.value is not None)
        print(
            f"gluon_cnn: {written}, {stored[0].reason}; gluon-cnn runtime --reset forgets it",
            file=sys.stderr,
        )


def cache_file() -> Path:
    """Where this machine's tuned settings are kept."""
    return cache_folder() / f"runtime-{machine.fingerprint()}.json"


def _set(choice: Setting) -> Setting:
    if choice.name in os.environ:
        return Setting(choice.name, os.environ[choice.name], BY_USER)
    if choice.value is not None:
        os.environ[choice.name] = choice.value
    return choice


def threads() -> int:
    """How many threads MXNet computes with, which decides the bits of its sums."""
    try:
        return int(os.environ.get("OMP_NUM_THREADS", ""))
    except ValueError:
        return cores()
