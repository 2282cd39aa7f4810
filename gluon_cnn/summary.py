"""`python -m gluon_cnn.summary MODEL`: what each layer puts out, holds and computes.

Shapes come from symbols, so no weight is allocated: vgg16 at 224×224 takes a blink.
How each layer's parameters and multiply-adds are counted is a list of its own: the checker's table
of operators says how they round, and this package does not import the checker.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from cnn_harness.cli import Parser, as_command, positive, print_json
from gluon_cnn.models import MODELS, ClassicCNN, ModelError, get_model, leaves
from gluon_cnn.models.layers import Shape
from gluon_cnn.models.lenet5 import RBFOutput, ScaledTanh, TableConv2D, TrainableSubsampling
from gluon_cnn_parity.terminal import columns


@dataclass(frozen=True)
class Row:
    """One leaf of a net, for one sample."""

    path: str  # features.0
    name: str  # the paper's name (C1), or empty
    operation: str  # Conv2D 5×5
    output: Shape  # (C, H, W) or (features,)
    parameters: int  # numbers that training fits
    fixed: int  # numbers that nothing changes
    statistics: int  # running means and variances
    connections: int  # doc-0: every input of every output value, and its bias
    multiply_adds: int  # products with a weight; biases, pooling and elementwise functions are free


@dataclass(frozen=True)
class Summary:
    """A net's rows in the order of computation, and what they add up to."""

    model: str
    input_shape: Shape
    classes: int
    least_input_size: int
    rows: tuple[Row, ...]

    def total(self, quantity: str) -> int:
        """Sum over the rows of `parameters`, `fixed`, `statistics`, … (a field of `Row`)."""
        return sum(getattr(row, quantity) for row in self.rows)

    def to_json(self) -> dict[str, object]:
        """The same as plain data, with the totals under `totals`."""
        quantities = ("parameters", "fixed", "statistics", "connections", "multiply_adds")
        return {**asdict(self), "totals": {name: self.total(name) for name in quantities}}


def summarise(net: ClassicCNN) -> Summary:
    """Shapes, parameters and work of each leaf, for one sample of the net's own input shape."""
    rows = []
    shape: Shape = net.input_shape
    for path, leaf in leaves(net):
        output = _output_shape(leaf, shape)
        rows.append(_row(path, net.layer_names.get(path, ""), leaf, output))
        shape = output
    return Summary(net.model_name, net.input_shape, net.classes, net.least_input_size, tuple(rows))


def _output_shape(leaf: HybridBlock, shape: Shape) -> Shape:
    _, outputs, _ = leaf(mx.sym.var("data")).infer_shape(data=(1, *shape))
    return tuple(outputs[0][1:])


def _row(path: str, name: str, leaf: HybridBlock, output: Shape) -> Row:
    parameters = fixed = statistics = 0
    for role, parameter in leaf._reg_params.items():
        size = math.prod(parameter.shape)
        if role.startswith("running_"):
            statistics += size
        elif parameter.grad_req == "null":
            fixed += size
        else:
            parameters += size
    for kind, cost in _COSTS.items():
        if isinstance(leaf, kind):
            connections, multiply_adds = cost(leaf, output)
            break
    else:
        raise TypeError(f"{path}: the work of a {type(leaf).__name__} is not known")
    counts = (parameters, fixed, statistics, connections, multiply_adds)
    return Row(path, name, _operation(leaf), output, *counts)


# (connections, multiply-adds) of a leaf, for one sample


def _weighted(leaf: nn.Conv2D | nn.Dense, output: Shape) -> tuple[int, int]:
    weights = math.prod(leaf.weight.shape[1:]) * math.prod(output)
    return weights + _biases(leaf, output), weights


def _table_conv(leaf: TableConv2D, output: Shape) -> tuple[int, int]:
    weights = math.prod(leaf.weight.shape) * math.prod(output[1:])
    return weights + _biases(leaf, output), weights


def _subsampling(leaf: TrainableSubsampling, output: Shape) -> tuple[int, int]:
    values = math.prod(output)
    return values * leaf.kernel**2 + _biases(leaf, output), values


def _pool(leaf: HybridBlock, output: Shape) -> tuple[int, int]:
    return math.prod(leaf._kwargs["kernel"]) * math.prod(output), 0


def _biases(leaf: HybridBlock, output: Shape) -> int:
    return 0 if leaf.bias is None else math.prod(output)


