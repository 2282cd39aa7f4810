"""The upgrade gate across real versions: `nox` takes every one, `nox -s table` merges them.

`nox -s pythons` is the matrix of Python and numpy, with MXNet 1.9.1 and torch 2.13.0 throughout.

Each session makes an environment of its own with one framework at one version, records a snapshot
of it into `.nox/snapshots`, and throws the environment away: torch's wheels for x86-64 Linux but
the newest are CUDA builds, which take 5 to 7 GB unpacked. `nox -s base` comes first: it records
the versions that the project pins, which all others are compared with. 1.9.1 and 2.13.0 on numpy
1.23.5 are in it.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import shutil
from pathlib import Path

import nox

SNAPSHOTS = Path(".nox") / "snapshots"
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


def _snapshot(session: nox.Session, name: str, *options: str) -> None:
    out = SNAPSHOTS / name
    out.parent.mkdir(parents=True, exist_ok=True)
    session.run(
        "python", "-W", "ignore", "-m", "parity_tests", "snapshot", str(out), *options,
        *session.posargs, env={"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "2"},
    )  # fmt: skip


def _thrown_away(session: nox.Session) -> None:
    shutil.rmtree(session.virtualenv.location, ignore_errors=True)


@nox.session(python="3.11")
def base(session: nox.Session) -> None:
    """What the project pins."""
    session.install("-e", ".[cpu,parity]")
    _snapshot(session, "base")


@nox.session(python="3.11")
@nox.parametrize("version", MXNET)
def mxnet(session: nox.Session, version: str) -> None:
    """An older MXNet, alone. Newer numpy than 1.23.5 has none of the aliases that it reads."""
    session.install(f"mxnet=={version}", OLDEST, "safetensors>=0.4")
    _snapshot(session, f"mxnet-{version}")
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
    _snapshot(session, f"torch-{version}")
    _thrown_away(session)


@nox.session(python="3.11")
def torch_newest_numpy(session: nox.Session) -> None:
    """The pinned torch beside the newest numpy, which MXNet does not let it have."""
    session.install("--no-cache-dir", "torch==2.13.0", NEWEST, "safetensors>=0.4")
    _snapshot(session, "torch-2.13.0-numpy")
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
    """
    name = f"python-{session.python}-numpy-{numpy}"
    session.install("--no-deps", "mxnet==1.9.1", "-e", ".")
    session.install(f"numpy=={numpy}", *_requirements("cpu", "test"))
    _snapshot(session, name)
    run = SNAPSHOTS / f"{name}-run"
    shutil.rmtree(run, ignore_errors=True)
    session.run("python", "-m", "gluon_cnn.train", "--epochs", "2", "--out", str(run))
    digest = hashlib.sha256((run / "best.params").read_bytes()).hexdigest()
    base = SNAPSHOTS / "-".join(("python", PYTHONS[0][0], "numpy", PYTHONS[0][1]))
    if base.exists() and base.name != name:
        session.run("python", "-W", "ignore", "-m", "parity_tests", "compare", str(base),
                    str(SNAPSHOTS / name), env={"PYTHONPATH": str(Path.cwd())})  # fmt: skip
        wanted = (base.with_name(f"{base.name}-run") / "best.params").read_bytes()
        if digest != hashlib.sha256(wanted).hexdigest():
            session.error(f"{name}: best.params after two epochs are not those of {base.name}")
    session.log(f"{name}: best.params {digest[:16]}")
    session.run("pytest", *session.posargs)
