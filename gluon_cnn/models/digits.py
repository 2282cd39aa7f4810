"""The targets of LeNet-5's output units: the ten digits on 7×12 pixels.

LeCun et al. 1998, figure 3, draws every printable character so that look-alikes have similar
codes; here the digits are drawn anew in its style.
"""

from __future__ import annotations

import numpy as np

__all__ = ["BITMAPS"]

HEIGHT, WIDTH = 12, 7

_DRAWINGS = """
    .......  .......  .......  .......  .......
    ..###..  ...##..  .#####.  #######  ....##.
    .##.##.  ..###..  ##...##  .....##  ...###.
    ##...##  .####..  .....##  ....##.  ..####.
    ##...##  ...##..  .....##  ...##..  .##.##.
    ##...##  ...##..  ....##.  ..####.  ##..##.
    ##...##  ...##..  ...##..  .....##  ##..##.
    ##...##  ...##..  ..##...  .....##  #######
    ##...##  ...##..  .##....  .....##  ....##.
    .##.##.  ...##..  ##.....  ##...##  ....##.
    ..###..  .######  #######  .#####.  ....##.
    .......  .......  .......  .......  .......

    .......  .......  .......  .......  .......
    #######  ..####.  #######  .#####.  .#####.
    ##.....  .##....  ##...##  ##...##  ##...##
    ##.....  ##.....  .....##  ##...##  ##...##
    ######.  ##.....  ....##.  ##...##  ##...##
    .....##  ######.  ....##.  .#####.  ##...##
    .....##  ##...##  ...##..  ##...##  .######
    .....##  ##...##  ...##..  ##...##  .....##
    .....##  ##...##  ..##...  ##...##  .....##
    ##...##  ##...##  ..##...  ##...##  ....##.
    .#####.  .#####.  ..##...  .#####.  .####..
    .......  .......  .......  .......  .......
"""


def _read(text: str) -> np.ndarray:
    rows = [line.split() for line in text.split("\n") if line.strip()]
    halves = (rows[:HEIGHT], rows[HEIGHT:])  # 0 to 4, 5 to 9
    digits = ["".join(column) for half in halves for column in zip(*half, strict=True)]
    return np.array([[1 if pixel == "#" else -1 for pixel in digit] for digit in digits], "float32")


# (10, 84): −1 white, +1 black; row by row from the top, 7 pixels a row
BITMAPS = _read(_DRAWINGS)
BITMAPS.flags.writeable = False
