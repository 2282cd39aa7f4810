"""Plan a distributed job: `python -m benchmarks.plan --model vgg16 --compute 4.7`.

Prints what a step costs and what share of it is computing, for 8 to 256 workers, from four numbers:
the bytes of the gradients, the time that one worker computes, the links, and the servers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from benchmarks.slow_link import BOUND, expected_seconds, gradient_shapes
from cnn_harness.cli import Parser, as_command, finite_float, positive
from cnn_harness.errors import UsageError
from gluon_cnn.models import MODELS

WORKERS = (8, 16, 32, 64, 128, 256)
PER_SERVER = (8, 4, 1)  # workers to a server
LINKS = (1, 10, 25, 100)  # Gbit/s


@dataclass(frozen=True)
class Step:
    """Seconds of one step: computing, then exchanging, since backward is one graph."""

    compute: float
    exchange: float

    @property
    def efficiency(self) -> float:
        """The share of the step that is computing: 1 would be linear scaling."""
        return self.compute / (self.compute + self.exchange)


def sizes_of(model: str) -> list[int]:
    """Bytes of each of a model's gradients in float32, at ten classes."""
    return [4 * prod(shape) for shape in gradient_shapes(model)]


def step(
    sizes: Sequence[int],
    compute: float,
    workers: int,
    servers: int,
    gbit: float,
    bound: int = BOUND,
) -> Step:
    """The step of a job whose cables carry `gbit` Gbit/s in each direction."""
    wait = expected_seconds(sizes, workers, servers, gbit * 1000, bound)
    assert wait is not None  # a link has a speed
    return Step(compute, wait)


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--model", default="lenet", help="whose gradients are exchanged")
    parser.add_argument(
        "--bound", type=positive, default=BOUND,
        help="elements from which an array is split over all servers",
    )  # fmt: skip
    parser.add_argument(
        "--compute", type=finite_float, required=True, metavar="SECONDS",
        help="of one worker's part of a step: forward, backward and update",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.model not in MODELS:
        raise UsageError(f"--model is {args.model!r}, expected one of {', '.join(MODELS)}")
    if not args.compute:
        raise UsageError("--compute is 0, expected the seconds of a step, measured")
    print("\n".join(table(sizes_of(args.model), args.compute, args.bound)))
    return 0


def table(sizes: Sequence[int], compute: float, bound: int = BOUND) -> list[str]:
    """A line for each number of workers and servers, a column for each link, in Markdown."""
    lines = [
        "| workers | servers | " + " | ".join(f"{gbit} Gbit/s" for gbit in LINKS) + " |",
        "|---|---|" + "---|" * len(LINKS),
    ]
    for workers in WORKERS:
        for ratio in PER_SERVER:
            servers = workers // ratio
            steps = [step(sizes, compute, workers, servers, gbit, bound) for gbit in LINKS]
            cells = [f"{_time(s.exchange)}, {s.efficiency:.0%}" for s in steps]
            lines.append(f"| {workers} | {servers} | " + " | ".join(cells) + " |")
    return lines


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1000:.3g} ms"


if __name__ == "__main__":
    sys.exit(main())
