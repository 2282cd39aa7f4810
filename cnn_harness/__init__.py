"""The framework-neutral shell of a command: configuration, flags, run folders, plots, errors.

Shared by `gluon_cnn` and `torch_ref`, which never import each other.
"""

from gluon_cnn_parity import __version__

__all__ = ["__version__"]
