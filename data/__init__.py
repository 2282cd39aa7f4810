"""Arrays in, batches out: data sets by name or folder, for any framework.

Nothing here knows MXNet or PyTorch, and TensorFlow is never imported.
"""

from data.augment import AUGMENTATIONS
from data.batches import Batches
from data.catalog import dataset_names
from data.errors import DataError
from data.images import read_image
from data.load import load_dataset
from data.pixels import NORMALISATIONS, Pixels, pixels
from data.splits import ArraySplit, Dataset, Split

__all__ = [
    "AUGMENTATIONS",
    "NORMALISATIONS",
    "ArraySplit",
    "Batches",
    "DataError",
    "Dataset",
    "Pixels",
    "Split",
    "dataset_names",
    "load_dataset",
    "pixels",
    "read_image",
]
