"""What decides the bits of a run beside its configuration: package versions and threads."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["difference", "versions"]


def versions(packages: Iterable[str], threads: int) -> dict[str, Any]:
    """The versions of Python and the packages (None where one is absent), and the thread count."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "threads": threads,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def difference(saved: object, now: Mapping[str, Any]) -> str | None:
    """One line on what a checkpoint was written with that is not here now; None if nothing.

    >>> difference({"mxnet": "1.8.0", "threads": 2}, {"mxnet": "1.9.1", "threads": 2})
    'written with mxnet 1.8.0, this is mxnet 1.9.1: the bits may differ from an unstopped run'
    """
    before = saved if isinstance(saved, Mapping) else {}
    differing = [name for name in now if before.get(name) != now[name]]
    if not differing:
        return None
    was = ", ".join(f"{name} {before.get(name, 'unknown')}" for name in differing)
    here = ", ".join(f"{name} {now[name]}" for name in differing)
    return f"written with {was}, this is {here}: the bits may differ from an unstopped run"
