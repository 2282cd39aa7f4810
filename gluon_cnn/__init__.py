"""Classic CNNs as MXNet Gluon `HybridBlock`s that train on the CPU or `mx.gpu()`."""

from gluon_cnn import runtime

# Before anything here imports MXNet: it reads its settings while it loads.
runtime.settle()
