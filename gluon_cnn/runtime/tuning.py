"""Which settings are worth measuring on a machine, and the file that keeps the best of them.

Nothing here imports MXNet: `gluon_cnn.runtime` reads the file before MXNet loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gluon_cnn_parity.atomic import write_text

FORMAT = "gluon_cnn runtime 1"

NAMES = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "MXNET_ENGINE_TYPE")

_VALUES = {
    "OMP_NUM_THREADS": r"[1-9]\d{0,4}",
    "GOMP_SPINCOUNT": r"\d{1,12}",
    "GOMP_CPU_AFFINITY": r"\d{1,5}(-\d{1,5})?( \d{1,5}(-\d{1,5})?)*",
    "MXNET_ENGINE_TYPE": r"NaiveEngine|ThreadedEngine|ThreadedEnginePerDevice",
}

Settings = Mapping[str, str | None]  # None: to be left unset


@dataclass(frozen=True)
class Stored:
    """The best settings for a machine, the model they were measured with, and when."""

    settings: dict[str, str | None]
    model: str
    date: str  # YYYY-MM-DD
    images_per_second: float


def candidates(threads: int, cpus: str) -> list[dict[str, str | None]]:
    """What `--tune` measures, the default first; `cpus` as GOMP_CPU_AFFINITY lists them."""

    def one(count: int, spins: str, pinned: bool, engine: str = "NaiveEngine") -> dict:
        values = (str(count), spins, cpus if pinned and count > 1 else None, engine)
        return dict(zip(NAMES, values, strict=True))

    choices = [one(threads, "10000", True)]
    if threads > 1:
        choices += [
            one(threads, "300000", True),
            one(threads, "10000", False),
            one(threads, "300000", False),
            one(threads, "0", False),
        ]
    if threads > 3:  # two hardware threads a core share its arithmetic
        choices += [one(threads // 2, "10000", False), one(threads // 2, "300000", False)]
    choices += [one(1, "0", False)] if threads > 1 else []
    choices += [one(max(1, threads // 2), "300000", False, "ThreadedEnginePerDevice")]
    return choices


def parse(settings: object) -> dict[str, str | None]:
    """Settings that are exactly what `candidates` could have made. Raises: ValueError."""
    if not isinstance(settings, dict) or set(settings) != set(NAMES):
        raise ValueError(f"expected the settings {', '.join(NAMES)}")
    for name, value in settings.items():
        if value is not None and not (
            isinstance(value, str) and re.fullmatch(_VALUES[name], value)
        ):
            raise ValueError(f"{name} is {value!r}")
    if settings["OMP_NUM_THREADS"] is None:
        raise ValueError("OMP_NUM_THREADS is missing")
    return dict(settings)


def load(path: Path) -> Stored | None:
    """What the file keeps; None where there is none.

    Raises: ValueError, one line naming the file, for one that cannot be read or that `store` did
    not write.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("not written by --tune")
        model, date, speed = values["model"], values["date"], values["images_per_second"]
        if not (isinstance(model, str) and re.fullmatch(r"\w{1,40}", model)):
            raise ValueError("its model has no name")
        if not (isinstance(date, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", date)):
            raise ValueError("it has no date")
        if type(speed) not in (int, float):
            raise ValueError("it has no speed")
        return Stored(parse(values["settings"]), model, date, float(speed))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ValueError(
            f"{path}: {reason}; python -m gluon_cnn.runtime --tune MODEL writes it again"
        ) from error


def store(path: Path, stored: Stored, measured: Sequence[Mapping[str, Any]]) -> None:
    """Write the file, whole or not at all; `measured` is kept in it for people. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **vars(stored), "measured": list(measured)}, indent=2)
    write_text(path, text + "\n")
