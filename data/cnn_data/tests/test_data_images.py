from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cnn_data
from cnn_data import DataError, read_image
from cnn_data.readers.images import MOST_PIXELS, decode, fit_batch, is_grayscale, open_image
from cnn_data.tests.makers import encoded, picture, png_header


def read(
    content: bytes, channels: int = 1, size: int | None = None, fit: str = "resize"
) -> np.ndarray:
    return decode(content, "x", size, channels, fit)


def test_grayscale_and_colour_come_out_as_they_are(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(colour).save(path)
    np.testing.assert_array_equal(read_image(path, None, 3), colour)
    gray = colour[..., 0]
    Image.fromarray(gray).save(path)
    np.testing.assert_array_equal(read_image(str(path), None, 1), gray[..., None])
    np.testing.assert_array_equal(read_image(path, None, 3), np.repeat(gray[..., None], 3, axis=2))


def test_colour_as_one_channel_is_its_luma() -> None:
    values = [
        read(encoded(picture(colour)))[0, 0, 0]
        for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    ]
    assert values == [76, 150, 29]  # 0.299, 0.587, 0.114 of 255


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    values = np.array([[0, 256, 257, 0x7FFF], [0x8000, 0xFF00, 0xFFFE, 0xFFFF]], np.uint16)
    got = read(encoded(Image.fromarray(values)))[..., 0]
    np.testing.assert_array_equal(got, np.round(values / 257).astype(np.uint8))
    assert got.max() == 255
    tiff = encoded(Image.fromarray(values), "TIFF")
    np.testing.assert_array_equal(read(tiff)[..., 0], got)


def test_32_bit_and_floating_point_gray_are_refused() -> None:
    for array in (np.full((2, 2), 70_000, np.int32), np.ones((2, 2), np.float32)):
        with pytest.raises(DataError, match=r"x: damaged image .*no known white"):
            read(encoded(Image.fromarray(array), "TIFF"))


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")
    np.testing.assert_array_equal(read(encoded(image))[..., 0], [[0, 255, 0]])


def test_transparency_is_composited_on_black() -> None:
    alpha = Image.fromarray(np.array([[0, 64, 128, 255]], np.uint8))
    gray = Image.merge("LA", (Image.new("L", (4, 1), 200), alpha))
    assert read(encoded(gray))[0, :, 0].tolist() == [0, 50, 100, 200]
    assert read(encoded(gray.convert("RGBA")), 3)[0, :, 2].tolist() == [0, 50, 100, 200]
    webp = encoded(gray.convert("RGBA"), "WEBP", lossless=True, exact=True)
    assert read(webp, 3)[0, :, 0].tolist() == [0, 50, 100, 200]


def test_a_transparent_colour_becomes_black() -> None:
    gray = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert read(encoded(gray, transparency=20))[0, :, 0].tolist() == [10, 0]
    deep = Image.fromarray(np.array([[2570, 5140]], np.uint16))
    assert read(encoded(deep, transparency=5140))[0, :, 0].tolist() == [10, 0]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert read(encoded(colour, transparency=(1, 2, 3)), 3).tolist() == [[[0, 0, 0], [4, 5, 6]]]


def test_palettes_become_colours_with_or_without_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9])
    image.putdata([0, 1, 2])
    assert read(encoded(image), 3).tolist() == [[[255, 0, 0], [0, 255, 0], [9, 9, 9]]]
    clear = read(encoded(image, transparency=bytes([255, 0, 255])), 3)
    assert clear.tolist() == [[[255, 0, 0], [0, 0, 0], [9, 9, 9]]]
    assert read(encoded(image, "GIF"), 3).tolist() == [[[255, 0, 0], [0, 255, 0], [9, 9, 9]]]


