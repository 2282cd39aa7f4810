"""Recurrent layers, and operators on padded sequences."""

from __future__ import annotations

from types import SimpleNamespace

from torch import fx, nn

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_sequence
from mxnet_files.layers import GRU, LSTM, RNN
from mxnet_files.operators.normalise import outputs_of
from mxnet_files.reading.attributes import (
    Attribute,
    Attributes,
    boolean,
    double,
    integer,
    one_of,
    optional,
    real,
)
from mxnet_files.registry import Wired, Wiring, register

__all__: list[str] = []

MOST_LAYERS = 256


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
    if projection and (a.mode != "lstm" or not 0 < projection < a.state_size):
        raise w.refuse(f"projection_size={projection}, expected less than state_size, in an lstm")
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


def states(a: SimpleNamespace) -> int:
    """Outputs that a later node may name."""
    if not a.state_outputs:
        return 1
    return 3 if a.mode == "lstm" else 2


def rnn_inputs(a: SimpleNamespace) -> tuple[str, ...]:
    cell = ("state_cell",) if a.mode == "lstm" else ()
    length = ("sequence_length",) if a.use_sequence_length else ()
    return ("data", "parameters", "state", *cell, *length)


register(
    "RNN _npx_rnn",
    rnn,
    rnn_inputs,
    {
        "state_size": Attribute(integer),
        "num_layers": Attribute(integer),
        "bidirectional": Attribute(boolean, False),
        "mode": Attribute(one_of("rnn_relu", "rnn_tanh", "lstm", "gru")),
        "p": Attribute(real, 0.0),
        "state_outputs": Attribute(boolean, False),
        "projection_size": Attribute(optional(integer), None),
        "lstm_state_clip_min": Attribute(optional(double), None),
        "lstm_state_clip_max": Attribute(optional(double), None),
        "lstm_state_clip_nan": Attribute(boolean, False),
        "use_sequence_length": Attribute(boolean, False),
    },
    states,
    dtypes=Dtypes.FLOATING,
)

LENGTH = {"use_sequence_length": Attribute(boolean, False), "axis": Attribute(integer, 0)}


def data_and_length(a: SimpleNamespace) -> tuple[str, ...]:
    return ("data", "sequence_length") if a.use_sequence_length else ("data",)


def time_axis(w: Wiring, a: SimpleNamespace, *allowed: int) -> int:
    """The axis of time, refused outside what MXNet has."""
    if a.axis not in allowed:
        raise w.refuse(f"axis={a.axis}, expected {' or '.join(map(str, allowed))}")
    return int(a.axis)


def sequence_mask(w: Wiring, a: Attributes, x: fx.Node, lengths: fx.Node | None = None) -> Wired:
    axis = time_axis(w, a, 0, 1)
    if lengths is None:
        a.have_no_effect("value")
        return x
    return w.call(mx_sequence.sequence_mask, x, lengths, a.value, axis)


def sequence_last(
    w: Wiring, a: SimpleNamespace, x: fx.Node, lengths: fx.Node | None = None
) -> Wired:
    return w.call(mx_sequence.sequence_last, x, lengths, time_axis(w, a, 0, 1))


def sequence_reverse(
    w: Wiring, a: SimpleNamespace, x: fx.Node, lengths: fx.Node | None = None
) -> Wired:
    time_axis(w, a, 0)
    return w.call(mx_sequence.sequence_reverse, x, lengths)


register(
    "SequenceMask _npx_sequence_mask",
    sequence_mask,
    data_and_length,
    {**LENGTH, "value": Attribute(real, 0.0)},
    dtypes=Dtypes.FIRST,
)
register(
    "SequenceLast",
    sequence_last,
    data_and_length,
    LENGTH,
    dtypes=Dtypes.FIRST,
)
register(
    "SequenceReverse",
    sequence_reverse,
    data_and_length,
    LENGTH,
    dtypes=Dtypes.FIRST,
)
