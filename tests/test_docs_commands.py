"""Every command block of README and docs runs as it stands, and prints what stands below it.

Blocks in ```sh and ```python are run, page by page and in the order in which they are read. A block
is in the table `BLOCKS`: fast ones run by default, slow ones with `-m slow`, and the others say why
they cannot run here. A ```text block that follows is the output: each of its lines must appear,
in that order, whatever its numbers; `…` stands for anything.

`pip` is a stand-in that knows the extras of setup.cfg and installs nothing: `.ci/run` runs the two
set-up commands with the real one.
"""

from __future__ import annotations

import configparser
import contextlib
import importlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from gluon_cnn_parity import SCRIPTS
from cnn_data.tests.makers import write_mnist
from tests.warm import warm_python

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]

FAST, SLOW = "fast", "slow"
_SUITE = "it is the test suite, which would start itself; `.ci/run` runs it"
_GPU = "there is no GPU here"
_MACHINES = "it needs several machines"
_DOWNLOAD = "it downloads"

# page, words that are in this block alone, and when it runs or why it does not
BLOCKS: list[tuple[str, str, str]] = [
    ("README.md", "snapshot baseline", SLOW),
    ("README.md", "gluon-cnn export", FAST),
    ("README.md", "check_parity(", FAST),
    ("README.md", "'.[cpu]' &&", SLOW),
    ("README.md", "'.[cpu,test]' && pytest", _SUITE),
    ("README.md", "gluon-cnn evaluate", SLOW),
    ("CONTRIBUTING.md", ".venv", f"{_DOWNLOAD} 2 GB; `.ci/run` does the same"),
    ("CONTRIBUTING.md", "pytest -n 0", FAST),
    ("CONTRIBUTING.md", "mypy .", "it needs the extras lint and docs; `.ci/run` runs it"),
    ("docs/gpu.md", "--ctx gpu", _GPU),
    ("docs/leaving-mxnet.md", "export runs", FAST),
    ("docs/leaving-mxnet.md", "export --gluon", FAST),
    ("docs/leaving-mxnet.md", "mxnet-files convert exports", FAST),
    ("docs/leaving-mxnet.md", "from model import load", FAST),
    ("docs/leaving-mxnet.md", "mxnet-files report", FAST),
    ("docs/leaving-mxnet.md", "load_symbol(", FAST),
    ("docs/leaving-mxnet.md", "mxnet-files diff", FAST),
    ("docs/leaving-mxnet.md", "mxnet-files map", FAST),
    ("docs/leaving-mxnet.md", "mxnet-files zoo", SLOW),
    ("docs/leaving-mxnet.md", "torch_ref.transfer", FAST),
    ("docs/leaving-mxnet.md", "torch_ref.train", SLOW),
    ("docs/mxnet-differences.md", "test_symbol_differential", _SUITE),
    ("docs/operators.md", "mxnet-files operators", FAST),
    ("docs/parity.md", "gluon_net.add(", FAST),
    ("docs/parity.md", "torch_net --input 2,3", FAST),
    ("docs/parity.md", "--loss l2", SLOW),
    ("docs/parity.md", "transfer_parameters", FAST),
    ("docs/parity.md", "gluon-parity record", FAST),
    ("docs/parity.md", "project_case(", FAST),
    ("docs/parity.md", "--report parity-report", SLOW),
    ("docs/parity.md", "--level optimizer,training", SLOW),
    ("docs/parity.md", "gluon-parity faults", SLOW),
    ("docs/parity.md", "pytest parity_tests", _SUITE),
    ("docs/real-faults.md", "gluoncv2", f"{_DOWNLOAD} zoos of others, and takes most of an hour"),
    ("docs/real-pairs.md", "gluoncv2", f"{_DOWNLOAD} zoos of others, and takes hours"),
    ("docs/safety.md", "pytest -m slow", _SUITE),
    ("docs/safety.md", "fuzzing", f"{_DOWNLOAD} atheris; test_data_fuzz.py runs the same targets"),
    ("docs/scaling.md", "--launcher ssh", _MACHINES),
    ("docs/speed.md", "--engine auto", SLOW),
    ("docs/speed.md", "engine.load(", FAST),
    ("docs/speed.md", "training_step(net", FAST),
    ("docs/speed.md", "gluon-cnn runtime --tune", "it refuses a machine that does something else"),
    ("docs/speed.md", "gluon-cnn runtime\n", FAST),
    ("docs/speed.md", "benchmarks --data-dir", "it measures for 40 minutes on a machine of its "
                                               "own; benchmarks/tests run a quick form"),
    ("docs/speed.md", "benchmarks --only infer", "it measures for 20 minutes on a machine of its "
                                                 "own; benchmarks/tests run a quick form"),
    ("docs/speed.md", "benchmarks.imported", "it measures on a machine of its own; "
                                             "benchmarks/tests run a quick form"),
    ("docs/train.md", "'.[cpu]' &&", SLOW),
    ("docs/train.md", "mnist_bn_cnn", SLOW),
    ("docs/train.md", "gluon-cnn evaluate", SLOW),
    ("docs/train.md", "--config runs", SLOW),
    ("docs/train.md", "--init-from", SLOW),
    ("docs/train.md", "net.load_parameters(", SLOW),
    ("docs/train.md", "first_layers(net", FAST),
    ("docs/train.md", "gluon-cnn prepare", _DOWNLOAD),
    ("docs/train.md", "--ctx gpu:0,1", _GPU),
    ("docs/train.md", "gluon-cnn launch", SLOW),
    ("docs/train.md", "torch_ref.launch", SLOW),
    ("docs/upgrades.md", "snapshot baseline", SLOW),
    ("docs/upgrades.md", "--parity-update", SLOW),
    ("docs/upgrades.md", "def parity_pairs", "it is a part of the conftest.py that others need"),
    ("docs/upgrades.md", "'.[matrix]'", f"{_DOWNLOAD} 25 GB"),
    ("docs/upgrades.md", "import mxnet_compat", FAST),
    ("docs/upgrades.md", "--no-deps mxnet", f"{_DOWNLOAD} 6 GB; `.ci/run` does the same"),
    ("docs/upgrades.md", "nox -s pythons", f"{_DOWNLOAD} 20 GB"),
    ("docs/upgrades.md", "benchmarks.pythons", "it measures in the environments that nox leaves"),
]  # fmt: skip

