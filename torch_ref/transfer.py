"""Gluon's names <-> torch's names: a total map, numpy in and numpy out.

The last part of a name is its role, and the roles translate one to one:

| Gluon                          | torch          |
|--------------------------------|----------------|
| weight, bias                   | weight, bias   |
| gamma, beta (normalisation)    | weight, bias   |
| running_mean, running_var      | the same       |
| moving_mean, moving_var        | running_mean, running_var (a Module's or a symbol's checkpoint) |
| alpha (PReLU)                  | weight         |
| bitmaps (LeNet-5's output)     | the same       |
| (none)                         | num_batches_tracked: ignored on purpose |

torch counts batches where a BatchNorm's momentum is None; Gluon has nothing of the kind.

What stands before the role is the path, and three kinds of Gluon names are read:

* structural, `features.0.weight`: what `save_parameters` writes. The path is torch's module path.
* exported by this project, `lenet_features_0_weight`: the net's own prefix goes, and the rest
  becomes structural, since its parts hold no underscore. One file holds one net's prefix.
* any other flat name, `batchnorm0_gamma`: the path is kept and the role translated, as it cannot
  be told which underscores were dots. Where `like` can tell, it does: `c_weight` is its `c.weight`
  if no other name of it reads `c_weight` without dots.

`arg:` and `aux:`, which `export` puts in front, are dropped. On the way to Gluon a `weight` is a
`gamma` where `like` says so, or else where its path has running statistics; so layer, group and
instance normalisation and PReLU need `like`. Values are never changed: shapes and layouts of
dense, convolution and normalisation weights agree in both frameworks, `running_var` is copied as
it is, and a Gluon layer with `scale=False` computes with 1 whatever `gamma` it stores.

Refused, all in one TransferError: a role outside the table that `like` does not confirm, two names
that become one, exported names of two nets, and against `like` every missing, unexpected,
wrong-shape and wrong-dtype array.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from cnn_harness.cli import Parser, as_command, print_json
from cnn_harness.errors import UsageError
from mxnet_files.reading.params_file import ParamsFileError, read_params, write_params
from mxnet_files.reading.tensor_files import SUFFIXES, TensorFileError, read_tensors, write_tensors

__all__ = ["IGNORED", "ROLES", "TransferError", "main", "to_gluon", "to_torch", "transfer_file"]

ROLES = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
    "alpha": "weight",
    "bitmaps": "bitmaps",
}
IGNORED = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")

_ROLE = re.compile(r"(?P<path>.*[._])?(?P<role>" + "|".join([*ROLES, IGNORED]) + ")", re.DOTALL)
_EXPORTED = re.compile(r"(?:(?P<net>.+)_)?(?P<part>features|classifier)_(?P<index>[0-9]+)_")

Arrays = Mapping[str, np.ndarray]


class TransferError(ValueError):
    """Arrays that do not map onto the other framework's; one line that lists every reason."""


def to_torch(arrays: Arrays, like: Arrays | None = None) -> dict[str, np.ndarray]:
    """Copies of Gluon's `arrays` under torch's state-dict names, in the order given.

    Args:
        arrays: by Gluon's names, of any of the three kinds.
        like: the destination's current arrays (a state dict in numpy); names, shapes and dtypes
            must then match it exactly, `num_batches_tracked` apart.

    Returns:
        The same values in the same dtypes, by torch's names.

    Raises:
        TransferError: every reason why they do not map, in one line.

    Examples:
        >>> gamma = np.ones(8, np.float32)
        >>> list(to_torch({"features.1.gamma": gamma, "features.1.running_mean": gamma}))
        ['features.1.weight', 'features.1.running_mean']
    """
    nets = sorted({net for name in arrays if (net := _exported_net(name)) is not None})
    problems = (
        [f"exported names of {len(nets)} nets: {', '.join(map(repr, nets))}"]
        if len(nets) > 1
        else []
    )
    targets = None if like is None else {n: n for n in like if _role(n) != IGNORED}
    return _move(arrays, _torch_name, targets, like, problems)


