"""Imports MXNet without its line about the engine, and without what it does not need."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

from gluon_cnn_parity import memory, needs
from gluon_cnn_parity.stderr import without_lines


def load_quietly() -> None:
    """Import MXNet without its line about the engine, which it writes straight to descriptor 2."""
    with without_lines(b"MXNet start using engine"), _lightly(), needs("cpu"):
        import mxnet_compat

        mxnet_compat.install()  # before MXNet is looked for: MXNet beside a current numpy
        import mxnet

        memory.after_mxnet()
        mxnet.nd.waitall()  # starts the engine, which is when it writes


@contextlib.contextmanager
def _lightly() -> Iterator[None]:
    """Import without a third of what `import mxnet` takes by itself."""
    # `mxnet.model` looks for scikit-learn, for the sake of a class that was retired in 2017; two
    # others for what only quantization by entropy and MXNet's own tests need. Each catches the
    # ImportError that None stands for.
    unasked = [name for name in ("sklearn", "scipy.stats") if name not in sys.modules]
    for name in unasked:
        sys.modules[name] = None  # type: ignore[assignment]
    collecting = gc.isenabled()
    gc.disable()  # thousands of generated functions, none of them garbage
    try:
        yield
    finally:
        if collecting:
            _age()
            gc.enable()
        for name in unasked:
            del sys.modules[name]
    if "scipy.stats" in unasked and importlib.util.find_spec("scipy") is not None:
        for name, attribute in (
            ("mxnet.contrib.quantization", "stats"),
            ("mxnet.test_utils", "ss"),
        ):
            if name in sys.modules:
                setattr(sys.modules[name], attribute, _Later("scipy.stats"))


def _age() -> None:
    """Count all objects as old, or the next collection looks through each of them, for nothing.

    Nothing stays frozen: what the caller's program holds is collected once it is garbage.
    """
    if gc.get_freeze_count() == 0:  # what the caller froze stays as it is
        gc.freeze()
        gc.unfreeze()


class _Later(types.ModuleType):
    """A module that is imported when something in it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)
