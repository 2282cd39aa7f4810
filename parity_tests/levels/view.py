"""A pair of nets as what they execute: nets of segments that correspond one to one.

Levels compare leaves. Where nobody wrote two nets leaf for leaf, the leaves are made here: both
nets are traced, aligned by dataflow and cut at the values they share; a segment becomes a leaf.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from parity_tests.backends.base import (
    SIDES,
    Recorded,
    backend,
    is_recorded,
    leaves_of,
    referee,
    source_of,
)
from parity_tests.backends.draws import keys_of, with_draws
from parity_tests.backends.executed import Layout, Traces
from parity_tests.backends.leaves import Leaf, ParityError
from parity_tests.backends.numbers import (
    beside_code,
    beside_fixed,
    beside_nothing,
    beside_numbers,
    with_constants,
    with_exact,
    with_numbers,
    written,
)
from parity_tests.backends.parts import (
    left_joined,
    part_of,
    turned_axes,
    turned_weights,
    with_parts,
    with_turned,
)
from parity_tests.backends.runs import Arrays, NetRun, Objective
from parity_tests.levels.local import LocalCall, agrees, local_calls, local_rows, segment_of
from parity_tests.levels.referee import DidNotRun, Subject, attempt
from parity_tests.levels.weights import copy_paired
from parity_tests.numerics.operators.batch_norm import OWN
from parity_tests.numerics.operators.executed import (
    STEPPED,
    in_double,
    is_known,
    is_single,
    kind_beside,
    kind_of_executed,
    kind_of_rounding,
)
from parity_tests.numerics.operators.record import Rounds
from parity_tests.numerics.operators.table import operator_of
from parity_tests.pairing.align import Pair, Pairing
from parity_tests.pairing.dataflow import NO_STACKS, Alignment, Stacks, align
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Value
from parity_tests.pairing.guessed import settled
from parity_tests.pairing.pinned import known_names, pinned_pairs, unknown_name
from parity_tests.pairing.rules.last_steps import with_last_steps
from parity_tests.pairing.segments import Cut, SegmentPair, Slot, cut
from parity_tests.pairing.statistics import running_statistics, with_own_statistics, without_updates
from parity_tests.pairing.vocabulary import ELEMENTWISE, NORMS, POINTWISE
from parity_tests.reporting.verdicts import Level, Side, Status


class Unseen(DidNotRun):
    """A net that hands its values to code which no framework records."""


@dataclass
class TracedPair:
    """What both nets execute, and how it aligns; `modes` are those in which they execute it.

    `packed` says which parameters are read as parts, since the other net has several, or turned.
    """

    traces: dict[Side, Traces]
    normalised: dict[Side, OperationGraph]
    alignment: Alignment
    modes: tuple[bool, ...]
    packed: Sequence[str] = ()

    def executed(self, side: Side) -> OperationGraph:
        return self.traces[side][self.modes[-1]]


@dataclass
class View:
    """The nets made of segments, their leaves in pairs, and the segments by path."""

    nets: dict[Side, Any]
    traced: TracedPair
    segments: dict[str, SegmentPair] = field(default_factory=dict)
    unused: list[Leaf] = field(default_factory=list)  # held, and never run
    outputs: Mapping[Side, list[tuple[Slot, tuple[int, ...]]]] = field(default_factory=dict)
    recorded: Recorded | None = None  # the side that was run elsewhere
    rebuild: Mapping[Side, Callable[[Any], Any]] = field(default_factory=dict)  # from a clone

    @property
    def output_counts(self) -> list[int]:
        """How many outputs Gluon's net has, and torch's."""
        return [len(self.traced.executed(side).outputs) for side in SIDES]

    @property
    def unreached(self) -> list[tuple[Side, Operation]]:
        """What one side has alone, and no segment leads from."""
        reached = {(side, op.index) for s in self.segments.values() for side, op in s.alone}
        alone = zip(SIDES, self.traced.alignment.alone, strict=True)
        return [
            (side, op)
            for side, ops in alone
            for op in ops
            if (side, op.index) not in reached and op.kind != "reshape"  # which moves no number
        ]

    @property
    def pairing(self) -> Pairing:
        """The segments as leaves, in pairs."""
        listed = [leaves_of(self.nets[side]) for side in SIDES]
        pairs = [Pair(gluon, torch) for gluon, torch in zip(*listed, strict=True)]
        return Pairing(pairs, [], [(pair.gluon, pair.torch) for pair in pairs])


def trace_pair(
    nets: Mapping[Side, Any],
    inputs: Arrays,
    *,
    modes: Sequence[bool] = (False, True),
    mapping: Mapping[str, str] | None = None,
) -> tuple[list[TracedPair], str]:
    """Trace both nets in inference and in training, and align what they run.

    One pair where both execute the same operations in both modes, else one for each mode; and why
    there is none for training, if a net does not run there. `mapping`, from Gluon's names of
    modules and parameters to torch's, pairs what the alignment would not.

    Raises:
        DidNotRun: a net does not run in inference, or, as Unseen, hands its values to numpy.
        ParityError: the mapping has a name that a net does not run, or one net holds in one
            parameter what the other holds in several, or computes in bfloat16.
    """
    traces: dict[Side, dict[bool, OperationGraph]] = {side: {} for side in SIDES}
    refused = ""
    for train in modes:
        for side in SIDES:
            try:
                graph = attempt(side, source_of(nets[side]).trace, nets[side], inputs, train=train)
                traces[side][train] = graph.live()
                _refuse_bfloat16(side, traces[side][train])
                _refuse_unseen(side, traces[side][train])
                _refuse_flat(traces[side][train])
            except DidNotRun as error:
                if not train:
                    raise
                refused = str(error)
    kept = {s: set().union(*map(written, of_side.values())) for s, of_side in traces.items()}

    def aligned(*of: Any) -> TracedPair:
        return _with_draws(nets, _aligned(nets, *of, mapping=mapping or {}, kept=kept))

    if refused or len(modes) == 1:
        return [aligned({side: {False: traces[side][False]} for side in SIDES})], refused
    if all(coincide(nets[side], *by_mode.values()) for side, by_mode in traces.items()):
        return [aligned(traces)], ""
    by_mode = [{side: {train: traces[side][train]} for side in SIDES} for train in (False, True)]
    inference = aligned(by_mode[0])
    roles = {side: running_statistics(inference.normalised[side]) for side in SIDES}
    return [inference, aligned(by_mode[1], roles)], ""


def _refuse_bfloat16(side: Side, graph: OperationGraph) -> None:
    for op in graph:
        if "bfloat16" in op.dtypes:
            raise ParityError(
                f"{side.framework} gives bfloat16 in {op}, which is not compared: "
                "neither numpy nor MXNet has it; let the net compute in float32"
            )


def _refuse_unseen(side: Side, graph: OperationGraph) -> None:
    if where := graph.handed_over():
        raise Unseen(
            f"{side.framework} hands values to numpy ({where}), and what becomes of them can be "
            f"neither followed nor differentiated: write that step with {side.framework}'s "
            "operators, or make the array before where it is made of something else"
        )


def _refuse_flat(graph: OperationGraph) -> None:
    for op in graph:
        if op.kind in ("RNN", "_npx_rnn") and "parameters" in op.parameters:
            raise ParityError(
                f"Gluon's {op} reads all weights of its layers from one array, "
                f"{op.parameters['parameters'].name}, which is not compared: its parts have no "
                "partners; use gluon.rnn.LSTM, GRU or RNN"
            )


def _aligned(
    nets: Mapping[Side, Any],
    traces: Mapping[Side, Traces],
    statistics: Mapping[Side, Mapping[str, str]] | None = None,
    *,
    mapping: Mapping[str, str],
    kept: Mapping[Side, Container[str]],
) -> TracedPair:
    """The traces in one vocabulary, aligned; `statistics` are roles by parameters' names.

    `kept` are the parameters that the nets' own code writes.
    """
    modes = tuple(traces[Side.TORCH])

    def full(side: Side) -> Callable[..., Any]:
        return source_of(nets[side]).full

    found = _one_vocabulary(nets, traces, modes, statistics, mapping)
    live = not any(map(is_recorded, nets.values()))
    if live and not found.alignment.equal:
        in_steps = {
            side: {
                m: with_last_steps(g, found.normalised[side], backend(side).join[1])
                for m, g in of_side.items()
            }
            for side, of_side in found.traces.items()
        }
        takes = [in_steps[side][modes[-1]] is not found.executed(side) for side in SIDES]
        if any(takes):
            again = _one_vocabulary(nets, in_steps, modes, statistics, mapping, found.packed)
            # where one net alone takes states, the other has steps in their place
            better = again.alignment.unlike < found.alignment.unlike
            found = again if not all(takes) or better else found
    turned = turned_weights(found.alignment)
    if live and not found.alignment.equal:
        ordered, alignment = _formed(nets, found.traces, modes, statistics, mapping, ordered=True)
        turned |= turned_axes(alignment, [ordered[side] for side in SIDES], mapping.values())
    if turned and live:
        shapes = {name: shape for name, (_, shape) in turned.items()}
        apart = {m: with_turned(g, shapes) for m, g in found.traces[Side.TORCH].items()}
        traces = {**found.traces, Side.TORCH: apart}
        words = [
            f"torch's {name} is Gluon's {other}, transposed" for name, (other, _) in turned.items()
        ]
        again = _one_vocabulary(nets, traces, modes, statistics, mapping, [*found.packed, *words])
        found = again if again.alignment.total else found
    for constants in beside_code(found.alignment, nets, found.normalised, kept):
        if found.alignment.equal:
            break
        as_code = {
            side: {m: with_constants(g, constants[side], full(side)) for m, g in of_side.items()}
            for side, of_side in found.traces.items()
        }
        again = _one_vocabulary(nets, as_code, modes, statistics, mapping, found.packed)
        found = again if again.alignment.unlike < found.alignment.unlike else found
    executed = {side: found.executed(side) for side in SIDES}
    lone = beside_nothing(found.alignment, nets, executed, found.normalised, kept)
    if lone:
        read = _with_numbers(nets, found.traces, lone)
        again = _one_vocabulary(nets, read, modes, statistics, mapping, found.packed)
        found = again if again.alignment.unlike < found.alignment.unlike else found
        executed = {side: found.executed(side) for side in SIDES}
    for side, exact in beside_fixed(found.alignment, nets, executed).items():
        array = source_of(nets[side]).array
        found.traces[side] = {m: with_exact(g, exact, array) for m, g in found.traces[side].items()}
    numbers = beside_numbers(found.alignment, nets, executed, found.normalised)
    if not numbers:
        return found
    read = _with_numbers(nets, found.traces, numbers)
    return _one_vocabulary(nets, read, modes, statistics, mapping, found.packed)


def _with_numbers(
    nets: Mapping[Side, Any],
    traces: Mapping[Side, Traces],
    numbers: Mapping[Side, Mapping[Value, float]],
) -> dict[Side, Traces]:
    read = dict(traces)
    for side, of_side in numbers.items():
        full = source_of(nets[side]).full
        read[side] = {m: with_numbers(g, of_side, full) for m, g in traces[side].items()}
    return read


def _with_draws(nets: Mapping[Side, Any], traced: TracedPair) -> TracedPair:
    """The same, in which partners draw the same numbers."""
    keys = keys_of(traced.alignment)
    traces = dict(traced.traces)
    for number, side in enumerate(SIDES):
        draws = {} if is_recorded(nets[side]) else traced.normalised[side].draws
        if draws:
            make = source_of(nets[side]).array
            traces[side] = {
                m: with_draws(g, draws, keys[side], 2 + number, make)
                for m, g in traces[side].items()
            }
    return replace(traced, traces=traces)


def _one_vocabulary(
    nets: Mapping[Side, Any],
    traces: Mapping[Side, Traces],
    modes: tuple[bool, ...],
    statistics: Mapping[Side, Mapping[str, str]] | None,
    mapping: Mapping[str, str],
    packed: Sequence[str] = (),
) -> TracedPair:
    formed = partial(_formed, nets, traces, modes, statistics, mapping)
    form, stacks = formed(), NO_STACKS
    if any(form[1].stacks):
        in_layers = formed(stacks=form[1].stacks)
        if in_layers[1].unlike < form[1].unlike:
            form, stacks = in_layers, form[1].stacks
    if not form[1].equal and (packed or not form[1].packed):
        form = min(form, formed(ordered=True, stacks=stacks), key=lambda form: form[1].unlike)
    found = TracedPair(dict(traces), *form, modes, packed)
    alignment = found.alignment
    if not alignment.packed or packed:
        return found
    apart: dict[Side, Traces] = dict(traces)
    for number, side in enumerate(SIDES):
        lengths = alignment.lengths(number)
        if lengths and is_recorded(nets[side]):
            packing = next(one for one in alignment.packed if one.side == number)
            raise ParityError(f"{packing}, and a record has one gradient for all: compare it live")
        if lengths:
            join = backend(side).join
            apart[side] = {m: with_parts(g, lengths, join) for m, g in traces[side].items()}
    words = [str(one) for one in alignment.packed]
    divided = _one_vocabulary(nets, apart, modes, statistics, mapping, words)
    joined = any(left_joined(divided.executed(s), divided.normalised[s]) for s in SIDES)
    if divided.alignment.equal or not (joined or divided.alignment.packed):
        return divided
    for one in alignment.packed:
        if one.alone:
            raise ParityError(
                f"{one}, and not as its rows one after the other: "
                "write both nets with one array, or both with several"
            )
    return found


def _formed(
    nets: Mapping[Side, Any],
    traces: Mapping[Side, Traces],
    modes: tuple[bool, ...],
    statistics: Mapping[Side, Mapping[str, str]] | None,
    mapping: Mapping[str, str],
    ordered: bool = False,
    stacks: Stacks = NO_STACKS,
) -> tuple[dict[Side, OperationGraph], Alignment]:
    """The normal forms of both graphs (`pairing.normalise`), and how they align."""
    normalised = {
        side: source_of(nets[side]).normalise(traces[side][modes[-1]], ordered=ordered, apart=apart)
        for side, apart in zip(SIDES, stacks, strict=True)
    }
    for side, graph in normalised.items():
        if modes == (False,):
            normalised[side] = without_updates(graph)
        elif statistics is not None:
            executed = traces[side][modes[-1]]
            normalised[side] = with_own_statistics(executed, graph, statistics[side])
    sides = normalised[Side.GLUON], normalised[Side.TORCH]
    if unknown := unknown_name(mapping, *map(known_names, sides)):
        raise ParityError(f"mapping: {unknown}")
    return normalised, align(*sides, pinned=pinned_pairs(*sides, mapping))


def coincide(net: Any, inference: OperationGraph, training: OperationGraph) -> bool:
    """Whether both modes execute the same operations on the same values, and drop only in one."""
    alike = len(inference) == len(training) and all(
        (a.kind, a.path, a.shapes, a.reads) == (b.kind, b.path, b.shapes, b.reads)
        for a, b in zip(inference, training, strict=True)
    )
    if not alike or not any(op.kind.lower().endswith("dropout") for op in inference):
        return alike
    return all(op.kind != "dropout" for op in source_of(net).normalise(inference))


def leaves_suffice(pairing: Pairing, traced_pairs: Sequence[TracedPair]) -> bool:
    """Whether two nets were written leaf for leaf, so that their own leaves can be compared.

    They execute nothing outside their leaves, and change no gradient there; every leaf is of a
    known kind, ran once, and is paired with the one that the alignment pairs it with. What differs
    inside of leaves is theirs.
    """
    if pairing.alone:
        return False
    partners = {pair.gluon.path: pair.torch.path for pair in pairing.pairs}
    if len(set(partners.values())) < len(pairing.pairs):
        return False
    for pair in pairing.pairs:
        if pair.gluon.kind != pair.torch.kind or pair.gluon.family == "custom":
            return False
    return all(_within_leaves(pairing, partners, traced) for traced in traced_pairs)


_TO_FLOAT32 = ("cast_to_itself", "Cast", "amp_cast", "_copyto", "setitem", "_setitem")


def _within_leaves(pairing: Pairing, partners: Mapping[str, str], traced: TracedPair) -> bool:
    for side in SIDES:
        graph, computed = traced.executed(side), {op.path for op in traced.normalised[side]}
        leaves = {getattr(pair, side).path for pair in pairing.pairs}
        calls = Counter(path for path, _ in {(op.path, op.call) for op in graph})
        once = all(calls[path] == 1 for path in leaves)
        # A leaf is run as a whole, its own gradients too, unless what calls it stops all of them.
        # In float64 the net's own code would round where it casts to float32, or fills an array.
        whole = leaves & {op.path for op in graph if op.own_gradient != "detach"}
        # One that is given lengths is given more than arrays, or heeds them on a GPU alone.
        packed = any(x.role == "lengths" for op in traced.normalised[side] for x in op.inputs)
        own = packed or any(
            op.kind in _TO_FLOAT32 or (op.own_gradient and op.path not in whole) for op in graph
        )
        if len(graph.outputs) != 1 or not once or own or computed - leaves:
            return False
    return all(partners[left.path] == right.path for left, right in traced.alignment.pairs)


def view_of(
    nets: Mapping[Side, Any],
    traced: TracedPair,
    inputs: Arrays,
    known: Mapping[str, str] | None = None,
) -> View:
    """The nets of segments that correspond; `known` are parameters paired in another mode.

    Where the nets execute something else, operations may be paired that compute something else,
    though both nets agree again behind them: there is no cut between these. Nor is there one where
    only one side goes on with a value that both have, to a result that both have: its gradient is
    another, or none. What is −∞ where something is masked is no value to compare: it is part of
    what follows.
    """
    masked = {pair.right.index for pair in traced.alignment.pairs if pair.right.infinite}
    if traced.alignment.equal:
        view = _view(nets, traced, inputs, _cut(traced, masked, set()))
        return _joined(nets, view, inputs, masked, set())
    masked |= {
        pair.right.index
        for pair in traced.alignment.pairs
        if any(map(_in_other_order, *(op.shapes for op in pair)))
    }
    unlike = {
        pair.right.index
        for pair in traced.alignment.pairs
        # one side may give more: a recurrent layer of MXNet gives no states where it got none
        if pair.stacked
        or any(
            math.prod(a) != math.prod(b) for a, b in zip(*(o.shapes for o in pair), strict=False)
        )
    }
    traced = _as_known(traced, known or {})
    kinds = {
        pair.right.index for pair in traced.alignment.pairs if pair.left.kind != pair.right.kind
    }
    for removed in (unlike | kinds, set()) if unlike | kinds else (set(),):
        traced = _settled(nets, traced, inputs, removed)
    # what follows cannot run on the unlike, unless nothing but they is paired wrongly
    for removed in (unlike | masked, set(masked)) if unlike else (set(masked),):
        view = _view(nets, traced, inputs, _cut(traced, removed))
        mistaken, lasting = _mistaken(view, inputs)
        if lasting is None or (lasting and removed != masked):
            continue
        removed |= mistaken
        pieces = _cut(traced, removed, lasting)
        alike = [s.slots for s in pieces.segments] == [s.slots for s in view.segments.values()]
        view = view if alike else _view(nets, traced, inputs, pieces)
        return _joined(nets, view, inputs, removed, lasting or set())
    return view


def _in_other_order(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes have the same axes in another order, such as steps before samples."""
    axes, others = ([n for n in shape if n > 1] for shape in (one, other))
    return axes != others and sorted(axes) == sorted(others)


