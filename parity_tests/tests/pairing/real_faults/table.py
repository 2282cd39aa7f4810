"""What the checker makes of faults in nets by others, in tables.

`python -m parity_tests.tests.pairing.real_faults` plants them, each net in a process of its own,
and prints the sums by net and a line for each fault; names choose nets. With `--results FILE` the
nets that are there are not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from parity_tests.reporting.kill_matrix import Outcome, score
from parity_tests.reporting.verdicts import Level
from parity_tests.tests.pairing.real_faults.nets import NETS
from parity_tests.tests.pairing.real_table import Pair

_SECONDS = 3600  # that a net may take


def planted(pair: Pair, count: int, timeout: float = _SECONDS) -> list[Outcome]:
    """The outcomes of one net. Raises RuntimeError where its process does not end well."""
    numbers = map(str, (pair.smallest, pair.batch, count))
    module = "parity_tests.tests.pairing.real_faults.nets"
    command = [sys.executable, "-m", module, pair.zoo, pair.gluon, pair.torch, *numbers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{pair.gluon}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return [_outcome(line) for line in done.stdout.splitlines()]


def _outcome(line: str) -> Outcome:
    known = json.loads(line)
    levels = {name: Level(known[name]) for name in ("level", "caught_level")}
    return Outcome(**known | levels)


def _known(pair: Pair, results: Path | None) -> list[Outcome]:
    lines = results.read_text().splitlines() if results and results.exists() else []
    return [o for o in map(_outcome, lines) if o.group == pair.gluon]


def _sums(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| net | faults | caught | at the operation | named | misnamed |"
    yield "|---|---|---|---|---|---|"
    groups = dict.fromkeys(o.group for o in outcomes)
    for group in (*groups, None):
        sums = score([o for o in outcomes if group in (o.group, None)])
        names = ("total", "caught", "right_path", "diagnosed", "misdiagnosed")
        cells = [group or f"{len(groups)} nets", *(sums[name] for name in names)]
        yield f"| {' | '.join(map(str, cells))} |"


def _lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| net | fault | in | seen at | called |"
    yield "|---|---|---|---|---|"
    for o in outcomes:
        seen = f"{o.caught_level}" if o.caught else "**escaped**"
        if o.caught and not o.right_path:
            seen += f", **{o.caught_path}**, expected {o.level}, {o.path}"
        called = f"**{o.diagnosis}**" if o.misdiagnosed else o.diagnosis or "–"
        cells = (o.group, o.fault, f"`{o.where or 'the net'}`", seen, called)
        yield f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 where a fault escaped or was misnamed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="real_faults")
    parser.add_argument("names", nargs="*", help="Gluon's names of nets; all unless given")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines, read and written")
    parser.add_argument("--all", action="store_true", help="every kind of fault that fits a net")
    options = parser.parse_args(argv)
    outcomes: list[Outcome] = []
    for pair, count in NETS:
        if options.names and pair.gluon not in options.names:
            continue
        done = _known(pair, options.results)
        if not done:
            done = planted(pair, 0 if options.all else count)
            if options.results is not None:
                with options.results.open("a") as file:
                    for outcome in done:
                        print(json.dumps(vars(outcome)), file=file)
        print(f"{pair.gluon}: {score(done)}", file=sys.stderr, flush=True)
        outcomes += done
    for line in (*_sums(outcomes), "", *_lines(outcomes)):
        print(line)
    sums = score(outcomes)
    return 0 if sums["caught"] == sums["total"] and not sums["misdiagnosed"] else 1
