"""MXNet beside a numpy that has lost the names it reads: `mxnet_compat`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxnet_compat

ROOT = Path(mxnet_compat.__file__).parent

# numpy as later releases have it
BARE = """
import sys, warnings
import numpy
import mxnet_compat
for name in mxnet_compat.REMOVED:
    if name != "bool" or numpy.__version__ < "2":  # numpy 2 has a bool of its own
        vars(numpy).pop(name, None)
numpy.__all__ = [name for name in numpy.__all__ if name in vars(numpy)]
later = vars(numpy).get("__getattr__")
def gone(name):
    if later is None or name in mxnet_compat.REMOVED:
        raise AttributeError(name)
    return later(name)
numpy.__getattr__ = gone
"""
# What numpy answers and warns of, asked for each name that MXNet is given
ASKED = """
import warnings
def asked():
    answers = {}
    for name in mxnet_compat.REMOVED:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = getattr(numpy, name)
                answer = getattr(found, "__qualname__", repr(found))  # some are made at each asking
            except AttributeError as error:
                answer = str(error)
        answers[name] = answer, [str(warning.message) for warning in caught]
    return answers
"""
TRAIN = """
import mxnet as mx
from mxnet import autograd, gluon
net = gluon.nn.HybridSequential()
net.add(gluon.nn.Conv2D(4, 3), gluon.nn.BatchNorm(), gluon.nn.Dense(3))
net.initialize(mx.init.Xavier())
net.hybridize()
trainer = gluon.Trainer(net.collect_params(), "adam")
x = mx.nd.array(numpy.arange(64).reshape(2, 1, 8, 4) / 64)
with autograd.record():
    loss = net(x).square().sum()
loss.backward()
trainer.step(2)
assert numpy.isfinite(net(x).asnumpy()).all()
assert mx.nd.zeros(tuple(numpy.array([2, 3]))).shape == (2, 3)
assert mx.nd.ones((2, 3)).reshape((numpy.int64(3), numpy.int64(2))).shape == (3, 2)
# a label of several numbers in a record; numpy 2.3 has no ndarray.tostring
record = mx.recordio.pack((0, numpy.array([1, 2.5], "float32"), 0, 0), b"image")
header, image = mx.recordio.unpack(record)
assert image == b"image" and header.label.tolist() == [1, 2.5]
# sums of float32 losses are float64, as before NEP 50
metric = mx.metric.Loss()
for loss in (0.1, 1e-9):
    metric.update(None, [mx.nd.array([loss])])
assert metric.sum_metric == float(numpy.float32(0.1)) + float(numpy.float32(1e-9))
perplexity = mx.metric.Perplexity(ignore_label=0)
for count in (2**24, 1):  # which float32 cannot add
    perplexity.num_inst += count
    perplexity.update([mx.nd.array([0, 1])], [mx.nd.ones((2, 2)) / 2])
assert perplexity.num_inst == 2**24 + 3
assert numpy.all(x == x) and numpy.asarray(x).shape == x.shape
# integers beyond their dtype wrap
assert mx.nd.array([300, -1], dtype="uint8").asnumpy().tolist() == [44, 255]
assert mx.np.array([300, -1], dtype="uint8").tolist() == [44, 255]
bytes_ = mx.nd.zeros((2,), dtype="int8")
bytes_[:] = [200, -129]
assert bytes_.asnumpy().tolist() == [-56, 127]
# what numpy returns as named tuples; what quantize_model hands to C; padding asks for basestring
assert [part.shape for part in numpy.linalg.svd(mx.np.eye(2))] == [(2, 2), (2,), (2, 2)]
assert [part.shape for part in mx.np.linalg.qr(mx.np.eye(2))] == [(2, 2), (2, 2)]
assert list(mx.base.c_array(mx.base.mx_float, [numpy.ones(1), 2])) == [1, 2]
assert mx.np.pad(mx.np.ones(2), (1, 1)).tolist() == [0, 1, 1, 0]
assert type(mx.np.alltrue(mx.np.ones(2))) is numpy.bool_
print("trained")
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip


def test_without_help_mxnet_does_not_import_beside_a_bare_numpy() -> None:
    alone = (
        "sys.meta_path[:] = [f for f in sys.meta_path if type(f).__module__ != 'mxnet_compat']\n"
    )
    done = python(BARE + alone + "import mxnet")
    assert done.returncode == 1
    assert "AttributeError" in done.stderr


def test_mxnet_trains_beside_a_bare_numpy_and_nobody_sees_a_name_more() -> None:
    done = python(
        BARE
        + ASKED
        + "before = set(dir(numpy))\nsaid = asked()\n"
        + "mxnet_compat.install(force=True)\n"
        + TRAIN
        + "new = set(dir(numpy)) - before  # submodules that somebody imported\n"
        + "assert all(isinstance(vars(numpy)[name], type(sys)) for name in new), new\n"
        + "assert asked() == said\n"
        + "import scipy.sparse\n"  # MXNet imports it
        + "assert scipy.sparse._base.np is sys.modules['numpy'] is numpy\n"
    )
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr


def test_what_mxnet_sees_of_numpy_is_numpy_itself() -> None:
    view = mxnet_compat.numpy_view()
    assert view is not np
    for name, value in vars(np).items():
        if name not in ("bool", "int", *mxnet_compat.WRAPPING):
            assert vars(view)[name] is value
    assert view.bool is bool
    np.testing.assert_array_equal(view.msort(np.array([[3, 1], [2, 4]])), [[2, 1], [3, 4]])
    np.testing.assert_array_equal(view.in1d([[1, 2], [3, 4]], [2, 3]), [False, True, True, False])
    assert view.product([2, 3]) == 6
    assert view.NZERO == 0
    assert np.signbit(view.NZERO)


def test_an_integer_beyond_its_dtype_wraps() -> None:
    def strict(values: Any, dtype: Any = None) -> np.ndarray:
        """`numpy.array` as numpy 2 has it."""
        if dtype is not None and max(values) > 255:
            raise OverflowError
        return np.array(values, dtype)

    wrapping = mxnet_compat._wrapping(strict)
    assert wrapping([300, 1], dtype="uint8").tolist() == [44, 1]
    with pytest.raises(OverflowError):
        wrapping([300], dtype="float32")


def test_what_numpy_moved_out_says_where_it_is() -> None:
    with pytest.raises(RuntimeError, match="numpy_financial"):
        mxnet_compat.REMOVED["npv"][1](0.1, [1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("mxnet_compat.MXNETS = ('1.2.3',)", "MXNet 1.9.1; it was tried with 1.2.3"),
        ("mxnet_compat.NUMPYS = ((3, 0), (3, 1))", "; it was tried with 3.0 to 3.1"),
        ("mxnet_compat.PYTHONS = ((3, 14), (3, 15))", "; it was tried with 3.14 to 3.15"),
    ],
)
def test_an_unknown_combination_is_refused_in_one_line(change: str, said: str) -> None:
    done = python(f"import mxnet_compat\n{change}\nmxnet_compat.install(force=True)\nimport mxnet")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: mxnet_compat does not know")
    assert said in last


def test_where_mxnet_imports_by_itself_nothing_is_done() -> None:
    if mxnet_compat.needed():
        pytest.skip("this numpy or Python needs the border")
    done = python("import sys; before = list(sys.meta_path); import mxnet_compat\n"
                  "print(sys.meta_path == before)")  # fmt: skip
    assert done.stdout == "True\n"