def _as_known(traced: TracedPair, known: Mapping[str, str]) -> TracedPair:
    """Parameters that were paired by their shape alone, paired as in another mode.

    In training nothing tells by the outputs which running statistic is which.
    """
    alignment = traced.alignment
    guessed = {name: alignment.parameters[name] for name in alignment.guessed}
    found = {name: known[name] for name in guessed if known.get(name) in guessed.values()}
    if set(found.values()) != {guessed[name] for name in found}:
        return traced
    return replace(traced, alignment=alignment.settled(found))


def _settled(
    nets: Mapping[Side, Any], traced: TracedPair, inputs: Arrays, removed: set[int]
) -> TracedPair:
    """Parameters that were paired by their shape alone, paired by what is computed of them.

    There is no cut behind what is `removed`: what reads them may be paired wrongly itself.
    """
    alignment = traced.alignment
    guessed = {name: alignment.parameters[name] for name in alignment.guessed}
    if len(guessed) < 2 or any(map(is_recorded, nets.values())):
        return traced
    view = _view(nets, traced, inputs, _cut(traced, removed))
    subject, train = _subject(view, inputs), traced.modes[0]
    found: dict[str, str] = {}
    try:
        calls = attempt(Side.GLUON, subject.run_gluon, "float64", train=train).calls
    except DidNotRun:
        return traced
    for pair in subject.pairing.pairs:
        if pair.gluon.path in calls and view.segments[pair.path].unlike:
            found |= settled(pair, guessed, calls[pair.gluon.path][0].inputs, train)
    return replace(traced, alignment=alignment.settled(found))


