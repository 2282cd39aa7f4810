"""A user's own pair in training: the user's loss, optimizers and batches."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

from gluon_cnn_parity import did_you_mean
from parity_tests.backends.base import SIDES, backend
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.losses import Losses, check_labels, objective_of
from parity_tests.backends.optimizers import Numbers, Optimizers
from parity_tests.backends.runs import NET, Arrays, arrays, place_of, reason_of, rounded
from parity_tests.backends.training import OWN_RATE, Batch, Key, Owned
from parity_tests.cases.factories import parse_call
from parity_tests.levels.optimizer.judged import judged_update
from parity_tests.levels.referee import Subject, attempt, not_compared
from parity_tests.levels.training.ledger import Ledger
from parity_tests.levels.training.rows import training_rows
from parity_tests.levels.training.trial import KNOWN_RULES, OwnTrial
from parity_tests.levels.view import View
from parity_tests.numerics.compare import UNIT, compare
from parity_tests.numerics.update_rules import Rule, Update, rounding_of
from parity_tests.reporting.progress import show
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

DRIVEN = 5  # steps of the optimizers on gradients that are drawn
_RULE = {"lr": "rate", "learning_rate": "rate", "weight_decay": "wd", "eps": "epsilon"}
_NUMBERS = {
    "sgd": ("lr", "momentum", "wd"),
    "nag": ("lr", "momentum", "wd"),
    "adam": ("lr", "beta1", "beta2", "epsilon", "wd"),
}


def check_optimizers(optimizer: Optimizers) -> dict[Side, Callable[[Any], Any]]:
    """Makers of both sides' optimizers, over a net.

    Raises ParityError for an unknown name or number.
    """
    both = (optimizer, optimizer) if isinstance(optimizer, str) else tuple(optimizer)
    if len(both) != 2:
        raise ParityError("optimizer is a text, or a pair: Gluon's, then torch's")
    return {side: _maker(side, one) for side, one in zip(SIDES, both, strict=True)}


def _maker(side: Side, optimizer: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    if not isinstance(optimizer, str):
        return partial(_made, side, optimizer)
    name, more, given = parse_call(optimizer, "optimizer")
    if name not in _NUMBERS:
        raise ParityError(
            f"unknown optimizer {name!r}, expected {', '.join(_NUMBERS)} with its numbers, such as "
            f"sgd(lr=0.1), or a function of the net{did_you_mean(name, _NUMBERS)}"
        )
    known = _NUMBERS[name]
    numbers = {_RULE.get(key, key): value for key, value in given.items()}
    unknown = [k for k in given if _RULE.get(k, k) not in {_RULE.get(n, n) for n in known}]
    if more or unknown:
        what = f"{unknown[0]!r}{did_you_mean(unknown[0], known)}" if unknown else "a bare number"
        raise ParityError(f"{optimizer}: {name} has {', '.join(known)}, got {what}")
    right = all(type(value) in (int, float) for value in numbers.values())
    if not right or not numbers.get("rate", 0) > 0:
        raise ParityError(f"{optimizer}: expected numbers, and a rate: {name}(lr=0.1)")
    values = {key: float(value) for key, value in numbers.items()}
    return lambda net: backend(side).named_optimizer(net, name, values)


def _made(side: Side, make: Callable[[Any], Any], net: Any) -> Any:
    try:
        optimizer = make(net)
    except Exception as error:  # a user's function may raise anything
        reason = f"{reason_of(error)}{place_of(error)}"
        raise ParityError(f"the {side} optimizer: {reason}") from error
    if wrong := backend(side).check_optimizer(optimizer):
        raise ParityError(f"the {side} optimizer is {wrong}")
    return optimizer


def own_trial(
    nets: Mapping[Side, Any],
    subject: Subject,
    view: View | None,
    batches: Sequence[tuple[Arrays, Any]],
    loss: Losses | None,
    optimizers: Mapping[Side, Callable[[Any], Any]],
    steps: int,
) -> OwnTrial:
    """The pair as it trains, for `steps` steps over and over the batches.

    Raises ParityError for batches without labels, or of another shape than the first.
    """
    outputs = subject.run(Side.TORCH, "float64", train=True).outputs
    first = [x.shape for x in batches[0][0]]
    prepared = []
    for number, (inputs, labels) in enumerate(batches, 1):
        if labels is None:
            raise ParityError("the levels optimizer and training need labels for every batch")
        if [x.shape for x in inputs] != first:
            shapes = [x.shape for x in inputs]
            raise ParityError(f"batch {number} is {shapes}, expected the first one's {first}")
        (known,) = arrays(labels)
        check_labels(outputs[0], known, classes=loss in (None, "softmax_ce"))
        images, *more = (rounded(x, "float32") for x in inputs)
        prepared.append(Batch(images, known, OWN_RATE, {}, tuple(more)))
    objective = objective_of(loss or "softmax_ce", outputs, prepared[0].labels)
    owned = {
        side: Owned(
            nets[side],
            None if view is None else view.rebuild[side],
            optimizers[side],
            subject.strict,
        )
        for side in SIDES
    }
    trial = OwnTrial(
        "own pair",
        subject.gluon_net,
        subject.torch_net,
        Rule("unknown"),
        list(islice(cycle(prepared), steps)),
        replace(objective, labels=None),
        strict=subject.strict,
        modes=subject.modes,
        owned=owned,
    )
    trial.read_numbers()
    return trial


def rows_of_level(level: Level, trial: OwnTrial, steps: int) -> tuple[list[Row], Coverage]:
    """What a level says of a trial."""
    numbers = list(_number_rows(trial))
    if level == Level.OPTIMIZER:
        rows, coverage = _driven_rows(trial)
        return [*numbers, *rows], coverage
    if any(row.quantity.endswith("training") for row in numbers):
        why = "the two nets do not train the same parameters: see the level optimizer"
        return [not_compared(Level.TRAINING, NET, "parameters", why)], Coverage()
    rows, coverage = attempt("training", training_rows, trial, steps, min(3, steps))
    return rows, coverage


def _number_rows(trial: OwnTrial) -> Iterator[Row]:
    """What each parameter is updated with, on either side."""
    ours, theirs = (trial.numbers[side] for side in SIDES)
    for key in dict.fromkeys((*theirs, *ours)):
        path, role = key
        row = partial(Row, level=Level.OPTIMIZER, path=path, check=Check.VALUE)
        if key not in ours or key not in theirs:
            has, lacks = ("Gluon", "torch") if key in ours else ("torch", "Gluon")
            detail = f"{has} trains it, {lacks} does not"
            yield row(
                quantity=f"{role} training", status=Status.DIVERGED, compared=1, detail=detail
            )
            continue
        a, b = _plain(ours[key]), _plain(theirs[key])
        known = {a["rule"], b["rule"]} <= {*KNOWN_RULES, "none"}
        different = [n for n in a if n in b and _as_held(a[n]) != _as_held(b[n])]
        for number in different:
            name = {"rate": "learning rate", "wd": "weight decay"}.get(number, number)
            detail = f"Gluon has {a[number]}, torch has {b[number]}"
            status = Status.DIVERGED if known or number != "rule" else Status.NOTE
            yield row(quantity=f"{role} {name}", status=status, compared=1, detail=detail)
        if not different:
            yield row(quantity=f"{role} numbers", status=Status.OK, compared=len(a))


def _plain(numbers: Numbers) -> Numbers:
    """NAG without momentum is SGD."""
    if numbers["rule"] == "nag" and not numbers.get("momentum"):
        return {**numbers, "rule": "sgd"}
    return numbers


def _as_held(number: float | str) -> float | str:
    """A number as MXNet's operators hold it."""
    return number if isinstance(number, str) else float(np.float32(number))


