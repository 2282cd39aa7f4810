"""Classic CNNs as MXNet Gluon `HybridBlock`s that train on the CPU or `mx.gpu()`."""

from gluon_cnn.runtime import settings

# Before anything here imports MXNet: it reads its settings while it loads.
settings.settle()