def _joined(
    nets: Mapping[Side, Any], view: View, inputs: Arrays, removed: set[int], lasting: set[Value]
) -> View:
    """Without cuts around what both sides compute otherwise, where its neighbours make it one.

    Such as two ways of masking, where what is masked counts for nothing behind a softmax, a mask of
    what a recurrent layer with lengths leaves 0, two ways of choosing among equal values, which
    come from a ReLU that passes no gradient back, zeros of a softmax that one side alone multiplies
    by 0, and gradients that one side stops before what the other stops them behind.
    """
    traced = view.traced
    anew: dict[int, set[int]] = {}
    segments = list(view.segments.values())
    # each of them with the operations that get no cut behind them, and those to compute anew in one
    asked: list[tuple[list[SegmentPair], set[int], dict[int, set[int]]]] = [
        ([segment], {segment.pair.right.index}, {})
        for segment in (() if traced.alignment.equal else segments)
        if segment.pair is not None
        and (segment.unlike or (segment.differences and not segment.pair.right.parameters))
        and _given(segment) not in lasting
        and not _nearly_alike(segment)
    ]
    asked += [
        ([segment], layers, {})
        for segment in segments
        if segment.alone and _given(segment) not in lasting
        if (layers := _layers(segment, segments))
    ]
    asked += [([segment], set(), {index: before}) for segment, index, before in _choosing(segments)]
    asked += [([segment], before, {}) for segment, before in _zeroing(segments)]
    asked += [(chain, ends, {}) for chain, ends in _stopping(segments, traced)]
    subject = _subject(view, inputs) if asked else None
    refused: set[str] = set()  # what differs between operations of one kind, and stays a difference
    for unlike, uncut, again in asked:
        alone = len(unlike) == 1 and not again and not unlike[0].unlike
        differs = repr(unlike[0].differences) if alone else ""
        if subject is None or differs in refused or _agree(subject, unlike, elsewhere=True):
            continue
        pieces = _cut(traced, removed | uncut, lasting, {**anew, **again})
        joined = _view(nets, traced, inputs, pieces)
        known = [_executed(s) for s in view.segments.values()]
        changed = [s for s in joined.segments.values() if _executed(s) not in known]
        ends = [len(of.outputs[Side.TORCH]) for of in (joined, view)]
        whole = ends[0] == ends[1]  # none of the net's lay at such a cut
        if whole and _agree(_subject(joined, inputs), changed, elsewhere=True):
            view, removed, anew = joined, removed | uncut, {**anew, **again}
        elif differs:
            refused.add(differs)
    return view


