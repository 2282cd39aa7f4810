"""Loading the GPU wheel, and saying why not: drivers compiled here answer for any card."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import pytest

from cnn_harness.errors import UsageError
from gluon_cnn.runtime import cuda
from gluon_cnn.runtime import settings as runtime
from gluon_cnn.runtime.cuda import Card, Cuda, probe
from gluon_cnn.runtime.settings import gpu_choices
from gluon_cnn.runtime.stand_in import shared_object
from gluon_cnn.training import devices

DRIVER_SOURCE = """
#include <string.h>
static int cards[][2] = {CARDS};
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return number < COUNT ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, "NVIDIA Model X", size);
    name[13] = 'A' + device;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute != 75 && attribute != 76) return 1;
    *value = cards[device][attribute - 75];
    return 0;
}
"""


@pytest.fixture
def driver(tmp_path: Path):
    """Compiles a driver with the given cards, cuInit's answer and version."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile a driver with")

    def compiled(*cards: tuple[int, int], init: int = 0, version: int = 12040) -> str:
        source, library = (
            tmp_path / "driver.c",
            tmp_path / f"libcuda-{len(list(tmp_path.iterdir()))}.so",
        )
        source.write_text(DRIVER_SOURCE)
        listed = ",".join(f"{{{major},{minor}}}" for major, minor in cards) or "{0,0}"
        defined = [f"-DCARDS={listed}", f"-DCOUNT={len(cards)}", f"-DINIT={init}",
                   f"-DVERSION={version}"]  # fmt: skip
        subprocess.run(
            ["gcc", "-shared", "-fPIC", *defined, "-o", str(library), str(source)], check=True
        )
        return str(library)

    return compiled


@pytest.mark.parametrize("capability", [(5, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9)])
def test_cards_that_the_wheel_has_code_for_are_usable(driver, capability) -> None:
    found = probe(driver(capability), [])
    assert found == Cuda((Card("NVIDIA Model A", capability),))
    assert found.usable == (0,)
    assert found.refusal(0) == ""
    assert found.refusal(1) == "the driver sees 1 GPUs"


@pytest.mark.parametrize(
    ("capability", "words"),
    [((9, 0), "9.0, too new"), ((10, 0), "10.0, too new"), ((12, 0), "12.0, too new"),
     ((3, 5), "3.5, too old"), ((3, 7), "3.7, too old")],
)  # fmt: skip
def test_other_cards_are_refused_by_name_and_number(driver, capability, words) -> None:
    found = probe(driver(capability), [])
    assert found.problem == ""
    assert found.usable == ()
    assert f"NVIDIA Model A has compute capability {words}" in found.refusal(0)
    assert "5.0 to 8.9 and no PTX" in found.refusal(0)


def test_each_card_is_judged_by_itself(driver) -> None:
    found = probe(driver((9, 0), (8, 6)), [])
    assert found.usable == (1,)
    assert found.cards[1].name == "NVIDIA Model B"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"init": 100}, "finds no GPU"), ({"init": 999}, "cuInit answers 999"),
     ({"version": 10020}, "for CUDA 10.2, mxnet-cu112 needs 11.0"), ({}, "finds no GPU")],
)  # fmt: skip
def test_a_driver_without_gpus_says_so(driver, options, words) -> None:
    cards = [] if not options else [(8, 6)]
    found = probe(driver(*cards, **options), [])
    assert words in found.problem
    assert found.usable == ()
    assert found.refusal(0) == found.problem


def test_no_driver_at_all_is_said_and_replaced(tmp_path: Path) -> None:
    # In a process of its own: the stand-in stays loaded under the driver's name
    code = (
        "import ctypes; from gluon_cnn.runtime.cuda import DRIVER_SYMBOLS, probe\n"
        "found = probe('libcuda-absent.so.1', [])\n"
        "assert found.problem == 'no NVIDIA driver is installed (libcuda-absent.so.1 is missing)'\n"
        "library = ctypes.CDLL('libcuda.so.1')\n"
        "print([getattr(library, name)() for name in DRIVER_SYMBOLS])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([100] * 10)


def test_the_stand_in_is_a_library_with_these_symbols_alone(tmp_path: Path) -> None:
    path = tmp_path / "libexample.so.1"
    path.write_bytes(shared_object("libexample.so.1", ["first", "second"], -7))
    library = ctypes.CDLL(str(path))
    assert (library.first(), library.second(1, 2, 3)) == (-7, -7)
    with pytest.raises(AttributeError, match="third"):
        library.third()
    if shutil.which("readelf"):
        shown = subprocess.run(
            ["readelf", "-lW", str(path)], capture_output=True, text=True, check=True
        ).stdout
        (stack,) = (line for line in shown.splitlines() if "GNU_STACK" in line)
        assert "RW " in stack  # never executable
        assert "RWE" not in shown


def test_a_driver_that_is_none_is_no_driver(tmp_path: Path) -> None:
    path = tmp_path / "libother.so"
    path.write_bytes(shared_object("libother.so", ["cuDeviceGet"], 0))
    assert "is no NVIDIA driver" in probe(str(path), []).problem


def test_cuda_12_packages_beside_it_are_named(driver) -> None:
    names = ["nvidia-cublas-cu11", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "numpy"]
    found = probe(driver((8, 0)), names)
    assert found.problem.startswith("nvidia-cublas-cu12, nvidia-cudnn-cu12 shares the folders")
    assert found.usable == ()
    assert probe(driver((8, 0)), ["nvidia-cublas-cu11"]).problem == ""


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch):
    """Makes the runtime believe in these cards, and MXNet count them."""

    def believe(cuda_found: Cuda | None, count: int = 0) -> None:
        monkeypatch.setattr(runtime, "_CUDA", cuda_found)
        monkeypatch.setattr(mx.context, "num_gpus", lambda: count)

    return believe


