"""What a run of the benchmarks leaves: one JSON file a group, a table, a picture."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import SIDES
from benchmarks.ratios import BARS, better, middle, ratio, reached, values
from gluon_cnn.models import get_model
from gluon_cnn.runtime import machine
from gluon_cnn.summary import summarise

__all__ = ["describe", "file_name", "picture", "read", "table", "write"]

ACCURACIES = (0.970, 0.990)
COLUMNS = ("untuned", "ours", "eager", "fused_adam", "channels_last", "compiled")


def describe(threads: int) -> dict[str, Any]:
    """The hardware, versions, threads and date that the figures belong to."""
    packages = ("mxnet", "torch", "numpy")
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) // 1024
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": machine.cpu_model(),
        "cores": machine.cores(),
        "threads": threads,
        "memory_mb": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
        "compiler": compiler.stdout.partition("\n")[0],
        **{name: importlib.metadata.version(name) for name in packages},
    }


def file_name(group: str) -> str:
    return group.replace(" ", "-") + ".json"


def write(folder: Path, result: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": about, **result}, indent=1, allow_nan=False)
    (folder / file_name(result["group"])).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Every group that the folder holds, by name."""
    found = (json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json")))
    return {result["group"]: result for result in found}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: speeds with their ratios, bars, accuracy, peak, growth, memory."""
    parts = [_about(results), _speeds(results), _bars(results), _accuracy(results),
             _peak(results), _growth(results), _memory(results), _failures(results)]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else ""


def _about(results: Mapping[str, Mapping[str, Any]]) -> str:
    about = {json.dumps(r["about"], sort_keys=True): r["about"] for r in results.values()}
    return "\n".join(
        f"{a['cpu']}, {a['threads']} threads, {a['memory_mb'] // 1024} GB, MXNet {a['mxnet']}, "
        f"torch {a['torch']}, numpy {a['numpy']}, Python {a['python']}, {a['date']}"
        for a in about.values()
    )


def _speeds(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, result in results.items():
        if not name.startswith(("train ", "infer ")) or not values(result, "ours"):
            continue
        row = [name]
        for side in COLUMNS:
            found = values(result, side)
            if not found:
                row.append("failed" if side in result["failures"] else "–")
                continue
            m = middle(found)
            row.append(f"{_short(m.median)} ({_short(m.least)}–{_short(m.most)})")
        rows.append(row)
    heads = [f"{SIDES[side]}, images/s" for side in COLUMNS]
    return _rows(["model, batch", *heads], rows)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def bars(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, float, Any]]:
    """(group, against, bar, ratio with its spread) of every bar whose sides were measured."""
    found = []
    for bar in BARS:
        result = results.get(bar.group)
        if result is None or not values(result, "ours"):
            continue
        try:
            other = better(result) if bar.other == "best" else bar.other
            measured = ratio(values(result, "ours"), values(result, other))
        except ValueError:
            continue
        label = f"the better layout ({SIDES[other]})" if bar.other == "best" else SIDES[other]
        found.append((bar.group, label, bar.least, measured))
    return found


def _bars(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [group, label, f"{m.median:.2f} ({m.least:.2f}–{m.most:.2f})", f"{least:g}",
         "yes" if m.median >= least else "no"]
        for group, label, least, m in bars(results)
    ]  # fmt: skip
    return _rows(["ours against", "", "median ratio (least–most)", "wanted", "reached"], rows)


def _accuracy(results: Mapping[str, Mapping[str, Any]]) -> str:
    result = results.get("accuracy")
    rows = []
    for side, runs in (result or {"runs": {}})["runs"].items():
        row = [SIDES[side] if side != "eager" else "PyTorch twin, same recipe"]
        for accuracy in ACCURACIES:
            times = [reached(run["curve"], accuracy) for run in runs]
            good = [t for t in times if t is not None]
            if len(good) < len(times) or not good:
                row.append(f"not in {len(times) - len(good)} of {len(times)} runs")
            else:
                m = middle(good)
                row.append(f"{m.median:.1f} ({m.least:.1f}–{m.most:.1f})")
        rows.append(row)
    heads = [f"seconds of training to {accuracy:.3f}" for accuracy in ACCURACIES]
    return _rows(["MNIST, test accuracy", *heads], rows)


def flop_of_training(model: str) -> float:
    """Floating-point operations of a training step on one image: the products of forward and of
    both gradients, without the first layer's input gradient, which nobody needs."""
    rows = summarise(get_model(model)).rows
    products = [row.multiply_adds for row in rows]
    first = next(p for p in products if p)
    return 2.0 * (3 * sum(products) - first)


def _peak(results: Mapping[str, Mapping[str, Any]]) -> str:
    if "peak" not in results or "train vgg16 8" not in results:
        return ""
    peak = max(f for side in ("numpy", "eager") for f in values(results["peak"], side, "flops"))
    lines = [f"Peak of a float32 matrix product: {peak / 1e9:.0f} GFLOP/s (the best of numpy's and "
             "torch's)."]  # fmt: skip
    for side in ("ours", "eager", "channels_last"):
        found = values(results["train vgg16 8"], side)
        if found:
            rate = middle(found).median * flop_of_training("vgg16")
            lines.append(f"VGG16 training, {SIDES[side]}: {rate / 1e9:.0f} GFLOP/s, "
                         f"{rate / peak:.0%} of it.")  # fmt: skip
    return "\n".join(lines)


def _growth(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, result in results.items():
        if not name.startswith("growth "):
            continue
        cells = []
        for side in ("ours", "eager"):
            found = values(result, side)
            cells.append(_short(middle(found).median) if found else "–")
        memory = values(result, "ours", "peak_mb")
        cells.append(f"{max(memory):.0f}" if memory else "–")
        rows.append((_order(name), [name.removeprefix("growth "), *cells]))
    heads = ["LeNet training, growing", "gluon_cnn, images/s", "PyTorch eager, images/s",
             "peak MB of ours"]  # fmt: skip
    return _rows(heads, [row for _, row in sorted(rows)])


def _order(name: str) -> tuple:
    return tuple(int(w) if w.isdigit() else w for w in reversed(name.split()))


def _memory(results: Mapping[str, Mapping[str, Any]]) -> str:
    sides = (*COLUMNS, "source")
    rows = []
    for name, result in results.items():
        if name.startswith("growth "):
            continue
        peaks = [values(result, side, "peak_mb") for side in sides]
        if any(peaks):
            rows.append([name, *(f"{middle(p).median:,.0f}" if p else "–" for p in peaks)])
    return _rows(["peak memory, MB", *(SIDES[side] for side in sides)], rows)


def _failures(results: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(
        f"Failed: {reason}" for r in results.values() for reason in r["failures"].values()
    )


def picture(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Images a second of each side as a fraction of PyTorch eager's, with the spread of turns."""
    from matplotlib.figure import Figure

    groups = [n for n in results if n.startswith(("train ", "infer ")) and
              values(results[n], "eager")]  # fmt: skip
    figure = Figure(figsize=(10, 1.2 + 0.55 * len(groups)), layout="constrained")
    axes = figure.subplots()
    sides = [side for side in COLUMNS if side != "eager"]
    for index, side in enumerate(sides):
        for row, name in enumerate(groups):
            found, base = values(results[name], side), values(results[name], "eager")
            if len(found) != len(base):
                continue
            m = ratio(found, base)
            spread = [[m.median - m.least], [m.most - m.median]]
            axes.barh(row + 0.17 * (index - 2), m.median, 0.15, xerr=spread, color=f"C{index}",
                      ecolor="0.4", label=SIDES[side] if row == 0 else None)  # fmt: skip
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set_xlabel("speed against PyTorch eager = 1")
    if groups:
        axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
