"""What a snapshot was taken with: libraries and their builds, machine, threads, switches, models.

Nothing in it changes from run to run: no time of day, no path, no process.

Framework specific (mxnet, torch): each library is asked for its own build, threads and switches.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Fingerprint = dict[str, dict[str, str]]

# Each with what a change of it is called
GROUPS = {
    "mxnet": "MXNet",
    "torch": "torch",
    "numpy": "numpy",
    "python": "Python",
    "machine": "another CPU",
    "threads": "another thread count",
    "switches": "environment switches",
    "models": "the nets' own code",
}

_SWITCHES = re.compile(
    r"(MXNET|MKL|MKLDNN|DNNL|ONEDNN|TORCH|PYTORCH|ATEN|KMP|GOMP|OMP|NVIDIA|CUDNN|CUBLAS)_\w+"
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_OWN = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")  # torch sets them while it loads
_FLAGS = re.compile(r"(sse4_\d|avx\w*|fma|f16c|amx\w*|neon|asimd|sve\w*)")


def fingerprint(sides: dict[str, Any]) -> Fingerprint:
    """By group; `sides` are those that work, and only they are asked."""
    groups: Fingerprint = {
        "numpy": {"version": np.__version__},
        "python": {"version": platform.python_version()},
        "machine": dict(_machine()),
        "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
        "switches": {
            name: value
            for name, value in sorted(os.environ.items())
            if _SWITCHES.fullmatch(name) and name not in (*_THREADS, *_OWN)
        },
        "models": dict(_models()),
    }
    if "gluon" in sides:
        groups["mxnet"] = _mxnet()
    if "torch" in sides:
        groups["torch"], threads, switches = _torch()
        groups["threads"] |= threads
        groups["switches"] |= switches
    return {group: groups[group] for group in GROUPS if group in groups}


def difference(old: Fingerprint, new: Fingerprint) -> dict[str, list[str]]:
    """What differs, by group, each as `version 1.8.0 -> 1.9.1`; only groups that both have.

    A framework brings settings of its own along: where it is in one of the two alone, what that one
    alone has set is no difference.
    """
    differences = {}
    same_sides = all((side in old) == (side in new) for side in ("mxnet", "torch"))
    for group in GROUPS:
        if group not in old or group not in new:
            continue
        everything = same_sides or group not in ("threads", "switches")
        a, b = old[group].keys(), new[group].keys()
        names = sorted(a | b if everything else a & b)
        changed = [
            f"{name} {old[group].get(name, 'unset')} -> {new[group].get(name, 'unset')}"
            for name in names
            if old[group].get(name) != new[group].get(name)
        ]
        if changed:
            differences[group] = changed
    return differences


@cache
def _machine() -> dict[str, str]:
    text = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text()
    model = re.search(r"model name\s*:\s*(.*)", text)
    flags = re.search(r"(?:flags|Features)\s*:\s*(.*)", text)
    known = sorted(set(_FLAGS.findall(flags[1]))) if flags else []
    return {
        "architecture": platform.machine(),
        "cpu": model[1] if model else platform.processor(),
        "flags": " ".join(known),
    }


@cache
def _build(*distributions: str) -> str:
    """A digest of the installed files' own digests, as the wheel lists them."""
    for name in distributions:
        try:
            record = importlib.metadata.distribution(name).read_text("RECORD") or ""
        except importlib.metadata.PackageNotFoundError:
            continue
        lines = [line for line in record.splitlines() if ".dist-info" not in line]
        files = sorted(line for line in lines if ",sha256=" in line and not line.startswith(".."))
        return hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]
    return "unknown"


@cache
def _models() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    digests = {}
    for room in ("gluon_cnn", "torch_ref"):
        digest = hashlib.sha256()
        extra = [root / room / name for name in ("training/losses.py", "optim.py")]
        for path in sorted((root / room / "models").glob("*.py")) + extra:
            if path.exists():
                digest.update(path.name.encode() + path.read_bytes())
        digests[room] = digest.hexdigest()[:16]
    return digests


def _mxnet() -> dict[str, str]:
    import mxnet as mx

    enabled = sorted(f.name for f in mx.runtime.feature_list() if f.enabled)
    return {
        "version": mx.__version__,
        "build": _build("mxnet", "mxnet-cu112"),
        "features": " ".join(enabled),
        "oneDNN": _onednn(),
    }


_PROBE = """
import mxnet_compat
import mxnet as mx
x, w = mx.nd.ones((1, 16, 8, 8)), mx.nd.ones((16, 16, 3, 3))
mx.nd.Convolution(x, w, no_bias=True, kernel=(3, 3), num_filter=16).wait_to_read()
"""


@cache
def _onednn() -> str:
    """oneDNN's own line about its version, which it prints where it is asked to be verbose."""
    switches = {"MKLDNN_VERBOSE": "1", "DNNL_VERBOSE": "1", "ONEDNN_VERBOSE": "1"}
    try:
        probed = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROBE],
            env={**os.environ, **switches}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "not asked"
    lines = re.findall(r"verbose,info,(.*)", probed.stdout + probed.stderr)
    named = [line for line in lines if re.search(r"DNN.* v?\d|isa:", line)]
    return "; ".join(dict.fromkeys(named)) or "none"


def _torch() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    import torch

    text = torch.__config__.show()
    lines = [line.strip(" -") for line in text.splitlines()]
    library = {"version": torch.__version__, "build": _build("torch")}
    for name, pattern in (
        ("oneDNN", "MKL-DNN|oneDNN"),
        ("MKL", "Math Kernel"),
        ("compiler", "^GCC"),
    ):
        matching = [
            line for line in lines if re.search(pattern, line) and "Build settings" not in line
        ]
        library[name] = matching[0] if matching else "none"
    capability = [line for line in lines if line.startswith("CPU capability usage")]
    threads = {"torch threads": str(torch.get_num_threads())}
    switches = {
        "torch mkldnn": str(torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available()),
        "torch float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "torch CPU capability": capability[0].split(":")[-1].strip() if capability else "unknown",
    }
    return library, threads, switches
