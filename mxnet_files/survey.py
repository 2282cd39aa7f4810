"""`mxnet-files report FOLDER`: which models of a folder open, and what the others lack."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gluon_cnn_parity.cli import Parser, one_line, run_by, run_command
from mxnet_files.build import plan
from mxnet_files.errors import SymbolError, UsageError
from mxnet_files.load import load_symbol
from mxnet_files.reading.reader import read_symbol
from mxnet_files.registry import OPERATORS


@dataclass(frozen=True)
class Model:
    """One symbol file of a folder.

    lacking: nodes of each operator that is not supported; problem: why it does not open, empty if
    it does; parameters: numbers that it holds, of which the file has `bytes`.
    """

    symbol: str
    params: str | None
    nodes: int = 0
    operators: int = 0
    parameters: int = 0
    bytes: int = 0
    lacking: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def effort(self) -> str:
        """What is to be done before it can leave MXNet."""
        if self.lacking:
            return f"{len(self.lacking)} operators to write"
        if self.problem:
            return "to be looked at"
        return "convert" if self.params else "find its parameters"


def survey(folder: Path) -> list[Model]:
    """Every `*-symbol.json` below a folder, opened with the newest parameters beside it.

    Nothing is run, and one model at a time is in memory. Raises `UsageError` where there is none.
    """
    symbols = sorted(path for path in folder.rglob("*-symbol.json") if not path.is_dir())
    if not symbols:
        raise UsageError(f"{folder} holds no *-symbol.json, expected a folder of exported models")
    return [look(folder, symbol) for symbol in symbols]


def look(folder: Path, symbol: Path) -> Model:
    """Open one model."""
    stem = symbol.name.removesuffix("-symbol.json")
    beside = sorted(
        path
        for path in symbol.parent.glob("*.params")
        if path.name == f"{stem}.params" or path.name.rpartition("-")[0] == stem
    )
    params = beside[-1] if beside else None
    named: dict[str, Any] = {
        "symbol": str(symbol.relative_to(folder)),
        "params": None if params is None else str(params.relative_to(folder)),
        "bytes": params.stat().st_size if params is not None and params.is_file() else 0,
    }
    try:
        graph = read_symbol(symbol)
        kinds = Counter(node.op for node in graph.operations())
        named |= {"nodes": kinds.total(), "operators": len(kinds)}
        lacking = {name: count for name, count in kinds.items() if name not in OPERATORS}
        if lacking:
            return Model(**named, lacking=lacking, problem="operators that are not supported")
        if params is None:
            plan(graph)  # attributes that cannot be read, in subgraphs too
            return Model(**named)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arrays that the graph does not use
            module = load_symbol(symbol, params)
    except (SymbolError, OSError) as error:
        return Model(**named, problem=str(error))
    return Model(**named, parameters=sum(value.numel() for value in module.parameters()))


@run_by(run_command, prog="mxnet-files report", errors=(SymbolError,))
def main(argv: Sequence[str] | None = None) -> int:
    """0 where every model opens, 1 where one does not, 2 on bad usage."""
    parser = Parser(
        prog="mxnet-files report",
        description="Say which models of a folder open in PyTorch, and what the others lack.",
    )
    parser.add_argument("folder", type=Path, help="searched for *-symbol.json, folders below too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if not options.folder.is_dir():
        raise UsageError(f"{options.folder} is no folder")
    models = survey(options.folder)
    closed = [model for model in models if model.problem]
    if options.json:
        rows = [{**asdict(model), "effort": model.effort} for model in models]
        print(json.dumps({"models": rows, "open": len(models) - len(closed)}))
        return 1 if closed else 0
    print("| model | nodes | parameters | MB | opens | effort |\n|---|---|---|---|---|---|")
    for model in models:
        opens = "no" if model.problem else "yes"
        size = f"{model.bytes / 1e6:.1f}"
        row = (model.symbol, model.nodes, f"{model.parameters:,}", size, opens, model.effort)
        print(one_line("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"))
    print(f"{len(models) - len(closed)} of {len(models)} models open")
    where: dict[str, list[str]] = {}
    for model in models:
        for name in model.lacking:
            where.setdefault(name, []).append(model.symbol)
    for name, symbols in sorted(where.items(), key=lambda item: -len(item[1])):
        print(one_line(f"lacks {name}: {', '.join(symbols)}"))
    for model in closed:
        if not model.lacking:
            print(one_line(f"{model.symbol}: {model.problem}"))
    return 1 if closed else 0
