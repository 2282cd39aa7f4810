"""Loads MXNet the way the commands do, before any test module can import it differently."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence

import pytest

# Of an engine one call is timed: no test waits for speeds, but those that look at the timing
os.environ.setdefault("GLUON_CNN_TIMING", "0")

# Test processes share the machine: each takes its part of the cores, and what it starts does too.
# With more threads than cores, those that wait keep the others from working.
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _PROCESSES > 1:
    _CORES = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _CORES // _PROCESSES)))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with an exit code, and with one line that holds these words."""

    def run(
        main: Callable[[Sequence[str]], int],
        argv: Sequence[str],
        code: int | tuple[int, ...],
        *words: str,
    ) -> str:
        capsys.readouterr()
        assert main(argv) in (code if isinstance(code, tuple) else (code,))
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert "Traceback" not in said
        for word in words:
            assert word in said, said
        return said

    return run


@pytest.fixture(scope="session")
def torch_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words of a `python` that has imported torch, and neither MXNet nor this project."""
    from tests.warm import warm_python

    with warm_python(tmp_path_factory.mktemp("warm"), ["numpy", "torch"]) as python:
        yield python


@pytest.fixture(scope="session")
def warm_model_files(torch_python: list[str]) -> Iterator[None]:
    """`model.py` files run without the second in which each process imports torch."""
    from mxnet_files.proving import artefacts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "PYTHON", torch_python)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also AlexNet and VGG16 at 224×224")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):
        return  # the process that hands out the tests runs none, and the others wait for it
    import gluon_cnn  # noqa: F401

    if config.getoption("--full"):
        from parity_tests.backends.heap import keep_freed_memory

        keep_freed_memory()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="full size: run with --full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """What is imported and collected stays until the end: no collection of garbage searches it."""
    if not session.config.getoption("numprocesses", None):
        gc.disable()


def pytest_collection_finish() -> None:
    """Take what stays until the end, two frameworks above all, out of the collector's way."""
    gc.collect()
    gc.freeze()
    gc.enable()