# Pythons of this machine that MXNet was tried with, and the numpy that each gets.
ELSEWHERE = [
    ("3.11", "1.26.4"),
    ("3.12", "1.26.4"),
    ("3.12", "2.1.3"),
    ("3.13", "2.5"),
    ("3.14", "2.5"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("version", "numpy"), ELSEWHERE)
def test_mxnet_trains_on_other_pythons(version: str, numpy: str, tmp_path: Path) -> None:
    """A new environment with MXNet and that numpy alone: warnings of numpy are errors."""
    interpreter = find_python(version)
    if interpreter is None:
        pytest.skip(f"no python{version} here")
    environment = tmp_path / "environment"
    subprocess.run([interpreter, "-m", "venv", str(environment)], check=True)
    command = str(environment / "bin" / "python")
    install = [command, "-m", "pip", "install", "-q"]
    subprocess.run([*install, "--no-deps", "mxnet==1.9.1"], check=True)
    subprocess.run([*install, f"numpy=={numpy}.*" if numpy.count(".") == 1 else f"numpy=={numpy}",
                    "setuptools", "requests"], check=True)  # fmt: skip
    code = (
        "import numpy\nbefore = set(dir(numpy))\nimport mxnet_compat\n"
        + ASKED
        + "said = asked()\n"
        + TRAIN
        + WORKERS
        + "assert set(dir(numpy)) == before and asked() == said\n"
    )
    script = tmp_path / "train.py"
    script.write_text(code)
    done = subprocess.run(
        [command, "-W", "error:::numpy", str(script)], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(mxnet_compat.__file__).parent)},
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "trained\nworked\n"), done.stderr


WORKERS = """
import pickle, threading
data = gluon.data.ArrayDataset(numpy.arange(12, dtype="float32"), numpy.arange(12))
loader = gluon.data.DataLoader(data, batch_size=3, num_workers=2)
assert [int(y.sum().asscalar()) for _, y in loader] == [3, 12, 21, 30]
assert (pickle.loads(pickle.dumps(x)) == x).asnumpy().all()
sums = []
threads = [threading.Thread(target=lambda: sums.append(float(x.sum().asscalar()))) for _ in "ab"]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(set(sums)) == 1
# an interrupt comes between two operators, and MXNet goes on after it
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
stopped = False
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): x.sum().asscalar()
except KeyboardInterrupt:
    stopped = True
assert stopped and float(x.sum().asscalar()) == sums[0]
assert [int(y.sum().asscalar()) for _, y in loader] == [3, 12, 21, 30]
print("worked")
"""


@pytest.mark.parametrize(
    ("chosen", "no_fork", "used"),
    [("forkserver", True, "fork"), ("spawn", True, "spawn"), ("forkserver", False, "forkserver")],
)
def test_workers_fork_where_python_would_start_a_server(
    chosen: str, no_fork: bool, used: str, tmp_path: Path
) -> None:
    """Python 3.14's default reads the main module again in each worker, which has no guard here."""
    script = tmp_path / "train.py"
    script.write_text(
        f"import multiprocessing, numpy, mxnet_compat\n"
        f"multiprocessing.set_start_method({chosen!r})\n"
        f"mxnet_compat.NO_FORK = {no_fork}\n"
        "mxnet_compat.install(force=True)\n"
        "import mxnet as mx\nfrom mxnet import gluon\nx = mx.nd.ones(3)\n"
        "seen = gluon.data.dataloader.multiprocessing\n"
        "print(seen.get_context().get_start_method(), seen.Pool.__self__.get_start_method())\n"
        + (WORKERS if used == "fork" else "")
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}, timeout=100,
    )  # fmt: skip
    said = f"{used} {used}\n" + ("worked\n" if used == "fork" else "")
    assert (done.returncode, done.stdout) == (0, said), done.stderr


def find_python(version: str) -> str | None:
    """An interpreter of that version: on the path, or one that pyenv keeps."""
    import shutil

    on_path = shutil.which(f"python{version}")
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in ([on_path] if on_path else []) + [str(path) for path in kept]:
        done = subprocess.run([candidate, "-c", "import sys; print(sys.version_info[:2])"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.stdout.strip() == str(tuple(map(int, version.split(".")))):
            return candidate
    return None
