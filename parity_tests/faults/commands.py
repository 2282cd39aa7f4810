"""`gluon-parity faults` and `clean`: show what is caught, and how often it cries wolf."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cnn_harness.cli import Parser, as_command, positive, print_json
from cnn_harness.errors import UsageError
from gluon_cnn_parity.atomic import unfit
from parity_tests.api import check_parity
from parity_tests.backends.leaves import ParityError
from parity_tests.cases.random_pairs import random_case
from parity_tests.reporting.files import write_report
from parity_tests.reporting.kill_matrix import Outcome, kill_matrix, score
from parity_tests.reporting.results import SCHEMA

CLEAN_PAIRS = 1000


def plant_all() -> list[Outcome]:
    """Plant the whole catalogue, with a line of progress for each fault."""
    # Here: it brings torch's compiler, which takes seconds, and `gluon-parity check` imports this
    from parity_tests.faults.catalogue import FAULTS, outcomes

    results: list[Outcome] = []
    for outcome in outcomes(FAULTS):
        results.append(outcome)
        seen = f"caught at {outcome.caught_level}" if outcome.caught else "ESCAPED"
        print(f"{outcome.group}: {outcome.fault}: {seen}", file=sys.stderr, flush=True)
    return results


def faults_command(*, as_json: bool, folder: str | None = None) -> int:
    """Print the kill matrix; 1 where a fault escaped, was seen at another level, or misnamed.

    `folder` gets it as `report.html` and `report.json` too.
    """
    if folder and (why := unfit(Path(folder))):  # before the work
        raise UsageError(f"--report {folder} {why}")
    results = plant_all()
    if folder:
        write_report(Path(folder), [], results)
    good = all(outcome.right_level and not outcome.misdiagnosed for outcome in results)
    if as_json:
        faults = [asdict(outcome) for outcome in results]
        print_json({"schema": SCHEMA, "ok": good, "score": score(results), "faults": faults})
    else:
        print(format_matrix(results))
    return 0 if good else 1


def format_matrix(results: Sequence[Outcome]) -> str:
    """The matrix, fault by level, then the sums by group."""
    table = kill_matrix(results)
    if table is None:
        return "no faults were planted"
    width = max(len(outcome.fault) for outcome in results)
    lines = ["● right level and path   ◐ right level   ✕ another level   ○ missed here", ""]
    lines.append("  ".join(["fault".ljust(width), *table.levels, "diagnosis"]))
    for outcome, cells, named in table.rows:
        signs = [c.sign.center(len(level)) for c, level in zip(cells, table.levels, strict=True)]
        lines.append("  ".join([outcome.fault.ljust(width), *signs, named]).rstrip())
    columns = list(table.score)
    lines += ["", "  ".join(["group".ljust(10), *columns])]
    for group, sums in {**table.groups, "all": table.score}.items():
        figures = [str(sums[column]).rjust(len(column)) for column in columns]
        lines.append("  ".join([group.ljust(10), *figures]))
    return "\n".join(lines)


def clean_command(count: int, *, as_json: bool) -> int:
    """Check `count` random clean pairs from structure to backward; 1 if any alarms."""
    alarms: list[dict[str, str]] = []
    values = 0
    for seed in range(count):
        case = random_case(seed)
        report = check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels)
        values += sum(row.compared for row in report.rows)
        if not report.ok:
            alarms.append({"pair": case.name, "message": str(report)})
            print(f"{case.name}: {report.first_divergence}", file=sys.stderr, flush=True)
        if not as_json and (seed + 1) % 50 == 0:
            print(f"{seed + 1} pairs, {len(alarms)} alarms", file=sys.stderr, flush=True)
    if as_json:
        counts = {"pairs": count, "values": values, "alarms": alarms}
        print_json({"schema": SCHEMA, "ok": not alarms, **counts})
    else:
        print(f"{count} random clean pairs, {values:,} values compared: {len(alarms)} false alarms")
    return 1 if alarms else 0


@as_command(ParityError)
def plant(argv: Sequence[str] | None = None) -> int:
    """The command `faults`; returns its exit code."""
    parser = Parser(
        prog="gluon-parity faults",
        description="Plant the whole fault catalogue and print the kill matrix.",
        epilog="Exit status: 0 every fault was caught at its level and named rightly, 1 one was "
        "not, 2 bad usage.",
    )
    parser.add_argument("--report", metavar="DIR", help="write report.html and report.json there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    return faults_command(as_json=args.json, folder=args.report)


@as_command(ParityError)
def try_clean(argv: Sequence[str] | None = None) -> int:
    """The command `clean`; returns its exit code."""
    parser = Parser(
        prog="gluon-parity clean",
        description="Check N random pairs of nets that compute the same, none of which may alarm.",
        epilog="Exit status: 0 no alarm, 1 a false alarm (named on stderr), 2 bad usage.",
    )
    parser.add_argument(
        "count", type=positive, nargs="?", default=CLEAN_PAIRS, metavar="N", help="how many pairs"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    return clean_command(args.count, as_json=args.json)
