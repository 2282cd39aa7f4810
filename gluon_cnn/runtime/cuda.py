"""What MXNet's GPU wheel needs before it is imported, and what it can run on.

`mxnet-cu112` needs the CUDA 11 libraries, which the `nvidia-*-cu11` packages hold, and the driver's
`libcuda.so.1`. It holds machine code for compute capabilities 5.0, 6.0, 7.0, 8.0 and 8.6 and no PTX
that a driver could translate (read with cuobjdump), so it runs on 5.0 to 8.9 and nowhere else.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gluon_cnn.runtime.stand_in import shared_object

DRIVER = "libcuda.so.1"
WHEEL = "mxnet-cu112"
OLDEST, NEWEST = (5, 0), (8, 9)
LEAST_CUDA = 11_000  # of the driver, as cuDriverGetVersion counts: CUDA 11.2 runs on any 11.x

# In the order in which they need one another. Only these: cuBLAS's package holds libnvblas too,
# which would take the place of every BLAS in the process.
LIBRARIES = {
    "nvidia-cuda-runtime-cu11": ("libcudart.so.11.0",),
    "nvidia-cublas-cu11": ("libcublasLt.so.11", "libcublas.so.11"),
    "nvidia-cudnn-cu11": ("libcudnn.so.8",),
    "nvidia-cufft-cu11": ("libcufft.so.10",),
    "nvidia-curand-cu11": ("libcurand.so.10",),
    "nvidia-cusolver-cu11": ("libcusolver.so.11",),
    "nvidia-cuda-nvrtc-cu11": ("libnvrtc.so.11.2",),
    "nvidia-nvtx-cu11": ("libnvToolsExt.so.1",),
    "nvidia-nccl-cu11": ("libnccl.so.2",),
}

# What the wheel takes from the driver; all that it must find to be imported.
DRIVER_SYMBOLS = (
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuGetErrorString",
    "cuGraphKernelNodeGetParams",
    "cuGraphNodeGetType",
    "cuLaunchKernel",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
)
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, …_MINOR


@dataclass(frozen=True)
class Card:
    """A GPU as the driver counts them, which is how MXNet does."""

    name: str
    capability: tuple[int, int]

    @property
    def refusal(self) -> str:
        """Why the wheel cannot run on it; empty where it can."""
        if OLDEST <= self.capability <= NEWEST:
            return ""
        what = "too new" if self.capability > NEWEST else "too old"
        return (
            f"{self.name} has compute capability {_dotted(self.capability)}, {what} for {WHEEL} "
            f"1.9.1, which holds machine code for {_dotted(OLDEST)} to {_dotted(NEWEST)} and no PTX"
        )


@dataclass(frozen=True)
class Cuda:
    """What is here: the cards, or why none can be used."""

    cards: tuple[Card, ...] = ()
    problem: str = ""  # with the driver or the environment; empty where there is none
    loaded: tuple[str, ...] = field(default=(), compare=False)

    def refusal(self, number: int) -> str:
        """Why MXNet cannot use GPU `number`; empty where it can."""
        if self.problem:
            return self.problem
        if number >= len(self.cards):
            return f"the driver sees {len(self.cards)} GPUs"
        return self.cards[number].refusal

    @property
    def usable(self) -> tuple[int, ...]:
        return tuple(n for n in range(len(self.cards)) if not self.refusal(n))


def probe(driver: str = DRIVER, installed: Sequence[str] | None = None) -> Cuda:
    """Read driver and cards, then load the CUDA libraries, for `import mxnet` to find them all.

    Where there is no driver a library that answers "no device" takes its place, so that the wheel
    can be imported and computes on the CPU. Nothing is raised: what is wrong is in the result.
    """
    names = sorted(_distributions() if installed is None else installed)
    cards, problem = _read(driver)
    if problem and not _loads(driver):
        _stand_in()
    mixed = [name for name in names if re.fullmatch(r"nvidia-.*-cu1[2-9]", name)]
    if mixed:
        problem = (
            f"{', '.join(mixed[:3])}{', …' if mixed[3:] else ''} shares the folders and names of "
            f"the CUDA 11 libraries that {WHEEL} loads: install one of them in another environment"
        )
    return Cuda(tuple(cards), problem, tuple(_load()))


def _distributions() -> Iterator[str]:
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            yield re.sub(r"[-_.]+", "-", name).lower()


def _loads(driver: str) -> bool:
    try:
        ctypes.CDLL(driver, ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _read(driver: str) -> tuple[list[Card], str]:
    """The cards that a driver has, or why there are none."""
    try:
        library = ctypes.CDLL(driver)
    except OSError:
        return [], f"no NVIDIA driver is installed ({driver} is missing)"
    try:
        initialise, count_of = library.cuInit, library.cuDeviceGetCount
        version_of, handle_of = library.cuDriverGetVersion, library.cuDeviceGet
        name_of, attribute_of = library.cuDeviceGetName, library.cuDeviceGetAttribute
    except AttributeError as error:
        return [], f"{driver} is no NVIDIA driver: {error}"
    number = ctypes.c_int()
    version_of(ctypes.byref(number))
    if number.value < LEAST_CUDA:
        had = f"{number.value // 1000}.{number.value % 1000 // 10}"
        return [], f"the NVIDIA driver is for CUDA {had}, {WHEEL} needs 11.0 or newer: update it"
    code = initialise(0)
    if code == _NO_DEVICE:
        return [], "the NVIDIA driver finds no GPU"
    if code:
        return [], f"the NVIDIA driver does not start: cuInit answers {code}"
    count_of(ctypes.byref(number))
    cards = []
    for index in range(number.value):
        handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        if handle_of(ctypes.byref(handle), index):
            return [], f"the NVIDIA driver does not give GPU {index}"
        name_of(name, len(name), handle)
        attribute_of(ctypes.byref(major), _MAJOR, handle)
        attribute_of(ctypes.byref(minor), _MINOR, handle)
        text = name.value.decode(errors="replace") or f"GPU {index}"
        cards.append(Card(text, (major.value, minor.value)))
    return cards, "" if cards else "the NVIDIA driver finds no GPU"


def _load() -> Iterator[str]:
    """Load each library for all that come after it; yields the paths.

    What a package does not hold is left to the system's loader, which finds an installed CUDA.
    """
    for package, names in LIBRARIES.items():
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for name in names:
            for file in files:
                if file.name == name:
                    path = str(file.locate())
                    ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
                    yield path


def _stand_in() -> None:
    """Load a library of the driver's name whose functions answer that there is no device."""
    with tempfile.TemporaryDirectory(prefix="gluon-cnn-") as folder:
        path = Path(folder) / DRIVER
        path.write_bytes(shared_object(DRIVER, DRIVER_SYMBOLS, _NO_DEVICE))
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)  # stays mapped when the file is gone


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
