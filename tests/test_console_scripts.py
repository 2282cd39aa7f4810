"""The console scripts: lists of commands, exit codes, one line on bad input, nearest names."""

import configparser
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gluon_cnn_parity import DISTRIBUTION, SCRIPTS, __version__
from gluon_cnn.__main__ import COMMANDS as GLUON_CNN
from gluon_cnn.__main__ import main as gluon_cnn
from gluon_cnn.models import MODELS
from gluon_cnn_parity.command_group import Command, CommandGroup
from mxnet_files.__main__ import COMMANDS as MXNET_FILES
from parity_tests.__main__ import COMMANDS as GLUON_PARITY
from parity_tests.__main__ import main as gluon_parity
from tests.trees import ROOT

GROUPS = [GLUON_CNN, GLUON_PARITY, MXNET_FILES]


def test_setup_cfg_installs_every_script() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    scripts = dict(line.split(" = ") for line in lines if line)
    assert scripts == {name: f"{package}.__main__:main" for name, package in SCRIPTS.items()}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def by_script(group: CommandGroup) -> str:
    return group.script


@pytest.fixture(params=GROUPS, ids=by_script)
def group(request: pytest.FixtureRequest) -> CommandGroup:
    group: CommandGroup = request.param
    return group


def test_help_lists_every_command(group: CommandGroup, capsys: pytest.CaptureFixture[str]) -> None:
    assert group.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in group.commands.items():
        assert any(line.split() == [name, *command.summary.split()] for line in lines)
        assert len(command.summary) < 80


def test_version_is_the_distributions(
    group: CommandGroup, capsys: pytest.CaptureFixture[str]
) -> None:
    assert group.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{DISTRIBUTION} {__version__}\n"


def test_all_that_is_installed_knows_its_version() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    names = " ".join(setup["options"][key] for key in ("packages", "py_modules")).split()
    for name in {name.partition(".")[0] for name in names}:
        assert importlib.import_module(name).__version__ == __version__, name


REFUSES_FRAMEWORKS = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("mxnet", "torch"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def without_frameworks(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(REFUSES_FRAMEWORKS)
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


@pytest.mark.parametrize("flag", ["-h", "--help", "--version"])
def test_what_computes_nothing_imports_no_framework(
    group: CommandGroup, flag: str, without_frameworks: dict[str, str]
) -> None:
    command = [sys.executable, "-m", SCRIPTS[group.script], flag]
    done = subprocess.run(command, env=without_frameworks, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_frameworks_are_refused(group: CommandGroup, without_frameworks: dict[str, str]) -> None:
    command = [sys.executable, "-m", SCRIPTS[group.script], "check"]
    done = subprocess.run(command, env=without_frameworks, capture_output=True, text=True)
    assert done.returncode != 0


def test_every_command_has_help_and_version_and_prints_json(
    group: CommandGroup, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in group.commands:
        assert group.main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("usage: ")
        assert ("--json" in shown) == (name != "launch"), name  # its workers print, and it does not
        assert group.main([name, "--version"]) == 0
        assert capsys.readouterr().out == f"{DISTRIBUTION} {__version__}\n"


def test_a_near_miss_is_answered_with_the_nearest_name(group: CommandGroup, refused: Any) -> None:
    for name in group.commands:
        said = refused(group.main, [name[:-1]], 2, f"; did you mean {name}? (see --help)\n")
        assert said.startswith(f"{group.script}: error: no command {name[:-1]!r}, expected one of ")


@pytest.mark.parametrize("words", [["--no-such-flag"], ["--"], ["-"], ["xyzzy"]])
def test_what_is_no_command_is_one_line_and_2(
    group: CommandGroup, words: list[str], refused: Any
) -> None:
    assert "did you mean" not in refused(group.main, words, 2)


def test_no_command_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert gluon_cnn([]) == 2
    assert capsys.readouterr().err.startswith("gluon-cnn: error: no command, expected one of train")


@pytest.mark.parametrize(
    ("argv", "code", "nearest"),
    [
        (["summary", "lenett"], 2, "lenet"),
        (["summary", "LENET"], 2, "lenet"),
        (["train", "--dataset", "docs"], 2, "folder:docs"),
        (["train", "--model", "vgg166"], 2, "vgg16"),
        (["train", "--optimizer", "adm"], 2, "adam"),
        (["train", "--recipe", "doc2"], 2, "doc-2"),
        (["train", "--dataset", "mnist5"], 2, "mnist5k"),
        (["export", "--model", "alexnt", "--out", "x"], 2, "alexnet"),
        (["prepare", "cifar1"], 2, "cifar10"),
        (["train", "--modle", "lenet"], 2, "--model"),
        (["summary", "lenet", "--input-sise=32"], 2, "--input-size"),
    ],
)
def test_a_near_miss_of_a_value_too(argv: list[str], code: int, nearest: str, refused: Any) -> None:
    refused(gluon_cnn, argv, code, f"did you mean {nearest}?")


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "--out", ""],
        ["train", "--init-from="],
        ["train", "--model", ""],
        ["evaluate", ""],
        ["predict", "run", ""],
    ],
)
def test_an_empty_word_is_no_path(argv: list[str], refused: Any) -> None:
    refused(gluon_cnn, argv, 2, "got '', expected a value")


def test_a_near_miss_of_a_checked_model_or_level(refused: Any) -> None:
    refused(gluon_parity, ["check", "--model", "lenet,alexnt"], 2, "did you mean alexnet?")
    refused(gluon_parity, ["--level", "foward"], 2, "did you mean forward?")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """`gluon-cnn`, as pip writes it."""
    path = tmp_path / "gluon-cnn"
    path.write_text("import sys\nfrom gluon_cnn.__main__ import main\nsys.exit(main())\n")
    return path


@pytest.mark.parametrize(
    ("start", "named"),
    [
        ("SCRIPT summary lenett", "gluon-cnn summary"),
        ("-m gluon_cnn summary lenett", "python -m gluon_cnn summary"),
        ("-m gluon_cnn.summary lenett", "python -m gluon_cnn.summary"),
        ("-m gluon_cnn sumary", "python -m gluon_cnn"),
        ("SCRIPT sumary", "gluon-cnn"),
        ("SCRIPT train --model lenett", "gluon-cnn train"),
        ("SCRIPT prepare mnst", "gluon-cnn prepare"),
    ],
)
def test_errors_begin_with_the_command_as_it_was_started(
    start: str, named: str, script: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, *start.replace("SCRIPT", str(script)).split()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "data")])},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"{named}: error: ")
    assert "; did you mean " in done.stderr
    assert done.stderr.count("\n") == 1


