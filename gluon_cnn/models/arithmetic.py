"""Convolution arithmetic (doc-1): how wide a map is after a window has slid over it."""

from __future__ import annotations

__all__ = ["WindowError", "output_size", "same_padding"]


class WindowError(ValueError):
    """The window is larger than the padded input, so there is no output at all."""


def output_size(n: int, f: int, p: int = 0, s: int = 1) -> int:
    """Width of the output, (n + 2p − f) / s + 1 rounded down.

    Rounding down drops the pixels that a last, incomplete window would cover; MXNet calls it the
    `valid` pooling convention.

    Args:
        n: width of the input, in pixels.
        f: width of the window, a convolution's kernel or a pool.
        p: padding on each side.
        s: stride.

    Returns:
        The width in pixels, at least 1.

    Raises:
        WindowError: the window does not fit.
        ValueError: a number makes no sense.

    Examples:
        >>> output_size(224, f=11, s=4)  # AlexNet's first convolution
        54
    """
    if n < 1 or f < 1 or p < 0 or s < 1:
        raise ValueError(
            f"got n={n}, f={f}, p={p}, s={s}; n, f and s are at least 1 pixel, p at least 0"
        )
    if n + 2 * p < f:
        raise WindowError(f"a window {f} wide does not fit in {n} + 2·{p} pixels")
    return (n + 2 * p - f) // s + 1


def same_padding(f: int) -> int:
    """Padding (f − 1) / 2 that keeps the width at stride 1, for an odd window f.

    Raises:
        ValueError: an even window, which would need half a pixel on each side.

    Examples:
        >>> same_padding(5)
        2
    """
    if f < 1 or f % 2 == 0:
        raise ValueError(f"got f={f}; only an odd window has a padding that keeps the width")
    return (f - 1) // 2