def _layers(segment: SegmentPair, segments: Sequence[SegmentPair]) -> set[int]:
    """Torch's recurrent layers with lengths that a segment reads: a mask behind these is theirs."""
    before = [segments[slot.segment].pair for slot in segment.slots if slot.segment >= 0]
    return {
        pair.right.index
        for pair in before
        if pair is not None and any(x.role == "lengths" for x in pair.right.inputs)
    }


def _nearly_alike(segment: SegmentPair) -> bool:
    """Whether a number differs by less than a wide bound shows: no other way of computing."""
    both = [(d.left, d.right) for d in segment.differences]
    numbers = [(a, b) for a, b in both if isinstance(a, float) and isinstance(b, float)]
    return any(a != b and math.isclose(a, b, rel_tol=1e-4) for a, b in numbers)


# What chooses among values: of equal ones each framework sends the gradient to the first, to all
# or in parts; both frameworks' pools send it to the first
_CHOOSES = frozenset(("max", "min", "maximum", "minimum", "sort", "topk"))
_POOLS = frozenset(("max_pool", "global_max_pool"))
# Make values equal, and pass nothing back from there
_FLAT = frozenset(("relu", "clip", "hard_sigmoid", "hard_swish", "pad"))
_KEEPS = POINTWISE | ELEMENTWISE | {"where", "dropout"}  # equal values may stay equal behind these


