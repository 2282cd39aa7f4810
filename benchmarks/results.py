"""What a run of the benchmarks leaves: one JSON file a group, a table, a picture."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gluon_cnn_parity import version_of
from benchmarks.cases import IMPORTED, INFERENCE, SIDES, TRAINING
from benchmarks.ratios import Middle, best, middle, ratio, reached, values
from gluon_cnn.models import get_model
from gluon_cnn.runtime import machine
from gluon_cnn.summary import summarise

ACCURACIES = (0.970, 0.990)
# Part of the benchmarks -> its name, our sides, and the others
PARTS = {
    "train": ("training", ("ours", "own_loop"), TRAINING),
    "infer": ("inference", ("auto", "ours"), INFERENCE),
}
# Part -> the table's ratios: our side and whom it is held against; the part's own where empty
RATIOS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "train": {
        "ours / best other": ("", ()),
        "own loop / eager": ("own_loop", ("eager",)),
        "own loop / best other": ("own_loop", ()),
    },
    "infer": {"ours / best other": ("", ())},
}


def describe(threads: int) -> dict[str, Any]:
    """The hardware, versions, threads and date that the figures belong to."""
    packages = ("mxnet", "torch", "numpy", "onnxruntime", "openvino")
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
        **{name: version_of(name) for name in packages},
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
    """Markdown: speeds with the best of each row, accuracy, peak, growth, memory."""
    parts = [_about(results), *(_speeds(results, part) for part in PARTS), _imports(results),
             _accuracy(results), _peak(results), _growth(results), _waiting(results),
             _memory(results), _failures(results)]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else ""


def _about(results: Mapping[str, Mapping[str, Any]]) -> str:
    about = {json.dumps(r["about"], sort_keys=True): r["about"] for r in results.values()}
    return "\n".join(
        f"{a['cpu']}, {a['threads']} threads, {a['memory_mb'] // 1024} GB, MXNet {a['mxnet']}, "
        f"torch {a['torch']}, ONNX Runtime {a.get('onnxruntime')}, OpenVINO {a.get('openvino')}, "
        f"numpy {a['numpy']}, Python {a['python']}, {a['date']}"
        for a in about.values()
    )


def compared(
    result: Mapping[str, Any], part: str, mine: str = "", others: Sequence[str] = ()
) -> tuple[str, str, Middle] | None:
    """Our side, the best other side, and the ratio of the two turn by turn; None where one was not
    measured as often as the other. Unset, they are the part's."""
    _, ours, every = PARTS[part]
    try:
        mine = mine or next(s for s in ours if values(result, s))
        other = best(result, others or every)
        return mine, other, ratio(values(result, mine), values(result, other))
    except (StopIteration, ValueError):
        return None


def _speeds(results: Mapping[str, Mapping[str, Any]], part: str) -> str:
    title, ours, others = PARTS[part]
    columns = (*ours, *others, "untuned")
    rows = []
    for name, result in results.items():
        if not name.startswith(f"{part} ") or not any(values(result, side) for side in ours):
            continue
        winner = best(result, columns)
        row = [name.removeprefix(f"{part} ")]
        for side in columns:
            speeds = values(result, side)
            if not speeds:
                row.append("failed" if side in result["failures"] else "–")
                continue
            m = middle(speeds)
            cell = f"{_short(m.median)} ({_short(m.least)}–{_short(m.most)}){_engine(result, side)}"
            row.append(f"**{cell}**" if side == winner else cell)
        row.append(SIDES[winner])
        for mine, against in RATIOS[part].values():
            found = compared(result, part, mine, against)
            told = "–"
            if found is not None:
                told = f"{found[2].median:.2f} ({found[2].least:.2f}–{found[2].most:.2f})"
            row.append(told)
        if part == "infer":
            row.append(_again(result))
        rows.append(row)
    heads = [*(SIDES[side] for side in columns), "best", *RATIOS[part]]
    if part == "infer":
        heads.append("auto's engine / itself")
    return _rows([f"{title}, images/s", *heads], rows)


