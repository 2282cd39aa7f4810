"""`gluon-cnn models`: every model with its input, parameters and work, at its document's size."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cnn_harness.cli import Parser, as_command, print_json
from gluon_cnn.models import MODELS, get_model
from gluon_cnn.summary import Summary, align, by, summarise


def list_models() -> list[Summary]:
    """The summary of each model for ten classes, at its own input size, in the table's order."""
    return [summarise(get_model(name)) for name in MODELS]


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(
        prog="python -m gluon_cnn.list_models",
        description="List every model: input, trainable and fixed parameters, multiply-adds of "
        "one image, for ten classes",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    summaries = list_models()
    if args.json:
        models = {
            each.model: {
                "input_shape": each.input_shape,
                **{name: each.total(name) for name in ("parameters", "fixed", "multiply_adds")},
            }
            for each in summaries
        }
        print_json({"models": models})
        return 0
    cells: list[tuple[str, ...]] = [("model", "input", "parameters", "fixed", "multiply-adds")]
    for each in summaries:
        totals = (each.total(name) for name in ("parameters", "fixed", "multiply_adds"))
        cells.append((each.model, by(each.input_shape), *(f"{n:,}" if n else "–" for n in totals)))
    print("\n".join(align(cells, left=2)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