def _choosing(segments: Sequence[SegmentPair]) -> list[tuple[SegmentPair, int, set[int]]]:
    """The segments that choose among what a ReLU gives, their operations, and those before them.

    These are torch's, the ReLU and what moves its values or computes each of them alone.
    """
    asked = []
    back: dict[int, set[int]] = {}  # by segment: its own operation and those before, up to a ReLU
    for number, segment in enumerate(segments):
        before = {index for slot in segment.slots for index in back.get(slot.segment, ())}
        if segment.pair is None:
            continue
        ours, theirs = ({op.kind for op in segment.sides[side].normalised} for side in SIDES)
        kind, index = segment.pair.right.kind, segment.pair.right.index
        pools = segment.unlike and (ours | theirs) & _POOLS
        if before and (pools or (ours | theirs) & _CHOOSES):
            asked.append((segment, index, before))
        moves = kind in _POOLS or operator_of(kind).rounds is Rounds.GRADIENTS
        moves = moves or (kind in _KEEPS and not segment.pair.right.parameters)
        moves = moves and kind != "relu"  # which decides alone
        if kind in _FLAT or (moves and before):
            back[number] = {index} | (before if moves else set())
    return asked


def _zeroing(segments: Sequence[SegmentPair]) -> list[tuple[SegmentPair, set[int]]]:
    """The segments in which one side alone masks what a softmax gives, and those from it to there.

    These are torch's operations. What is masked before a softmax is 0 behind it, and passes nothing
    back through it.
    """
    asked = []
    back: dict[int, set[int]] = {}  # by segment: its own operation and those before, to a softmax
    for number, segment in enumerate(segments):
        before = {index for slot in segment.slots for index in back.get(slot.segment, ())}
        if segment.pair is None:
            continue
        kind, index = segment.pair.right.kind, segment.pair.right.index
        if before and any(op.kind in ("mul", "where") for _, op in segment.alone):
            asked.append((segment, before))
        if kind == "softmax":
            back[number] = {index}
        elif before and kind in _KEEPS and not segment.pair.right.parameters:
            back[number] = {index} | before
    return asked


