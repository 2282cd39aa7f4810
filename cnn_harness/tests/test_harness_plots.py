"""Pictures hold what they are given, whatever it is."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_harness.plots import fonts, save_confusion, save_curves, save_grid

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


def test_few_mistakes_are_seen(tmp_path: Path) -> None:
    counts = np.eye(10) * 99
    counts[7, 2] = 1  # so that both have a scale of mistakes beside them
    shown = []
    for mistakes in (0, 1):
        counts[3, 5] = mistakes
        save_confusion(tmp_path / "c.png", counts.astype(int), list("0123456789"), "t")
        with Image.open(tmp_path / "c.png") as picture:
            shown.append(np.asarray(picture.convert("RGB")).astype(int))
    changed = np.abs(shown[0] - shown[1]).max(axis=2)
    assert (changed > 60).sum() > 1000  # a whole cell, and not only its number


def _gray(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_without_mistakes_there_is_no_scale_of_them(tmp_path: Path) -> None:
    for mistakes in (0, 1):
        counts = np.array([[4, mistakes], [0, 4]])
        save_confusion(tmp_path / "c.png", counts, ["a", "b"], "t")
        right = _gray(tmp_path / "c.png")[:, -30:]  # its label
        assert (right < 128).any() == bool(mistakes)


@pytest.mark.parametrize("drawn", ["confusion", "curves"])
def test_a_long_title_stays_in_the_picture(drawn: str, tmp_path: Path) -> None:
    DRAWN[drawn](tmp_path / "c.png", "lenet on folder:/" + "a-long-name/" * 20 + ": 1.0000 of 6")
    top = _gray(tmp_path / "c.png")[:30]
    assert (top < 128).any()
    assert (top[:, :8] > 200).all()
    assert (top[:, -8:] > 200).all()


def test_the_rates_stand_apart_from_the_accuracies(tmp_path: Path) -> None:
    rows = [{**ROW, "epoch": n, "lr": 0.003 - n * 0.00025} for n in range(1, 13)]
    save_curves(tmp_path / "c.png", rows, "t")
    shown = _gray(tmp_path / "c.png")
    foot = np.argmax((shown < 100).sum(axis=1))  # where the three panels end below
    ends = np.flatnonzero(np.diff((shown[foot] < 100).astype(int)) < 0)
    labels = np.flatnonzero((shown[len(shown) // 4 : foot] < 150).any(axis=0))
    assert labels[labels > ends[1]][0] - ends[1] > 12


def test_a_grid_shows_the_names_of_files(tmp_path: Path) -> None:
    shown = []
    for files in (None, ["of-an-image.png", "b.png"], ["of-an-image.png", "x" * 300]):
        save_grid(tmp_path / "g.png", IMAGES, ["a", "b"], files=files)
        shown.append(_gray(tmp_path / "g.png"))
    assert len(shown[1]) > len(shown[0])
    second = shown[1].shape[1] // 3  # of three columns
    assert (shown[1][:, :second] == shown[2][:, :second]).all()  # the long name stays in its own
    assert (shown[1][:, second:] != shown[2][:, second:]).any()


def test_a_thousand_classes_make_a_picture_of_bounded_size(tmp_path: Path) -> None:
    names = [f"class {i} of a long name that goes on and on and on" for i in range(200)]
    save_confusion(tmp_path / "c.png", np.eye(200, dtype=int), names, "t")
    with Image.open(tmp_path / "c.png") as picture:
        assert max(picture.size) < 3200


def _drawn(path: Path, name: str) -> np.ndarray:
    save_grid(path, IMAGES[:1], [name], columns=1)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))[:25]


def test_scripts_are_drawn_or_said_once(tmp_path: Path, caplog, monkeypatch) -> None:
    fonts._said.clear()
    monkeypatch.setattr(fonts, "_others", lambda: iter(()))  # whatever this machine has
    boxes = [_drawn(tmp_path / "g.png", name) for name in ("\U00013000", "\U00013001")]
    assert not (boxes[0] != boxes[1]).any()  # matplotlib's own font has no hieroglyphs
    _drawn(tmp_path / "g.png", "\U00013000")
    assert len([r for r in caplog.records if "drawn as boxes" in r.getMessage()]) == 2
    faces = [_drawn(tmp_path / "g.png", name) for name in ("\U0001f600", "\U0001f62d")]
    assert (faces[0] != faces[1]).any()  # matplotlib's own font has these


def test_arabic_is_joined_from_right_to_left() -> None:
    pytest.importorskip("arabic_reshaper")
    pytest.importorskip("bidi")
    name = "\u0642\u0637\u0629"  # qaf, tah, teh marbuta
    drawn = fonts.shaped(name)
    # As it is only where matplotlib itself shapes; what stands beside it keeps its side.
    assert drawn in (f"\u200e{name}\u200e", "\ufe94\ufec4\ufed7")
    assert fonts.shaped(f"{name} cat").count("cat") == 1


@pytest.mark.parametrize(
    ("package", "names"),
    [("mplfonts", ("\u732b", "\u72d7")), ("manimgx_fonts", ("\U0001f436", "\U0001f431"))],
    ids=["Chinese", "emoji"],
)
def test_scripts_are_drawn_where_a_package_of_fonts_is(
    package: str, names: tuple[str, str], tmp_path: Path, caplog
) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    fonts._said.clear()
    shown = [_drawn(tmp_path / "g.png", name) for name in names]
    assert (shown[0] != shown[1]).any()
    assert caplog.records == []


def test_boxes_are_no_font_that_has_a_character(tmp_path: Path, caplog) -> None:
    fonts._said.clear()
    assert not [path for path in fonts._others() if "LastResort" in path]
    save_confusion(tmp_path / "c.png", np.array([[3, 1], [2, 5]]), ["\u98de\u673a", "cat"], "t")
    assert all("drawn as boxes" in record.getMessage() for record in caplog.records)


def test_what_cannot_be_drawn_is_one_warning(monkeypatch, caplog) -> None:
    fonts._said.clear()
    monkeypatch.setattr(fonts, "_others", lambda: iter(()))
    monkeypatch.setattr(fonts, "_joins", lambda: False)
    for _ in range(2):
        assert fonts.font_families(["\u732b", "\u0642\u0637\u0629", "cat"]) == [fonts.OWN]
    (record,) = caplog.records
    for part in ("\u732b, drawn as boxes", "from right to left", "pip install -e '.[fonts]'"):
        assert part in record.getMessage()
