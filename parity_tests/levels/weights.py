"""Level weights: a total bijection of parameters and buffers, and values that are equal bit by bit.

Whole numbers (indices, masks) may have another dtype on the other side.

Equal values do not prove a map: two tensors of one shape may be swapped where both hold the same,
or be swapped there and back. So every tensor also carries a fingerprint of its own through a round
trip, Gluon to torch to Gluon, and is looked for half-way where the *structure* says it belongs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from parity_tests.backends.base import backend, backend_of, leaves_of, source_of
from parity_tests.backends.executed import is_statistic
from parity_tests.backends.leaves import Leaf, Tensor
from parity_tests.backends.runs import NET
from parity_tests.levels.local import segment_of
from parity_tests.numerics.compare import holds_whole_numbers, values_equal
from parity_tests.pairing.align import Pair, Pairing
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Side, Status

Arrays = Mapping[str, np.ndarray]

_row = partial(Row, level=Level.WEIGHTS)
_judged = partial(Row.judged, level=Level.WEIGHTS)


@dataclass(frozen=True)
class TransferMap:
    """Gluon's arrays by their names -> torch's by theirs, and back; `name` is for reports."""

    name: str
    to_torch: Callable[[Arrays], dict[str, np.ndarray]]
    to_gluon: Callable[[Arrays], dict[str, np.ndarray]]


# Of MXNet 1.9.1's GroupNorm, beside torch's
PER_GROUP = (
    "MXNet's GroupNorm has one value a group, and torch's one a channel: they may be equal, and "
    "training moves them apart; give both `center=False, scale=False` and `affine=False`, and a "
    "scale and a shift a channel behind it"
)


def per_group(pair: Pair, role: str) -> int:
    """How many channels have one value of Gluon's, where torch has one for each; else 0."""
    ours, theirs = pair.gluon.tensors.get(role), pair.torch.tensors.get(role)
    kinds = {pair.gluon.kind, pair.torch.kind}
    if not kinds <= {"group_norm", "custom:GroupNorm"} or ours is None or theirs is None:
        return 0
    count, rest = divmod(theirs.size, ours.size)
    return count if count > 1 and not rest else 0


def _fitted(values: np.ndarray, count: int) -> np.ndarray:
    """A tensor's values as its partner holds them, each `count` times where that is per channel."""
    return np.repeat(values, count) if count else values.copy()


def pairing_map(pairing: Pairing) -> TransferMap:
    """The map that the pairing of leaves implies: role by role, for nets that are not ours."""
    names = {
        pair.gluon.tensors[role].name: (tensor.name, per_group(pair, role))
        for pair in pairing.pairs
        for role, tensor in pair.torch.tensors.items()
        if role in pair.gluon.tensors
        if pair.gluon.tensors[role].shape == tensor.shape or per_group(pair, role)
    }
    back = {theirs: ours for ours, (theirs, count) in names.items() if not count}
    return TransferMap(
        "the pairing",
        lambda arrays: {
            names[n][0]: _fitted(a, names[n][1]) for n, a in arrays.items() if n in names
        },
        lambda arrays: {back[n]: a.copy() for n, a in arrays.items() if n in back},
    )


def project_map(gluon_net: Any, torch_net: Any) -> TransferMap | None:
    """`torch_ref.transfer`, for two nets of this project with one name; None for any others."""
    name = getattr(gluon_net, "model_name", None)
    if name is None or getattr(torch_net, "model_name", None) != name:
        return None
    from torch_ref import transfer

    gluon = {n: p.data().asnumpy() for n, p in gluon_net._collect_params_with_prefix().items()}
    theirs = {n: t.detach().numpy() for n, t in torch_net.state_dict().items()}
    return TransferMap(
        "torch_ref.transfer",
        lambda arrays: transfer.to_torch(arrays, like=theirs),
        lambda arrays: transfer.to_gluon(arrays, like=gluon),
    )


def copy_weights(gluon_leaves: list[Leaf], torch_net: Any, transfer_map: TransferMap) -> None:
    """Put Gluon's values into a torch net. Raises what the map raises for unknown names."""
    arrays = {t.name: t.read() for leaf in gluon_leaves for t in leaf.tensors.values()}
    leaves = leaves_of(torch_net)
    values = _by_place(leaves, transfer_map.to_torch(arrays))
    for leaf in leaves:
        own = {
            role: values[leaf.path, role] for role in leaf.tensors if (leaf.path, role) in values
        }
        backend_of(torch_net).set_values(leaf, own)


