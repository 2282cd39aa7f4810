"""A user's net by `package.module:factory`, as command lines and configuration files name it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import place_of, reason_of

__all__ = ["load_net"]


def load_net(spec: str, option: str, root: Path) -> Any:
    """What the factory or class gives, called without arguments; where it is a net, that net.

    Modules are found from `root` too. Raises ParityError, which names the `option`, for a factory
    that cannot be found or raises, with the line that did.
    """
    module, colon, factory = spec.partition(":")
    if not (module and colon and factory):
        raise ParityError(f"{option} is {spec!r}, expected package.module:factory")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        loaded = getattr(importlib.import_module(module), factory)
        is_net = hasattr(loaded, "forward") and not isinstance(loaded, type)
        return loaded() if callable(loaded) and not is_net else loaded
    except Exception as error:  # a user's module and factory may raise anything
        reason = f"{reason_of(error)}{place_of(error)}"
        raise ParityError(f"{option} {spec} gives no net: {reason}") from error
