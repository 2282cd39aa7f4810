"""`report.html`: the certificate for people, one file without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #59616a; --line: #d5d9dd;
  --paper: #fff; --panel: #f4f6f8; --good: #18734a; --bad: #b92525; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a3acb5;
  --line: #3a4047; --paper: #15181b; --panel: #1e2226; --good: #5cc48d; --bad: #ff8078; } }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1080px; margin: 0 auto; padding: 14px 24px 60px; }
h1 { margin: 0 0 4px; font-size: 25px; overflow-wrap: anywhere; }
h2 { margin: 30px 0 8px; font-size: 19px; border-top: 1px solid var(--line); padding-top: 14px; }
p { margin: 4px 0; overflow-wrap: anywhere; }
.verdict { border-left: 4px solid var(--good); background: var(--panel); padding: 8px 14px; }
.verdict.bad { border-color: var(--bad); }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 16px 3px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.code { font: 12.5px/1.6 ui-monospace, monospace; overflow-wrap: anywhere; min-width: 9em; }
summary { cursor: pointer; margin: 6px 0; }
@media (max-width: 600px) { body { padding: 10px 14px 40px; } th, td { padding-right: 10px; } }
@media print { details { display: block; } }
"""


def page(report: Mapping[str, Any]) -> str:
    """A report as `report.json` holds it, but for the page itself."""
    name = escape(str(report["model"]))
    body = [
        f"<h1>{name}: MXNet to PyTorch</h1>",
        verdict(report),
        "<h2>Outputs</h2>",
        *outputs(report["outputs"]),
        "<h2>Operators</h2>",
        *operators(report["operators"], report["nodes"]),
        "<h2>Files that came</h2>",
        table(("file", "bytes", "sha256"), map(source_row, report["source"]), numbers=(1,)),
        "<h2>Files written</h2>",
        table(
            ("file", "bytes", "sha256", "compared with"),
            map(written_row, report["written"]),
            numbers=(1,),
        ),
        "<p class=soft>The sha256 of this page is in report.json; "
        "<code>mxnet-files verify</code> in this folder's parent hashes and runs the files "
        "again, without MXNet.</p>",
        "<h2>Weights</h2>",
        fold(
            f"{len(report['weights'])} tensors by their names in model.py and in MXNet",
            table(("model.py", "MXNet"), report["weights"].items(), code=(0, 1)),
        ),
        "<h2>Versions</h2>",
        table(("", "version"), versions(report["versions"])),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: MXNet to PyTorch</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def verdict(report: Mapping[str, Any]) -> str:
    """The answer first."""
    nodes = report["nodes"]
    against = escape(str(report["verified_against"]))
    if report["verified"] and report.get("recorded"):
        told = (
            "<b>Every operator computes what MXNet computed for it.</b> Compared with "
            f"{against}: it is not installed where this was written."
        )
    elif report["verified"]:
        told = f"<b>Equal to {against} within rounding.</b>"
        if nodes:
            told += f" {len(nodes)} nodes compared one by one, each within its bound."
    else:
        told = f"<b>Not verified.</b> Compared with {against}."
    told += "".join(
        f" {escape(row['name'])} is compared with {escape(row['verified_against'])}."
        for row in report["written"]
        if row.get("verified_against", report["verified_against"]) != report["verified_against"]
    )
    told += "".join(f" Note: {escape(said)}." for said in report["remarks"])
    given = ", ".join(
        f"{escape(row['name'])} {shape(row['shape'])} {escape(row['dtype'])} "
        f"({escape(row['values'])})"
        for row in report["inputs"]
    )
    onnx = f"ONNX opset {report['opset']}."
    if report["no_onnx"]:
        onnx = f"No ONNX file: {escape(report['no_onnx'])}."
    heads = ", ".join(report.get("heads") or ())
    part = f"Outputs: {escape(heads)}, not the file's own. " if heads else ""
    kind = "verdict" if report["verified"] else "verdict bad"
    return (
        f'<div class="{kind}"><p>{told}</p><p>{part}Inputs: {given}; the batch size is '
        f"{escape(report['batch'])}. {report['parameters']:,} parameters. {onnx}</p>"
        f"<p class=soft>{escape(report['created'])}</p></div>"
    )


def outputs(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """How far each file's outputs are from float64."""
    files = list(dict.fromkeys(name for row in rows for name in row["errors"]))
    yield (
        "<p class=soft>Largest distance from the float64 outputs, as a part of the largest one. "
        "The bound is 64 times the distance of the reference's own float32.</p>"
    )
    head = ("output", "reference's float32", *files, "bound")
    made = (
        (
            f"{place}: {shape(row['shape'])}",
            f"{row['reference_float32_error']:.1e}",
            *(f"{row['errors'][name]:.1e}" for name in files),
            f"{row['bound']:.1e}",
        )
        for place, row in enumerate(rows)
    )
    yield table(head, made, numbers=range(1, len(head)))


def operators(
    rows: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    """Kinds of nodes with the worst of each, then every node."""
    if not rows:
        yield "<p>No node was compared with MXNet.</p>"
        return
    yield (
        "<p class=soft>Each node is given what MXNet computed for its inputs. Errors and bounds "
        "are in units of u·s: u is the unit roundoff, s the size of what was summed. "
        "A bound of 0: nothing is rounded, the results are equal bit for bit.</p>"
    )
    made = [
        (row["name"], row["nodes"], *units(row["worst_units"], row["bound"]), row["worst_node"])
        for row in rows
    ]
    head = ("operator", "nodes", "worst", "bound", "at")
    yield table(head, made, numbers=(1, 2, 3), code=(4,))
    every = [(row["name"], row["operator"], *units(row["units"], row["bound"])) for row in nodes]
    titles = ("node", "operator", "error", "bound")
    yield fold(f"All {len(nodes)} nodes", table(titles, every, numbers=(2, 3), code=(0,)))


def units(error: float, limit: float) -> tuple[str, str]:
    """An error and its bound in units of u·s."""
    return f"{error:.1f}", f"{limit:g}"


def source_row(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["name"], f"{row['bytes']:,}", row["sha256"]


def written_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return *source_row(row), row.get("verified_against", "")


def versions(found: Mapping[str, str | None]) -> Iterable[tuple[str, str]]:
    return ((name, version or "not installed") for name, version in found.items())


def shape(sizes: Sequence[int]) -> str:
    """2×3×224×224."""
    return "×".join(map(str, sizes)) or "scalar"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numbers: Iterable[int] = (),
    code: Iterable[int] = (),
) -> str:
    """A table; `numbers` are set to the right, `code` in a fixed width. Everything is escaped."""
    kinds = {**dict.fromkeys(numbers, " class=n"), **dict.fromkeys(code, " class=code")}
    titles = "".join(f"<th{kinds.get(i, '')}>{escape(text)}" for i, text in enumerate(head))
    lines = (
        "<tr>" + "".join(f"<td{kinds.get(i, '')}>{escape(str(x))}" for i, x in enumerate(row))
        for row in rows
    )  # fmt: skip
    return (
        f"<div class=wide><table><thead><tr>{titles}<tbody>" + "\n".join(lines) + "</table></div>"
    )


def fold(summary: str, content: str) -> str:
    """Shown when asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"