def _stopping(
    segments: Sequence[SegmentPair], traced: TracedPair
) -> list[tuple[list[SegmentPair], set[int]]]:
    """Segments from one in which a side stops gradients to one in which the other does.

    With each list the operations of all but the last, which are torch's.
    """
    asked = []
    back: list[dict[Side, set[int]]] = []  # by segment: it and those before it, from such a side's
    for number, segment in enumerate(segments):
        here = {side for side in SIDES if _stops(segment, side, traced)}
        given = [back[slot.segment] for slot in segment.slots if 0 <= slot.segment < number]
        before = {side: set().union(*(of[side] for of in given)) for side in SIDES}
        for side, other in (SIDES, SIDES[::-1]):
            pairs = [segments[n].pair for n in before[side]]
            if other in here and pairs:
                ends = {pair.right.index for pair in pairs if pair is not None}
                asked.append(([*(segments[n] for n in before[side]), segment], ends))
        back.append({s: before[s] | {number} if s in here or before[s] else set() for s in SIDES})
    return asked


def _stops(segment: SegmentPair, side: Side, traced: TracedPair) -> bool:
    operations = traced.executed(side).operations
    return any(operations[i].own_gradient == "detach" for i in segment.sides[side].executed)


def _executed(segment: SegmentPair) -> list[list[int]]:
    return [segment.sides[side].executed for side in SIDES]


def _agree(subject: Subject, segments: Sequence[SegmentPair], *, elsewhere: bool = False) -> bool:
    """Whether both sides of these segments, alone, give the same values and gradients.

    `elsewhere`: and not by chance of what they choose.
    """
    paths = {segment.path for segment in segments}
    return all(
        agrees(subject, pair, subject.modes) and (not elsewhere or agrees_elsewhere(subject, pair))
        for pair in subject.pairing.pairs
        if pair.path in paths
    )


def agrees_elsewhere(subject: Subject, pair: Pair) -> bool:
    """Whether both sides give the same of other values, where they choose among what they get.

    What another activation does to negative values, or a mask to what counts for nothing, does not
    show behind a maximum that happens to lie elsewhere.
    """
    segment = segment_of(pair)
    if segment is None or subject.recorded is not None or not _chooses(segment):
        return True
    train = subject.modes[0]
    try:
        referee_run = subject.run(Side.TORCH, "float64", train=train)
        for call in local_calls(subject, pair, referee_run, train=train):
            for inputs in _drawn(call.inputs, segment):
                rows = local_rows(Level.FORWARD, pair, LocalCall(inputs), train=train)
                if any(row.status == Status.DIVERGED for row in rows):
                    return False
    except DidNotRun:
        return False
    return True


def _chooses(segment: SegmentPair) -> bool:
    kinds = {op.kind for side in segment.sides.values() for op in side.normalised}
    return segment.unlike and bool(kinds & (_CHOOSES | _POOLS))


def _drawn(inputs: Arrays, segment: SegmentPair) -> Iterator[tuple[np.ndarray, ...]]:
    """Other values for a segment: its own in other places, and as many that are all below 0.

    Of the same domain: what is never below 0 stays so, indices and masks stay as they are.
    """
    rng = np.random.default_rng(0)

    def moved(index: int, x: np.ndarray) -> np.ndarray:
        fixed = x.dtype.kind != "f" or index in segment.masks or (x == np.round(x)).all()
        return x if fixed else rng.permutation(x.reshape(-1)).reshape(x.shape)

    other = tuple(moved(i, x) for i, x in enumerate(inputs))
    yield other
    signed = [x is not y and bool((x < 0).any()) for x, y in zip(other, inputs, strict=True)]
    if any(signed):
        yield tuple(-np.abs(x) if s else x for x, s in zip(other, signed, strict=True))


def _cut(
    traced: TracedPair,
    removed: set[int],
    lasting: set[Value] | None = None,
    anew: Mapping[int, set[int]] | None = None,
) -> Cut:
    """The nets in segments, without a cut behind some of torch's operations.

    Once it is known what lasts until an output, which is a fault and stays as it is, there is none
    either where only one side of a segment goes on with a value: without it that side may go on
    with what the other does. Of several the last is taken away first.
    """
    executed = {side: traced.executed(side) for side in SIDES}
    while True:
        pieces = cut(traced.alignment, executed, traced.normalised, removed, lasting, anew)
        if lasting is None:
            return pieces
        segments = pieces.segments
        more = set()
        for segment in segments:
            alone = [segments[slot.segment] for slot in _one_sided(segment) if slot.segment >= 0]
            ends = [
                made.pair.right.index
                for made in alone
                if made.pair is not None
                and _given(made) not in lasting
                and not made.parameter_shapes
            ]
            if ends and _given(segment) not in lasting:
                more.add(max(ends))
        if not more:
            return pieces
        removed = removed | more


def _one_sided(segment: SegmentPair) -> list[Slot]:
    """The values that one side of a segment computes with, and the other is not even given."""
    of_side = [segment.sides[side] for side in SIDES]
    uses = zip(segment.slots, *(side.uses for side in of_side), strict=True)
    return [
        slot
        for slot, *used in uses
        if not all(used) and any(slot in side.reads for side in of_side)
    ]


def _given(segment: SegmentPair) -> Value:
    """What tells a segment from all others, however the nets are cut: torch's first output."""
    return segment.sides[Side.TORCH].outputs[0]