def test_models_lists_every_model_with_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert gluon_cnn(["models"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert list(rows) == ["model", *MODELS]
    assert rows["lenet5"] == ["1×32×32", "60,000", "840", "328,096"]
    assert rows["vgg16"][:2] == ["3×224×224", "134,301,514"]
    assert gluon_cnn(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["models"]["vgg16"] == {
        "input_shape": [3, 224, 224],
        "parameters": 134_301_514,
        "fixed": 0,
        "multiply_adds": 15_466_209_280,
    }


def run_code(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_help_imports_no_framework(tmp_path: Path) -> None:
    code = (
        "import sys; sys.orig_argv = ['python', '/bin/gluon-cnn', '--help']\n"
        "from gluon_cnn.__main__ import main\n"
        "code = main(['--help'])\n"
        "loaded = {'mxnet', 'torch', 'numpy', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(f'imported {loaded}' if loaded else code)"
    )
    done = run_code(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", ["--help", "--version", "train --help"])
@pytest.mark.parametrize("variable", ["", "PYTHONUNBUFFERED=1"])
def test_help_that_cannot_be_written_is_one_line(
    words: str, variable: str, script: Path, tmp_path: Path
) -> None:
    command = f"env -u PYTHONUNBUFFERED {variable} {sys.executable} {script} {words}"
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = "error: what this prints cannot be written: No space left on device; make room there, "
    assert (done.returncode, done.stderr) == (1, f"{said}or send it to another place\n")


def test_a_package_that_is_missing_is_one_line_that_names_its_extra(
    refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_torch.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    group = CommandGroup("tool", "", {"go": Command("needs_torch", "")}, extras="cpu,parity")
    said = refused(group.main, ["go"], 2)
    assert said.endswith(": error: torch is not installed: pip install -e '.[cpu,parity]'\n")


def test_a_module_that_no_extra_brings_is_a_bug_with_its_traceback() -> None:
    group = CommandGroup("tool", "", {"go": Command("no_such_module_at_all", "")}, extras="cpu")
    with pytest.raises(ModuleNotFoundError):
        group.main(["go"])
