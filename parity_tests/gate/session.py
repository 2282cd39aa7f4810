"""What the pytest plugin does between its first pair and its report."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cnn_harness.errors import CommandError
from parity_tests.backends.base import SIDES, Backend
from parity_tests.backends.leaves import ParityError
from parity_tests.gate import store
from parity_tests.gate.agreement import Accord, judge_pair
from parity_tests.gate.change import Change
from parity_tests.gate.compare import write_report
from parity_tests.gate.record.operations import execute
from parity_tests.gate.record.quantities import SideRecord
from parity_tests.gate.record.sides import Execute, start_of
from parity_tests.gate.record.subjects import Subject
from parity_tests.gate.record.user_pairs import pair_subject, parse_entries, started_from, starts
from parity_tests.gate.snapshot import backends, record_of, take_snapshot
from parity_tests.gate.store import Snapshot, SubjectRecord
from parity_tests.gate.verdict import PairChange, compared
from parity_tests.reporting.verdicts import Check


class GateError(Exception):
    """What stops a session before its first test, in one line."""


def entries(lines: Iterable[str], root: Path) -> dict[str, Callable[[], Subject]]:
    """The pairs of a configuration. Raises GateError."""
    try:
        return parse_entries(lines, root)
    except ParityError as error:
        raise GateError(str(error)) from error


@dataclass(frozen=True)
class PairOutcome:
    """What a session says of one pair.

    `problem` is why its test fails, empty where it does not; `expected` the user's own reason why
    the two nets may differ, where they do.
    """

    name: str
    verdict: Change
    accord: Accord
    sentence: str
    problem: str = ""
    expected: str = ""

    @property
    def green(self) -> bool:
        """Whether nothing moved beyond rounding, and the two nets agree."""
        return not self.problem and self.accord == Accord.AGREED


def reasons(lines: Iterable[str]) -> dict[str, str]:
    """`parity_apart` lines, `name = reason`. Raises GateError."""
    found = {}
    for line in filter(None, (line.strip() for line in lines)):
        name, _, reason = (part.strip() for part in line.partition("="))
        if not name or not reason:
            raise GateError(f"parity_apart has {line!r}, expected name = why the two may differ")
        found[name] = reason
    return found


class Gate:
    """A baseline, and the snapshot of now that grows pair by pair; `update` records anew.

    `apart` are the pairs that may disagree, each with the reason; with `transfer` each torch net
    is recorded with its Gluon net's weights; source files are named as they lie under `root`.
    """

    def __init__(
        self,
        folder: Path,
        update: bool,
        *,
        apart: Mapping[str, str] = MappingProxyType({}),
        transfer: bool = False,
        root: Path = Path(),
    ) -> None:
        self.folder, self.update = folder, update
        self.expected: list[str] = []
        self.outcomes: list[PairOutcome] = []
        self._apart, self._transfer, self._root = apart, transfer, root
        if transfer and not update:
            raise GateError("--parity-transfer is for recording: add --parity-update")
        try:
            self.old = None if update else store.read(folder)
            store.check_free(folder)
            self.new = take_snapshot([], rules=False)
        except CommandError as error:
            hint = "" if update else " (record one with --parity-update)"
            raise GateError(f"--parity-baseline: {error}{hint}") from error
        self.new.name = "now"
        self._backends, _ = backends()
        gc.freeze()  # what is there stays: taking a pair collects, and would search it each time

    def of(self, name: str, pair: Any) -> Subject:
        """The subject of a fixture's entry: (gluon_net, torch_net, inputs[, labels])."""
        if not isinstance(pair, tuple) or len(pair) not in (3, 4):
            raise ParityError(
                f"parity_pairs[{name!r}] is a {type(pair).__name__}, expected "
                "(gluon_net, torch_net, inputs[, labels])"
            )
        return pair_subject(name, *pair)

    def check(self, name: str, make: Callable[[], Subject]) -> PairOutcome:
        """Both verdicts of one pair; nothing is wrong within rounding, if the nets agree."""
        try:
            outcome = self._check(name, make)
        except (ParityError, CommandError) as error:
            sentence = f"{name}: {error}"
            outcome = PairOutcome(
                name, Change.NOT_COMPARED, Accord.NOT_JUDGED, sentence, problem=sentence
            )
        self.outcomes.append(outcome)
        return outcome

    def _check(self, name: str, make: Callable[[], Subject]) -> PairOutcome:
        old = None if self.old is None else self.old.subjects.get(name)
        if self.old is not None and old is None:
            raise ParityError(f"it is not in {self.folder}: record it with --parity-update")
        subject = make()
        with ExitStack() as stack:
            for side, make_net in subject.make.items():
                if side in self._backends:
                    stack.enter_context(self._backends[side].set_apart(make_net()))
            return self._judged(name, subject, old)

    def _judged(self, name: str, subject: Subject, old: SubjectRecord | None) -> PairOutcome:
        if old is not None:
            subject = _restarted(subject, started_from(old.inputs))
        elif self._transfer:
            subject = _transferred(subject)
        working = {side: b for side, b in self._backends.items() if side in subject.make}
        record, aside = self._record(subject, working, old)
        record.inputs |= starts(subject, working)
        nets = {
            side: one.with_values(net, start_of(one, net, subject))
            for side, one in working.items()
            for net in [subject.make[side]()]
        }
        agreement = judge_pair(nets, subject.inputs, subject.labels, name)
        # as everything in a snapshot, without the path of this machine's folder
        detail = agreement.detail.replace(f"{self._root.resolve()}{os.sep}", "")
        record.agreement = replace(agreement, detail=detail)
        self.new.subjects[name] = record
        pair = PairChange(name, old.agreement if old else None, record.agreement)
        if self.old is None:
            verdict, moved = Change.RECORDED, _failures(name, record)
            sentence = f"{name}: {verdict}{aside}; {pair.sentence}"
            held = True
        else:
            comparison = compared(_part(self.old, name), _part(self.new, name))
            verdict = comparison.verdict
            moved = "" if comparison.ok else f"{name}: {comparison.sentence}"
            sentence = f"{name}: {verdict}; {pair.sentence}"
            held = pair.before is not None  # else the baseline is of a time that did not ask
        problems = [moved] if moved else []
        expected = ""
        if pair.verdict == Accord.APART and name in self._apart:
            expected = self._apart[name]
        elif pair.verdict == Accord.APART and held:
            problems.append(sentence)
        return PairOutcome(name, verdict, pair.verdict, sentence, "\n".join(problems), expected)

    def _record(
        self, subject: Subject, working: Mapping[str, Backend], old: SubjectRecord | None
    ) -> tuple[SubjectRecord, str]:
        """What the sides give now; by modules, and why, where a new pair cannot be looked into."""

        def say(line: str) -> None: ...

        try:
            return record_of(subject, working, say, self._execute(subject, working, old)), ""
        except ParityError as error:
            if old is not None:
                raise
            return record_of(subject, working, say), f" by its modules, since {error}"

    def _execute(
        self, subject: Subject, working: Mapping[str, Backend], old: SubjectRecord | None
    ) -> dict[str, Execute]:
        """How each side's net is looked into: as the baseline was, which may be by its modules."""
        found: dict[str, Execute] = {}
        for side, one in working.items():
            before = None if old is None else old.sides.get(side, SideRecord()).operations
            if old is not None and before is None:
                continue
            found[side] = partial(
                execute, one, inputs=subject.inputs, before=before, root=self._root
            )
        return found

    def finish(self, report: Path) -> Path | None:
        """Record the baseline, or write the report of all that was compared; where that is."""
        gc.unfreeze()
        if not self.new.subjects:
            return None
        if self.old is None:
            store.write(self.new, self.folder)
            return self.folder
        return write_report(report, compared(self.old, self.new))


