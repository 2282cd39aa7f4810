"""The upgrade gate across real versions: `nox` takes every one, `nox -s table` merges them.

`nox -s pythons` is the matrix of Python and numpy, with MXNet 1.9.1 and torch 2.13.0 throughout. An
interpreter that is not on the path is skipped, and nox says so.

Each other session makes an environment of its own with one framework at one version, records a
snapshot of it into `.nox/snapshots`, and throws the environment away: torch's wheels for x86-64
Linux but the newest are CUDA builds, which take 5 to 7 GB unpacked. `nox -s base` comes first: it
records the versions that the project pins, which all others are compared with. 1.9.1 and 2.13.0 on
numpy 1.23.5 are in it.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import shutil
from pathlib import Path

import nox

SNAPSHOTS = Path(".nox") / "snapshots"
COMBINATIONS = Path(".nox") / "combinations"  # of Python and numpy: a snapshot and a run of each
OLDEST, NEWEST = "numpy==1.23.5", "numpy"
# The first is what MXNet 1.9.1 was released for: all others are compared with it.
PYTHONS = (
    ("3.11", "1.23.5"), ("3.11", "1.26.4"),
    ("3.12", "1.26.4"), ("3.12", "2.1.3"),
    ("3.13", "2.5.5"),
)  # fmt: skip
MXNET = ("1.6.0", "1.7.0.post2", "1.8.0.post0")
TORCH = ("2.0.1", "2.4.1", "2.8.0")

nox.options.sessions = ["base", "mxnet", "mxnet2", "torch", "torch_newest_numpy", "table"]
nox.options.reuse_existing_virtualenvs = False


def _snapshot(session: nox.Session, out: Path, *options: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    session.run(
        "python", "-W", "ignore", "-m", "parity_tests", "snapshot", str(out), *options,
        env={"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "2"},
    )  # fmt: skip


def _thrown_away(session: nox.Session) -> None:
    shutil.rmtree(session.virtualenv.location, ignore_errors=True)


@nox.session(python="3.11")
def base(session: nox.Session) -> None:
    """What the project pins."""
    session.install("-e", ".[cpu,parity]")
    _snapshot(session, SNAPSHOTS / "base", *session.posargs)


@nox.session(python="3.11")
@nox.parametrize("version", MXNET)
def mxnet(session: nox.Session, version: str) -> None:
    """An older MXNet, alone. Newer numpy than 1.23.5 has none of the aliases that it reads."""
    session.install(f"mxnet=={version}", OLDEST, "safetensors>=0.4")
    _snapshot(session, SNAPSHOTS / f"mxnet-{version}", *session.posargs)
    _thrown_away(session)


@nox.session(python="3.11")
def mxnet2(session: nox.Session) -> None:
    """MXNet 2.0.0b1, on which the nets do not run: what does, leaf by leaf."""
    session.install("mxnet==2.0.0b1", OLDEST, "safetensors>=0.4")
    session.run(
        "python", "-W", "ignore", "-m", "parity_tests.gate.mxnet2",
        env={"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    _thrown_away(session)


@nox.session(python="3.11")
@nox.parametrize("version", TORCH)
def torch(session: nox.Session, version: str) -> None:
    """An older torch, alone."""
    session.install("--no-cache-dir", f"torch=={version}", OLDEST, "safetensors>=0.4")
    _snapshot(session, SNAPSHOTS / f"torch-{version}", *session.posargs)
    _thrown_away(session)


@nox.session(python="3.11")
def torch_newest_numpy(session: nox.Session) -> None:
    """The pinned torch beside the newest numpy, which MXNet does not let it have."""
    session.install("--no-cache-dir", "torch==2.13.0", NEWEST, "safetensors>=0.4")
    _snapshot(session, SNAPSHOTS / "torch-2.13.0-numpy", *session.posargs)
    _thrown_away(session)


@nox.session(python="3.11")
def table(session: nox.Session) -> None:
    """The table of versions × verdict, as it stands in docs/upgrades.md."""
    session.install(OLDEST, "safetensors>=0.4")
    session.run(
        "python", "-m", "parity_tests.gate.matrix", str(SNAPSHOTS),
        env={"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip


def _requirements(*extras: str) -> list[str]:
    """What setup.cfg asks for, but numpy and MXNet, which a session chooses itself."""
    setup = configparser.ConfigParser()
    setup.read("setup.cfg")
    lines = [setup["options"]["install_requires"]]
    lines += [setup["options.extras_require"][extra] for extra in extras]
    found = [line for text in lines for line in text.splitlines() if line and line[0] != "#"]
    return [line for line in found if not re.match(r"(numpy|mxnet)\b", line)]


@nox.session
@nox.parametrize("python,numpy", PYTHONS)
def pythons(session: nox.Session, numpy: str) -> None:
    """Snapshot, bits of two epochs, then the default test suite, on a Python beside a numpy.

    pip refuses numpy 2 beside MXNet, whose metadata say numpy < 2: MXNet comes without them.
    What follows `--` goes to pytest.
    """
    name = _combination(str(session.python), numpy)
    session.install("--no-deps", "mxnet==1.9.1", "-e", ".")
    session.install(f"numpy=={numpy}", *_requirements("cpu", "test"))
    _snapshot(session, COMBINATIONS / name)
    run = COMBINATIONS / f"{name}-run"
    shutil.rmtree(run, ignore_errors=True)
    session.run("python", "-m", "gluon_cnn.train", "--epochs", "2", "--out", str(run))
    _hold_against(session, _combination(*PYTHONS[0]), name)
    session.run("pytest", *session.posargs)


def _combination(python: str, numpy: str) -> str:
    return f"python-{python}-numpy-{numpy}"


def _hold_against(session: nox.Session, base: str, name: str) -> None:
    """Ends the session where one bit of the snapshot, or of the trained weights, is another."""
    if name == base:
        return
    if not (COMBINATIONS / base).exists() or not (COMBINATIONS / f"{base}-run").exists():
        session.error(f"there is no {COMBINATIONS / base} to compare with: take that session first")
    said = session.run("python", "-W", "ignore", "-m", "parity_tests", "compare",
                       str(COMBINATIONS / base), str(COMBINATIONS / name),
                       env={"PYTHONPATH": str(Path.cwd())}, silent=True)  # fmt: skip
    session.log(said)
    if not re.search(r"^unchanged: ", str(said), re.MULTILINE):
        session.error(f"{name} is not bit-equal to {base}")
    wanted, found = (_digest(COMBINATIONS / f"{of}-run" / "best.params") for of in (base, name))
    if wanted != found:
        session.error(f"best.params after two epochs: {found} on {name}, {wanted} on {base}")
    session.log(f"best.params after two epochs: {found}, as on {base}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
