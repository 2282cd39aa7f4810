"""A user's net by `package.module:factory`, as command lines and configuration files name it."""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any


class FactoryError(ValueError):
    """No net came of it; says why in one line."""


def load_net(spec: str, option: str, root: Path) -> Any:
    """What the factory or class gives, called without arguments; where it is a net, that net.

    Modules are found from `root` too. Raises FactoryError, which names the `option`, for a factory
    that cannot be found or raises, with the line that did.
    """
    try:
        return net_of(load_attribute(spec, option, root))
    except FactoryError:
        raise
    except Exception as error:  # a user's module and factory may raise anything
        reason = f"{reason_of(error)}{place_of(error)}"
        raise FactoryError(f"{option} {spec} gives no net: {reason}") from error


def load_attribute(spec: str, option: str, root: Path) -> Any:
    """What `package.module:attribute` names; modules are found from `root` too.

    Raises FactoryError, which names the `option`, for another form, and what the module raises.
    """
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise FactoryError(f"{option} is {spec!r}, expected package.module:factory")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return getattr(importlib.import_module(module), attribute)


def net_of(loaded: Any, *arguments: Any, **named: Any) -> Any:
    """What a factory or class gives for these arguments; a net is itself."""
    is_net = hasattr(loaded, "forward") and not isinstance(loaded, type)
    return loaded(*arguments, **named) if callable(loaded) and not is_net else loaded


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line; MXNet's long ones end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = bool(lines) and lines[0].startswith("Traceback")
    name = type(error).__name__
    reason = lines[-1 if last else 0] if lines else "no reason given"
    return f"{name}: {reason.removeprefix(f'{name}: ')}"  # MXNet says its own name, too


PACKAGES = ("gluon_cnn", "gluon_cnn_parity", "parity_tests")  # whose lines are not the user's


def place_of(error: BaseException) -> str:
    """` (file:line)` of the user's own code that an exception arose in; empty if in none."""
    home = Path(__file__).parents[1]
    ours = [f"{home / name}/" for name in PACKAGES]
    ours += [sysconfig.get_paths()["purelib"], sys.prefix, sys.base_prefix]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*ours, "<")) and "site-packages" not in frame.filename
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
