"""Draws `docs/house.svg`, the picture of the packages: `python docs/house.py`.

The arrows are the imports in the source. An arrow that others imply is left out: what imports
`gluon_cnn` may import all that `gluon_cnn` does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = ["NOT_DRAWN", "PICTURE", "ROOMS", "draw", "imports_of_rooms"]

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "house.svg"
WIDTH, HEIGHT = 860, 560


@dataclass(frozen=True)
class Room:
    """A package: where its source lies, its box in the picture, and what it is in some lines."""

    source: str
    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]
    fill: str = "#ffffff"


ROOMS = {
    "parity_tests": Room(
        "parity_tests", 20, 20, 560, 130,
        ("check_parity, the gate, the fault catalogue",
         "backends · numerics · pairing · levels", "reporting · faults · gate"),
        "#fdf3dc",
    ),
    "benchmarks": Room("benchmarks", 620, 20, 220, 130, ("speed, side by side", "(not installed)")),
    "gluon_cnn": Room(
        "gluon_cnn", 20, 220, 260, 120,
        ("what people run, on MXNet", "models · training · runtime", "fast · exporting"),
        "#e3eefb",
    ),
    "torch_ref": Room(
        "torch_ref", 320, 220, 260, 120,
        ("its mirror, on PyTorch", "models · training", "optim · transfer"), "#fbe6dc",
    ),
    "mxnet_files": Room(
        "mxnet_files", 620, 220, 220, 120,
        ("MXNet's files into torch.fx", "reading · operators", "functions · checking"), "#fbe6dc",
    ),
    "mxnet_compat": Room(
        "mxnet_compat.py", 20, 400, 250, 60, ("newer Python and numpy",)
    ),
    "cnn_harness": Room(
        "cnn_harness", 320, 400, 260, 60, ("flags, run folders, jobs",), "#e7f4e4"
    ),
    "cnn_data": Room("data/cnn_data", 320, 490, 260, 60, ("arrays in, batches out",), "#e7f4e4"),
}  # fmt: skip
# Installed as well, and left out of the picture
NOT_DRAWN = {
    "gluon_cnn_parity": "version, Python and missing extras, said in one place; all import it",
    "pytest_parity": "the pytest plugin of parity_tests",
}


def imports_of_rooms(root: Path = ROOT) -> dict[str, set[str]]:
    """The rooms that each room's source imports, tests left out."""
    return {
        name: {room for path in _sources(root / room.source) for room in _imported(path)} - {name}
        for name, room in ROOMS.items()
    }


def _sources(source: Path) -> list[Path]:
    if source.suffix:
        return [source]
    return [p for p in source.rglob("*.py") if "tests" not in p.relative_to(source).parts]


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (top for name in names if (top := name.partition(".")[0]) in ROOMS)


def _reduced(arrows: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no others imply. Raises ValueError where they run in a circle."""

    def reachable(room: str, on_the_way: tuple[str, ...] = ()) -> set[str]:
        if room in on_the_way:
            raise ValueError(f"a circle of imports: {' -> '.join((*on_the_way, room))}")
        beyond = (reachable(other, (*on_the_way, room)) for other in arrows[room])
        return arrows[room].union(*beyond)

    return [
        (room, other)
        for room, others in arrows.items()
        for other in sorted(others)
        if not any(other in reachable(third) for third in others - {other})
    ]


def draw(arrows: dict[str, set[str]]) -> str:
    """The picture, as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="14" text-anchor="middle">',
        "<title>The packages, and which imports which</title>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" '
        'markerHeight="9" orient="auto"><path d="M0 0 10 5 0 10z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    parts += [_box(name, room) for name, room in ROOMS.items()]
    parts += [_arrow(ROOMS[start], ROOMS[end]) for start, end in _reduced(arrows)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(name: str, room: Room) -> str:
    middle = room.x + room.width // 2
    top = room.y + (room.height - 20 * len(room.lines)) // 2 + 2
    texts = [f'<text x="{middle}" y="{top}" font-weight="bold">{name}</text>']
    texts += [
        f'<text x="{middle}" y="{top + 20 * (i + 1)}" fill="#333">{escape(line)}</text>'
        for i, line in enumerate(room.lines)
    ]
    return (
        f'<rect x="{room.x}" y="{room.y}" width="{room.width}" height="{room.height}" rx="6" '
        f'fill="{room.fill}" stroke="#444"/>\n' + "\n".join(texts)
    )


def _arrow(start: Room, end: Room) -> str:
    """From the foot of one box to the head of the next, or from side to side."""
    if start.y == end.y:
        x1, x2 = start.x + start.width, end.x
        y1 = y2 = start.y + start.height // 2
    else:
        x1 = _nearest(start, end)
        x2 = _nearest(end, start)
        y1, y2 = start.y + start.height, end.y
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#444" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )


def _nearest(room: Room, other: Room) -> int:
    """Where on its own edge a box is nearest to the middle of another, 30 from its corners."""
    middle = other.x + other.width // 2
    return min(max(middle, room.x + 30), room.x + room.width - 30)


if __name__ == "__main__":
    PICTURE.write_text(draw(imports_of_rooms()), encoding="utf-8")
