"""`mxnet-files operators`: the operators that the import reads, and how each was verified.

`test_supported.py` holds what is said here against the tests' own spaces, MXNet's zoo and
`docs/operators.md`, whose table this command prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from gluon_cnn_parity import did_you_mean
from gluon_cnn_parity.cli import Parser, run_by, run_command
from mxnet_files import operators  # noqa: F401 (fills OPERATORS)
from mxnet_files.errors import UsageError
from mxnet_files.registry import OPERATORS
from mxnet_files.save import WITHOUT_ONNX

# Operators whose cases are written by hand; the others' are drawn by the differential tests
_BY_HAND = re.compile(r"_sg_mkldnn")

# Operators of the 34 models of MXNet's zoo, which `mxnet-files zoo` compares node by node
IN_ZOO = {
    "Activation", "BatchNorm", "Concat", "Convolution", "Dropout", "Flatten", "FullyConnected",
    "Pooling", "clip", "elemwise_add",
}  # fmt: skip


@dataclass(frozen=True)
class Supported:
    """One operator: MXNet's main name, its other names, the attributes that are read."""

    name: str
    aliases: tuple[str, ...]
    attributes: tuple[str, ...]
    verified: tuple[str, ...]  # how: "drawn" or "by hand", and "zoo"
    onnx: bool  # it can be written as ONNX, and ONNX Runtime computes it


def is_drawn(name: str) -> bool:
    """Whether the tests draw an operator's attributes, shapes, dtypes and values.

    >>> is_drawn("Convolution"), is_drawn("_sg_mkldnn_conv")
    (True, False)
    """
    return _BY_HAND.match(name) is None


def supported_operators() -> list[Supported]:
    """Every registered operator once, by main name.

    >>> [row.aliases for row in supported_operators() if row.name == "Flatten"]
    [('_npx_batch_flatten', 'flatten')]
    """
    aliases: dict[str, list[str]] = {}
    for name, operator in OPERATORS.items():
        others = aliases.setdefault(operator.name, [])
        if name != operator.name:
            others.append(name)
    return [
        Supported(
            name,
            tuple(sorted(aliases[name])),
            tuple(sorted(OPERATORS[name].attributes)),
            ("drawn" if is_drawn(name) else "by hand", *(["zoo"] if name in IN_ZOO else [])),
            name not in WITHOUT_ONNX,
        )
        for name in sorted(aliases, key=lambda name: (name.lower(), name))
    ]


@run_by(run_command, prog="mxnet-files operators", errors=(UsageError,))
def main(argv: Sequence[str] | None = None) -> int:
    """0 with the table printed, 2 on bad usage."""
    parser = Parser(
        prog="mxnet-files operators",
        description="Print MXNet's operators that open in PyTorch, and how each was verified.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone, by any name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in OPERATORS:
            raise UsageError(f"the import has no operator {name!r}{did_you_mean(name, OPERATORS)}")
    chosen = {OPERATORS[name].name for name in options.names}
    rows = [row for row in supported_operators() if not chosen or row.name in chosen]
    if options.json:
        print(json.dumps({"operators": [asdict(row) for row in rows]}))
        return 0
    print("| operator | other names | attributes | verified | ONNX |\n|---|---|---|---|---|")
    for row in rows:
        cells = [[row.name], row.aliases, row.attributes]
        shown = [", ".join(f"`{word}`" for word in words) for words in cells]
        onnx = "yes" if row.onnx else "no"
        print("| " + " | ".join([*shown, ", ".join(row.verified), onnx]) + " |")
    return 0
