"""Classic CNNs as MXNet Gluon `HybridBlock`s that train on the CPU or `mx.gpu()`."""

import warnings

# `python -m gluon_cnn.runtime` runs as a command the module that is imported here first.
warnings.filterwarnings("ignore", "'gluon_cnn.runtime' found in sys.modules", RuntimeWarning)

from gluon_cnn import runtime  # noqa: E402

# Before anything here imports MXNet: it reads its settings while it loads.
runtime.settle()
