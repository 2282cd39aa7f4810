"""Readers of packed sequences: what is packed, computed and padded again is a layer with lengths.

torch sorts sequences by their lengths before it packs them, and puts them back behind a layer.
"""

from __future__ import annotations

from parity_tests.backends.torch.tracing.reading import unknown
from parity_tests.pairing.graph import Operand, Operation
from parity_tests.pairing.vocabulary import Arguments, Emit, emit_take

# What `pack` gives: the values one after the other, and how many sequences go on at each step
_PACK = "pack"


def pack(args: Arguments, emit: Emit) -> list[Operand]:
    return unknown(_PACK, args, emit)


def pad(args: Arguments, emit: Emit) -> list[Operand]:
    """What was packed, in as many steps as it gets."""
    packed = emit.producer(args["data"])
    y, shape = None if packed is None else _role(packed, "input"), args.shape
    if packed is None or packed.kind != _PACK or y is None or args.attribute("padding_value"):
        return unknown("pad_packed", args, emit)
    lengths = _role(packed, "lengths")
    assert lengths is not None  # each pack has them
    if bool(packed.attributes["batch_first"]) != bool(args.attribute("batch_first")):
        swapped = (y.shape[1], y.shape[0], *y.shape[2:])
        y = emit("transpose", [("input", y)], swapped, order=(1, 0, *range(2, len(shape))))
    along = int(bool(args.attribute("batch_first")))
    kept = min(shape[along], y.shape[along])
    before = (*shape[:along], kept, *shape[along + 1 :])
    y = emit("slice", [("input", y)], before, axis=along, begin=0, step=1)
    widths = tuple((0, size - own) for size, own in zip(shape, before, strict=True))
    y = emit("pad", [("input", y)], shape, widths=widths, mode="constant", value=0.0)
    return [y, lengths]


class Packed:
    """A packed sequence that a layer is given: what was packed, and in which order."""

    def __init__(self, args: Arguments, emit: Emit) -> None:
        self._given = [x for role, x in args.arrays.items() if role.startswith("input.")]
        self._emit = emit
        self._indices = [x for x in self._given[2:] if len(x.shape) == 1][:2]
        source = emit.producer(self._given[0])
        self._pack = source if source is not None and source.kind == _PACK else None
        self.count = 2 + len(self._indices)  # of the arrays that are no states

    @property
    def inputs(self) -> list[tuple[str, Operand | None]] | None:
        """The sequences in their own order and their lengths; None where they cannot be told."""
        if self._pack is None:
            return None
        x, lengths = _role(self._pack, "input"), _role(self._pack, "lengths")
        if x is None or lengths is None:
            return None
        if self._indices:
            x, lengths = self._unsorted(x), self._unsorted(lengths)
            if x is None or lengths is None:
                return None
        return [("input.0", x), ("lengths", lengths)]

    def _unsorted(self, x: Operand) -> Operand | None:
        """What was sorted, or put in the order of what was; None where it was not."""
        made = self._emit.producer(x)
        if made is None or not made.inputs or made.kind not in ("sort", "take"):
            return None
        if made.kind == "sort":
            places = self._emit.producer(self._indices[0])
            sorted_so = places is not None and (places.kind, places.inputs) == (
                "argsort", made.inputs
            )  # fmt: skip
        else:
            index = _role(made, "index")
            sorted_so = index is not None and index.value == self._indices[0].value
        return made.inputs[0] if sorted_so else None

    @property
    def layout(self) -> dict[str, bool]:
        """Which of the axes comes first."""
        assert self._pack is not None
        return {"batch_first": bool(self._pack.attributes["batch_first"])}

    def packed(self, y: Operand, lengths: Operand) -> list[Operand]:
        """What a layer gives of these sequences, packed again."""
        assert self._pack is not None
        along = int(not self.layout["batch_first"])
        if self._indices:
            y = emit_take(self._emit, y, self._indices[0], along, y.shape)
            lengths = emit_take(self._emit, lengths, self._indices[0], 0, lengths.shape)
        size = (self._given[0].shape[0], y.shape[-1])
        inputs = [("input", y), ("lengths", lengths)]
        data = self._emit(_PACK, inputs, size, **self.layout)
        return [data, *self._given[1 : self.count]]


def is_packed(args: Arguments, emit: Emit) -> bool:
    """Whether a layer is given a packed sequence: values, counts of each step, indices."""
    arrays = list(args.arrays.values())
    given = arrays[1] if len(arrays) > 1 and "input.1" in args.arrays else None
    return given is not None and len(given.shape) == 1


def _role(op: Operation, role: str) -> Operand | None:
    return next((x for x in op.inputs if x.role == role), None)
