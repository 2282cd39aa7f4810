"""MXNet beside an import in a process of its own, so that a crash of MXNet is a sentence.

MXNet 1.9.1 ends the process for some graphs (SIGSEGV, SIGFPE, abort). What it died in is found by
trying again with fewer nodes; what does not depend on that is compared.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gluon_cnn_parity.child import Tell, follow
from gluon_cnn_parity.native import how_it_ended
from mxnet_files.budget import Budget, in_float32
from mxnet_files.checking.check import CheckReport, Crashes, Subject, compare_with_mxnet
from mxnet_files.checking.oracle import import_mxnet
from mxnet_files.errors import NotComparable, SymbolError
from mxnet_files.load import load_symbol
from mxnet_files.reading.params_file import read_params, strip_prefixes
from mxnet_files.reading.reader import read_graph
from mxnet_files.running import of_precision, refusals

MOST = 8  # stages that may crash before the graph counts as beyond help


def check_files(
    symbol: str | os.PathLike[str],
    params: str | os.PathLike[str],
    inputs: Mapping[str, np.ndarray],
    *,
    budget: Budget | None = None,
    heads: Sequence[str] | None = None,
) -> CheckReport:
    """Import the files and compare with MXNet on inputs by MXNet's names."""
    module = load_symbol(symbol, params, heads=heads)
    arrays = strip_prefixes(read_params(params))[0]
    given = of_precision(list(inputs.values()), "float32")
    in_float32(module, [torch.from_numpy(x) for x in given], budget)
    text = symbol_text(symbol, heads)
    return compare_apart(Subject(module, text, arrays, inputs, budget))


def symbol_text(path: str | os.PathLike[str], heads: Sequence[str] | None = None) -> str:
    """A symbol file, with other outputs where `heads` names them."""
    text = Path(path).read_text("utf-8")
    if heads is None:
        return text
    document = json.loads(text)
    chosen = read_graph(document).with_heads(heads).heads
    return json.dumps(
        {**document, "heads": [[head.node, head.index, 0] for head in chosen]}, ensure_ascii=False
    )


def compare_apart(subject: Subject) -> CheckReport:
    """`compare_with_mxnet` in a child; its report says what MXNet died in."""
    asked = ", ".join(f"{name} {tuple(x.shape)}" for name, x in subject.inputs.items())

    def compare(tell: Tell) -> CheckReport:
        """In the child, where MXNet is imported: its exceptions do not leave it."""
        mxnet = import_mxnet()
        try:
            with refusals(f"the graph cannot be compared on {asked}", mxnet.MXNetError):
                return compare_with_mxnet(subject, replace(crashes, tell=tell))
        except mxnet.MXNetError as error:
            reason = str(error).strip().splitlines()[-1]
            raise NotComparable(
                f"MXNet cannot run the graph on {asked} (give the shapes it takes with --input): "
                f"{reason}"
            ) from None

    crashes = Crashes()
    for _ in range(MOST):
        stage, ended, answer = _child(compare)
        if answer is not None:
            report: CheckReport = answer
            return report
        how = how_it_ended(ended)
        if not stage or ended == -signal.SIGKILL:
            raise SymbolError(f"the comparison with MXNet {how}")
        crashes = replace(crashes, stages={**crashes.stages, stage: how})
        if stage == "float32 nodes":
            crashes = _spared(subject, crashes)
    raise SymbolError(f"MXNet crashes on this graph: it {how}, at last in {stage}")


def _child(work: Callable[[Tell], Any]) -> tuple[str, int, Any]:
    """The stage of MXNet that a child was in when it ended, its status, and what it gave."""
    told: dict[str, Any] = {}
    ended = follow(work, told.__setitem__)
    if "raised" in told:
        raise told["raised"]
    return told.get("stage", ""), ended, told.get("gave")


def _spared(subject: Subject, seen: Crashes) -> Crashes:
    """The crashes, with the node that MXNet dies in and those that depend on it left out."""
    nodes = subject.graph.nodes
    order = [
        number
        for number, node in enumerate(nodes)
        if node.op != "null" and number not in seen.left_out
    ]

    def dies(count: int) -> bool:
        left_out = set(range(len(nodes))) - set(order[:count])
        oracle = partial(subject.oracle, "float32", internals=True, left_out=left_out)
        return not _child(lambda tell: _ran(oracle().by_node()))[2]

    low, high = 0, len(order)  # so many do not crash, so many do
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if dies(middle) else (middle, high)
    culprit = nodes[order[high - 1]]
    lost = {*seen.left_out, order[high - 1]}
    for number in order:
        of_its_kind = nodes[number].op == culprit.op  # would crash, too
        if of_its_kind or any(entry.node in lost for entry in nodes[number].inputs):
            lost.add(number)
    stages = dict(seen.stages)
    how = stages.pop("float32 nodes")
    names = [*seen.nodes, f"{culprit.op} {culprit.name}"]
    return replace(seen, stages=stages, nodes=names, left_out=lost, how=how)


def _ran(_: object) -> bool:
    """Came to its end; the arrays stay in the child."""
    return True
