"""Image files to uint8 arrays: any mode and size in, (H, W, C) out.

One rule for every picture, whether it is trained on or predicted:

- EXIF rotation is honoured; of an animation the first frame is taken;
- transparency is composited on black, which is also what padding is made of;
- 16-bit grayscale is scaled to 8 bits, not clipped; CMYK, palettes and the rest become RGB;
- a picture of more than `MOST_PIXELS` is refused before it is decoded.
"""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cnn_data.errors import DataError

__all__ = [
    "FITS",
    "MOST_PIXELS",
    "check_fit",
    "decode",
    "decode_opened",
    "fits",
    "is_grayscale",
    "open_image",
    "read_image",
    "require_regular",
]

FITS = ("resize", "pad")

MOST_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a gigabyte as RGB
LARGEST_SIDE = 9459  # of a square of as many

# Pillow warns at its limit and raises only at twice that
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_ANY_FORMAT = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")

# EXIF 2.3, tag 0x0112: what brings a picture stored in that orientation upright
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def check_fit(size: int | None, channels: int, fit: str) -> None:
    """Raise DataError unless images can be asked for in this form."""
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise DataError(f"image size {size}; expected 1 to {LARGEST_SIDE} pixels")
    if channels not in (1, 3):
        raise DataError(f"{channels} channels; images have 1 or 3")
    if fit not in FITS:
        raise DataError(f"unknown fit {fit!r}; choose one of {', '.join(FITS)}")


def fits(width: int, height: int, size: int, fit: str) -> bool:
    """Whether a picture can be made to fit: padding shrinks none."""
    return fit != "pad" or max(width, height) <= size


