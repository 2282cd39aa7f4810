"""What a run ran on: versions, the processor, threads, and the switches that change arithmetic."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from functools import cache
from pathlib import Path

import mxnet as mx
import torch

PACKAGES = ("mxnet", "mxnet-cu112", "torch", "numpy", "onnx", "onnxruntime")
# Variables that decide how either framework, or a library below it, computes.
SWITCHES = re.compile(
    r"(MXNET|OMP|GOMP|KMP|MKL|MKLDNN|DNNL|ONEDNN|OPENBLAS|BLIS|CUDNN|CUBLAS|TORCH|ATEN|PYTORCH)_.+"
    r"|NVIDIA_TF32_OVERRIDE|CUDA_VISIBLE_DEVICES"
)
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH")


def environment() -> dict[str, str]:
    """Each fact by its name, in the order in which a page shows them."""
    return {
        **{name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "system": platform.platform(),
        "CPU": _processor(),
        "cores open to the process": str(_cores()),
        "instructions torch uses": torch.backends.cpu.get_cpu_capability(),
        "mxnet features": _features(),
        "torch threads": f"{torch.get_num_threads()}, {torch.get_num_interop_threads()} inter-op",
        "torch oneDNN": _switch(bool(torch.backends.mkldnn.enabled)),
        "torch float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch deterministic algorithms": _switch(torch.are_deterministic_algorithms_enabled()),
        "torch flushes denormals": _switch(_flushes_denormals()),
        **{name: value for name, value in sorted(os.environ.items()) if _shown(name)},
    }


@cache
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def _processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """The model as the kernel names it; what Python knows where there is no such file."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE)
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or 'unknown'} ({platform.machine()})"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _features() -> str:
    """What MXNet was built with, of what decides how it computes."""
    wanted = ("MKLDNN", "OPENMP", "BLAS_OPEN", "BLAS_MKL", "BLAS_APPLE", "CUDA", "CUDNN", "F16C")
    built = mx.runtime.Features()
    return ", ".join(name for name in wanted if name in built and built.is_enabled(name))


def _flushes_denormals() -> bool:
    return float(torch.tensor(1e-41) * 1.0) == 0.0


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _shown(name: str) -> bool:
    return bool(SWITCHES.fullmatch(name)) and not SECRET.search(name)
