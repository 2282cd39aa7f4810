"""Settles threads and engine before MXNet loads; the only file that touches `os.environ`.

MXNet reads its settings once, while it is imported. Left alone it uses half the cores and an
engine whose workers each start a thread pool of their own, which costs small nets a third of
their speed and large ones half. What the user has set in the environment always wins.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gluon_cnn.cuda import WHEEL, Cuda, probe

__all__ = [
    "Setting",
    "cores",
    "cpu_devices",
    "cuda",
    "gpu_choices",
    "is_worker",
    "report_rank",
    "settle",
]

BY_USER = "set by the user"
_CUDA: Cuda | None = None
MARK = "GLUON_CNN_SETTLED"  # what this process chose itself, for its children to know


@dataclass(frozen=True)
class Setting:
    """One environment variable, its value in force, and why."""

    name: str
    value: str
    reason: str


def settle() -> tuple[Setting, ...]:
    """Choose and set what MXNet will read; called once, by `import gluon_cnn`.

    Where MXNet is already imported nothing can be changed any more: that is said in a warning,
    and nothing is set.
    """
    if "mxnet" in sys.modules:
        warnings.warn(
            "mxnet was imported before gluon_cnn: its threads and engine stay as they are; "
            "import gluon_cnn first to have them tuned",
            RuntimeWarning,
            stacklevel=3,
        )
        return ()
    _forget_parents_choices()
    settings = tuple(_set(choice) for choice in _choices(cpu_devices(sys.orig_argv)))
    os.environ[MARK] = json.dumps({s.name: s.value for s in settings if s.reason != BY_USER})
    if _installed(WHEEL):
        global _CUDA
        _CUDA = probe()
    if os.environ.get("DMLC_ROLE") in ("server", "scheduler"):
        import mxnet  # noqa: F401  (serves until the job ends, and then exits: never silence it)
    _load_quietly()
    return settings


def is_worker() -> bool:
    """Whether this process is a worker of a distributed job (`gluon_cnn.launch`)."""
    return os.environ.get("DMLC_ROLE") == "worker"


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
        chosen = json.loads(os.environ.pop(MARK, "{}"))
    except ValueError:
        return
    for name, value in chosen.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def cpu_devices(argv: Sequence[str]) -> int:
    """How many CPU devices the `--ctx` of a command line such as `sys.orig_argv` names; 1 without.

    MXNet has to be told before it is imported, which is before any command parses its flags.
    """
    pairs = [*pairwise(argv)]
    asked = ""
    if any(flag == "-m" and module.startswith("gluon_cnn.") for flag, module in pairs):
        for flag, value in [*pairs, (argv[-1], "")]:
            if flag == "--ctx":
                asked = value
            elif flag.startswith("--ctx="):
                asked = flag.removeprefix("--ctx=")
    return len(asked.split(",")) if asked.startswith("cpu:") else 1


def _choices(devices: int = 1) -> list[Setting]:
    threads = max(1, cores() // devices)
    reason = f"{cores()} cores are open to this process"
    if devices > 1:
        reason += f", for {devices} devices"
    choices = [
        Setting("OMP_NUM_THREADS", str(threads), reason),
        # A spinning thread keeps its core from whatever else runs, our own batch preparation
        # first of all: on a shared machine LeNet trained 13 times slower with spinning threads.
        Setting("OMP_WAIT_POLICY", "passive", "waiting threads sleep, and leave their core"),
    ]
    if _installed(WHEEL):  # a GPU needs the engine that has threads
        return [*choices, *gpu_choices(sys.orig_argv)]
    # Several devices work at the same time, and several processes while they exchange gradients.
    if devices == 1 and "DMLC_ROLE" not in os.environ:
        choices.append(
            Setting("MXNET_ENGINE_TYPE", "NaiveEngine", "one CPU device: no queue, no second pool")
        )
    return choices


def gpu_choices(argv: Sequence[str]) -> list[Setting]:
    """What CUDA's libraries are told, by the flags of a command line such as `sys.orig_argv`.

    They read it when they load, which is before any command parses its flags.
    """
    choices = []
    if "--tf32" not in argv:
        # TF32 keeps 10 bits of a float32 mantissa: a silent change on Ampere and newer
        choices.append(Setting("NVIDIA_TF32_OVERRIDE", "0", "float32 means float32"))
    if "--autotune" not in argv:
        choices += [
            Setting("MXNET_CUDNN_AUTOTUNE_DEFAULT", "0", "no choice of algorithm by stopwatch"),
            Setting("MXNET_ENFORCE_DETERMINISM", "1", "the same bits every time"),
        ]
    return choices


def cuda() -> Cuda | None:
    """What the GPU wheel found when it was loaded; None with the wheel for the CPU."""
    return _CUDA


def _set(choice: Setting) -> Setting:
    if choice.name in os.environ:
        return Setting(choice.name, os.environ[choice.name], BY_USER)
    os.environ[choice.name] = choice.value
    return choice


def _load_quietly() -> None:
    """Import MXNet without its line about the engine, which it writes straight to descriptor 2."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import mxnet

            mxnet.nd.waitall()  # starts the engine, which is when it writes
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error.msg}: install MXNet with pip install -e '.[cpu]' or '.[gpu]'",
                name=error.name,
            ) from error
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if b"MXNet start using engine" not in line:
                    os.write(2, line)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use: its affinity mask, cut by its cgroup's CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:  # macOS has no affinity mask
        count = os.cpu_count() or 1
    return max(1, min(count, _cgroup_quota(cgroup)))


def _cgroup_quota(cgroup: Path) -> int:
    """Whole cores in the container's quota (cgroup v2, then v1); a large number without one.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    unlimited = 2**30
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return unlimited
    try:
        share = int(quota) / int(period)  # "max" and -1 mean no limit
    except (ValueError, ZeroDivisionError):
        return unlimited
    return math.ceil(share) if share > 0 else unlimited