# A user's own repository, in which the pages' commands are given
_MYPACKAGE = """
import gluon_cnn
from mxnet.gluon import nn as gluon_nn
from torch import nn
from torch.nn import functional


def gluon_net():
    net = gluon_nn.HybridSequential()
    net.add(gluon_nn.Conv2D(4, 3, in_channels=3), gluon_nn.Activation("relu"))
    net.initialize(init="ones")
    return net


def torch_net():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    nn.init.ones_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    return net


class MyLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )
        self.second = nn.Conv2d(6, 16, 5)
        self.first = nn.Conv2d(1, 6, 5)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.first(x)), 2)
        x = functional.max_pool2d(functional.relu(self.second(x)), 2)
        return self.head(x.flatten(1))
"""
_CONFTEST = """
import numpy as np
import pytest

from mypackage import gluon_net, torch_net

inputs = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("float32")
labels = None


"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language and text, and the ```text block that follows it."""

    page: str
    language: str
    text: str
    output: str


_FENCE = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [Block(page, *(group or "" for group in m.groups())) for m in _FENCE.finditer(text)]
    return [block for block in found if block.language in ("sh", "python")]


EVERY_BLOCK = [block for page in PAGES for block in blocks_of(page)]


def entries_of(block: Block) -> list[str]:
    return [when for page, words, when in BLOCKS if page == block.page and words in block.text]


@pytest.mark.parametrize("block", EVERY_BLOCK, ids=lambda b: f"{b.page}: {b.text.splitlines()[0]}")
def test_every_block_is_in_the_table_once(block: Block) -> None:
    assert len(entries_of(block)) == 1, "add the block to BLOCKS: fast, slow, or why it cannot run"


@pytest.mark.parametrize(("page", "words", "when"), BLOCKS)
def test_every_entry_of_the_table_is_one_block(page: str, words: str, when: str) -> None:
    assert sum(words in block.text for block in EVERY_BLOCK if block.page == page) == 1
    assert when in (FAST, SLOW) or len(when) > 10


