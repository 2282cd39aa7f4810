"""A user's net by `package.module:factory`, as command lines and configuration files name it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from parity_tests.backends.leaves import ParityError

__all__ = ["load_net"]


def load_net(spec: str, option: str, root: Path) -> Any:
    """What the factory gives, called without arguments; where the name is a net's, that net.

    Modules are found from `root` too. Raises ParityError, which names the `option`, for a factory
    that cannot be found.
    """
    module, colon, factory = spec.partition(":")
    if not (module and colon and factory):
        raise ParityError(f"{option} is {spec!r}, expected package.module:factory")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        loaded = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise ParityError(f"{option} {spec}: {error}") from error
    return loaded() if callable(loaded) and not hasattr(loaded, "forward") else loaded
