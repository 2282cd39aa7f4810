"""Who moved: one verdict on two snapshots, for each framework and across both."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from parity_tests.gate.agreement import Accord, PairAgreement
from parity_tests.gate.change import Change, ChangedQuantity, changed_quantities, unrecorded
from parity_tests.gate.fingerprint import GROUPS, difference
from parity_tests.gate.record.operations import operation_changes
from parity_tests.gate.record.quantities import CHECKS, QuantityRecord, SideRecord
from parity_tests.gate.store import Snapshot, SnapshotError
from parity_tests.reporting.verdicts import Check, Level

NAMES = {"gluon": "MXNet", "torch": "torch"}
_LIBRARY = {"gluon": "mxnet", "torch": "torch"}
NOW = "now"


@dataclass(frozen=True)
class SideVerdict:
    """One framework's: what is not compared has its reason in `cause`."""

    side: str
    verdict: Change
    first: ChangedQuantity | None = None
    moved: int = 0
    compared: int = 0
    cause: str = ""
    pattern: str = ""

    @property
    def sentence(self) -> str:
        """`MXNet moved at lenet features.3 (conv2d) forward: output; …`."""
        name = NAMES[self.side]
        if self.first is None:
            return f"{name} {self.verdict}" + (f" ({self.cause})" if self.cause else "")
        how = "moved" if self.verdict == Change.SEMANTICS else "moved within rounding, first"
        parts = [f"{name} {how} at {self.first.place}: {self.first.detail}"]
        if self.first.code and self.first.code != self.first.detail:
            parts.insert(0, f"{name} {how} at {self.first.place}: it {self.first.code}")
            parts[1] = self.first.detail
        parts += [text for text in (self.first.hint, self.pattern, self.cause) if text]
        return "; ".join(parts)


@dataclass(frozen=True)
class Agreement:
    """How many quantities of both sides agree in float64, in one snapshot or across two."""

    what: str
    compared: int
    apart: int
    first: str = ""


@dataclass(frozen=True)
class PairChange:
    """Whether the two nets of a user's own pair agree: when the old snapshot was taken, and now."""

    name: str
    before: PairAgreement | None
    now: PairAgreement | None

    @property
    def verdict(self) -> Accord:
        return self.now.verdict if self.now is not None else Accord.NOT_JUDGED

    @property
    def sentence(self) -> str:
        """`not in agreement, and never was: …`."""
        if self.now is None or self.now.verdict != Accord.APART:
            return self.now.sentence if self.now else str(Accord.NOT_JUDGED)
        since = {
            Accord.APART: ", and was not when the baseline was recorded",
            Accord.AGREED: ", and was when the baseline was recorded",
        }.get(self.before.verdict if self.before else Accord.NOT_JUDGED, "")
        return f"{self.now.verdict}{since}: {self.now.detail}"


