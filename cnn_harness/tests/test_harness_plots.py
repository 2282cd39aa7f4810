"""Pictures hold what they are given, whatever it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_harness.plots import save_confusion, save_curves, save_grid

IMAGES = np.zeros((2, 8, 8, 1), np.uint8)
ROW = {"epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "train_acc": 0.5, "test_acc": 0.5}
DRAWN: dict[str, Callable[[Path, str], None]] = {
    "grid": lambda path, name: save_grid(path, IMAGES, [name, "b"], ["b", "b"]),
    "confusion": lambda path, name: save_confusion(path, np.eye(2), [name, "b"], name),
    "curves": lambda path, name: save_curves(path, [ROW], name),
}


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("name", [r"$\frac$", "$"])
def test_a_name_is_no_formula(drawn: str, name: str, tmp_path: Path) -> None:
    DRAWN[drawn](tmp_path / "picture.png", name)
    with Image.open(tmp_path / "picture.png") as picture:
        assert min(picture.size) > 100
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_name_stands_as_it_is(tmp_path: Path) -> None:
    pixels = []
    for name in ("$a_b$", "$a$"):
        save_grid(tmp_path / "picture.png", IMAGES[:1], [name], columns=1)
        with Image.open(tmp_path / "picture.png") as picture:
            pixels.append(np.asarray(picture.convert("L")))
    drawn = [np.flatnonzero((image[: len(image) // 4] < 200).any(axis=0)) for image in pixels]
    widths = [columns[-1] - columns[0] for columns in drawn]
    # as formulas they would be an a with a small b, and an a
    assert widths[0] > 1.3 * widths[1]
    assert widths[1] > 15


def test_curves_mark_the_best_epoch_and_draw_the_rate(tmp_path: Path) -> None:
    rows = [{**ROW, "epoch": n, "lr": 0.1 / n, "test_acc": 0.5 + (n == 2) / 4} for n in (1, 2, 3)]
    shown = {}
    for name, change in {
        "same": {}, "another best": {"test_acc": 0.1}, "another rate": {"lr": 0.0},
    }.items():  # fmt: skip
        save_curves(tmp_path / "c.png", [rows[0], {**rows[1], **change}, rows[2]], "t")
        with Image.open(tmp_path / "c.png") as picture:
            shown[name] = np.asarray(picture.convert("L"))
    third = shown["same"].shape[1] * 3 // 4  # where the panel of the rate begins
    best, rate = (shown["same"] != shown[name] for name in ("another best", "another rate"))
    assert best[:, :third].any()
    assert best[:, third:].any()  # the mark moves in every panel
    assert rate[:, third:].any()
    assert not rate[:, :third].any()