def _mistaken(view: View, inputs: Arrays) -> tuple[set[int], set[Value] | None]:
    """Torch's operations whose values are not Gluon's, though all that is made of them is.

    And what differs until the outputs, by what torch's segments give; none where they do not run.
    """
    subject = _subject(view, inputs)
    pairing, modes = subject.pairing, view.traced.modes
    recorded = None if view.recorded is None else view.recorded.side
    dtypes = {side: "float32" if side == recorded else "float64" for side in SIDES}
    segments = list(view.segments.values())
    rounding = _NEAR if recorded is not None else _rounding(segments)
    wrong: set[int] = set()
    lasting: set[int] = set()
    for train in modes:
        try:
            runs = {side: subject.run(side, dtypes[side], train=train) for side in SIDES}
        except DidNotRun:
            return set(), None
        errors = _errors(pairing, runs)
        wrong |= {number for number, error in errors.items() if error > _NEAR}
        differing = {number for number, error in errors.items() if error > rounding}
        # what torch gives out may be paired with what Gluon has on the way to something else
        given = zip(view.outputs[Side.TORCH], *(runs[side].outputs for side in SIDES), strict=False)
        ends = {slot.segment for (slot, _), *both in given if _error(*both) > rounding}
        lasting |= _reaching(ends, differing, segments)
        subject.forget(train=train)
    pairs = [segments[number].pair for number in wrong - lasting]
    mistaken = {pair.right.index for pair in pairs if pair is not None}
    return mistaken, {_given(segments[number]) for number in lasting}


def _subject(view: View, inputs: Arrays) -> Subject:
    """The nets of segments, a twin of torch's with Gluon's weights."""
    torch_net = referee().twin(view.nets[Side.TORCH])
    pairing = View({**view.nets, Side.TORCH: torch_net}, view.traced, view.segments).pairing
    copy_paired(pairing)
    return Subject(
        view.nets[Side.GLUON],
        torch_net,
        pairing,
        inputs,
        Objective(),
        modes=view.traced.modes,
        recorded=view.recorded,
    )


# Of its largest value: what nobody takes for a value's rounding
_NEAR = 1e-4


def _rounding(segments: Sequence[SegmentPair]) -> float:
    """What roundings may leave of a value, where both nets compute the same: of its largest one.

    A fault's trace that fades on its way to the outputs is more than that.
    """
    operations = (op for segment in segments for op in segment.sides[Side.GLUON].normalised)
    single = any(segment.single for segment in segments)
    return 1e-5 if single or not all(map(_is_double, operations)) else 1e-8


def _errors(pairing: Pairing, runs: Mapping[Side, NetRun]) -> dict[int, float]:
    """How far apart the values are that each net gives the segments, by the segments' numbers."""
    errors = {}
    for number, pair in enumerate(pairing.pairs):
        calls = runs[Side.GLUON].calls[pair.gluon.path], runs[Side.TORCH].calls[pair.torch.path]
        outputs = [call.outputs for of_side in calls for call in of_side]
        once = len(outputs) == 2
        errors[number] = max(map(_error, *outputs), default=0.0) if once else math.inf
    return errors


def _reaching(ends: set[int], differing: set[int], segments: Sequence[SegmentPair]) -> set[int]:
    """Those of the differing segments from which differences last until an output."""
    lasting = differing & ends
    while True:
        sources = {slot.segment for n in lasting for slot in segments[n].slots}
        if (sources & differing) <= lasting:
            return lasting
        lasting |= sources & differing


def are_near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether nothing but rounding, of whatever size, tells two arrays apart."""
    return _error(one, other) <= _NEAR


def _error(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, in units of the largest value."""
    if one.size != other.size:
        return math.inf
    one, other = one.reshape(-1).astype(float), other.reshape(-1).astype(float)
    difference = float(np.abs(one - other).max(initial=0))
    largest = float(np.abs(other).max(initial=0))
    if not difference:
        return 0.0
    return difference / largest if largest and math.isfinite(difference) else math.inf


def _view(nets: Mapping[Side, Any], traced: TracedPair, inputs: Arrays, pieces: Cut) -> View:
    executed = {side: traced.executed(side) for side in SIDES}
    segments = pieces.segments
    shapes = slot_shapes(segments, executed[Side.TORCH])
    ran = executed[Side.GLUON].operations
    kinds = []
    for segment in segments:
        names = {ran[i].kind for i in segment.sides[Side.GLUON].executed}
        written = any("scalar" in op.attributes for op in segment.sides[Side.TORCH].normalised)
        segment.single = is_single(names, written=written)
        kind, hyper = kind_of_segment(segment, shapes)
        kinds.append((kind_beside(kind, names), hyper))
    for segment in segments:
        segment.record = _record(segment, shapes)
    _note_masks(segments, inputs)
    rebuilt, rebuild = {}, {}
    recorded = None
    for side in SIDES:
        layouts = [
            Layout(side, segment, kind, hyper[side])
            for segment, (kind, hyper) in zip(segments, kinds, strict=True)
        ]
        ends = pieces.outputs[side]
        traces, source = traced.traces[side], source_of(nets[side])
        rebuild[side] = partial(source.rebuild, traces=traces, layouts=layouts, outputs=ends)
        rebuilt[side] = rebuild[side](nets[side])
        if is_recorded(nets[side]):
            recorded = rebuilt[side]
            rebuilt[side] = recorded.runnable()
        elif side == Side.GLUON:
            for segment, leaf in zip(segments, leaves_of(rebuilt[side]), strict=True):
                segment.gluon = leaf
    by_path, unused = {s.path: s for s in segments}, _unused(nets, traced)
    return View(rebuilt, traced, by_path, unused, pieces.outputs, recorded, rebuild)


def _note_masks(segments: Sequence[SegmentPair], inputs: Arrays) -> None:
    """Note in each segment which of its slots are made of masks alone, inputs of 0 and 1.

    So is what is made of no input.
    """
    masks = {Slot(-1, i) for i, x in enumerate(inputs) if np.isin(x, (0, 1)).all()}
    for number, segment in enumerate(segments):
        segment.masks = frozenset(i for i, slot in enumerate(segment.slots) if slot in masks)
        read = set().union(*(side.reads for side in segment.sides.values()))
        if read <= masks and not segment.parameter_shapes:
            masks |= {Slot(number, i) for i in range(len(segment.shapes))}


