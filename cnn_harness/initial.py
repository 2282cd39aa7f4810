"""What weights a net begins with: drawn here, or those of another run.

They are drawn in numpy, one generator per parameter, so that both frameworks start equal.

MXNet's and PyTorch's generators are unrelated, and MXNet's GPU and CPU streams differ too. A
parameter's first value here depends on the seed and on its own path alone: not on the order of
construction, the framework, the device or the thread count.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from gluon_cnn_parity import did_you_mean
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.sealed import read_json
from gluon_cnn_parity.atomic import sha256

INITIALISERS = ("xavier", "he", "gluon", "lecun98")
WEIGHT_FILES = (".params", ".safetensors", ".pt")


def initial_arrays(
    shapes: Mapping[str, tuple[int, ...]], initialiser: str, seed: int
) -> dict[str, np.ndarray]:
    """First values, float32, for the trainable parameters of a net, by structural path.

    - `xavier`: weights U(±√(6 / (fan_in + fan_out))), biases 0 (Glorot and Bengio 2010, equation
      16; MXNet's `init.Xavier()`, PyTorch's `xavier_uniform_`)
    - `he`: weights N(0, 2 / fan_in), biases 0 (He et al. 2015, equation 10)
    - `gluon`: weights U(±0.07), biases 0 (Gluon's plain `initialize()`)
    - `lecun98`: weights and biases U(±2.4 / fan_in) (LeCun et al. 1998, appendix A); one-weight
      subsampling units count their four inputs and start at the mean, 1/4

    `gamma` starts at 1 and `beta` at 0 under every initialiser. `shapes` maps Gluon's structural
    names to shapes; fans count the receptive field, as both frameworks do.
    """
    if initialiser not in INITIALISERS:
        raise ValueError(
            f"initialiser is {initialiser!r}, expected one of {', '.join(INITIALISERS)}"
        )
    return {path: _first(path, shape, shapes, initialiser, seed) for path, shape in shapes.items()}


def generator(path: str, *seed: int) -> np.random.Generator:
    """The stream of random numbers of one tensor: of its path, a seed, and a step if there is one.

    Its numbers do not depend on what else is drawn, nor on when.

    >>> generator("features.0.weight", 0).random(2)
    array([0.09436705, 0.3191733 ])
    """
    # crc32 is stable between Python runs, which hash() is not
    return np.random.default_rng([*seed, zlib.crc32(path.encode())])


def _first(
    path: str,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    initialiser: str,
    seed: int,
) -> np.ndarray:
    role = path.rpartition(".")[2]
    if role == "gamma":
        return np.ones(shape, np.float32)
    if role == "beta" or (role == "bias" and initialiser != "lecun98"):
        return np.zeros(shape, np.float32)
    draw = generator(path, seed)
    stem = path.rpartition(".")[0]
    fan_in, fan_out = _fans(shapes[stem + ".weight"], shapes.get(stem + ".bias", (1,)))
    if initialiser == "he":
        return draw.normal(0.0, math.sqrt(2.0 / fan_in), shape).astype(np.float32)
    if initialiser == "lecun98" and role == "weight" and len(shape) == 1:
        return np.full(shape, 0.25, np.float32)
    bound = {
        "xavier": math.sqrt(6.0 / (fan_in + fan_out)),
        "gluon": 0.07,
        "lecun98": 2.4 / fan_in,
    }[initialiser]
    return draw.uniform(-bound, bound, shape).astype(np.float32)


def _fans(weight: tuple[int, ...], bias: tuple[int, ...]) -> tuple[float, float]:
    if len(weight) == 1:  # a subsampling unit: 2×2 inputs share one weight
        return 4, 1
    if len(weight) == 3:  # LeNet-5's packed C3: (connected planes, 5, 5), spread over the maps
        mean_fan = math.prod(weight) / bias[0]
        return mean_fan, mean_fan
    field = math.prod(weight[2:])
    return weight[1] * field, weight[0] * field


@dataclass
class Pretrained:
    """The weights of `--init-from`, and what became of them once a net has taken them.

    `arrays` are by Gluon's structural names; a run that goes on has none, since its checkpoint has
    its weights. `loaded` are the names that were taken.
    """

    source: str
    sha256: str
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    loaded: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All but the values, as JSON: the leader of a job gives those to its other processes."""
        shapes = {name: list(array.shape) for name, array in self.arrays.items()}
        return {
            "source": self.source, "sha256": self.sha256, "shapes": shapes,
            "loaded": list(self.loaded),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: object, origin: str | Path) -> Pretrained:
        """What `to_dict` gave, zeros for values. Raises: CommandError naming `origin`."""
        if (
            not isinstance(values, dict)
            or set(values) != {"source", "sha256", "shapes", "loaded"}
            or not isinstance(values["shapes"], dict)
            or not isinstance(values["loaded"], list)
            or not all(isinstance(values[name], str) for name in ("source", "sha256"))
            or not all(isinstance(name, str) for name in values["loaded"])
            or not all(
                isinstance(shape, list) and all(type(n) is int and 0 < n < 2**31 for n in shape)
                for shape in values["shapes"].values()
            )
        ):
            raise CommandError(f"{origin}: pretrained is not what a run has written")
        arrays = {
            name: np.broadcast_to(np.float32(0), shape) for name, shape in values["shapes"].items()
        }
        return cls(values["source"], values["sha256"], arrays, tuple(values["loaded"]))

    def fitting(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """The arrays that a net with these parameters takes, by name; notes what it does not.

        A name that the net has not is that of a parameter which differs from it by `_` for `.`
        alone: `mxnet-files convert` and MXNet's own prefixes write features_0.weight.
        Raises: UsageError where none fits.
        """
        if not self.arrays:
            return {}
        own = {name.replace("_", "."): name for name in shapes}
        for name in [name for name in self.arrays if name not in shapes]:
            meant = own.get(name.replace("_", "."), name)
            if meant not in self.arrays:
                self.arrays = {meant if n == name else n: a for n, a in self.arrays.items()}
        taken = {n: a for n, a in self.arrays.items() if n in shapes and a.shape == shapes[n]}
        if not taken:
            raise UsageError(
                f"nothing in {self.source} fits this net: it has "
                f"{some(f'{name} {array.shape}' for name, array in self.arrays.items())}, the net "
                f"{some(f'{name} {shape}' for name, shape in shapes.items())}"
            )
        self.loaded = tuple(taken)
        self.remarks = [f"{len(taken)} of {len(shapes)} arrays are from {self.source}"]
        head = _head(shapes)
        for name, array in self.arrays.items():
            if name not in shapes:
                self.remarks.append(f"left out: {name} {array.shape}, which the net has not")
            elif name not in taken and name.rpartition(".")[0] != head.rpartition(".")[0]:
                self.remarks.append(
                    f"new: {name} {shapes[name]}, where {self.source} has {array.shape}"
                )
        old = self.arrays.get(head)
        if head not in taken and old is not None and old.shape[1:] == shapes[head][1:]:
            self.remarks.append(
                f"the head is new: {head.rpartition('.')[0]} tells {shapes[head][0]} classes "
                f"apart, that of {self.source} {old.shape[0]}"
            )
        elif head not in taken:
            self.remarks.append(f"the head is new: {head} {shapes[head]}")
        missing = [n for n in shapes if n not in self.arrays and n != head]
        if missing:
            self.remarks.append(f"new: {', '.join(missing)}, which {self.source} has not")
        return taken

    def note_frozen(self, names: Collection[str]) -> None:
        """Note which parameters stay as they are, and which of them were not loaded."""
        if names and self.arrays:
            self.remarks.append(f"frozen: {len(names)} arrays, {some(names)}")
        drawn = [name for name in names if name not in self.loaded]
        if drawn and self.arrays:
            self.remarks.append(f"frozen as they were drawn, not loaded: {', '.join(drawn)}")


def _head(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The weights of the last layer that has any."""
    return next((name for name in reversed(list(shapes)) if name.endswith(".weight")), "")


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of these names, and a sign where there are more.

    >>> some(["a", "b", "c", "d"]), some(["a"])
    ('a, b, c, …', 'a')
    """
    first = list(names)
    return ", ".join(first[:most]) + (", …" if len(first) > most else "")


def weights_file(path: Path) -> Path:
    """The file of weights that `--init-from` means: in the folder of a run or an export, or itself.

    Raises: UsageError naming what is there instead.
    """
    if not path.exists():
        raise UsageError(f"--init-from {path}: no such file or folder")
    if path.is_dir():
        best = [path / name for name in ("best.params", "best.safetensors")]
        found = [file for file in best if file.exists()] or sorted(path.glob("*-0000.params"))
        if len(found) != 1:
            raise UsageError(
                f"--init-from {path}: expected a run with best.params or best.safetensors, or an "
                f"export with one NAME-0000.params; there are {len(found)}"
            )
        path = found[0]
    if path.suffix not in WEIGHT_FILES:
        raise UsageError(
            f"--init-from {path}: expected a run, an export, or a file named "
            f"{', '.join(WEIGHT_FILES)}"
        )
    if not path.is_file():  # a pipe would block
        raise UsageError(f"--init-from {path}: not a regular file")
    _require_as_exported(path)
    return path


def _require_as_exported(path: Path) -> None:
    """Raise UsageError where an export's parameters are not those that its NAME.json names."""
    manifest = path.with_name(path.name.removesuffix("-0000.params") + ".json")
    if path.name.endswith("-0000.params") and manifest.is_file():
        values = read_json(manifest)
        sums = values.get("files") if isinstance(values, dict) else None
        expected = sums.get(path.name) if isinstance(sums, dict) else None
        if expected is not None and expected != sha256(path):
            raise UsageError(f"{path} is damaged: it has another sha256 than {manifest} says")


def frozen(names: Collection[str], patterns: str) -> set[str]:
    """The parameters that `--freeze` keeps as they are: each pattern is a path, or has `*`.

    >>> sorted(frozen(["features.0.weight", "features.0.bias", "head.weight"], "features"))
    ['features.0.bias', 'features.0.weight']
    >>> frozen(["features.0.weight", "features.0.bias"], "features.*.bias")
    {'features.0.bias'}

    Raises: UsageError for a pattern that names nothing, and where nothing is left to train.
    """
    kept: set[str] = set()
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        named = {n for n in names if n.startswith(pattern + ".") or fnmatchcase(n, pattern)}
        if not named:
            paths = {n.rsplit(".", k)[0] for n in names for k in range(n.count(".") + 1)}
            raise UsageError(
                f"--freeze {pattern!r} names no parameter, expected a path or pattern such as "
                f"{some(names)}{did_you_mean(pattern, paths)}"
            )
        kept |= named
    if names and kept >= set(names):
        raise UsageError(f"--freeze {patterns!r} leaves nothing to train")
    return kept