def to_gluon(arrays: Arrays, like: Arrays | None = None) -> dict[str, np.ndarray]:
    """Copies of a torch state dict's `arrays` under Gluon's structural names, in the order given.

    Args:
        arrays: a state dict, in numpy.
        like: the destination's current arrays (`_collect_params_with_prefix`, or an exported file,
            whose names are then used); names, shapes and dtypes must match it exactly.

    Returns:
        The same values in the same dtypes, by Gluon's names.

    Raises:
        TransferError: every reason why they do not map, in one line.

    Examples:
        >>> w = np.ones(8, np.float32)
        >>> list(to_gluon({"features.1.weight": w, "features.1.running_var": w}))
        ['features.1.gamma', 'features.1.running_var']
    """
    carried = {n: a for n, a in arrays.items() if _role(n) != IGNORED}
    if like is not None:
        targets = {_torch_name(name) or _bare(name): name for name in like}
        if len(targets) < len(like):
            raise TransferError("cannot transfer: two names of `like` mean the same torch name")
        return _move(carried, lambda name: name, targets, like, [])
    normalised = {n[: -len(_role(n))] for n in carried if _role(n) in STATISTICS}

    def gluon_name(name: str) -> str | None:
        role = _role(name)
        if role not in ROLES.values():
            return None
        path = name[: len(name) - len(role)]
        back = {"weight": "gamma", "bias": "beta"} if path in normalised else {}
        return path + back.get(role, role)

    return _move(carried, gluon_name, None, None, [])


def _move(
    arrays: Arrays,
    rename: Callable[[str], str | None],
    targets: Mapping[str, str] | None,
    like: Arrays | None,
    problems: list[str],
) -> dict[str, np.ndarray]:
    """Rename every array, or raise with all that is wrong.

    `targets` maps each name that `rename` may give to the destination's own name in `like`.
    """
    moved: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    dotless = {} if targets is None else _dotless(targets)
    for name, array in arrays.items():
        new = rename(name)
        if targets is not None:
            # A role outside the table is right where the destination has the very same name.
            tried = [n for n in (new, _bare(name)) if n is not None]
            tried += [dotless[flat] for n in tried if (flat := n.replace(".", "_")) in dotless]
            known = [n for n in tried if n in targets]
            if not known:
                problems.append(f"unexpected {name!r}")
                continue
            new = targets[known[0]]
        if new is None:
            problems.append(f"no known role in {name!r} (pass `like`, the destination's arrays)")
        elif new in moved:
            problems.append(f"{sources[new]!r} and {name!r} both become {new!r}")
        else:
            moved[new], sources[new] = np.array(array, order="C"), name
    if targets is not None and like is not None:
        problems += _differences(moved, {n: like[n] for n in targets.values()})
    if problems:
        raise TransferError(
            f"cannot transfer: {'; '.join(problems)}. Expected the arrays of one and the same net"
        )
    return moved


def _differences(moved: Arrays, wanted: Arrays) -> list[str]:
    problems = [f"missing {name!r} {wanted[name].shape}" for name in wanted if name not in moved]
    for name, array in moved.items():
        want = wanted[name]
        if array.shape != want.shape:
            problems.append(f"wrong shape {name!r}: {array.shape}, expected {want.shape}")
        if array.dtype != want.dtype:
            problems.append(f"wrong dtype {name!r}: {array.dtype}, expected {want.dtype}")
    return problems


def _dotless(names: Iterable[str]) -> dict[str, str]:
    """Each name by what it reads with underscores for dots, where no other name reads the same."""
    sources: dict[str, list[str]] = {}
    for name in names:
        sources.setdefault(name.replace(".", "_"), []).append(name)
    return {flat: same[0] for flat, same in sources.items() if len(same) == 1}


