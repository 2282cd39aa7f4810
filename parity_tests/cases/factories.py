"""A user's net by `package.module:factory`, and what it raises as the checker's own error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gluon_cnn_parity import factories
from parity_tests.backends.leaves import ParityError

__all__ = ["load_net"]


def load_net(spec: str, option: str, root: Path) -> Any:
    """`gluon_cnn_parity.factories.load_net`. Raises ParityError."""
    try:
        return factories.load_net(spec, option, root)
    except factories.FactoryError as error:
        raise ParityError(str(error)) from error
