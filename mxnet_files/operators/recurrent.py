"""Recurrent layers, and operators on padded sequences."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from torch import fx, nn

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_sequence
from mxnet_files.layers import GRU, LSTM, RNN, Branch, Control, Foreach, While
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import PARAMETER_SLOTS, Wired, Wiring, outputs_of, registered

MOST_LAYERS = 256


def states(a: SimpleNamespace) -> int:
    """Outputs that a later node may name."""
    if not a.state_outputs:
        return 1
    return 3 if a.mode == "lstm" else 2


def rnn_inputs(a: SimpleNamespace) -> tuple[str, ...]:
    cell = ("state_cell",) if a.mode == "lstm" else ()
    length = ("sequence_length",) if a.use_sequence_length else ()
    return ("data", "parameters", "state", *cell, *length)


@registered(
    "RNN _npx_rnn",
    rnn_inputs,
    "state_size: integer, num_layers: integer, bidirectional: boolean = False, "
    "mode: (rnn_relu|rnn_tanh|lstm|gru), p: real = 0.0, state_outputs: boolean = False, "
    "projection_size: integer? = None, lstm_state_clip_min: double? = None, "
    "lstm_state_clip_max: double? = None, lstm_state_clip_nan: boolean = False, "
    "use_sequence_length: boolean = False",
    states,
    dtypes=Dtypes.FLOATING,
)
def rnn(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    if not 1 <= a.num_layers <= MOST_LAYERS or a.state_size < 1:
        raise w.refuse(f"num_layers={a.num_layers}, state_size={a.state_size}, expected at least 1")
    if not 0 <= a.p <= 1:
        raise w.refuse(f"p={a.p}, expected a fraction")
    if a.lstm_state_clip_min is not None or a.lstm_state_clip_max is not None:
        raise w.refuse("lstm_state_clip is supported by cuDNN alone, not by MXNet's CPU either")
    a.have_no_effect("lstm_state_clip_nan")
    sizes = (a.state_size, a.num_layers, a.bidirectional, a.p)
    projection = a.projection_size or 0
    if projection and (a.mode != "lstm" or projection < 0):
        raise w.refuse(f"projection_size={projection}, expected a size, in an lstm")
    layer: nn.Module
    if a.mode == "lstm":
        layer = LSTM(4, *sizes, projection)
    elif a.mode == "gru":
        layer = GRU(3, *sizes)
    else:
        layer = RNN(a.mode == "rnn_relu", *sizes)
    count = states(a)
    y = outputs_of(w, w.layer(layer, *inputs), 3 if a.mode == "lstm" else 2)
    return y[:count] if a.state_outputs else y[0]


LENGTH = "use_sequence_length: boolean = False, axis: integer = 0"


def data_and_length(a: SimpleNamespace) -> tuple[str, ...]:
    return ("data", "sequence_length") if a.use_sequence_length else ("data",)


def time_axis(w: Wiring, a: SimpleNamespace, *allowed: int) -> int:
    """The axis of time, refused outside what MXNet has."""
    if a.axis not in allowed:
        raise w.refuse(f"axis={a.axis}, expected {' or '.join(map(str, allowed))}")
    return int(a.axis)


@registered(
    "SequenceMask _npx_sequence_mask",
    data_and_length,
    f"{LENGTH}, value: real = 0.0",
    dtypes=Dtypes.FIRST,
)
def sequence_mask(w: Wiring, a: Attributes, x: fx.Node, lengths: fx.Node | None = None) -> Wired:
    axis = time_axis(w, a, 0, 1)
    if lengths is None:
        a.have_no_effect("value")
        return x
    return w.call(mx_sequence.sequence_mask, x, lengths, a.value, axis)


@registered("SequenceLast", data_and_length, LENGTH, dtypes=Dtypes.FIRST)
def sequence_last(
    w: Wiring, a: SimpleNamespace, x: fx.Node, lengths: fx.Node | None = None
) -> Wired:
    return w.call(mx_sequence.sequence_last, x, lengths, time_axis(w, a, 0, 1))


@registered("SequenceReverse", data_and_length, LENGTH, dtypes=Dtypes.FIRST)
def sequence_reverse(
    w: Wiring, a: SimpleNamespace, x: fx.Node, lengths: fx.Node | None = None
) -> Wired:
    time_axis(w, a, 0)
    return w.call(mx_sequence.sequence_reverse, x, lengths)


# ---- loops and branches, whose subgraphs `a.inner` holds

MOST_INPUTS = 10_000
COUNTED = "num_args: integer, num_outputs: integer"


def places(a: SimpleNamespace, name: str, count: int, below: int) -> list[int]:
    """`count` different places below a number. Raises ValueError."""
    found = list(getattr(a, name))
    if len(found) != count or len({*found}) != count or not {*found} <= {*range(below)}:
        raise ValueError(f"{name}={found}, expected {count} different places below {below}")
    return found


def reads_of(a: SimpleNamespace, *names: str) -> list[list[int]]:
    """The inputs of the node that each subgraph takes. Raises ValueError."""
    below = min(a.num_args, MOST_INPUTS) - len(a.inner)
    return [
        places(a, name, len(part.slots), below) for name, part in zip(names, a.inner, strict=True)
    ]


def inputs_of(a: SimpleNamespace, reads: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """What each input feeds; `reads` are the places that each subgraph takes. Raises ValueError."""
    count = a.num_args - len(a.inner)
    if not 0 < count <= MOST_INPUTS:
        raise ValueError(f"num_args={a.num_args}, expected one for each input and subgraph")
    slots = [set[str]() for _ in range(count)]
    for part, taken in zip(a.inner, reads, strict=True):
        for feeds, place in zip(part.slots.values(), taken, strict=True):
            slots[place] |= feeds
    learned = [sorted(each & {*PARAMETER_SLOTS}) for each in slots]
    return tuple(each[0] if each else "data" for each in learned)


def body(
    w: Wiring, part: Any, reads: Sequence[int], inputs: Sequence[fx.Node]
) -> tuple[nn.Module, list[bool]]:
    """A subgraph as a module of the inputs at those places, and which outputs are floats."""
    module, floats = w.body(part, dict(zip(part.slots, (inputs[i] for i in reads), strict=True)))
    return module, floats


def test_of(
    w: Wiring, a: SimpleNamespace, reads: Sequence[int], inputs: Sequence[fx.Node]
) -> nn.Module:
    """The first subgraph, which gives the condition."""
    module, floats = body(w, a.inner[0], reads, inputs)
    if len(floats) != 1:
        raise w.refuse(f"its condition has {len(floats)} outputs, expected 1")
    return module


def results(
    w: Wiring, a: SimpleNamespace, layer: Control, inputs: Sequence[fx.Node], floats: Sequence[bool]
) -> Wired:
    """The layer's outputs, of which some are sure to be floating point."""
    if len(floats) != a.num_outputs:
        raise w.refuse(f"num_outputs={a.num_outputs}, its subgraph has {len(floats)}")
    found = outputs_of(w, w.layer(layer, *inputs), a.num_outputs)
    w.floating.update(y for y, sure in zip(found, floats, strict=True) if sure)
    return found


