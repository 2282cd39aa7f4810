"""Imports MXNet without its line about the engine, and without what it does not need."""

from __future__ import annotations

import os
import sys
import tempfile

__all__ = ["load_quietly"]


def load_quietly() -> None:
    """Import MXNet without its line about the engine, which it writes straight to descriptor 2."""
    # `mxnet.model` looks for scikit-learn, for the sake of a class that was retired in 2017; with
    # the pandas and SciPy behind it that is a quarter of the time of `import mxnet`.
    unasked = "sklearn" not in sys.modules
    if unasked:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # an ImportError, which it catches
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import mxnet

            mxnet.nd.waitall()  # starts the engine, which is when it writes
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error.msg}: install MXNet with pip install -e '.[cpu]' or '.[gpu]'",
                name=error.name,
            ) from error
        finally:
            if unasked:
                del sys.modules["sklearn"]
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if b"MXNet start using engine" not in line:
                    os.write(2, line)