def require_regular(path: Path, name: str) -> None:
    """Raise DataError unless `path` is a file that can be read to its end: a pipe would block."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        broken = " (a broken link)" if path.is_symlink() else ""
        raise DataError(f"{name}: no such file{broken}") from error
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise DataError(f"{name}: cannot be read ({_reason(error)})") from error
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in _KINDS if test(mode)), "no file")
        raise DataError(f"{name}: {kind}; expected an image file")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_image(
    source: Path | bytes, name: str, formats: tuple[str, ...] = _ANY_FORMAT
) -> Image.Image:
    """Open an image and read its header, without decoding it; the caller closes it.

    Raises:
        DataError: absent, empty, not an image of these formats, or too large.
    """
    if isinstance(source, Path):
        require_regular(source, name)
    try:
        image = Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, "r", formats
        )
    except _BOMBS as error:
        raise DataError(f"{name}: more than {MOST_PIXELS:,} pixels, refused: shrink it") from error
    except UnidentifiedImageError as error:
        empty = not source if isinstance(source, bytes) else source.stat().st_size == 0
        what = "is empty (0 bytes)" if empty else "cannot be read as an image"
        raise DataError(f"{name}: {what}; expected {' or '.join(formats)}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged header raises nearly anything
        raise DataError(f"{name}: cannot be read as an image ({_reason(error)})") from error
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise DataError(f"{name}: {image.width} x {image.height} pixels, refused: shrink it")
    return image


def is_grayscale(image: Image.Image) -> bool:
    """Whether an opened image has one channel of colour, alpha aside. Nothing is decoded."""
    if image.mode == "P" and image.palette is not None:
        palette = np.frombuffer(bytes(image.palette.palette), np.uint8)
        step = len(image.palette.mode)
        usable = palette[: len(palette) // step * step].reshape(-1, step)[:, :3]
        return bool((usable == usable[:, :1]).all())
    return image.mode in _GRAY_MODES


def decode(
    source: Path | bytes,
    name: str,
    size: int | None,
    channels: int,
    fit: str = "resize",
    formats: tuple[str, ...] = _ANY_FORMAT,
) -> np.ndarray:
    """Decode one image: uint8 (H, W, C), H = W = `size`, or the image's own if `size` is None.

    `channels` is 1 (ITU-R 601 luma) or 3. `fit` is "resize" (bilinear, the aspect ratio is not
    kept) or "pad" (centred on black; an image larger than `size` is an error).

    Raises:
        DataError: names the image and says what is wrong with it.
    """
    with open_image(source, name, formats) as image:
        return decode_opened(image, name, size, channels, fit)


def decode_opened(
    image: Image.Image, name: str, size: int | None, channels: int, fit: str = "resize"
) -> np.ndarray:
    """`decode` for an image whose header has been read; what its header says changes with it."""
    try:
        if size is not None and fit == "resize":
            # JPEG can decode at 1/2, 1/4, 1/8: still three times what is asked for
            image.draft(None, (3 * size, 3 * size))
        image.load()
        plain = _upright(_mode(_plain(image), "L" if channels == 1 else "RGB"), image)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # damaged data raises nearly anything
        raise DataError(f"{name}: damaged image ({_reason(error)})") from error
    pixels = np.asarray(_fitted(plain, name, size, fit))
    return pixels.reshape(*pixels.shape[:2], channels)


def read_image(
    path: str | Path, size: int | None, channels: int, fit: str = "resize"
) -> np.ndarray:
    """Read an image file, upright, with transparency on black, at 8 bits a channel.

    Args:
        path: PNG, JPEG, GIF, BMP, TIFF, WEBP or PPM.
        size: height and width in pixels; None is the image's own.
        channels: 1 (grey) or 3 (RGB).
        fit: "resize" (bilinear) or "pad" (centred on a background of 0).

    Returns:
        uint8 (H, W, channels).

    Raises:
        DataError: names the file and says what is wrong with it.
    """
    check_fit(size, channels, fit)
    path = Path(path)
    return decode(path, str(path), size, channels, fit)


def fit_batch(images: np.ndarray, size: int, fit: str, name: str) -> np.ndarray:
    """uint8 (n, H, W, C) -> uint8 (n, size, size, C), each as `decode` would fit it."""
    n, height, width, channels = images.shape
    if (height, width) == (size, size):
        return images
    if fit == "pad":
        top, left = _margins((width, height), size, name)
        out = np.zeros((n, size, size, channels), np.uint8)
        out[:, top : top + height, left : left + width] = images
        return out
    out = np.empty((n, size, size, channels), np.uint8)
    for row, pixels in zip(out, images, strict=True):
        picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
        row[:] = np.asarray(_fitted(picture, name, size, fit)).reshape(size, size, channels)
    return out


def _fitted(image: Image.Image, name: str, size: int | None, fit: str) -> Image.Image:
    if size is None or image.size == (size, size):
        return image
    if fit == "resize":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    top, left = _margins(image.size, size, name)
    padded = Image.new(image.mode, (size, size))
    padded.paste(image, (left, top))
    return padded


def _margins(image_size: tuple[int, int], size: int, name: str) -> tuple[int, int]:
    width, height = image_size
    if not fits(width, height, size, "pad"):
        raise DataError(
            f"{name}: {width} x {height} cannot be padded to {size} x {size}; use fit='resize'"
        )
    return (size - height) // 2, (size - width) // 2


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # a damaged EXIF block says nothing of the pixels
        return pixels
    return pixels.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else pixels


def _plain(image: Image.Image) -> Image.Image:
    """An 8-bit image without transparency or palette; L if it was gray."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 0xFFFF):
            raise ValueError("grayscale beyond 16 bits has no known white")
        if isinstance(image.info.get("transparency"), int):
            values[values == image.info["transparency"]] = 0
        return Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known white")
    if image.mode in ("LA", "La") or (image.mode in ("1", "L") and "transparency" in image.info):
        return _on_black(image.convert("LA"))
    if image.mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _on_black(image.convert("RGBA"))
    return _mode(image, "L" if image.mode in ("1", "L") else "RGB")


def _mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # `convert` would copy


def _on_black(image: Image.Image) -> Image.Image:
    *colours, alpha = image.split()
    flat = image.convert("L" if len(colours) == 1 else "RGB")
    black = Image.new(flat.mode, flat.size)
    return Image.composite(flat, black, alpha)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