def _driven_rows(trial: OwnTrial) -> tuple[list[Row], Coverage]:
    """Both optimizers on the same weights and the same gradients, step by step."""
    ledger, coverage = Ledger(), Coverage()
    trainees = {(s, d): trial.trainee(s, d) for d in ("float64", "float32") for s in SIDES}
    both = [k for k in trial.numbers[Side.TORCH] if k in trial.numbers[Side.GLUON]]
    for key in both:
        coverage.expect("optimizer weights", " ".join(key))
    # what both nets read in several places gets one gradient
    held = {k: [id(trainees[s, "float64"].parameter(k)) for s in SIDES] for k in both}
    sent = {k: next(first for first in both if held[first] == held[k]) for k in both}
    for number in range(1, DRIVEN + 1):
        show(Level.OPTIMIZER, f"step {number} of {DRIVEN}")
        after: dict[tuple[Side, str], Any] = {}
        before: dict[tuple[Side, str], Any] = {}
        for at, trainee in trainees.items():
            before[at] = trainee.state()
            for key in both:
                shape = before[at].weights[key].shape
                trainee.set_gradient(key, _gradient(sent[key], number, shape).astype(at[1]))
            attempt(f"{at[0].framework}'s optimizer in {at[1]}", trainee.update, OWN_RATE, 1)
            after[at] = trainee.state()
        for order, key in enumerate(both):
            rows = list(_judged(trial, key, sent[key], number, before, after))
            for row in rows:
                ledger.add(number, (order,), row)
            if rows:
                coverage.done("optimizer weights", " ".join(key))
    for trainee in trainees.values():
        trainee.release()
    return ledger.rows(), coverage


def _gradient(key: Key, step: int, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng([zlib.crc32("/".join(key).encode()), step])
    return generator.normal(size=shape).astype(np.float32) * np.float32(
        10 ** generator.uniform(-3, 0)
    )


def _judged(
    trial: OwnTrial,
    key: Key,
    sent: Key,
    step: int,
    before: Mapping[tuple[Side, str], Any],
    after: Mapping[tuple[Side, str], Any],
) -> Iterator[Row]:
    path, role = key
    known = trial.rule_of(key, trial.batches[0])
    if known is None:
        ours, theirs = (after[side, "float64"].weights[key] for side in SIDES)
        if (trial.numbers[Side.GLUON][key]["rule"], trial.numbers[Side.TORCH][key]["rule"]) == (
            "none",
            "none",
        ):
            return
        moved = np.abs(ours - before[Side.GLUON, "float64"].weights[key]).max()
        size = rounding_of(Rule("unknown")) * float(moved) / UNIT["float64"]
        scale = size + np.abs(ours)
        verdict = compare(theirs, ours, scale=scale, factor=16, content="any")
        yield Row.judged(
            verdict, level=Level.OPTIMIZER, path=path, quantity=role, check=Check.LOCAL,
            side=Side.TORCH, dtype="float64", mode=Mode.TRAIN,
        )  # fmt: skip
        return
    rule, rate = known
    for side, dtype in before:
        old, new = before[side, dtype], after[side, dtype]
        gradient = _gradient(sent, step, old.weights[key].shape).astype(dtype)
        yield from judged_update(
            rule, Update(rate, 1, step, rate if step > 1 else 0.0),
            {**old.slots[key], "weight": old.weights[key]}, gradient,
            {**new.slots[key], "weight": new.weights[key]},
            level=Level.OPTIMIZER, path=path, side=side, check=Check.LOCAL, role=role,
            slack=trial.slack(rule, side),
        )  # fmt: skip
