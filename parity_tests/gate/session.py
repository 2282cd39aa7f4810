"""What the pytest plugin does between its first pair and its report."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cnn_harness.errors import CommandError
from parity_tests.backends.leaves import ParityError
from parity_tests.gate import store
from parity_tests.gate.change import Change
from parity_tests.gate.compare import write_report
from parity_tests.gate.record.subjects import Subject
from parity_tests.gate.record.user_pairs import pair_subject, parse_entries, started_from, starts
from parity_tests.gate.snapshot import backends, record_of, take_snapshot
from parity_tests.gate.store import Snapshot
from parity_tests.gate.verdict import compared

__all__ = ["Gate", "GateError", "entries"]


class GateError(Exception):
    """What stops a session before its first test, in one line."""


def entries(lines: Iterable[str], root: Path) -> dict[str, Callable[[], Subject]]:
    """The pairs of a configuration. Raises GateError."""
    try:
        return parse_entries(lines, root)
    except ParityError as error:
        raise GateError(str(error)) from error


class Gate:
    """A baseline, and the snapshot of now that grows pair by pair; `update` records anew."""

    def __init__(self, folder: Path, update: bool) -> None:
        self.folder, self.update = folder, update
        self.expected: list[str] = []
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

    def _start(self, name: str) -> dict[str, Any] | None:
        if self.old is None or name not in self.old.subjects:
            return None
        return started_from(self.old.subjects[name].inputs)

    def check(self, name: str, make: Callable[[], Subject]) -> tuple[Change, str]:
        """(verdict, what is wrong) of one pair; nothing is wrong within rounding."""
        try:
            if self.old is not None and name not in self.old.subjects:
                return Change.NOT_COMPARED, (
                    f"{name} is not in {self.folder}: record it with --parity-update"
                )
            subject = make()
            start = self._start(name)
            if start is not None:
                subject = _restarted(subject, start)
            working = {side: b for side, b in self._backends.items() if side in subject.make}
            record = record_of(subject, working, lambda line: None)
            record.inputs |= starts(subject, working)
            self.new.subjects[name] = record
            if self.old is None:
                return Change.RECORDED, _failures(name, record)
            comparison = compared(_part(self.old, name), _part(self.new, name))
        except (ParityError, CommandError) as error:
            return Change.NOT_COMPARED, f"{name}: {error}"
        return comparison.verdict, "" if comparison.ok else f"{name}: {comparison.sentence}"

    def finish(self, report: Path) -> None:
        """Record the baseline, or write the report of everything that was compared."""
        gc.unfreeze()
        if self.old is None:
            if self.new.subjects:
                store.write(self.new, self.folder)
            return
        if self.new.subjects:
            write_report(report, compared(self.old, self.new))


def _restarted(subject: Subject, start: dict[str, Any]) -> Subject:
    """The subject from the values that the baseline kept."""
    gluon, theirs = (subject.make[s]() if s in subject.make else None for s in ("gluon", "torch"))
    return pair_subject(subject.name, gluon, theirs, subject.inputs, subject.labels, start=start)


def _failures(name: str, record: store.SubjectRecord) -> str:
    failed = [f for side in record.sides.values() for f in side.failures]
    return f"{name} {failed[0].path} did not run: {failed[0].reason}" if failed else ""


def _part(snapshot: Snapshot, name: str) -> Snapshot:
    return Snapshot(
        snapshot.fingerprint, snapshot.settings, snapshot.absent,
        {name: snapshot.subjects[name]}, snapshot.name,
    )  # fmt: skip
