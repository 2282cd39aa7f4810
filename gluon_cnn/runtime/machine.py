"""What this process may use of the machine it runs on; imports neither MXNet nor numpy."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import statistics
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_LOADAVG = Path("/proc/loadavg")
_MEMINFO = Path("/proc/meminfo")


def open_cpus() -> tuple[int, ...]:
    """The numbers of the CPUs in this process's affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))  # macOS has no affinity mask


def cores(cgroup: Path = _CGROUP) -> int:
    """How many cores this process may use: its affinity mask, cut by its cgroup's CPU quota."""
    allowed = quota(cgroup)
    count = len(open_cpus())
    return count if allowed is None else max(1, min(count, math.ceil(allowed)))


def quota(cgroup: Path = _CGROUP) -> float | None:
    """Cores' worth of time in the container's quota (cgroup v2, then v1); None without one.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    try:
        spent, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            spent = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        share = int(spent) / int(period)  # "max" and -1 mean no limit
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Bytes that are free, or would be if they were wanted, and that the container may still take.

    None where the system does not say. https://docs.kernel.org/filesystems/proc.html#meminfo,
    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        free = 1024 * int(next(s.split()[1] for s in lines if s.startswith("MemAvailable:")))
    except (OSError, ValueError, StopIteration):
        return None
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            left = int((cgroup / most).read_text()) - int((cgroup / used).read_text())
            free = min(free, max(0, left))
    return free


def others_running(path: Path = _LOADAVG, samples: int = 5, pause: float = 0.01) -> int:
    """Threads of the whole machine, but for this one, that run or wait for a core just now.

    The load average is no use: it remembers for a minute what has ended. 0 where nobody says.
    https://man7.org/linux/man-pages/man5/proc_loadavg.5.html
    """
    seen = []
    for number in range(samples):
        if number:
            time.sleep(pause)
        try:
            seen.append(int(path.read_text().split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return 0
    return max(0, round(statistics.median(seen)))


@lru_cache(maxsize=4)
def _cpuinfo(path: Path) -> dict[str, str]:
    """The first processor's lines; empty where there is no such file."""
    try:
        first = path.read_text(errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_model(path: Path = _CPUINFO) -> str:
    """The processor's name, with family, model and stepping: hypervisors hide the name."""
    info = _cpuinfo(path)
    name = info.get("model name") or platform.processor() or platform.machine()
    numbers = [info[key] for key in ("cpu family", "model", "stepping") if key in info]
    return f"{name} ({'/'.join(numbers)})" if numbers else name


def channel_block(path: Path = _CPUINFO) -> int:
    """Channels in a block of oneDNN's convolutions: as many float32 as a vector holds."""
    return 16 if "avx512f" in _cpuinfo(path).get("flags", "").split() else 8


def fingerprint() -> str:
    """What a measured choice of settings is good for: processor, open CPUs, quota, system."""
    parts = (cpu_model(), open_cpus(), quota(), platform.system(), platform.machine())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
