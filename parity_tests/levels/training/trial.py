"""What a training comparison runs: a pair of nets, a rule, and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity_tests.backends.base import SIDES, backend, leaves_of
from parity_tests.backends.optimizers import Numbers
from parity_tests.backends.runs import Objective
from parity_tests.backends.training import Batch, Key, MakeTrainee, Owned
from parity_tests.numerics.update_rules import Rule, rounding_of
from parity_tests.pairing.align import Pair, Pairing, pair_leaves
from parity_tests.reporting.verdicts import Side

KNOWN_RULES = ("sgd", "nag", "adam")  # those that are written out in `numerics.update_rules`


@dataclass
class Trial:
    """A pair of nets with equal weights, and the steps that both are to take.

    `objective` has both losses and no labels, which come with the batches. `make` has other makers
    of trainees than the backends': tests plant faults there. Unless `strict`, differences between
    the frameworks that are known and predicted are put right before values are compared.
    """

    name: str
    gluon_net: Any
    torch_net: Any
    rule: Rule
    batches: Sequence[Batch]
    objective: Objective
    make: dict[Side, MakeTrainee] = field(default_factory=dict)
    strict: bool = True
    modes: tuple[bool, ...] = (False, True)  # in which the nets can be run; True: in training
    pairing: Pairing = field(init=False)

    def __post_init__(self) -> None:
        self.pairing = self.pair(self.gluon_net, self.torch_net)

    def pair(self, gluon_net: Any, torch_net: Any) -> Pairing:
        """The leaves of these nets, or of clones of them, in pairs."""
        return pair_leaves(leaves_of(gluon_net), leaves_of(torch_net))

    def trainee(self, side: Side, dtype: str, make: MakeTrainee | None = None) -> Any:
        """A new trainee of one side, from the first weights; its keys are by torch path."""
        make = make or self.make.get(side, backend(side).trainee)
        if side == Side.TORCH:
            return make(self.torch_net, dtype, self.rule, self.objective, None)
        return make(self.gluon_net, dtype, self.rule, self.objective, self._paths())

    def _paths(self) -> dict[str, str]:
        return {pair.gluon.path: pair.torch.path for pair in self.pairing.pairs}

    def rule_of(self, key: Key, batch: Batch) -> tuple[Rule, float] | None:
        """The rule and rate that update a parameter in a step; None for a rule not written out."""
        return self.rule, batch.rate

    def slack(self, rule: Rule, side: Side) -> float:
        """What a side's steps may be off, of themselves, beside what they round."""
        return 0.0

    @property
    def most_slack(self) -> float:
        """The largest slack of any parameter."""
        return 0.0


@dataclass
class OwnTrial(Trial):
    """A user's own pair, with the user's own optimizers.

    `owned` has the nets as they were given, and the optimizers; the nets of the trial are what
    those execute. Rules are read from the optimizers.
    """

    owned: Mapping[Side, Owned] = field(default_factory=dict)
    numbers: Mapping[Side, Mapping[Key, Numbers]] = field(default_factory=dict)

    def pair(self, gluon_net: Any, torch_net: Any) -> Pairing:
        if self.owned[Side.GLUON].rebuild is None:
            return super().pair(gluon_net, torch_net)
        both = zip(leaves_of(gluon_net), leaves_of(torch_net), strict=True)
        pairs = [Pair(gluon, torch) for gluon, torch in both]
        return Pairing(pairs, [], [(pair.gluon, pair.torch) for pair in pairs])

    def trainee(self, side: Side, dtype: str, make: MakeTrainee | None = None) -> Any:
        made: Any = backend(side).own_trainee
        paths = None if side == Side.TORCH else self._paths()
        return made(self.owned[side], dtype, self.rule, self.objective, paths)

    def read_numbers(self) -> None:
        """Learn from new optimizers what each parameter is updated with, and so the rule."""
        read: dict[Side, dict[Key, Numbers]] = {}
        for side in SIDES:
            trainee = self.trainee(side, "float64")
            keys = trainee.keys(trainable=True)
            read[side] = {key: trainee.updater.numbers("/".join(key)) for key in keys}
            trainee.release()
        self.numbers = read
        rules = [rule_from(numbers) for numbers in read[Side.GLUON].values()]
        known = rules and all(rule is not None and rule.slots == _slots(rules) for rule in rules)
        self.rule = next((rule for rule in rules if rule is not None), _UNKNOWN)
        self.rule = self.rule if known else _UNKNOWN

    def rule_of(self, key: Key, batch: Batch) -> tuple[Rule, float] | None:
        numbers = self.numbers[Side.GLUON].get(key, {"rule": "none"})
        rule = rule_from(numbers) if self.rule is not _UNKNOWN else None
        return None if rule is None else (rule, float(numbers["rate"]))

    def slack(self, rule: Rule, side: Side) -> float:
        return rounding_of(rule) if side == Side.TORCH else 0.0

    @property
    def most_slack(self) -> float:
        """The largest slack of any parameter; of an unknown rule what its numbers may round."""
        rules = [rule_from(numbers) for numbers in self.numbers[Side.GLUON].values()]
        return max((rounding_of(rule or _UNKNOWN) for rule in rules), default=0.0)


_UNKNOWN = Rule("unknown")


def _slots(rules: Sequence[Rule | None]) -> tuple[str, ...]:
    return rules[0].slots if rules and rules[0] is not None else ()


def rule_from(numbers: Numbers) -> Rule | None:
    """The rule of a parameter's numbers; None where it is not written out."""
    if numbers["rule"] not in KNOWN_RULES or numbers.get("gradient scale", 1.0) != 1.0:
        return None
    names = ("momentum", "wd", "beta1", "beta2", "epsilon")
    values = {name: float(numbers[name]) for name in names if name in numbers}
    clip = float(numbers.get("clip", -1.0))
    return Rule(str(numbers["rule"]), clip=clip if clip > 0 else None, **values)