def _restarted(subject: Subject, start: dict[str, Any]) -> Subject:
    """The subject from the values that the baseline kept."""
    gluon, theirs = (subject.make[s]() if s in subject.make else None for s in SIDES)
    return pair_subject(subject.name, gluon, theirs, subject.inputs, subject.labels, start=start)


def _transferred(subject: Subject) -> Subject:
    """The subject with Gluon's weights in a copy of the torch net."""
    gluon, theirs = (subject.make[s]() if s in subject.make else None for s in SIDES)
    if gluon is None or theirs is None:
        raise ParityError("--parity-transfer needs a Gluon net and a torch net")
    from parity_tests.pairing.parameters import transfer_parameters  # needs both frameworks

    filled = copy.deepcopy(theirs)
    transfer_parameters(gluon, filled, subject.inputs)
    return pair_subject(subject.name, gluon, filled, subject.inputs, subject.labels)


def _failures(name: str, record: store.SubjectRecord) -> str:
    failed = [
        failure
        for side in record.sides.values()
        for failure in side.failures
        # an operation that does not run alone is seen in the net, where it does
        if side.operations is None or failure.check != Check.LOCAL
    ]
    return f"{name} {failed[0].path} did not run: {failed[0].reason}" if failed else ""


def _part(snapshot: Snapshot, name: str) -> Snapshot:
    return Snapshot(
        snapshot.fingerprint, snapshot.settings, snapshot.absent,
        {name: snapshot.subjects[name]}, snapshot.name,
    )  # fmt: skip