def copy_paired(pairing: Pairing, to: Side = Side.TORCH) -> None:
    """Give each leaf of a side the values of its partner, where they fit.

    A constant of both sides is no weight: it stays as it is, and another one is a finding.
    """
    for pair in pairing.pairs:
        theirs, ours = (pair.torch, pair.gluon) if to == Side.TORCH else (pair.gluon, pair.torch)
        own = {
            role: ours.tensors[role].read()
            for role, tensor in theirs.tensors.items()
            if role in ours.tensors
            and ours.tensors[role].shape == tensor.shape
            and not (tensor.constant and ours.tensors[role].constant)
        }
        if to == Side.TORCH:
            own |= {
                role: np.repeat(ours.tensors[role].read(), count)
                for role in theirs.tensors
                if (count := per_group(pair, role))
            }
        backend(to).set_values(theirs, own)


def _by_place(leaves: list[Leaf], arrays: Arrays) -> dict[tuple[str, str], np.ndarray]:
    """Arrays by (path, role), from arrays by name. Raises KeyError for a name of no tensor."""
    places = {t.name: (leaf.path, r) for leaf in leaves for r, t in leaf.tensors.items()}
    return {places[name]: array for name, array in arrays.items()}


def weights_rows(
    gluon_net: Any, torch_net: Any, pairing: Pairing, transfer_map: TransferMap | None = None
) -> tuple[list[Row], Coverage]:
    """One row per tensor for its values, one for its place after transfer, one for the way back."""
    coverage = Coverage()
    rows = list(_values(pairing, coverage))
    if not rows:
        detail = "neither net has parameters or buffers"
        row = _row(path=NET, quantity="tensors", status=Status.OK, check=Check.VALUE)
        rows.append(replace(row, compared=1, detail=detail))
    rows += _round_trip(gluon_net, torch_net, pairing, transfer_map or pairing_map(pairing))
    return rows, coverage


def _values(pairing: Pairing, coverage: Coverage) -> Iterator[Row]:
    for gluon, theirs in pairing.steps:
        leaves = [leaf for leaf in (gluon, theirs) if leaf is not None]
        path = leaves[-1].path
        for role in {role: None for leaf in leaves for role in leaf.tensors}:
            tensors = [leaf.tensors[role] for leaf in leaves if role in leaf.tensors]
            if len(tensors) < 2 and _is_neutral(role, tensors[0]):
                detail = "it is not trained and changes nothing; the other side has none"
                yield _row(path=path, quantity=role, status=Status.NOTE, compared=0, detail=detail)
                continue
            group = "buffers" if tensors[-1].buffer else "parameters"
            key = tensors[-1].name
            coverage.expect(group, key, tensors[-1].size)
            held = _held(tensors[0], leaves) if len(tensors) < 2 else None
            if held is not None:
                coverage.done(group, key)
                verdict = values_equal(tensors[0].read().reshape(-1), held.reshape(-1))
                row = _judged(verdict, path=path, quantity=role, check=Check.VALUE)
                yield replace(row, dtype=tensors[0].dtype)
                continue
            if len(tensors) < 2:
                owner = next(leaf.side for leaf in leaves if role in leaf.tensors)
                detail = f"only {owner} has it"
                if _is_in_code(role, tensors[0], leaves):
                    detail += "; the other side has its numbers in its code, if what both compute"
                    detail += " agrees"
                    row = _row(path=path, quantity=role, status=Status.NOTE, compared=0)
                    yield replace(row, side=owner, detail=detail)
                    coverage.done(group, key)
                    continue
                row = _row(path=path, quantity=role, status=Status.NOT_COMPARED, check=Check.VALUE)
                yield replace(row, side=owner, detail=detail)
                continue
            coverage.done(group, key)
            pair = Pair(gluon, theirs) if gluon is not None and theirs is not None else None
            count = per_group(pair, role) if pair is not None else 0
            verdict = values_equal(_fitted(tensors[0].read(), count), tensors[1].read())
            row = _judged(verdict, path=path, quantity=role, check=Check.VALUE)
            yield replace(row, dtype=tensors[1].dtype)