def _again(result: Mapping[str, Any]) -> str:
    """How far two of the engine that `auto` took are apart, each as documented, in one process."""
    found = []
    for run in result["runs"].get("auto", ()):
        beside = run.get("beside", {})
        if "again" in beside:
            first = beside[run["engine"].partition(",")[0]]
            found.append(beside["again"]["images_per_second"] / first["images_per_second"])
    return _spread(found, len(found), ".3f") if found else "–"


def _engine(result: Mapping[str, Any], side: str) -> str:
    """Which engines `auto` took, and how it ran them."""
    names = sorted({run["engine"] for run in result["runs"].get(side, ()) if "engine" in run})
    return f" {'; '.join(names)}" if names else ""


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _imports(results: Mapping[str, Mapping[str, Any]]) -> str:
    """How long each import takes, and ours beside the others'."""
    result = results.get("import", {"runs": {}})
    seconds = {side: found for side in IMPORTED if (found := values(result, side, "seconds"))}
    mine = seconds.get("ours", [])
    rows = [
        [f"`{IMPORTED[side]}`", _spread(found, len(found), ".3f"),
         _spread([a / b for a, b in zip(mine, found, strict=False)], len(found), ".2f")]
        for side, found in seconds.items()
    ]  # fmt: skip
    return _rows(["importing", "seconds", "`gluon_cnn` beside it"], rows)


