"""Attention as MXNet fuses it, and the loss over alignments."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_attention
from mxnet_files.reading.attributes import Attribute, Attributes, boolean, integer, one_of
from mxnet_files.registry import Wired, Wiring, register

__all__: list[str] = []


def interleaved(function: Callable[..., Any]) -> Callable[..., Wired]:
    """A product with an interleaved sequence."""

    def build(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
        if a.heads < 1:
            raise w.refuse(f"heads={a.heads}, expected at least 1")
        return w.call(function, *inputs, a.heads)

    return build


INTERLEAVED: dict[str, tuple[Callable[..., Any], str]] = {
    "selfatt_qk": (mx_attention.scores_self, "queries_keys_values"),
    "selfatt_valatt": (mx_attention.attend_self, "queries_keys_values attention"),
    "encdec_qk": (mx_attention.scores, "queries keys_values"),
    "encdec_valatt": (mx_attention.attend, "keys_values attention"),
}
for _name, (_function, _inputs) in INTERLEAVED.items():
    register(
        f"_contrib_interleaved_matmul_{_name}",
        interleaved(_function),
        _inputs,
        {"heads": Attribute(integer)},
        dtypes=Dtypes.FLOATING,
    )
register(
    "_contrib_div_sqrt_dim",
    lambda w, a, x: w.call(mx_attention.div_sqrt_dim, x),
    "data",
    dtypes=Dtypes.FLOATING,
)


def ctc_loss(w: Wiring, a: Attributes, x: fx.Node, label: fx.Node, *sizes: fx.Node) -> Wired:
    given = list(sizes)
    lengths = given.pop(0) if a.use_data_lengths else None
    of_labels = given.pop(0) if a.use_label_lengths else None
    first = a.blank_label == "first"
    return w.call(mx_attention.ctc_loss, x, label, lengths, of_labels, first)


def ctc_inputs(a: SimpleNamespace) -> tuple[str, ...]:
    lengths = ("data_lengths",) if a.use_data_lengths else ()
    return ("data", "label", *lengths, *(("label_lengths",) if a.use_label_lengths else ()))


register(
    "CTCLoss ctc_loss _contrib_CTCLoss _contrib_ctc_loss",
    ctc_loss,
    ctc_inputs,
    {
        "use_data_lengths": Attribute(boolean, False),
        "use_label_lengths": Attribute(boolean, False),
        "blank_label": Attribute(one_of("first", "last"), "first"),
    },
    dtypes=Dtypes.FIRST,
)
