"""The catalogue: every data set that has a name, in one frozen table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gluon_cnn_parity import did_you_mean
from cnn_data.errors import UnknownDataset

__all__ = ["CATALOG", "DIGITS", "Entry", "Original", "dataset_names", "entry_for"]


@dataclass(frozen=True)
class Original:
    """One original file, as its authors publish it."""

    url: str
    size: int  # bytes
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Entry:
    """What is known of a data set before it is read."""

    name: str
    kind: str  # embedded, idx, cifar, imagenette: which reader understands its original files
    class_names: tuple[str, ...]
    shape: tuple[int, int, int] | None  # H, W, C; None: pictures of every size
    counts: tuple[int, int] | None  # images in train, in test; None: not checked
    mean: tuple[float, ...]  # per channel, of pixels / 255
    std: tuple[float, ...]
    statistics: str  # where mean and std come from
    originals: tuple[Original, ...] = ()
    folders: tuple[str, ...] = ()  # where, under --data-dir, its original files may lie
    first_labels: tuple[int, ...] = ()  # of the training set: tells sets of one format apart
    class_folders: tuple[str, ...] = ()  # names of the folders, where classes are folders


def _idx_files(folder: str, *files: tuple[int, str]) -> tuple[Original, ...]:
    """MNIST's four files and those of its kind, with the size and the sha256 of each."""
    names = (f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k")
             for kind in ("images-idx3", "labels-idx1"))  # fmt: skip
    return tuple(Original(folder + name, *file) for name, file in zip(names, files, strict=True))


DIGITS = tuple("0123456789")
_CLOTHES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
# doc-1's names
_CIFAR = (
    "plane", "car", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_IMAGENETTE = (
    "tench", "English springer", "cassette player", "chain saw", "church",
    "French horn", "garbage truck", "gas pump", "golf ball", "parachute",
)  # fmt: skip
# WordNet ids, which are imagenette's folders
_WORDNET = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
    "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
)  # fmt: skip

_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

_ENTRIES = (
    Entry(
        name="mnist5k",
        kind="embedded",
        class_names=DIGITS,
        shape=(28, 28, 1),
        counts=(4000, 1000),
        mean=(0.1312,),
        std=(0.3084,),
        statistics="measured on the 4,000 training digits",
    ),
    Entry(
        name="mnist",
        kind="idx",
        class_names=DIGITS,
        shape=(28, 28, 1),
        counts=(60_000, 10_000),
        mean=(0.1307,),
        std=(0.3081,),
        statistics="measured on the 60,000 training digits",
        originals=_idx_files(
            _MNIST,
            (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        folders=("mnist", "mnist/raw", "MNIST/raw"),
        first_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    ),
    Entry(
        name="fashion_mnist",
        kind="idx",
        class_names=_CLOTHES,
        shape=(28, 28, 1),
        counts=(60_000, 10_000),
        mean=(0.2860,),
        std=(0.3530,),
        statistics="as published for the 60,000 training images",
        originals=_idx_files(
            _FASHION,
            (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        folders=("fashion_mnist", "fashion_mnist/raw", "FashionMNIST/raw"),
        first_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    ),
    Entry(
        name="cifar10",
        kind="cifar",
        class_names=_CIFAR,
        shape=(32, 32, 3),
        counts=(50_000, 10_000),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        statistics="as published for the 50,000 training images",
        originals=(
            Original(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        folders=("cifar10",),
    ),
    Entry(
        name="imagenette",
        kind="imagenette",
        class_names=_IMAGENETTE,
        shape=None,
        counts=None,  # the releases differ: imagenette2 holds 9,469 and 3,925
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        statistics="ImageNet's, as published with torchvision's models",
        originals=(
            Original(
                "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
                341_663_724,
                "569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c",
            ),
        ),
        folders=("imagenette",),
        class_folders=_WORDNET,
    ),
)

CATALOG = {entry.name: entry for entry in _ENTRIES}


def dataset_names() -> tuple[str, ...]:
    """Every name that `load_dataset` knows.

    Returns:
        The names; the last one is the form of a folder's.

    Examples:
        >>> dataset_names()[0], dataset_names()[-1]
        ('mnist5k', 'folder:PATH')
    """
    return (*CATALOG, "folder:PATH")


def entry_for(name: str) -> Entry:
    """The catalogue's entry; DataError with the known names if there is none."""
    if name not in CATALOG:
        nearest = did_you_mean(name, CATALOG)
        if Path(name).is_dir():
            nearest = f"; did you mean folder:{name}?"
        raise UnknownDataset(
            f"unknown dataset {name!r}; choose one of {', '.join(dataset_names())}{nearest}"
        )
    return CATALOG[name]