def test_auto_takes_the_first_card_that_can_be_used(found) -> None:
    found(Cuda((Card("H", (9, 0)), Card("A", (8, 0)))), 2)
    assert devices.find_devices("auto") == [mx.gpu(1)]
    assert devices.why_cpu() == ""
    with pytest.raises(UsageError, match=r"'gpu': H has compute capability 9\.0, too new"):
        devices.find_devices("gpu")


@pytest.mark.parametrize(
    ("state", "count", "words"),
    [(Cuda((Card("H", (9, 0)),)), 1, "too new"), (Cuda((Card("K", (3, 5)),)), 1, "too old"),
     (Cuda((), "no NVIDIA driver is installed"), 0, "no NVIDIA driver"),
     (Cuda((Card("A", (8, 0)),), "nvidia-cublas-cu12 shares the folders"), 1, "cu12")],
)  # fmt: skip
def test_auto_runs_on_the_cpu_and_can_say_why(found, state: Cuda, count: int, words: str) -> None:
    found(state, count)
    assert devices.find_devices("auto") == [mx.cpu()]
    assert words in devices.why_cpu()
    with pytest.raises(UsageError, match=words):
        devices.find_devices("gpu:0")


def test_the_cpu_wheel_has_no_gpu_and_nothing_to_explain(found) -> None:
    found(None)
    assert devices.find_devices("auto") == [mx.cpu()]
    assert devices.why_cpu() == ""
    with pytest.raises(UsageError, match=r"build for the CPU.*\.\[gpu\]"):
        devices.find_devices("gpu")


def test_tf32_is_off_unless_asked_for() -> None:
    def names(*flags: str) -> dict[str, str | None]:
        run = ["python", "-m", "gluon_cnn.train", *flags]
        return {choice.name: choice.value for choice in gpu_choices(run)}

    assert names() == {
        "NVIDIA_TF32_OVERRIDE": "0",
        "MXNET_CUDNN_AUTOTUNE_DEFAULT": "0",
        "MXNET_ENFORCE_DETERMINISM": "1",
    }
    assert "NVIDIA_TF32_OVERRIDE" not in names("--tf32")
    assert set(names("--autotune")) == {"NVIDIA_TF32_OVERRIDE"}
    assert len(gpu_choices(["python", "user.py", "--tf32", "--autotune"])) == 3


TEN = "\n".join(f"int {name}(void) {{ return 100; }}" for name in cuda.DRIVER_SYMBOLS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("with_driver", [False, True], ids=["no driver", "a driver of ten symbols"])
def test_the_gpu_wheel_trains_on_the_cpu(
    gpu_environment: Path, with_driver: bool, tmp_path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if with_driver:
        (tmp_path / "ten.c").write_text(TEN)
        library = tmp_path / "libcuda.so.1"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library),
             str(tmp_path / "ten.c")], check=True,
        )  # fmt: skip
        environment["LD_LIBRARY_PATH"] = str(tmp_path)

    def python(*argv: str) -> str:
        done = subprocess.run(
            [str(gpu_environment / "bin/python"), *argv],
            capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    code = (
        "from gluon_cnn.runtime import settings; from gluon_cnn.training import devices\n"
        "import mxnet as mx\n"
        "print(mx.context.num_gpus(), mx.runtime.Features().is_enabled('CUDA'))\n"
        "print(len(settings.cuda().loaded), devices.why_cpu())"
    )
    counted, why = python("-c", code).splitlines()[:2]
    assert counted == "0 True"
    assert why.startswith("10 ")
    assert ("is no NVIDIA driver" if with_driver else "no NVIDIA driver is installed") in why
    said = python("-m", "gluon_cnn.train", "--epochs", "1", "--out", str(tmp_path / "run"))
    assert "best test accuracy 0.9" in said
    assert "no NVIDIA driver" in said


@pytest.fixture(scope="module")
def gpu_environment(tmp_path_factory: pytest.TempPathFactory):
    """A virtual environment with `.[gpu]`, several gigabytes, which is deleted afterwards."""
    root = Path(__file__).parents[2]
    folder = tmp_path_factory.mktemp("gpu") / "venv"
    if shutil.disk_usage(folder.parent).free < 12 * 2**30:
        pytest.skip("less than 12 GB free for the CUDA libraries")
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--no-cache-dir"]
        subprocess.run([*install, "-e", f"{root}[gpu]"], check=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
