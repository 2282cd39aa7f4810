"""Classic CNNs as MXNet Gluon `HybridBlock`s that train on the CPU or `mx.gpu()`."""

from gluon_cnn_parity import __version__, refuse, started
from gluon_cnn.runtime import settings

__all__ = ["__version__"]

# Before anything here imports MXNet: it reads its settings while it loads.
try:
    settings.settle()
except ModuleNotFoundError as error:
    command = started()
    if command is None:  # the caller's program decides what it does without MXNet
        raise
    raise refuse(command.program, str(error)) from None