def _bare(name: str) -> str:
    return name[4:] if name.startswith(("arg:", "aux:")) else name


def _role(name: str) -> str:
    """The role at the end of a name of either framework, or ""."""
    match = _ROLE.fullmatch(_bare(name))
    return match["role"] if match else ""


def _exported_net(name: str) -> str | None:
    """The net's prefix in a name exported by this project ("" for none), or None."""
    role = _role(name)
    match = _EXPORTED.fullmatch(_bare(name)[: -len(role)]) if role else None
    return None if match is None else match["net"] or ""


def _torch_name(name: str) -> str | None:
    """torch's name for a Gluon name of any of the three kinds; None for an unknown role."""
    role = _role(name)
    if role not in ROLES:
        return None
    path = _bare(name)[: -len(role)]
    if match := _EXPORTED.fullmatch(path):
        path = f"{match['part']}.{match['index']}."
    return path + ROLES[role]


class Transferred(TypedDict):
    """What one transfer moved: arrays and values counted, torch's counters listed."""

    source: str
    destination: str
    arrays: int
    values: int
    ignored: list[str]


def transfer_file(source: Path, destination: Path, like: Path | None = None) -> Transferred:
    """Write `source`'s arrays to `destination` in the other framework's names and format.

    Args:
        source: a `.params`, `.safetensors` or `.pt` file.
        destination: a `.params` file if `source` is none, else one of the other two.
        like: a file of the destination's format that has the names, shapes and dtypes to match.

    Returns:
        The counts that the command prints: arrays, values, names that were ignored on purpose.

    Raises:
        TransferError: the arrays do not map.
        ParamsFileError, TensorFileError: a file is damaged, or not of its kind.
        OSError: a file cannot be read or written.
    """
    arrays = _read(source)
    wanted = None if like is None else _read(like)
    moved = (to_torch if source.suffix == ".params" else to_gluon)(arrays, wanted)
    (write_params if destination.suffix == ".params" else write_tensors)(destination, moved)
    return {
        "source": str(source),
        "destination": str(destination),
        "arrays": len(moved),
        "values": sum(array.size for array in moved.values()),
        "ignored": [name for name in arrays if _role(name) == IGNORED],
    }


def _read(path: Path) -> dict[str, np.ndarray]:
    return (read_params if path.suffix == ".params" else read_tensors)(path)


@as_command(TransferError, ParamsFileError, TensorFileError)
def main(argv: Sequence[str] | None = None) -> int:
    """`python -m torch_ref.transfer SRC DST`: 0 done, 1 refused or failed, 2 bad usage."""
    parser = Parser(
        prog="python -m torch_ref.transfer",
        description="Rewrite a Gluon .params file as a torch state dict, or the other way round."
        " The file names' endings decide: one is .params, the other .safetensors or .pt.",
    )
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("destination", type=Path, metavar="DST")
    parser.add_argument(
        "--like", type=Path, metavar="FILE",
        help="a file of DST's kind whose names, shapes and dtypes DST must have",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="overwrite DST; without it that is refused"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    files = [args.source, args.destination] + ([args.like] if args.like else [])
    for path in files:
        if path.suffix not in (".params", *SUFFIXES):
            raise UsageError(f"{path}: expected a file named .params, {' or '.join(SUFFIXES)}")
    kinds = [path.suffix == ".params" for path in files]
    if kinds[0] == kinds[1] or kinds[1:] != [kinds[1]] * len(kinds[1:]):
        raise UsageError("expected one of SRC and DST to end in .params, and --like to be as DST")
    if args.destination.exists() and not args.force:
        raise TransferError(f"{args.destination} exists: pass --force to overwrite it")
    done = transfer_file(args.source, args.destination, args.like)
    if args.json:
        print_json(done)
    else:
        ignored = f", {len(done['ignored'])} counts ignored" if done["ignored"] else ""
        print(f"{done['destination']}: {done['arrays']} arrays, {done['values']} values{ignored}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
