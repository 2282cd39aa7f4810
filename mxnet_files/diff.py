"""`mxnet-files diff A B`: two checkpoints of any formats, compared by their values."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gluon_cnn_parity.cli import Parser, one_line, run_by, run_command
from mxnet_files.errors import SymbolError
from mxnet_files.reading.params_file import (
    BFLOAT16,
    ParamsFileError,
    bfloat16_to_float32,
    read_params,
    strip_prefixes,
)
from mxnet_files.reading.tensor_files import SUFFIXES, TensorFileError, read_tensors

SHOWN = 20  # tensors of a kind that are printed


@dataclass(frozen=True)
class Difference:
    """How two sets of arrays differ.

    equal: pairs of names of one value; changed: (name in A, name in B, what differs); only_a,
    only_b: names without a partner.
    """

    equal: list[tuple[str, str]] = field(default_factory=list)
    changed: list[tuple[str, str, str]] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not (self.changed or self.only_a or self.only_b)

    @property
    def renamed(self) -> list[tuple[str, str]]:
        """Equal values under different names."""
        return [(a, b) for a, b in self.equal if a != b]


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Arrays by bare name of a `.params`, `.safetensors` or `.pt` file; bfloat16 as float32.

    Raises `SymbolError` for a damaged file, OSError where it cannot be opened.
    """
    try:
        arrays = read_tensors(path) if path.suffix in SUFFIXES else read_params(path)
    except (TensorFileError, ParamsFileError) as error:
        raise SymbolError(str(error)) from None
    return {
        name: bfloat16_to_float32(array) if array.dtype == BFLOAT16 else array
        for name, array in strip_prefixes(arrays)[0].items()
    }


def compare_arrays(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Difference:
    """Pair arrays of one value, by name where both have it, else by value alone.

    dtypes may differ where the numbers do not. Arrays of one value, such as biases of zeros, are
    paired by name, then in the files' order.

    >>> one, two = np.ones(2), np.zeros(3)
    >>> found = compare_arrays({"w": one, "b": two}, {"weight": one, "b": two + 1})
    >>> found.renamed, found.changed
    ([('w', 'weight')], [('b', 'b', 'all 3 numbers differ, by at most 1')])
    """
    found = Difference()
    left, right = dict(a), dict(b)
    for name in [name for name in left if name in right and equal(left[name], right[name])]:
        found.equal.append((name, name))
        del left[name], right[name]
    by_value: dict[Any, list[str]] = defaultdict(list)
    for name, array in right.items():
        by_value[key(array)].append(name)
    for name, array in list(left.items()):
        partners = by_value[key(array)]
        partner = next((other for other in partners if equal(array, right[other])), None)
        if partner is not None:
            partners.remove(partner)
            found.equal.append((name, partner))
            del left[name], right[partner]
    for name in [name for name in left if name in right]:
        found.changed.append((name, name, describe(left.pop(name), right.pop(name))))
    found.only_a.extend(left)
    found.only_b.extend(right)
    return found


def key(array: np.ndarray) -> tuple[Any, ...]:
    """Equal for arrays of equal values, whatever their dtypes."""
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = array.astype(np.float64) + 0.0  # -0.0 is 0.0
    return array.shape, hash(numbers.tobytes())


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """The same numbers in the same places; NaN is NaN."""
    both_float = a.dtype.kind == b.dtype.kind == "f"
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=both_float)


def describe(a: np.ndarray, b: np.ndarray) -> str:
    """In what two arrays of one name differ."""
    if a.shape != b.shape:
        return f"shape {a.shape} and {b.shape}"
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    count = int(np.count_nonzero(~(a == b) & ~((a != a) & (b != b))))
    of = "all" if count == a.size else f"{count:,} of"
    known = apart[~np.isnan(apart)]
    most = float(known.max()) if known.size else math.nan
    return f"{of} {a.size:,} numbers differ, by at most {most:.3g}"


@run_by(run_command, prog="mxnet-files diff", errors=(SymbolError,))
def main(argv: Sequence[str] | None = None) -> int:
    """0 where both files hold the same values, 1 where they do not, 2 on bad usage."""
    parser = Parser(
        prog="mxnet-files diff",
        description="Compare two checkpoints of any formats (.params, .safetensors, .pt) by value.",
    )
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    found = compare_arrays(read_checkpoint(options.a), read_checkpoint(options.b))
    if options.json:
        kinds = ("equal", "changed", "only_a", "only_b")
        print(json.dumps({"same": found.same, **{kind: getattr(found, kind) for kind in kinds}}))
    else:
        say(found, str(options.a), str(options.b))
    return 0 if found.same else 1


def say(found: Difference, a: str, b: str) -> None:
    """What was found, in lines."""
    print(f"equal: {len(found.equal)} tensors, {len(found.renamed)} of them under another name")
    groups = {
        "": [f"{first} is {second}" for first, second in found.renamed],
        "changed": [f"{name}: {what}" for name, _, what in found.changed],
        f"only in {a}": found.only_a,
        f"only in {b}": found.only_b,
    }
    for title, rows in groups.items():
        if title and rows:
            print(one_line(f"{title}: {len(rows)}"))
        for row in rows[:SHOWN]:
            print("  " + one_line(row))
        if len(rows) > SHOWN:
            print(f"  and {len(rows) - SHOWN} more")
