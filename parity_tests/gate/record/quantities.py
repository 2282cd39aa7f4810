"""What a side computed: one quantity in both dtypes, and what a snapshot keeps of it.

A tensor of more than SAMPLE values is kept as an evenly spread sample and as sums with random
signs, in which every value takes part; its sha256 is always that of the whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from parity_tests.backends.runs import reason_of
from parity_tests.gate.record.operations import Operations
from parity_tests.numerics.perturb import pieces
from parity_tests.reporting.verdicts import Check, Level

SAMPLE = 256  # values kept of each tensor and dtype
SUMS = 4  # sums with random signs, of the float64 values

# In the order in which a cause comes before its effects. "local" is one operation alone on inputs
# that depend on its place only, so nothing inherits from it; "stream" is the net as a whole.
CHECKS = (
    (Level.FORWARD, Check.LOCAL),
    (Level.BACKWARD, Check.LOCAL),
    (Level.LOSS, Check.LOCAL),
    (Level.OPTIMIZER, Check.LOCAL),
    (Level.FORWARD, Check.STREAM),
    (Level.BACKWARD, Check.STREAM),
    (Level.TRAINING, Check.STREAM),
    (Level.ARTEFACTS, Check.STREAM),
)

Key = tuple[Level, Check, str, str]  # level, check, path, quantity


@dataclass(frozen=True)
class Located:
    """What a side computes at one place, or fails to: a leaf, an update rule, the whole net."""

    level: Level
    check: Check
    path: str
    kind: str
    name: str

    @property
    def key(self) -> Key:
        return self.level, self.check, self.path, self.name


@dataclass(frozen=True)
class Quantity(Located):
    """One tensor that one side computed, in float32 and in float64.

    `limit` is how far float32's rounding may carry a value of it, and `fraction` what part of that
    float64's rounding may take. The limit of an operation that rounds nothing is 0.
    """

    single: np.ndarray
    double: np.ndarray | None  # None for what exists in float32 alone
    limit: float
    fraction: float = 2.0**-29

    def record(self) -> QuantityRecord:
        """What goes into a snapshot."""
        double = self.single.astype(np.float64) if self.double is None else self.double
        return QuantityRecord(
            self.level, self.check, self.path, self.kind, self.name,
            tuple(int(n) for n in self.single.shape), float(self.limit), float(self.fraction),
            _distance(self.single, double), _digest(self.single), _digest(double),
            sampled(self.single), sampled(double),
            _sums(double) if double.size > SAMPLE else np.zeros(0),
            nonfinite=int(np.size(double) - np.isfinite(double).sum()),
        )  # fmt: skip


@dataclass(frozen=True)
class QuantityRecord(Located):
    """A quantity as a snapshot has it: digests of the whole, values of a sample, sums of all.

    `distance` is the largest |float32 − float64| of all its values.
    """

    shape: tuple[int, ...]
    limit: float
    fraction: float
    distance: float
    digest32: str
    digest64: str
    single: np.ndarray
    double: np.ndarray
    sums: np.ndarray
    nonfinite: int = 0

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Failure(Located):
    """What a side could not compute, and why, in one line."""

    reason: str

    @classmethod
    def of(
        cls, error: BaseException, level: Level, check: Check, path: str, kind: str, name: str
    ) -> Failure:
        return cls(level, check, path, kind, name, reason_of(error))


@dataclass
class SideRecord:
    """Everything that one side gave for one subject, in the order of causes.

    `operations` is what the net executed, where its leaves are that and not its modules.
    """

    quantities: list[QuantityRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    operations: Operations | None = None

    def by_key(self) -> dict[Key, QuantityRecord | Failure]:
        items: list[QuantityRecord | Failure] = [*self.quantities, *self.failures]
        return {item.key: item for item in items}


def sampled(array: np.ndarray) -> np.ndarray:
    """At most SAMPLE values, evenly spread, the first and the last among them."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.size <= SAMPLE:
        return flat.copy()
    return flat[np.linspace(0, flat.size - 1, SAMPLE).astype(np.int64)]


def _distance(single: np.ndarray, double: np.ndarray) -> float:
    if single.shape != double.shape:
        return float("inf")
    most = 0.0
    for a, b in zip(pieces(single), pieces(double), strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        move = np.abs(a[both].astype(np.float64) - b[both])
        most = max(most, float(move.max(initial=0.0)))
    return most


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for part in pieces(array):
        digest.update(part.data)
    return digest.hexdigest()[:24]


_ODD = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                                    0xD6E8FEB86659FD93))  # fmt: skip


def _sums(array: np.ndarray) -> np.ndarray:
    """SUMS sums of all values, each value with a sign that its place decides.

    A change of any value changes them; a change δ of n values moves each by about √n·δ.
    """
    total, first = np.zeros(SUMS), 1
    with np.errstate(invalid="ignore"):
        for part in pieces(array):
            place = np.arange(first, first + part.size, dtype=np.uint64)
            first += part.size
            for i, odd in enumerate(_ODD):
                mixed = place * odd
                mixed ^= mixed >> np.uint64(29)
                mixed *= odd
                total[i] += np.where(mixed >> np.uint64(63), part, -part).sum()
    return total