_COSTS: dict[type, Callable[..., tuple[int, int]]] = {
    nn.Conv2D: _weighted,
    nn.Dense: _weighted,
    TableConv2D: _table_conv,
    TrainableSubsampling: _subsampling,
    RBFOutput: lambda leaf, _: (math.prod(leaf.bitmaps.shape),) * 2,
    nn.MaxPool2D: _pool,
    nn.AvgPool2D: _pool,
    nn.BatchNorm: lambda _, output: (0, math.prod(output)),
    **dict.fromkeys((nn.Activation, ScaledTanh, nn.Dropout, nn.Flatten), lambda *_: (0, 0)),
}


def _operation(leaf: HybridBlock) -> str:
    if isinstance(leaf, nn.Activation):
        return {"relu": "ReLU", "sigmoid": "Sigmoid"}[leaf._act_type]
    if isinstance(leaf, nn.Dropout):
        return f"Dropout {leaf._rate:g}"
    name = type(leaf).__name__
    if isinstance(leaf, TableConv2D | TrainableSubsampling):
        return f"{name} {leaf.kernel}×{leaf.kernel}"
    if not isinstance(leaf, nn.Conv2D | nn.MaxPool2D | nn.AvgPool2D):
        return name
    height, width = leaf._kwargs["kernel"]
    text = f"{name} {height}×{width}"
    stride, padding = leaf._kwargs["stride"][0], leaf._kwargs["pad"][0]
    if stride != (1 if isinstance(leaf, nn.Conv2D) else height):
        text += f" stride {stride}"
    return f"{text} pad {padding}" if padding else text


def table(summary: Summary) -> str:
    """The summary as text: a heading, a row per leaf, a row of totals, and a line on parameters."""
    header = ("", "layer", "operation", "output", "parameters", "connections", "multiply-adds")
    body = [
        (
            row.name,
            row.path,
            row.operation,
            by(row.output),
            f"{row.fixed:,} fixed" if row.fixed else _number(row.parameters),
            _number(row.connections),
            _number(row.multiply_adds),
        )
        for row in summary.rows
    ]
    quantities = ("parameters", "connections", "multiply_adds")
    total = ("", "total", "", "", *(f"{summary.total(name):,}" for name in quantities))
    cells = [header, *body, total]
    if not any(row.name for row in summary.rows):
        cells = [line[1:] for line in cells]
    lines = align(cells, left=len(cells[0]) - 4)
    rule = "-" * max(map(len, lines))
    counts = f"{summary.total('parameters'):,} trainable parameters"
    for quantity, what in (("fixed", "fixed"), ("statistics", "running statistics")):
        if summary.total(quantity):
            counts += f", {summary.total(quantity):,} {what}"
    least = summary.least_input_size
    return "\n".join(
        [
            f"{summary.model}: input {by(summary.input_shape)}, {summary.classes} classes",
            "",
            lines[0],
            rule,
            *lines[1:-1],
            rule,
            lines[-1],
            "",
            f"{counts}; the least input is {least}×{least}",
        ]
    )


def by(shape: Shape) -> str:
    """A shape as people write it: 3×224×224."""
    return "×".join(map(str, shape))


def _number(value: int) -> str:
    return f"{value:,}" if value else "–"


def align(cells: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of a table: the first `left` columns are words, the others numbers."""
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]

    def padded(index: int, cell: str) -> str:
        space = " " * (widths[index] - columns(cell))
        return cell + space if index < left else space + cell

    return ["  ".join(padded(*each) for each in enumerate(line)).rstrip() for line in cells]


@as_command(ModelError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    # What is not given is not in the namespace: the model's own document decides.
    own = argparse.SUPPRESS
    parser = Parser(
        prog="python -m gluon_cnn.summary",
        description="Per layer: output shape, parameters, connections, multiply-adds; totals.",
    )
    parser.add_argument("model", metavar="MODEL", choices=tuple(MODELS), help=", ".join(MODELS))
    for flag, text in (
        ("--input-size", "height and width of the input, pixels (default: the model's document's)"),
        ("--classes", "number of outputs (default: 10)"),
        ("--in-channels", "channels of the input (default: the model's document's)"),
    ):
        parser.add_argument(flag, metavar="N", type=positive, default=own, help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    sizes = dict(vars(parser.parse_args(argv)))
    name, as_json = sizes.pop("model"), sizes.pop("json")
    summary = summarise(get_model(name, **sizes))
    if as_json:
        print_json(summary.to_json())
    else:
        print(table(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