def _held(tensor: Tensor, leaves: list[Leaf]) -> np.ndarray | None:
    """An array in the other side's code that may stand for a constant: an equal one, if any is."""
    if not tensor.constant and not tensor.buffer:
        return None
    value = tensor.read()
    arrays = [x for leaf in leaves for x in getattr(leaf.block, "held", ())]
    whole = holds_whole_numbers(value.dtype)  # of which MXNet holds indices in floats
    like = [x for x in arrays if x.size == value.size and (whole or x.dtype == value.dtype)]
    equal = (x for x in like if (x.reshape(-1) == value.reshape(-1)).all())
    return next(equal, like[0] if like else None)


def _is_in_code(role: str, tensor: Tensor, leaves: list[Leaf]) -> bool:
    """Whether a tensor may have its partner in code that holds no such array.

    It is not trained, and both sides compute what is made of it, in two ways: level forward
    compares that.
    """
    if tensor.trainable or is_statistic(role) or len(leaves) < 2:
        return False
    segment = segment_of(Pair(*leaves))
    return segment is not None and segment.unlike


def _is_neutral(role: str, tensor: Tensor) -> bool:
    """Whether it is a scale of ones or a shift of zeros that nothing trains.

    Gluon's norms hold both also where they are told to have none.
    """
    neutral = {"weight": 1.0, "bias": 0.0}
    trained = tensor.trainable or role not in neutral
    return not trained and bool((tensor.read() == neutral[role]).all())


def _round_trip(
    gluon_net: Any, torch_net: Any, pairing: Pairing, transfer_map: TransferMap
) -> Iterator[Row]:
    """Send a fingerprint in place of every Gluon tensor to the torch net and back."""
    fingerprints = {
        tensor.name: fingerprint(tensor, None if torch is None else torch.tensors.get(role))
        for gluon, torch in pairing.steps
        if gluon is not None
        for role, tensor in gluon.tensors.items()
    }
    if not fingerprints:
        return
    try:
        on_torch = _leaves_with(torch_net, transfer_map.to_torch(fingerprints))
        state = {t.name: t.read() for leaf in on_torch.values() for t in leaf.tensors.values()}
        on_gluon = _leaves_with(gluon_net, transfer_map.to_gluon(state))
    except (AssertionError, KeyError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        row = _row(path="", quantity="names", status=Status.DIVERGED, check=Check.TRANSFER)
        yield replace(row, compared=1, detail=detail)
        return
    for pair in pairing.pairs:
        for role, tensor in pair.gluon.tensors.items():
            if role not in pair.torch.tensors:
                continue
            if per_group(pair, role):
                row = _row(path=pair.path, quantity=role, status=Status.NOT_COMPARED)
                yield replace(row, check=Check.TRANSFER, detail=PER_GROUP)
                continue
            sent = fingerprints[tensor.name]
            for check, leaf in (
                (Check.TRANSFER, on_torch[pair.torch.path]),
                (Check.ROUND_TRIP, on_gluon[pair.gluon.path]),
            ):
                verdict = values_equal(leaf.tensors[role].read(), sent)
                row = _judged(verdict, path=pair.path, quantity=role, check=check)
                if not verdict.ok:
                    row = replace(row, diagnosis=_explain_swap(fingerprints, leaf, role))
                yield row


def fingerprint(tensor: Tensor, partner: Tensor | None = None) -> np.ndarray:
    """Values that no other tensor carries: seeded by the tensor's name, in its shape and dtype.

    They are whole numbers where the tensor's dtype or its partner's holds no others.
    """
    generator = np.random.default_rng(zlib.crc32(tensor.name.encode()))
    dtypes = [t.dtype for t in (tensor, partner) if t is not None]
    if not any(map(holds_whole_numbers, dtypes)):
        return generator.standard_normal(tensor.shape).astype(tensor.dtype)
    numbers = (0, 2) if "bool" in dtypes else (1, 100)
    return generator.integers(*numbers, tensor.shape).astype(tensor.dtype)


def _explain_swap(fingerprints: Arrays, leaf: Leaf, role: str) -> str:
    arrived = leaf.tensors[role].read()
    for name, sent in fingerprints.items():
        if sent.shape == arrived.shape and np.array_equal(sent, arrived):
            return f"swapped tensors: it holds what was sent as {name}"
    return ""


def _leaves_with(net: Any, arrays: Arrays) -> dict[str, Leaf]:
    """The leaves by path of a copy that holds these arrays, by their names."""
    copied = source_of(net).with_values(net, _by_place(leaves_of(net), arrays))
    return {leaf.path: leaf for leaf in leaves_of(copied)}
