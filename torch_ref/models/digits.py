"""The targets of LeNet-5's output units: the ten digits on 7×12 pixels.

In the style of LeCun et al. 1998, figure 3. These are data, not logic: both packages must hold the
same pictures, so this table is `gluon_cnn`'s, and a parity test compares the two bit for bit.
"""

from __future__ import annotations

import torch

__all__ = ["BITMAPS"]

# Five digits abreast: 0 to 4, then 5 to 9.
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

# One character a pixel: (2 rows of digits, 12, 5 abreast, 7) -> (2, 5, 12, 7) -> (10, 84)
_PIXELS = [1.0 if mark == "#" else -1.0 for mark in _DRAWINGS if mark in ".#"]

# (10, 84) float32: −1 white, +1 black; row by row from the top, 7 pixels a row
BITMAPS = torch.tensor(_PIXELS).reshape(2, 12, 5, 7).transpose(1, 2).reshape(10, 84)