def _unused(nets: Mapping[Side, Any], traced: TracedPair) -> list[Leaf]:
    unused = []
    for side in SIDES:
        graph = traced.executed(side)
        paths = {op.path for op in graph}
        read = {str(v.key) for op in graph for v in op.reads if v.origin is Origin.PARAMETER}
        read |= {part[0] for name in read if (part := part_of(name, graph.aliases)) is not None}
        for leaf in leaves_of(nets[side]):
            names = {tensor.name for tensor in leaf.tensors.values()}
            below = any(path == leaf.path or path.startswith(f"{leaf.path}.") for path in paths)
            if leaf.path and not below and not names & read and not leaf.composite:
                unused.append(leaf)
    return unused


def slot_shapes(
    segments: Sequence[SegmentPair], graph: OperationGraph
) -> dict[Slot, tuple[int, ...]]:
    """The shapes of all shared values, inputs of the net among them."""
    shapes = {Slot(-1, i): shape for i, shape in enumerate(graph.inputs)}
    for number, segment in enumerate(segments):
        shapes.update({Slot(number, i): shape for i, shape in enumerate(segment.shapes)})
    return shapes


def kind_of_segment(
    segment: SegmentPair, shapes: Mapping[Slot, tuple[int, ...]]
) -> tuple[str, dict[Side, dict[str, object]]]:
    """The kind under which a segment's numbers are judged, and each side's hyper-parameters."""
    operations = {side: segment.sides[side].normalised for side in SIDES}
    read = {
        side: None if segment.alone or segment.single else _read(ops, segment, shapes)
        for side, ops in operations.items()
    }
    ours, theirs = read[Side.GLUON], read[Side.TORCH]
    if ours is not None and theirs is not None and ours[0] == theirs[0]:
        return theirs[0], {Side.GLUON: ours[1], Side.TORCH: theirs[1]}
    names = [op.kind for op in operations[Side.TORCH]] or ["function"]
    double = not segment.single and all(
        _is_double(op) and not operator_of(op.kind).single for op in operations[Side.GLUON]
    )
    in_gradients = any(
        side in operator_of(_rounding_of(op)).single_gradients
        for side, ops in operations.items()
        for op in ops
    )
    head = "single_gradients" if in_gradients else "custom"
    head = "steps" if _in_steps(segment) else head if double else "single"
    hyper: dict[str, object] = {}
    kept = [
        op.attributes["kept"]
        for op in operations[Side.GLUON]
        if op.kind == "batch_norm" and op.attributes["kept"] != OWN
    ]
    if double and kept and segment.sides[Side.TORCH].writes:
        head, hyper = "written_norm", {"kept": max(kept)}
    return f"{head}:{'+'.join(names)}", dict.fromkeys(SIDES, hyper)


def _in_steps(segment: SegmentPair) -> bool:
    """Whether one side is one function of each value, and the other that and some arithmetic."""
    sides = sorted((segment.sides[side].normalised for side in SIDES), key=len)
    if len(sides[0]) != 1 or segment.parameter_shapes:
        return False
    known = {sides[0][0].kind, "add", "sub", "mul", "div"}
    return sides[0][0].kind in STEPPED and all(
        op.kind in known and all(x.shape == op.shapes[0] for x in op.inputs)
        for operations in sides
        for op in operations
    )


def _record(
    segment: SegmentPair, shapes: Mapping[Slot, tuple[int, ...]]
) -> tuple[str, dict[str, object]] | None:
    """The operator without parameters that one side of a segment is alone, torch's first."""
    for side in (Side.TORCH, Side.GLUON):
        operations = segment.sides[side].normalised
        if len(operations) == 1 and not operations[0].parameters:
            return _read(operations, segment, shapes)
    return None


def _is_double(op: Operation) -> bool:
    """Whether MXNet is known to compute an operation in float64 in a float64 net."""
    single = operator_of(_rounding_of(op)).single_precision
    return in_double(op.kind) or (is_known(op.kind) and not single)


def _rounding_of(op: Operation) -> str:
    return kind_of_rounding(op.kind, op.attributes)


_NORMED = NORMS - {"layer_norm"}
# What the scale of an operation asks of no operand's shape
_OF_ANY_SHAPE = POINTWISE | {"linear", "dropout", "mul", "div", "mean", "sum"}


def _read(
    operations: Sequence[Operation],
    segment: SegmentPair,
    shapes: Mapping[Slot, tuple[int, ...]],
) -> tuple[str, dict[str, object]] | None:
    """The record of a segment that is one operation, whose operands are the shared values."""
    if len(operations) != 1:
        return None
    (op,) = operations
    given = segment.given
    shaped = op.kind in _OF_ANY_SHAPE or [x.shape for x in op.inputs] == given
    if op.kind == "batch_norm" and len(given) == len(op.inputs) == 1:
        shaped = op.inputs[0].shape[:2] == given[0][:2]  # (N, C) is a map of one value
    # What a norm rounds is told by a scale (C,); one of more axes is that of the net's own code.
    wide = op.kind in _NORMED and any(len(p.shape) > 1 for p in op.parameters.values())
    if not shaped or wide or len(op.shapes) != 1:
        return None
    operands = {x.role: x.shape for x in op.inputs}
    operands |= {role: parameter.shape for role, parameter in op.parameters.items()}
    return kind_of_executed(op.kind, op.attributes, {**operands, "output": op.shapes[0]})
