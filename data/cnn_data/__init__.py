"""Arrays in, batches out: data sets by name or folder, for any framework.

Nothing here knows MXNet or PyTorch, and TensorFlow is never imported.
"""

from gluon_cnn_parity import __version__
from cnn_data.augment import AUGMENTATIONS, augmentation
from cnn_data.batches import Batches
from cnn_data.catalog import dataset_names
from cnn_data.errors import DataError
from cnn_data.load import FOLDER, absolute_name, load_dataset
from cnn_data.pixels import NORMALISATIONS, Pixels, pixels
from cnn_data.readers.images import read_image
from cnn_data.splits import ArraySplit, Dataset, Split

__all__ = [
    "AUGMENTATIONS",
    "FOLDER",
    "NORMALISATIONS",
    "ArraySplit",
    "Batches",
    "DataError",
    "Dataset",
    "Pixels",
    "Split",
    "__version__",
    "absolute_name",
    "augmentation",
    "dataset_names",
    "load_dataset",
    "pixels",
    "read_image",
]
