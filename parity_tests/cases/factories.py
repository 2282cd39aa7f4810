"""A user's net by `package.module:factory`, and what it raises as the checker's own error."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gluon_cnn_parity import did_you_mean
from gluon_cnn_parity.factories import (
    FactoryError,
    load_attribute,
    net_of,
    place_of,
    reason_of,
)
from parity_tests.backends.leaves import ParityError


def parse_call(text: str, option: str) -> tuple[str, list[Any], dict[str, Any]]:
    """A name and its arguments, which are Python literals.

    >>> parse_call("sgd(lr=0.1, momentum=0.9)", "--optimizer")
    ('sgd', [], {'lr': 0.1, 'momentum': 0.9})
    >>> parse_call("nets:small", "--gluon")
    ('nets:small', [], {})

    Raises ParityError, which names the `option`, for anything else.
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return name.strip(), [], {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        arguments = [ast.literal_eval(value) for value in call.args]
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords if word.arg}
        if len(named) < len(call.keywords):
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ParityError(
            f"{option} is {text!r}, expected literals as arguments, such as {name}(classes=10)"
        ) from None
    return name.strip(), arguments, named


def load_net(spec: str, option: str, root: Path) -> Any:
    """What the factory or class gives, called with the arguments that `spec` has.

    `package.module:factory`, or `package.module:factory(classes=10)` with Python literals; where it
    names a net, that net. Modules are found from `root` too. Raises ParityError, which names the
    `option`, for a factory that cannot be found or raises, with the line that did.
    """
    name, arguments, named = parse_call(spec, option)
    try:
        return net_of(load_attribute(name, option, root), *arguments, **named)
    except FactoryError as error:
        raise ParityError(str(error)) from error
    except Exception as error:  # a user's module and factory may raise anything
        reason = f"{reason_of(error)}{place_of(error)}"
        raise ParityError(f"{option} {spec} gives no net: {reason}") from error


def load_function(spec: str, option: str, root: Path, known: Mapping[str, Any]) -> Any:
    """A `package.module:function` itself; a name among `known` gives what it stands for there."""
    if ":" not in spec:
        if spec in known:
            return known[spec]
        raise ParityError(
            f"{option} is {spec!r}, expected {', '.join(known)} or package.module:function"
            f"{did_you_mean(spec, known)}"
        )
    try:
        loaded = load_attribute(spec, option, root)
    except FactoryError as error:
        raise ParityError(str(error)) from error
    except Exception as error:  # a user's module may raise anything
        reason = f"{reason_of(error)}{place_of(error)}"
        raise ParityError(f"{option} {spec} cannot be loaded: {reason}") from error
    if not callable(loaded):
        raise ParityError(f"{option} {spec} is {type(loaded).__name__}, expected a function")
    return loaded