def test_cmyk_becomes_rgb() -> None:
    got = read(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95), 3)
    assert np.abs(got.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [picture(colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert read(content, 3)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_honoured(orientation: int) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    undo = {  # how a camera stores it, for each orientation (EXIF 2.3, table 6)
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read(encoded(stored, exif=exif))[..., 0], upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_spoil_good_pixels() -> None:
    content = encoded(picture(77, (16, 16)), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert abs(int(read(content)[0, 0, 0]) - 77) <= 2


def test_resize_is_pillows_bilinear() -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(array).resize((6, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read(encoded(Image.fromarray(array)), 3, 6), expected)


def test_pad_centres_on_black() -> None:
    got = read(encoded(picture(200, (4, 3))), 1, 6, "pad")[..., 0]
    expected = np.zeros((6, 6), int)
    expected[1:4, 1:5] = 200
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(DataError, match="x: 4 x 3 cannot be padded to 3 x 3; use fit='resize'"):
        read(encoded(picture(1, (4, 3))), 1, 3, "pad")


@pytest.mark.parametrize("fit", ["resize", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_fitted_as_each_image_would_be(fit: str, channels: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 7, 7, channels), dtype=np.uint8)
    for size in (7, 10) if fit == "pad" else (3, 7, 10):
        singles = [
            read(encoded(Image.fromarray(image.squeeze())), channels, size, fit) for image in images
        ]
        np.testing.assert_array_equal(fit_batch(images, size, fit, "x"), np.stack(singles))


def test_a_large_jpeg_is_decoded_small_and_nearly_the_same() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    content = encoded(
        Image.fromarray(np.kron(blocks, np.ones((4, 4), np.uint8))), "JPEG", quality=95
    )
    with Image.open(io.BytesIO(content)) as image:
        full = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    error = np.abs(read(content, 1, 64)[..., 0] - full).mean()
    assert 0 < error < 1  # of 255; at an eighth, the smallest that JPEG can, it is 4.5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("width", [MOST_PIXELS // 1000 + 1, 150_000, 2**20])
def test_bombs_are_refused_before_they_are_decoded(width: int) -> None:
    with pytest.raises(DataError, match="pixels, refused"):
        open_image(png_header(width, 1000), "x")


def test_a_command_that_meets_a_bomb_prints_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(100_000, 1000))
    code = (
        "import sys, cnn_data\n"
        "try: cnn_data.read_image(sys.argv[1], 28, 1)\n"
        "except cnn_data.DataError as error: print(error, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(cnn_data.__file__).parents[2],
    )
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith(f"{path}: more than 89,478,485 pixels, refused")


def test_bombs_are_refused_where_pillows_warnings_are_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="x: 100000 x 1000 pixels, refused"):
            open_image(png_header(100_000, 1000), "x")


def test_absent_empty_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(DataError, match=r"a\.png: no such file"):
        read_image(path, 8, 1)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png: is empty \(0 bytes\)"):
        read_image(path, 8, 1)
    path.write_text("not an image")
    with pytest.raises(
        DataError, match=r"a\.png: cannot be read as an image; expected PNG or JPEG"
    ):
        read_image(path, 8, 1)
    with pytest.raises(DataError, match="a folder; expected an image file"):
        read_image(tmp_path, 8, 1)


@pytest.mark.parametrize(
    ("size", "channels", "fit", "said"),
    [
        (0, 1, "resize", "image size 0"),
        (-4, 1, "resize", "image size -4"),
        (8, 2, "resize", "2 channels; images have 1 or 3"),
        (8, 1, "crop", "unknown fit 'crop'; choose one of resize, pad"),
    ],
)
def test_impossible_forms_are_refused(size: int, channels: int, fit: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_image("nowhere.png", size, channels, fit)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_raise_nothing_but_a_data_error(
    kind: str, cut: float, flips: list[tuple[float, int]]
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(array), kind))
    for where, value in flips:
        content[int(where * len(content))] ^= value
    content = content[: int(cut * len(content))]
    said, got = "x: ", None
    try:
        got = read(bytes(content), 3, 8)
    except DataError as error:
        said = str(error)
    assert said.startswith("x: ")
    assert "\n" not in said
    assert got is None or (got.shape, got.dtype) == ((8, 8, 3), np.uint8)


def test_a_truncated_jpeg_is_an_error_not_a_gray_stripe() -> None:
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(array), "JPEG")
    with pytest.raises(DataError, match=r"damaged image .*truncated"):
        read(content[: len(content) // 2], 3)


@pytest.mark.parametrize(
    ("image", "gray"),
    [
        (picture(3), True),
        (picture((3, 3, 3)), False),
        (Image.new("LA", (2, 2)), True),
        (Image.new("1", (2, 2)), True),
        (Image.fromarray(np.zeros((2, 2), np.uint16)), True),
        (Image.new("RGBA", (2, 2)), False),
    ],
)
def test_grayscale_is_told_from_the_header(image: Image.Image, gray: bool) -> None:
    with Image.open(io.BytesIO(encoded(image))) as opened:
        assert is_grayscale(opened) is gray


@pytest.mark.parametrize(
    ("colours", "gray"), [([0, 0, 0, 9, 9, 9], True), ([0, 0, 0, 9, 9, 8], False)]
)
def test_a_palette_of_grays_is_grayscale(colours: list[int], gray: bool) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette(colours)
    image.putdata([0, 1])
    with Image.open(io.BytesIO(encoded(image))) as opened:
        assert opened.mode == "P"
        assert is_grayscale(opened) is gray
