"""`python -m parity_tests.gate.matrix DIR`: one table of every snapshot beside the base.

DIR holds the snapshots that the nox sessions took, `base` among them. Older versions are the old
side: the table says what an upgrade to the base moves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cnn_harness.cli import Parser, as_command, print_json
from parity_tests.gate import store
from parity_tests.gate.change import ChangedQuantity
from parity_tests.gate.verdict import NAMES, Comparison, compared
from parity_tests.reporting.verdicts import Check

BASE = "base"


def table(comparisons: Sequence[Comparison]) -> str:
    """Markdown: a row for each framework of each snapshot that holds it."""
    lines = [
        "| from | verdict | quantities that moved | first | operations that moved alone |",
        "|---|---|---|---|---|",
    ]
    for comparison in comparisons:
        for side, verdict in comparison.sides.items():
            if not verdict.compared:
                continue
            first = verdict.first
            place = f"{first.place}, {first.detail}" if first else ""
            kinds = _kinds([m for m in comparison.changed if m.side == side])
            lines.append(
                f"| {comparison.old} ({NAMES[side]}) | {verdict.verdict} "
                f"| {verdict.moved} of {verdict.compared} | {place} | {kinds} |"
            )
    return "\n".join(lines)


def _kinds(moved: list[ChangedQuantity]) -> str:
    """The kinds of operations, losses and rules that moved by themselves, with how far at most."""
    most: dict[str, float] = {}
    for m in moved:
        if m.check == Check.LOCAL:
            what = f"{m.kind} {m.level}"
            most[what] = max(most.get(what, 0.0), m.error)
    return ", ".join(f"{kind} ({error:.2g})" for kind, error in sorted(most.items()))


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(
        prog="python -m parity_tests.gate.matrix",
        description="Merge the snapshots of many versions into one table.",
        epilog="Exit status: 0 every version was compared, 2 bad usage or a bad snapshot.",
    )
    parser.add_argument("folder", metavar="DIR", help="holds `base` and the other snapshots")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    folder = Path(args.folder)
    base = store.read(folder / BASE)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != BASE)
    comparisons = [compared(store.read(folder / name), base) for name in names if name[0] != "."]
    if args.json:
        print_json({"comparisons": [comparison.as_dict() for comparison in comparisons]})
    else:
        print(table(comparisons))
    return 0


if __name__ == "__main__":
    sys.exit(main())
