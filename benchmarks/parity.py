"""`python -m benchmarks.parity`: what `check_parity` costs on nets by others.

A row a pair, each checked in a process of its own, with its growth by operations and by pixels: CPU
and wall seconds, and peak memory. In brackets what it should cost at most. It needs gluoncv2,
pytorchcv and torchvision; run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cnn_harness.cli import Parser, as_command
from cnn_harness.errors import CommandError, UsageError

CHECK = "parity_tests.tests.pairing.real_pairs"  # in a process of its own, which nothing disturbs


class Cost(NamedTuple):
    """A net of two zoos, on square images, and the seconds and GB that its check may take."""

    zoo: str  # cv2: gluoncv2 beside pytorchcv; model_zoo: Gluon's beside torchvision
    gluon: str
    torch: str
    size: int
    batch: int
    seconds: float | None = None
    memory: float | None = None
    quick: bool = False  # `--quick`


COSTS = (
    Cost("model_zoo", "resnet18_v1", "resnet18", 64, 2, 6, 1.5),
    Cost("model_zoo", "resnet18_v1", "resnet18", 128, 2),
    Cost("model_zoo", "resnet34_v1", "resnet34", 64, 2),
    Cost("cv2", "efficientnet_b0", "efficientnet_b0", 64, 1, 15, 2),
    Cost("model_zoo", "resnet18_v1", "resnet18", 224, 2),
    Cost("cv2", "resnet50b", "resnet50b", 224, 2, 90, 4),
    Cost("cv2", "resnet50b", "resnet50b", 224, 2, 10, quick=True),
    Cost("model_zoo", "densenet121", "densenet121", 224, 2, 120, 4),
)


def check(cost: Cost) -> dict[str, Any]:
    """What its process prints. Raises: CommandError with the last line of one that failed."""
    words = [*cost[:3], str(cost.size), str(cost.batch), *(["quick"] if cost.quick else [])]
    command = [sys.executable, "-m", CHECK, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandError(f"{cost.gluon}: exit code {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(
    costs: Sequence[Cost], measure: Callable[[Cost], Mapping[str, Any]] = check
) -> Iterator[str]:
    """The lines of a Markdown table, as they are measured."""
    yield (
        "| pair | input | operations | wall s (at most) | CPU s | CPU ms an operation "
        "| peak GB (at most) |"
    )
    yield "|---|---|---|---|---|---|---|"
    for cost in costs:
        result = measure(cost)
        name = f"{cost.gluon}, `--quick`" if cost.quick else cost.gluon
        if not result["ok"]:
            yield f"| {name} | {result['first']} |"
            continue
        cells = [
            name, f"{cost.batch} × {cost.size}²", result["ops"],
            _beside(result["sec"], cost.seconds), result["cpu"],
            round(1000 * result["cpu"] / max(1, result["ops"])),
            _beside(round(result["mb"] / 1024, 1), cost.memory),
        ]  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def _beside(value: float, most: float | None) -> str:
    return f"{value:g}" if most is None else f"{value:g} ({most:g})"


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("names", nargs="*", help="Gluon's names of pairs; all unless given")
    args = parser.parse_args(argv)
    known = {cost.gluon for cost in COSTS}
    if unknown := sorted(set(args.names) - known):
        raise UsageError(f"{unknown[0]} is no pair here: expected {', '.join(sorted(known))}")
    for line in rows([cost for cost in COSTS if not args.names or cost.gluon in args.names]):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
