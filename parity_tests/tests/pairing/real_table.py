"""The table of real pairs, and what the check of a pair costs, each in a process of its own.

`python -m parity_tests.tests.pairing.real_table` checks every pair at the smallest size that it
takes; `--costs` the pairs that have a bar, and larger ones beside them; names choose pairs. With
`--results FILE` what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity_tests.tests.pairing.real_pairs import DIFFERENT, EQUAL, Pair

__all__ = ["COSTS", "main", "run", "table"]

# A pair, a size and a batch; with the CPU seconds and GB that it may take
COSTS: list[tuple[Pair, float | None, float | None]] = [
    (Pair("model_zoo", "resnet18_v1", "resnet18", 224, 64, 2), 6, 1.5),
    (Pair("model_zoo", "resnet18_v1", "resnet18", 224, 128, 2), None, None),
    (Pair("model_zoo", "resnet34_v1", "resnet34", 224, 64, 2), None, None),
    (Pair("cv2", "efficientnet_b0", "efficientnet_b0", 224, 64, 1), 15, 2),
    (Pair("model_zoo", "resnet18_v1", "resnet18", 224, 224, 2), None, None),
    (Pair("cv2", "resnet50b", "resnet50b", 224, 224, 2), 90, 4),
    (Pair("model_zoo", "densenet121", "densenet121", 224, 224, 2), 120, 4),
]
_SECONDS = 1800  # that a pair may take


def run(*arguments: str, timeout: float = _SECONDS) -> dict[str, Any]:
    """What `real_pairs` prints, or how its process ended."""
    command = [sys.executable, "-m", "parity_tests.tests.pairing.real_pairs", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"ok": False, "first": f"no end in {timeout:.0f} s"}
    if done.returncode:
        known = -done.returncode in {int(s) for s in signal.Signals}
        ended = signal.Signals(-done.returncode).name if known else done.stderr.strip()[-300:]
        return {"ok": False, "first": f"the process ended: {ended}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _checked(pair: Pair, results: Path | None) -> Mapping[str, Any]:
    key = f"{pair.zoo} {pair.gluon} {pair.smallest} {pair.batch}"
    for line in results.read_text().splitlines() if results and results.exists() else ():
        known: dict[str, Any] = json.loads(line)
        if known["key"] == key:
            return known
    numbers = str(pair.smallest), str(pair.batch)
    result = {"key": key} | run(pair.zoo, pair.gluon, pair.torch, *numbers)
    if results is not None:
        with results.open("a") as file:
            print(json.dumps(result), file=file)
    return result


def table(pairs: Sequence[Pair], results: Path | None) -> Iterator[str]:
    """The lines of a Markdown table, as they are measured."""
    yield "| pair | input | operations | verdict | CPU s | wall s | peak GB |"
    yield "|---|---|---|---|---|---|---|"
    for pair in pairs:
        result = _checked(pair, results)
        name = pair.gluon if pair.zoo == "cv2" else f"{pair.gluon} (Gluon's zoo, torchvision)"
        shape = f"{pair.batch} × {pair.smallest}²"
        verdict = "in parity" if result["ok"] else str(result["first"]).split("; ")[0]
        cells = [name, shape, result.get("ops", "")]
        cells += [verdict.replace("|", "\\|"), result.get("cpu", ""), result.get("sec", "")]
        cells += [f"{result['mb'] / 1024:.1f}" if "mb" in result else ""]
        yield f"| {' | '.join(map(str, cells))} |"


def _costs(results: Path | None) -> Iterator[str]:
    yield "| pair | input | operations | CPU s (bar) | wall s | peak GB (bar) |"
    yield "|---|---|---|---|---|---|"
    for pair, seconds, memory in COSTS:
        result = _checked(pair, results)
        bars = [f" ({bar:g})" if bar else "" for bar in (seconds, memory)]
        cpu, peak = result.get("cpu", "–"), result.get("mb", 0) / 1024
        shape = f"{pair.batch} × {pair.smallest}²"
        cells = [pair.gluon, shape, result.get("ops", ""), f"{cpu}{bars[0]}"]
        cells += [result.get("sec", ""), f"{peak:.1f}{bars[1]}"]
        yield f"| {' | '.join(map(str, cells))} |"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, prog="real_table")
    parser.add_argument("names", nargs="*", help="Gluon's names of pairs; all unless given")
    parser.add_argument("--costs", action="store_true", help="the pairs whose cost has a bar")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines, read and written")
    options = parser.parse_args(argv)
    pairs = [*EQUAL, *(pair for pair, *_ in DIFFERENT)]
    chosen = [pair for pair in pairs if not options.names or pair.gluon in options.names]
    for line in _costs(options.results) if options.costs else table(chosen, options.results):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