@dataclass
class Comparison:
    """The outcome of two snapshots: whether anything moved, and whether the frameworks agree.

    `ok` says of the first that it is no alarm; `accord` is the second. `notes` are changes of what
    is executed that moved no value.
    """

    old: str
    new: str
    sides: dict[str, SideVerdict]
    agreements: list[Agreement]
    environment: dict[str, list[str]]
    changed: list[ChangedQuantity] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    pairs: list[PairChange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def accord(self) -> Accord:
        """Whether MXNet and torch agree now, in everything that both of them computed."""
        now = [each for each in self.agreements if each.what == NOW]
        verdicts = [pair.verdict for pair in self.pairs]
        if Accord.APART in verdicts or any(each.apart for each in now):
            return Accord.APART
        agreed = Accord.AGREED in verdicts or any(each.compared for each in now)
        return Accord.AGREED if agreed else Accord.NOT_JUDGED

    @property
    def headline(self) -> str:
        """Both verdicts: `unchanged, and MXNet and torch are in agreement`."""
        if self.accord == Accord.NOT_JUDGED:
            return f"{self.verdict}; MXNet beside torch is not judged"
        joined = "but" if self.ok and self.accord == Accord.APART else "and"
        return f"{self.verdict}, {joined} MXNet and torch are {self.accord}"

    @property
    def verdict(self) -> Change:
        """The worst of the sides; what compares nothing is no pass."""
        verdicts = [side.verdict for side in self.sides.values()]
        for verdict in (Change.SEMANTICS, Change.ROUNDING, Change.UNCHANGED):
            if verdict in verdicts:
                return verdict
        return Change.NOTHING_COMPARED

    @property
    def ok(self) -> bool:
        return self.verdict in (Change.UNCHANGED, Change.ROUNDING)

    @property
    def sentence(self) -> str:
        """Who moved, in one line: what moved most first."""
        order = {Change.SEMANTICS: 0, Change.ROUNDING: 1, Change.UNCHANGED: 2}
        sides = sorted(self.sides.values(), key=lambda s: order.get(s.verdict, 3))
        return ". ".join(side.sentence for side in sides)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; an infinite error is the string "inf"."""
        return {
            "verdict": self.verdict,
            "ok": self.ok,
            "sentence": self.sentence,
            "old": self.old,
            "new": self.new,
            "sides": {k: {**_plain(v), "sentence": v.sentence} for k, v in self.sides.items()},
            "agreement": self.accord,
            "pairs": [{**asdict(pair), "sentence": pair.sentence} for pair in self.pairs],
            "notes": self.notes,
            "across": [asdict(agreement) for agreement in self.agreements],
            "environment": self.environment,
            "not_compared": self.not_compared,
            "movements": [_plain(quantity) for quantity in self.changed],
        }


def _plain(value: Any) -> dict[str, Any]:
    def number(item: Any) -> Any:
        if isinstance(item, dict):
            return {k: number(v) for k, v in item.items()}
        return str(item) if isinstance(item, float) and not math.isfinite(item) else item

    return number(asdict(value))


def compared(old: Snapshot, new: Snapshot) -> Comparison:
    """Judge a new snapshot by an old one. Raises SnapshotError where they cannot be compared."""
    _same_start(old, new)
    environment = difference(old.fingerprint, new.fingerprint)
    changed: list[ChangedQuantity] = []
    counts: Counter[str] = Counter()
    shared = [name for name in old.subjects if name in new.subjects]
    for name in shared:
        for side in NAMES:
            a, b = (s.subjects[name].sides.get(side) for s in (old, new))
            if a is None or b is None:
                continue
            counts[side] += len(a.quantities)
            changed += changed_quantities(name, side, a, b)
    changed.sort(key=lambda quantity: quantity.order)
    sides = {
        side: _side(
            side, [m for m in changed if m.side == side], counts[side], environment, old, new
        )
        for side in NAMES
    }
    missing = _unrecorded(old, new, shared)
    missing += [f"{n} is not in {new.name}" for n in old.subjects if n not in new.subjects]
    missing += [f"{n} is not in {old.name}" for n in new.subjects if n not in old.subjects]
    pairs = [PairChange(name, *(s.subjects[name].agreement for s in (old, new))) for name in shared]
    pairs = [pair for pair in pairs if pair.before or pair.now]
    judged = {pair.name for pair in pairs}
    return Comparison(
        old.name,
        new.name,
        sides,
        _agreements(old, new, [name for name in shared if name not in judged]),
        environment,
        changed,
        missing,
        pairs,
        _notes(old, new, shared, changed),
    )


def _notes(
    old: Snapshot, new: Snapshot, shared: list[str], changed: list[ChangedQuantity]
) -> list[str]:
    """What is executed otherwise, and moved no value."""
    told = {(m.subject, m.side) for m in changed if m.verdict == Change.SEMANTICS}
    notes = []
    for name in shared:
        for side in NAMES:
            sides = [s.subjects[name].sides.get(side, SideRecord()) for s in (old, new)]
            if (name, side) in told:
                continue
            for path, change in operation_changes(*(s.operations for s in sides)).changes.items():
                line = f" ({change.step.source})" if change.step.source else ""
                notes.append(
                    f"{name} {path}{line}, {NAMES[side]}: {change.detail}; no value moved by it"
                )
    return notes


def _unrecorded(old: Snapshot, new: Snapshot, shared: list[str]) -> list[str]:
    """What an earlier version of this program did not record yet, subject by subject."""
    missing = []
    for name in shared:
        a, b = old.subjects[name].sides, new.subjects[name].sides
        checks = {check for side in a.keys() & b.keys() for check in unrecorded(a[side], b[side])}
        missing += [f"{name} {level} ({check}) is not in {old.name}"
                  for level, check in CHECKS if (level, check) in checks]  # fmt: skip
    return missing


def _same_start(old: Snapshot, new: Snapshot) -> None:
    if old.settings != new.settings:
        changed = [k for k in old.settings if old.settings[k] != new.settings.get(k)]
        raise SnapshotError(
            f"{old.name} and {new.name} were taken with other settings ({', '.join(changed)}): "
            "take the new one as the old one was taken"
        )
    for name in old.subjects.keys() & new.subjects.keys():
        a, b = old.subjects[name].inputs, new.subjects[name].inputs
        names = [{k for k in x if not k.startswith("start/")} for x in (a, b)]
        shared = a.keys() & b.keys()  # where a framework is missing, so are its first values
        if names[0] != names[1] or any(not np.array_equal(a[key], b[key]) for key in shared):
            raise SnapshotError(f"{old.name} and {new.name} ran {name} on other inputs")


def _side(
    side: str, moved: list[ChangedQuantity], count: int, environment: dict[str, list[str]],
    old: Snapshot, new: Snapshot,
) -> SideVerdict:  # fmt: skip
    if not count:
        reasons = [f"not in {s.name}: {s.absent[side]}" for s in (old, new) if side in s.absent]
        return SideVerdict(
            side, Change.NOT_COMPARED, cause="; ".join(reasons) or "no subject has it"
        )
    if not moved:
        return SideVerdict(side, Change.UNCHANGED, compared=count)
    first = moved[0]
    cause, pattern = _cause(side, first.verdict, environment), _pattern(first, moved, old)
    if first.code:
        beside = f", and {cause}" if _LIBRARY[side] in environment else ""
        cause = f"the net's own code changed{beside}"
    return SideVerdict(side, first.verdict, first, len(moved), count, cause, pattern)


def _cause(side: str, verdict: Change, environment: dict[str, list[str]]) -> str:
    """What differs between the two environments and can be the reason.

    A thread count or another CPU changes the order in which numbers are added, and no semantics.
    """
    rounding = verdict == Change.ROUNDING
    library = environment.get(_LIBRARY[side])
    places = [g for g in ("threads", "machine") if g in environment]
    if library:
        version = next((x for x in library if x.startswith("version")), library[0])
        also = " and ".join(GROUPS[g] for g in places) if rounding else ""
        beside = f", and {also} too, which can round otherwise by itself" if also else ""
        return f"the library changed ({version}){beside}"
    suspects = [g for g in ("models", "switches", "numpy") if g in environment]
    blamed = [*places, *suspects] if rounding else [*suspects]
    if blamed:
        changed = "" if rounding else " changed"
        return "the library is the same; " + "; ".join(
            f"{GROUPS[g]}{changed} ({', '.join(environment[g])})" for g in blamed
        )
    if places:
        named = " and ".join(GROUPS[g] for g in places)
        return f"the library is the same and {named} alone cannot explain it"
    return "nothing that the fingerprint knows has changed"


def _pattern(first: ChangedQuantity, moved: list[ChangedQuantity], old: Snapshot) -> str:
    """Whether every operation of the kind moved: then it is the operation, and not the place."""
    if first.check != Check.LOCAL or first.level == Level.LOSS or first.code:
        return ""
    level = (first.level, first.verdict)
    hit = {
        (m.subject, m.path): m.kind
        for m in moved
        if m.check == Check.LOCAL and (m.level, m.verdict) == level
    }
    there: Counter[str] = Counter()
    for record in old.subjects.values():
        record_of_side = record.sides.get(first.side, SideRecord())
        paths = {k.path: k.kind for k in record_of_side.quantities
                 if (k.level, k.check) == (first.level, Check.LOCAL)}  # fmt: skip
        there.update(paths.values())
    counts = Counter(hit.values())
    parts = [f"{counts[kind]} of {there[kind]} {kind}" for kind in counts]
    what = "update rules" if first.level == Level.OPTIMIZER else "operations"
    if len(hit) == 1:
        return f"it alone of all {what} moved by itself"
    return f"of all {what} alone, {', '.join(sorted(parts))} moved"


def _agreements(old: Snapshot, new: Snapshot, shared: list[str]) -> list[Agreement]:
    """MXNet beside torch, in float64: before, now, and each one's new beside the other's old."""
    agreements = []
    for what, left, right in (
        ("before", old, old),
        (NOW, new, new),
        ("new MXNet beside old torch", new, old),
        ("old MXNet beside new torch", old, new),
    ):
        counted = apart = 0
        first = ""
        for name in shared:
            a = left.subjects[name].sides.get("gluon")
            b = right.subjects[name].sides.get("torch")
            if a is None or b is None:
                continue
            theirs = {quantity.key: quantity for quantity in b.quantities}
            for quantity in a.quantities:
                other = theirs.get(quantity.key)
                if other is None or other.shape != quantity.shape:
                    continue
                counted += 1
                if not _agree(quantity, other):
                    apart += 1
                    first = first or f"{name} {quantity.path} {quantity.level}: {quantity.name}"
        if counted:
            agreements.append(Agreement(what, counted, apart, first))
    return agreements


_TOGETHER = 1e-9  # of the largest value: as two free runs of training in float64 must stay


def _agree(a: QuantityRecord, b: QuantityRecord) -> bool:
    if a.level == Level.ARTEFACTS:
        return True  # float32 alone
    bound = max(a.limit, b.limit) * max(a.fraction, b.fraction)
    largest = float(np.abs(b.double[np.isfinite(b.double)]).max(initial=0.0))
    if a.level in (Level.TRAINING, Level.OPTIMIZER) or a.kind == "batchnorm":
        bound = max(bound, _TOGETHER * largest)
    return bool(np.nanmax(np.abs(a.double - b.double), initial=0.0) <= 4 * bound)