def foreach_places(a: SimpleNamespace) -> list[int]:
    """Where the body takes each input of the node: data, states, others. Raises ValueError."""
    count = len(a.inner[0].slots)
    found = [*a.in_data_locs, *a.in_state_locs, *a.remain_locs]
    if sorted(found) != list(range(count)) or a.num_args != count + 1 or not a.in_data_locs:
        raise ValueError(f"its body has {count} inputs, the attributes place {found}")
    if a.num_out_data + len(a.in_state_locs) != a.num_outputs or a.num_out_data < 0:
        raise ValueError(f"num_outputs={a.num_outputs}, expected data and a state for each")
    return found


def foreach_inputs(a: SimpleNamespace) -> tuple[str, ...]:
    found = foreach_places(a)
    return inputs_of(a, [[found.index(place) for place in range(len(found))]])


@registered(
    "_foreach",
    foreach_inputs,
    f"{COUNTED}, num_out_data: integer, in_data_locs: shape, in_state_locs: shape, "
    "remain_locs: shape",
    lambda a: a.num_outputs,
    graphs=1,
)
def foreach(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    names = list(a.inner[0].slots)
    given = {names[place]: x for place, x in zip(foreach_places(a), inputs, strict=True)}
    module, floats = w.body(a.inner[0], given)
    layer = Foreach(module, len(a.in_data_locs), len(a.in_state_locs), a.num_out_data)
    return results(w, a, layer, inputs, floats)


def while_reads(a: SimpleNamespace) -> list[list[int]]:
    return reads_of(a, "cond_input_locs", "func_input_locs")


@registered(
    "_while_loop",
    lambda a: inputs_of(a, while_reads(a)),
    f"{COUNTED}, num_out_data: integer, max_iterations: integer, cond_input_locs: shape, "
    "func_input_locs: shape, func_var_locs: shape",
    lambda a: a.num_outputs,
    graphs=2,
)
def while_loop(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    tests, reads = while_reads(a)
    count = a.num_outputs - a.num_out_data
    if a.num_out_data < 0 or count < 1 or a.max_iterations < 1:
        raise w.refuse(f"num_out_data={a.num_out_data}, max_iterations={a.max_iterations}")
    changing = [reads[place] for place in places(a, "func_var_locs", count, len(reads))]
    module, floats = body(w, a.inner[1], reads, inputs)
    condition = test_of(w, a, tests, inputs)
    layer = While(condition, module, tests, reads, changing, a.num_out_data, a.max_iterations)
    return results(w, a, layer, inputs, floats)


def branch_reads(a: SimpleNamespace) -> list[list[int]]:
    return reads_of(a, "cond_input_locs", "then_input_locs", "else_input_locs")


@registered(
    "_cond",
    lambda a: inputs_of(a, branch_reads(a)),
    f"{COUNTED}, cond_input_locs: shape, then_input_locs: shape, else_input_locs: shape",
    lambda a: a.num_outputs,
    graphs=3,
)
def branch(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    tests, *reads = branch_reads(a)
    (then, floats), (other, same) = (
        body(w, part, taken, inputs) for part, taken in zip(a.inner[1:], reads, strict=True)
    )
    if len(floats) != len(same):
        raise w.refuse(f"its branches have {len(floats)} and {len(same)} outputs")
    layer = Branch(test_of(w, a, tests, inputs), then, other, tests, reads)
    return results(w, a, layer, inputs, [x and y for x, y in zip(floats, same, strict=True)])
