"""The first divergence as a folder that runs alone: arrays, and a script for each framework."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gluon_cnn_parity.atomic import replacing_folder
from parity_tests.backends.base import backend
from parity_tests.backends.leaves import Leaf, ParityError
from parity_tests.backends.runs import is_float, rounded
from parity_tests.backends.tracing import written_lines
from parity_tests.levels.local import local_calls
from parity_tests.levels.referee import Subject, attempt
from parity_tests.pairing.align import Pair
from parity_tests.pairing.graph import OperationGraph, Origin, Value
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

_MAIN = """\
here = os.path.dirname(os.path.abspath(__file__))
arrays = np.load(os.path.join(here, "arrays.npz"))
dtype = {dtype}
x = [array(name) for name in {inputs}]
p = {{name: array("{side} " + name) for name in {parameters}}}
"""
_RUN = {
    Side.GLUON: """\
for value in {differentiated}:
    value.attach_grad()
with mx.autograd.record(train_mode={train}):
    {body}
""",
    Side.TORCH: """\
for value in {differentiated}:
    value.requires_grad_()
{body}
""",
}
_BACKWARD = {
    Side.GLUON: "mx.autograd.backward(outputs, [{upstream}], train_mode={train})\n",
    Side.TORCH: "torch.autograd.backward(outputs, [{upstream}])\n",
}
_END = """\
value = {value}.{numpy}
np.save(os.path.join(here, "{side}.npy"), value)
print("{side}: {quantity} at", {position}, "=", repr(value[{position}]), "of shape", value.shape)
"""
_NUMPY = {Side.GLUON: "asnumpy()", Side.TORCH: "detach().numpy()"}


def write_repro(folder: Path, report: Report, subject: Subject) -> None:
    """Write the folder, whole or not at all.

    Raises:
        ParityError: nothing diverged at an operation that can be run alone, or it cannot be written
            as a script.
    """
    row, pair = _shown(report, subject)
    backward = row.level == Level.BACKWARD
    train = backward or row.mode == Mode.TRAIN
    referee = subject.run(Side.TORCH, "float64", train=train, backward=backward)
    call = local_calls(subject, pair, referee, train=train, backward=backward)[0]
    # in both dtypes a comparison starts from what float32 holds
    arrays = {f"input {i + 1}": rounded(x, "float32") for i, x in enumerate(call.inputs)}
    arrays |= {f"upstream {i + 1}": g for i, g in enumerate(call.upstream or ())}
    first = str(report.first_divergence)
    scripts = {}
    for leaf in pair:
        graph = attempt(leaf.side, backend(leaf.side).trace, leaf.block, call.inputs, train=train)
        own = _parameters(leaf, graph)
        arrays |= {f"{leaf.side} {name}": value for name, value in own.items()}
        scripts[leaf.side] = _script(leaf, graph, call.inputs, row, first, train)
    told = {"first": first, "shown": row.message, "side": row.side, "quantity": row.quantity,
            "dtype": row.dtype, "position": row.position, "values": row.values}  # fmt: skip
    with replacing_folder(folder, folder.with_name(f".{folder.name}.before")) as new:
        np.savez(new / "arrays.npz", **arrays)
        for side, text in scripts.items():
            (new / f"{side}_side.py").write_text(text, encoding="utf-8")
        text = json.dumps(told, indent=2, default=str) + "\n"
        (new / "divergence.json").write_text(text, encoding="utf-8")


def _shown(report: Report, subject: Subject) -> tuple[Row, Pair]:
    """The row whose values are shown: of the first divergence's operation, or of the first one."""
    if subject.recorded is not None:
        raise ParityError("a record cannot be run alone")
    pairs = {pair.path: pair for pair in subject.pairing.pairs}
    rows = [
        row
        for row in report.failures
        if row.status == Status.DIVERGED and row.check == Check.LOCAL and row.path in pairs
    ]
    if not rows:
        raise ParityError("no operation differs alone")
    first = report.first_divergence
    here = [row for row in rows if first is not None and row.path == first.path]
    row = (here or rows)[0]
    return row, pairs[row.path]


def _parameters(leaf: Leaf, graph: OperationGraph) -> dict[str, np.ndarray]:
    """What the operation reads of its net, by the names of a trace of it alone."""
    read = {str(v.key) for op in graph for v in op.reads if v.origin is Origin.PARAMETER}
    values: dict[str, np.ndarray] = {}
    for role, tensor in leaf.tensors.items():  # a segment has roles, a leaf its own names
        values[role] = values[tensor.name.rpartition(".")[2]] = tensor.read()
    missing = sorted(read - set(values)) + list(graph.constants)
    if missing:
        raise ParityError(f"{leaf} reads {missing[0]}, which a script of its own does not have")
    return {name: values[name] for name in sorted(read)}


def _script(
    leaf: Leaf,
    graph: OperationGraph,
    inputs: Sequence[np.ndarray],
    row: Row,
    first: str,
    train: bool,
) -> str:
    side = leaf.side
    module: Any = importlib.import_module(f"parity_tests.backends.{side}.tracing.code")
    own = list(_parameters(leaf, graph))
    names = {Value(Origin.INPUT, i): f"x[{i}]" for i in range(len(inputs))}
    names |= {Value(Origin.PARAMETER, name): f"p[{name!r}]" for name in own}
    roles = {tensor.name.rpartition(".")[2]: role for role, tensor in leaf.tensors.items()}
    trainable = [name for name in own if leaf.tensors[roles.get(name, name)].trainable]
    backward = row.level == Level.BACKWARD
    different = [f"x[{i}]" for i, x in enumerate(inputs) if is_float(x)]
    different += [f"p[{name!r}]" for name in trainable]
    between = "\n    " if side == Side.GLUON else "\n"
    values = {
        "side": side,
        "dtype": f"torch.{row.dtype}" if side == Side.TORCH else repr(row.dtype),
        "inputs": [f"input {i + 1}" for i in range(len(inputs))],
        "parameters": own,
        "differentiated": f"[{', '.join(different)}]",
        "train": train,
        "body": between.join(written_lines(graph, names, module.call)),
        "upstream": ", ".join(f'array("upstream {i + 1}")' for i in range(len(graph.outputs))),
        "quantity": row.quantity,
        "value": _expression(row.quantity, {roles.get(name, name): name for name in own}),
        "numpy": _NUMPY[side],
        "position": row.position or (),
    }
    parts = (_MAIN, _RUN[side], _BACKWARD[side] if backward else "", _END)
    quoted = " ".join(first.replace("\\", "/").replace('"', "'").split())
    return f'"""{quoted}"""\n\n{module.HEAD}' + "".join(part.format(**values) for part in parts)


def _expression(quantity: str, names: Mapping[str, str]) -> str:
    """Where a script has a quantity: "output 2", "input gradient", "weight gradient", a buffer."""
    what, _, rest = quantity.partition(" ")
    number = int(rest.split()[0]) - 1 if rest[:1].isdigit() else 0
    if what == "output":
        return f"outputs[{number}]"
    if what == "input":
        return f"x[{number}].grad"
    role = quantity.removesuffix(" gradient")
    if role not in names:
        raise ParityError(f"the operation alone has no {quantity}")
    return f"p[{names[role]!r}]" + (".grad" if role != quantity else "")