def _accuracy(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Each side's seconds to the accuracies, and those in one epoch of the source script."""
    runs_of = results.get("accuracy", {"runs": {}})["runs"]
    rows = []
    for side, runs in runs_of.items():
        ends = middle([run["curve"][-1][1] for run in runs])
        row = [SIDES[side] if side != "eager" else "PyTorch twin, same recipe",
               f"{ends.median:.4f} ({ends.least:.4f}–{ends.most:.4f})"]  # fmt: skip
        for accuracy in ACCURACIES:
            times = [reached(run["curve"], accuracy) for run in runs]
            row.append(_spread([t for t in times if t is not None], len(times), ".1f"))
        # In the same turn; the script's curve has a point an epoch
        shares = [
            seconds / source["curve"][0][0]
            for run, source in zip(runs, runs_of.get("source", ()), strict=False)
            if (seconds := reached(run["curve"], ACCURACIES[-1])) is not None
        ]
        rows.append([*row, _spread(shares, len(runs), ".2f")])
    heads = [f"seconds of training to {accuracy:.3f}" for accuracy in ACCURACIES]
    last = f"epochs of the source script to {ACCURACIES[-1]:.3f}"
    return _rows(["MNIST, test accuracy", "at the end", *heads, last], rows)


def _spread(found: Sequence[float], runs: int, form: str) -> str:
    """The median of what was reached, its spread, and in how many runs it was not."""
    if not found:
        return f"not in {runs} of {runs} runs"
    m = middle(found)
    text = f"{m.median:{form}} ({m.least:{form}}–{m.most:{form}})"
    return text if m.count == runs else f"{text}, not in {runs - m.count} of {runs} runs"


def flop_of_training(model: str) -> float:
    """Floating-point operations of a training step on one image: the products of forward and of
    both gradients, without the first layer's input gradient, which nobody needs."""
    products = _products(model)
    return 2.0 * (3 * sum(products) - products[0])


def flop_of_inference(model: str) -> float:
    """Floating-point operations of the products for one image."""
    return 2.0 * sum(_products(model))


@lru_cache
def _products(model: str) -> list[int]:
    """Multiply-adds of each layer that has some, for one image."""
    return [row.multiply_adds for row in summarise(get_model(model)).rows if row.multiply_adds]


def _peak(results: Mapping[str, Mapping[str, Any]]) -> str:
    if "peak" not in results or "train vgg16 8" not in results:
        return ""
    peak = max(f for side in ("numpy", "eager") for f in values(results["peak"], side, "flops"))
    lines = [f"numpy's and torch's float32 matrix products reach {peak / 1e9:.0f} GFLOP/s."]
    for side in ("ours", "eager", "channels_last"):
        found = values(results["train vgg16 8"], side)
        if found:
            rate = middle(found).median * flop_of_training("vgg16")
            lines.append(f"VGG16 training, {SIDES[side]}: {rate / 1e9:.0f} GFLOP/s, "
                         f"{rate / peak:.0%} of that.")  # fmt: skip
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


def _waiting(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, result in results.items():
        if name.startswith("waiting "):
            epochs = zip(*(run["waited"] for run in result["runs"].get("ours", ())), strict=True)
            cells = [_spread([100 * share for share in epoch], len(epoch), ".1f")
                     for epoch in epochs]  # fmt: skip
            rows.append([name.removeprefix("waiting "), *(cells or ("failed", "failed"))])
    heads = ["waiting for photographs, % of an epoch", "the first", "the second"]
    return _rows(heads, rows)


def _memory(results: Mapping[str, Mapping[str, Any]]) -> str:
    sides = (
        "ours",
        "own_loop",
        "auto",
        *dict.fromkeys((*TRAINING, *INFERENCE)),
        "untuned",
        "source",
    )
    rows = []
    for name, result in results.items():
        if name.startswith(("growth ", "import")):
            continue
        peaks = [values(result, side, "peak_mb") for side in sides]
        if any(peaks):
            rows.append([name, *(f"{middle(p).median:,.0f}" if p else "–" for p in peaks)])
    return _rows(["peak memory, MB", *(SIDES[side] for side in sides)], rows)


def _failures(results: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(
        f"Failed: {reason}" for r in results.values() for reason in r["failures"].values()
    )


MARKS = "svD^P*Xh<>"


def picture(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Training and inference, a panel each: how fast ours and the others are beside the best other.

    A row a model and batch, the best of ours on top; ours with the spread of its turns.
    """
    from matplotlib.figure import Figure

    panels = {
        part: sorted(
            ((name, found) for name, result in results.items()
             if name.startswith(f"{part} ") and (found := compared(result, part))),
            key=lambda row: -row[1][2].median,
        )
        for part in PARTS
    }  # fmt: skip
    heights = [max(1, len(rows)) for rows in panels.values()]
    figure = Figure(figsize=(9, 2.4 + 0.42 * sum(heights)), layout="constrained")
    drawn = dict(zip(panels, figure.subplots(2, 1, height_ratios=heights), strict=True))
    sides = list(dict.fromkeys((*TRAINING, *INFERENCE)))
    seen: dict[str, Any] = {}
    for part, axes in drawn.items():
        rows = panels[part]
        most = 1.0
        for row, (name, (_, other, m)) in enumerate(rows):
            base = middle(values(results[name], other)).median
            for mark, side in zip(MARKS, sides, strict=False):
                if side in PARTS[part][2] and (speeds := values(results[name], side)):
                    seen[SIDES[side]] = axes.plot(
                        middle(speeds).median / base, row, mark, color="0.6", markersize=6
                    )[0]
            spread = [[m.median - m.least], [m.most - m.median]]
            seen["gluon_cnn"] = axes.errorbar(
                m.median, row, xerr=spread, fmt="o", color="C0", markersize=9, capsize=3, zorder=3
            )
            axes.annotate(f"{m.median:.2f}", (m.median, row), (0, 8), color="C0", fontsize=9,
                          textcoords="offset points", ha="center",
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip
            most = max(most, m.most)
        axes.axvline(1, color="0.3", linewidth=1)
        axes.set_xlim(0, 1.06 * most)
        axes.set_ylim(max(0, len(rows) - 1) + 0.6, -0.8)
        axes.set_yticks(range(len(rows)), [name.removeprefix(f"{part} ") for name, _ in rows])
        axes.set_title(PARTS[part][0], loc="left")
        axes.grid(axis="y", color="0.92")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    drawn["infer"].set_xlabel(
        "speed, the best other program = 1 (bars: least and most of the turns)"
    )
    if seen:
        ours = {"gluon_cnn": seen.pop("gluon_cnn")}
        entries = {**ours, **seen}
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=4,
                      frameon=False, fontsize=9)  # fmt: skip
    figure.savefig(path, dpi=110)
