"""The nets that get faults, and what the checker makes of those in one of them.

`python -m parity_tests.tests.pairing.real_faults.nets ZOO GLUON TORCH SIZE BATCH COUNT` prints each
outcome as a line of JSON. MXNet can end its process by a signal; the table must not go with it.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from parity_tests.backends.gluon.clones import clone
from parity_tests.cases.pairs import Case
from parity_tests.faults.kinds.pairs import detected
from parity_tests.levels.view import trace_pair, view_of
from parity_tests.pairing.parameters import transfer_parameters
from parity_tests.reporting.kill_matrix import Outcome
from parity_tests.reporting.verdicts import Level, Side
from parity_tests.tests.pairing.nets import initialised
from parity_tests.tests.pairing.real_faults.gluon_recipes import GLUON
from parity_tests.tests.pairing.real_faults.planting import NotHere, Site, behaviour, differ, sites
from parity_tests.tests.pairing.real_faults.recipes import Recipe
from parity_tests.tests.pairing.real_faults.torch_recipes import TORCH
from parity_tests.tests.pairing.real_pairs import build, images
from parity_tests.tests.pairing.real_table import Pair

RECIPES = (*TORCH, *GLUON)

# Of each family one, at the smallest size; with how many faults are planted
NETS: list[tuple[Pair, int]] = [
    (Pair("cv2", "nin_cifar10", "nin_cifar10", 32, 32), 12),
    (Pair("cv2", "resnet20_cifar10", "resnet20_cifar10", 32, 32), 12),
    (Pair("cv2", "preresnet20_cifar10", "preresnet20_cifar10", 32, 32), 12),
    (Pair("cv2", "seresnet20_cifar10", "seresnet20_cifar10", 32, 32), 12),
    (Pair("cv2", "resnext20_16x4d_cifar10", "resnext20_16x4d_cifar10", 32, 32), 12),
    (Pair("cv2", "resneta10", "resneta10", 224, 64), 12),
    (Pair("model_zoo", "resnet18_v1", "resnet18", 224, 64), 10),
    (Pair("cv2", "mobilenetv2_wd4", "mobilenetv2_wd4", 224, 193), 14),
    (Pair("cv2", "shufflenet_g3_wd4", "shufflenet_g3_wd4", 224, 193), 10),
    (Pair("cv2", "efficientnet_b0", "efficientnet_b0", 224, 64), 14),
    (Pair("cv2", "diaresnet20_cifar10", "diaresnet20_cifar10", 32, 32), 8),
]


class _Clean:
    """An equal pair with equal weights, what it does, and where each operation is shown."""

    def __init__(self, pair: Pair, seed: int = 0) -> None:
        self.name = pair.gluon
        self.inputs = images(pair.batch, pair.smallest)
        torch.manual_seed(seed)
        gluon, theirs = build(pair.zoo, pair.gluon, pair.torch)
        self.nets = {Side.GLUON: gluon, Side.TORCH: theirs}
        initialised(self.nets[Side.GLUON], self.inputs)
        transfer_parameters(self.nets[Side.GLUON], self.nets[Side.TORCH], [self.inputs])
        self.does = {side: behaviour(net, self.inputs) for side, net in self.copies().items()}
        nets, inputs = dict(self.nets), (self.inputs,)
        traced, _ = trace_pair(nets, inputs)
        view = view_of(nets, traced[0], inputs)
        self.sites = {side: sites(view, side) for side in self.nets}

    def copies(self) -> dict[Side, Any]:
        gluon, theirs = self.nets[Side.GLUON], self.nets[Side.TORCH]
        return {Side.GLUON: clone(gluon, None), Side.TORCH: copy.deepcopy(theirs)}

    def case(self, recipe: Recipe, site: Site) -> Case:
        """A copy of the pair with this fault. Raises NotHere where it is none."""
        for planted in (True, False):  # what is run for a look is another copy
            nets = self.copies()
            recipe.plant(site, nets[recipe.side])
            if planted and not self._changes(recipe, nets[recipe.side]):
                raise NotHere(f"{recipe.name} changes nothing")
        return Case(self.name, nets[Side.GLUON], nets[Side.TORCH], self.inputs)

    def _changes(self, recipe: Recipe, net: Any) -> bool:
        try:
            return differ(self.does[recipe.side], behaviour(net, self.inputs))
        except (RuntimeError, ValueError, IndexError, AttributeError, KeyError) as error:
            raise NotHere(f"the net does not run: {error}") from error


def planted_in(pair: Pair, count: int) -> Iterator[Outcome]:
    """So many faults, each of another kind, in the first, second and last third of a net in turn.

    Which, and where, is drawn; the net's name is the seed. A count of 0 is all that fit.
    """
    clean = _Clean(pair)
    draw = random.Random(pair.gluon)
    recipes = list(RECIPES)
    draw.shuffle(recipes)
    done = 0
    for recipe in recipes:
        if count and done >= count:
            return
        for site in _candidates(clean, recipe, done % 3, draw):
            try:
                case = clean.case(recipe, site)
            except NotHere:
                continue
            yield _outcome(recipe, site, case)
            done += 1
            break


_TRIES = 6  # places at which a fault may turn out to be none


def _candidates(clean: _Clean, recipe: Recipe, third: int, draw: random.Random) -> list[Site]:
    fitting = [s for s in clean.sites[recipe.side] if s.op.kind in recipe.kinds and s.here]
    drawn = draw.sample(fitting, len(fitting))
    return sorted(drawn, key=lambda s: 3 * s.op.index // len(s.graph) != third)[:_TRIES]


_ROUNDS = ((Level.STRUCTURE, Level.WEIGHTS), (Level.FORWARD,), (Level.BACKWARD,))


def _outcome(recipe: Recipe, site: Site, case: Case) -> Outcome:
    """What was found beside what may be found, of which the first is shown if it is neither."""
    started = time.perf_counter()
    found = detected(case, _ROUNDS)
    right = recipe.is_right(site, found.path)
    names = (found.diagnosis,) if found.diagnosis in recipe.names else recipe.names
    return Outcome(
        fault=recipe.name, group=case.name, where=site.op.path, imitates="", source="",
        level=recipe.level, path=found.path if right else min(recipe.paths(site)),
        caught_level=found.level, caught_path=found.path, diagnosis=found.diagnosis,
        expected_diagnosis=names[0] if names else "", message=found.message,
        seconds=time.perf_counter() - started,
    )  # fmt: skip


if __name__ == "__main__":
    _, zoo, gluon_name, torch_name, *numbers = sys.argv
    size, batch, count = map(int, numbers)
    for outcome in planted_in(Pair(zoo, gluon_name, torch_name, size, size, batch), count):
        print(json.dumps(asdict(outcome)), flush=True)
