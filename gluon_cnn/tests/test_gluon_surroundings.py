"""Commands where disks are full, streams closed, locales poor, and kills come at any moment."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from cnn_harness.tests.runs import SURROUNDINGS, end_in_a_line, one_thread
from gluon_cnn import evaluate, train
from gluon_cnn.exporting.exported import find_manifest, read_manifest


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose classes have names that ASCII and Latin-1 lack."""
    folder = tmp_path_factory.mktemp("surroundings")
    for label, name in enumerate(("猫", "собака")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(4):
            image = Image.new("L", (28, 28), 100 * label + i)
            image.save(folder / "photos" / name / f"{i}.png")
    argv = ["--dataset", f"folder:{folder / 'photos'}", "--image-size", "28", "--epochs", "1"]
    assert train.main([*argv, "--batch-size", "4", "--out", str(folder / "run")]) == 0
    return folder / "run"


def _started(*argv: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **{"env": one_thread(), **options},
    )  # fmt: skip


def test_a_poor_locale_prints_escapes(run: Path) -> None:
    environment = {**one_thread(), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    job = _started("gluon_cnn.evaluate", str(run), env=environment)
    out, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    assert "\\u732b" in out


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "| true"])
def test_closed_streams_are_no_traceback(run: Path, closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m gluon_cnn.evaluate {run} {closed}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=one_thread(), check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    if closed == "2>&-":
        assert done.returncode == 0
        assert done.stdout.startswith("accuracy ")


@pytest.mark.slow
@pytest.mark.parametrize("how", SURROUNDINGS)
@pytest.mark.parametrize(
    "words", ["evaluate", "export --out export", "inspect x.png", "predict x.png --grid grid.png"]
)
def test_no_surroundings_end_in_a_traceback(
    run: Path, words: str, how: str, tmp_path: Path
) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "x.png")
    name, *more = words.split()
    command = f"{sys.executable} -m gluon_cnn.{name} {run} {' '.join(more)}"
    end_in_a_line(command, how, tmp_path)


LIMIT = 2000  # bytes a file: no picture, table of answers or parameter file is as small


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("evaluate", []),
        ("export", ["--out", "<new>/export"]),
        ("inspect", ["<image>", "--out", "<new>"]),
        ("predict", ["<image>", "--grid", "<new>/grid.png"]),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    run: Path, command: str, more: list[str], tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "image.png")
    words = [word.replace("<new>", str(tmp_path / "new")) for word in more]
    words = [word.replace("<image>", str(tmp_path / "image.png")) for word in words]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def full() -> None:  # no file may grow beyond this, as on a disk without room
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))

    job = _started(f"gluon_cnn.{command}", str(run), *words, preexec_fn=full)
    _, err = job.communicate(timeout=200)
    assert job.returncode == 1, err
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.slow
def test_a_killed_evaluation_or_export_leaves_nothing_that_looks_whole(
    run: Path, tmp_path: Path
) -> None:
    for name in ("confusion.png", "errors.png", "evaluation.json"):
        (run / name).unlink(missing_ok=True)
    for step in range(12):
        out = tmp_path / f"export{step}"
        jobs = [
            _started("gluon_cnn.evaluate", str(run)),
            _started("gluon_cnn.export", str(run), "--out", str(out)),
        ]
        time.sleep(1 + step / 3)
        for job in jobs:
            job.send_signal(signal.SIGKILL)
            job.communicate(timeout=60)
        for picture in run.glob("[a-z]*.png"):
            with Image.open(picture) as image:
                image.load()
        if (run / "evaluation.json").exists():
            assert (run / "evaluation.json").read_text().endswith("}")
        if out.exists():
            manifest = find_manifest(out)
            assert manifest is not None
            read_manifest(manifest)  # every file has its sum
    assert evaluate.main([str(run)]) == 0


def test_an_evaluated_folder_that_vanishes_is_one_line(run: Path, tmp_path, monkeypatch, refused):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    measure = evaluate.evaluate_run

    def vanish(*arguments, **options):
        shutil.rmtree(copy)
        return measure(*arguments, **options)

    monkeypatch.setattr(evaluate, "evaluate_run", vanish)
    refused(evaluate.main, [str(copy)], 1, str(copy))
    assert not os.path.exists(copy)