def test_a_block_without_an_entry_is_seen() -> None:
    assert entries_of(Block("README.md", "sh", "python -m gluon_cnn.nonsense\n", "")) == []


@dataclass(frozen=True)
class Command:
    """`python -m MODULE [SUBCOMMAND] --flag …`, or a console script, as a page has it."""

    module: str
    subcommand: str
    flags: tuple[str, ...]  # sorted: every test process must name the cases alike


def commands_of(text: str) -> Iterator[Command]:
    """The Python commands of a shell block."""
    for line in re.split(r"\n|&&|--(?= )", text.replace("\\\n", " ")):
        program, *words = shlex.split(line, comments=True) or [""]
        if program in SCRIPTS:
            words = ["-m", SCRIPTS[program], *words]
        if program == "pytest" or "-m" not in words:
            continue
        _, module, *words = words[words.index("-m") :]
        subcommand = words[0] if words and re.fullmatch("[a-z]+", words[0]) else ""
        flags = sorted({word.partition("=")[0] for word in words if word.startswith("--")})
        yield Command(module, subcommand, tuple(flags))


COMMANDS = sorted(
    {c for b in EVERY_BLOCK if b.language == "sh" for c in commands_of(b.text)},
    key=lambda command: (command.module, command.subcommand, command.flags),
)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_flag_of_the_pages_is_in_the_help(command: Command) -> None:
    """What takes long, or cannot run here, at least exists."""
    assert importlib.util.find_spec(command.module) is not None
    if not command.flags:
        return
    module = importlib.import_module(command.module)
    if not hasattr(module, "main"):
        module = importlib.import_module(f"{command.module}.__main__")
    # `python -m parity_tests --report DIR` is `gluon-parity check --report DIR`
    subcommand = command.subcommand or getattr(getattr(module, "COMMANDS", None), "default", "")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        module.main([*([subcommand] if subcommand else []), "--help"])
    assert set(command.flags) <= set(re.findall(r"--[a-z0-9-]+", said.getvalue()))


# --- what runs

_USERS_PAGES = ("docs/upgrades.md",)  # read in a repository of the user's own
_WRAPPERS: dict[str, tuple[str, ...]] = {
    **{script: ("-m", package) for script, package in SCRIPTS.items()},
    "python": (),
    "pytest": ("-m", "pytest", "-p", "no:cacheprovider"),
}


def _extras() -> set[str]:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    return set(setup["options.extras_require"])


_PIP = """#!/bin/sh
exec {python} - "$@" <<'END'
import re, sys
extras = re.fullmatch(r"install -e \\.\\[([a-z,]+)\\]", " ".join(sys.argv[1:]))
unknown = set(extras[1].split(",")) - {extras!r} if extras else sys.argv[1:]
sys.exit(f"not in setup.cfg: {{unknown}}" if unknown else 0)
END
"""


def _write_script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _write_png(path: Path, size: tuple[int, ...], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def lay_out(page: str, folder: Path, python: Sequence[str] = (sys.executable,)) -> dict[str, str]:
    """Put into a folder what a page presumes; returns the environment of its commands."""
    if page not in _USERS_PAGES:
        for name in os.listdir(ROOT):
            if name not in ("runs", "exports", "site", "build") and not name.startswith("."):
                (folder / name).symlink_to(ROOT / name)
    else:
        (pairs,) = (block.text for block in blocks_of(page) if "def parity_pairs" in block.text)
        (folder / "conftest.py").write_text(_CONFTEST + pairs, encoding="utf-8")
        (folder / "test_nets.py").write_text("def test_nets(): pass\n", encoding="utf-8")
    (folder / "mypackage.py").write_text(_MYPACKAGE, encoding="utf-8")
    _write_png(folder / "digit.png", (28, 28), 0)
    for index in range(24):
        kind = "cat" if index % 2 else "dog"
        _write_png(folder / "photographs" / kind / f"{index}.png", (40, 48, 3), index)
    (folder / "home").mkdir()
    for name, words in _WRAPPERS.items():
        line = shlex.join([*python, *words])
        _write_script(folder / "bin" / name, f'#!/bin/sh\nexec {line} "$@"\n')
    _write_script(
        folder / "bin/pip", _PIP.format(python=shlex.quote(sys.executable), extras=_extras())
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "XDG_"))}
    return kept | {
        "HOME": str(folder / "home"),
        "MPLCONFIGDIR": matplotlib.get_configdir(),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }


def _lay_out_mnist(folder: Path) -> None:
    """The real digits where they are at hand, else as many random ones."""
    real = Path(os.environ.get("GLUON_CNN_DATA", ""), "mnist")
    if real.is_dir():
        folder.symlink_to(real.resolve())
    else:
        write_mnist(folder, train=60_000, test=10_000, packed=False)


def run_in(folder: Path, environment: dict[str, str], block: Block) -> str:
    """Run a block as it stands; returns what it printed on stdout."""
    if block.language == "sh":
        command = ["bash", "-e", "-o", "pipefail", "-c", block.text]
    else:
        command = ["python", "-c", block.text]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def missing_lines(expected: str, printed: str) -> list[str]:
    """The lines of a page's output that a command did not print, numbers apart, in this order."""
    lines = iter(_masked(printed).splitlines())
    return [
        line
        for line in expected.splitlines()
        if not any(re.fullmatch(_pattern(line), printed_line) for printed_line in lines)
    ]


def _pattern(line: str) -> str:
    return re.escape(_masked(line)).replace("…", ".*")


def _masked(text: str) -> str:
    return re.sub(r"\d(?:[\d,]|[.]\d|e[-+]\d)*", "0", text)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """`python` without the seconds in which a command imports the frameworks."""
    with warm_python(tmp_path_factory.mktemp("warm")) as python:
        yield python


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, warm: list[str]) -> Path:
    """A run folder of LeNet after an epoch, which the pages begin with."""
    folder = tmp_path_factory.mktemp("trained")
    command = [*warm, "-m", "gluon_cnn.train", "--epochs", "1"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return folder / "runs"


def _run_page(
    page: str, kinds: tuple[str, ...], folder: Path, runs: Path, python: Sequence[str]
) -> None:
    environment = lay_out(page, folder, python)
    if SLOW in kinds:
        _lay_out_mnist(folder / "home" / "mnist")
    if page != "README.md":  # which trains its own
        shutil.copytree(runs, folder / "runs")
    for block in blocks_of(page):
        if entries_of(block)[0] in kinds:
            printed = run_in(folder, environment, block)
            assert missing_lines(block.output, printed) == [], printed


def _pages(kind: str) -> list[str]:
    return [page for page in PAGES if any(p == page and when == kind for p, _, when in BLOCKS)]


@pytest.mark.parametrize("page", _pages(FAST))
def test_fast_blocks_run(page: str, tmp_path: Path, trained: Path, warm: list[str]) -> None:
    _run_page(page, (FAST,), tmp_path, trained, warm)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("page", _pages(SLOW))
def test_all_blocks_run(page: str, tmp_path: Path, trained: Path) -> None:
    _run_page(page, (FAST, SLOW), tmp_path, trained, [sys.executable])


@pytest.mark.parametrize(
    "text", ["false\ntrue\n", "pip install -e '.[nonsense]'\n", "pip install mxnet\n"]
)
def test_a_block_that_fails_is_seen(text: str, tmp_path: Path) -> None:
    environment = lay_out("README.md", tmp_path)
    with pytest.raises(AssertionError):
        run_in(tmp_path, environment, Block("README.md", "sh", text, ""))


@pytest.mark.parametrize(
    ("expected", "printed", "missing"),
    [
        ("a 1.5 b\nc … e\n", "x\na 2 b\nc d e\n", []),
        ("c\na 1\n", "a 1\nc\n", ["a 1"]),
        ("moved\n", "unchanged\n", ["moved"]),
        ("5.0e-07 from\n", "1 from\n", []),
    ],
)
def test_output_is_compared_but_for_numbers(
    expected: str, printed: str, missing: list[str]
) -> None:
    assert missing_lines(expected, printed) == missing
