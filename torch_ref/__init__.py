"""The PyTorch mirror of `gluon_cnn`: same names, same order, written independently.

Importing the package imports nothing heavy: `torch_ref.transfer` and
`mxnet_files.reading.params_file` work where neither framework is installed.
"""

from gluon_cnn_parity import __version__

__all__ = ["__version__"]
