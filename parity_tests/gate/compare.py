"""`python -m parity_tests compare SNAPSHOT [SNAPSHOT]`: what moved, and who."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from gluon_cnn_parity import EXTRAS, missing
from cnn_harness.cli import Parser, as_command, print_json
from cnn_harness.errors import UsageError
from gluon_cnn_parity.atomic import write_together
from parity_tests.backends.leaves import ParityError
from parity_tests.gate import store
from parity_tests.gate.snapshot import RULES_NAME, add_options, progress, snapshot_now
from parity_tests.gate.store import Snapshot
from parity_tests.gate.verdict import NAMES, Comparison, compared


@as_command(ParityError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(
        prog="python -m parity_tests compare",
        description="Compare two snapshots, or a snapshot with one taken now: unchanged, moved "
        "within rounding, or moved in semantics, and which framework it was.",
        epilog="Exit status: 0 unchanged or moved within rounding, 1 semantics moved (named on "
        "stdout), 2 bad usage or a snapshot that is bad, partial or changed.",
    )
    parser.add_argument("old", metavar="SNAPSHOT", help="the baseline")
    parser.add_argument(
        "new", metavar="SNAPSHOT", nargs="?", help="the snapshot to judge; unset: one taken now"
    )
    parser.add_argument("--report", metavar="DIR", help="write gate.html and gate.json there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser)
    args = parser.parse_args(argv)
    old = store.read(Path(args.old))
    if args.new is None:
        new = _snapshot_like(old, args)
    elif args.model or args.full or args.side or args.seed:
        raise UsageError("--model, --full, --side and --seed are for a snapshot taken now")
    else:
        new = store.read(Path(args.new))
    comparison = compared(old, new)
    written = write_report(Path(args.report), comparison) if args.report else None
    if args.json:
        print_json(comparison.as_dict())
    else:
        print(text(comparison))
    if written is not None:
        print(f"report: {written}", file=sys.stderr)
    return 0 if comparison.ok else 1


def _snapshot_like(old: Snapshot, args: Namespace) -> Snapshot:
    """A snapshot of now, of what the old one has, where the command line does not say otherwise."""
    names = [name for name in old.subjects if name != RULES_NAME]
    args.model = args.model or [n for n in names if not n.endswith("-224")]
    args.full = args.full or any(name.endswith("-224") for name in names)
    args.seed = args.seed or int(old.settings.get("seed", 0))
    if args.side is None and len(old.sides) == 1:
        args.side = old.sides[0]
    new = snapshot_now(args, progress)
    new.name = "now"
    return new


def text(comparison: Comparison) -> str:
    """Both verdicts, who moved, who disagrees, and the environment, for a terminal."""
    lines = [
        f"{comparison.verdict}: {comparison.old} -> {comparison.new}",
        f"{comparison.accord}: MXNet beside torch, now",
    ]
    for side, verdict in comparison.sides.items():
        count = f"{verdict.moved} of {verdict.compared} quantities" if verdict.compared else ""
        lines.append(f"  {NAMES[side]:6} {verdict.verdict:22} {count}".rstrip())
        if verdict.first is not None:
            lines.append(f"         {verdict.sentence}")
        elif verdict.cause:
            lines.append(f"         {verdict.cause}")
    for agreement in comparison.agreements:
        agree = f"{agreement.compared - agreement.apart} of {agreement.compared} agree in float64"
        first = f", first apart: {agreement.first}" if agreement.first else ""
        lines.append(f"  MXNet beside torch, {agreement.what}: {agree}{first}")
    lines += [f"  {pair.name}: {pair.sentence}" for pair in comparison.pairs]
    for group, changes in comparison.environment.items():
        lines.append(f"  {group}: {'; '.join(changes)}")
    lines += [f"  not compared: {name}" for name in comparison.not_compared]
    lines += [f"  {note}" for note in comparison.notes]
    return "\n".join(lines)


def write_report(folder: Path, comparison: Comparison) -> Path:
    """Write gate.json and gate.html, the page where jinja2 is installed; which of them to read."""
    body = json.dumps(comparison.as_dict(), indent=1, allow_nan=False) + "\n"
    html = None
    try:
        from parity_tests.gate.page import page

        html = page(comparison)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(f"no gate.html: {missing(error.name)}", file=sys.stderr)
    write_together(folder, {"gate.json": body, "gate.html": html})
    return folder / ("gate.json" if html is None else "gate.html")
