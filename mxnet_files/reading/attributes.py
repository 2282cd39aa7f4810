"""Operator attributes, as MXNet writes them: short strings, read by hand and never evaluated.

A *kind* turns one string into one value and raises `ValueError` with what it expected. MXNet keeps
most real attributes in float32 even when the arrays are float64 (slope, momentum, alpha ...), so
`real` rounds to float32 where `double` does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from mxnet_files.errors import SymbolError

LONGEST = 65_536  # characters in one attribute; a shape of 64 axes needs fewer than 2,000
MOST_ITEMS = 4_096  # numbers in one shape
Kind = Callable[[str], Any]
DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool", "bfloat16")

_INTEGER = re.compile(r"[+-]?\d{1,19}L?")  # Python 2 wrote 3L


def integer(text: str) -> int:
    """`3`, `-1`, `3L`."""
    if not _INTEGER.fullmatch(text.strip()):
        raise ValueError("an integer such as 3")
    value = int(text.strip().rstrip("L"))
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer of 64 bits")
    return value


def double(text: str) -> float:
    """A float64 attribute, such as BatchNorm's eps."""
    try:
        if len(text) > 64 or "_" in text:
            raise ValueError
        value = float(text)
    except ValueError:
        raise ValueError("a number such as 0.001") from None
    return value


def real(text: str) -> float:
    """A float32 attribute, as the float64 number MXNet computes with."""
    with np.errstate(over="ignore"):  # an attribute beyond float32 is infinite in MXNet too
        return float(np.float32(double(text)))


def _items(text: str, what: str = "") -> list[str]:
    """What stands between the commas of `(2, 3)`, `[2,3]`, `(3L,)`, `()` or `3`."""
    body = text.strip()
    if body[:1] + body[-1:] in ("()", "[]"):
        body = body[1:-1].strip()
    items = body.removesuffix(",").split(",") if body else []
    if len(items) > MOST_ITEMS:
        raise ValueError(f"{what}at most {MOST_ITEMS} numbers")
    return items


def reals(text: str) -> tuple[float, ...]:
    """`(0.1, 0.2)`, `[1,2]`, `0.5`: a tuple of float32 attributes."""
    items = _items(text)
    try:
        return tuple(real(item) for item in items)
    except ValueError:
        raise ValueError("numbers such as (0.1, 0.2)") from None


def boolean(text: str) -> bool:
    """`True`, `false`, `1`, `0`."""
    known = {"true": True, "1": True, "false": False, "0": False}
    if text.strip().lower() not in known:
        raise ValueError("True or False")
    return known[text.strip().lower()]


def _item(text: str) -> int | None:
    return None if text.strip() == "None" else integer(text)


def shape(text: str) -> tuple[int | None, ...]:
    """`(2, 3)`, `[2,3]`, `(3L,)`, `()`, `3`; slices may hold `None`."""
    items = [] if text.strip() == "None" else _items(text, "a shape of ")
    try:
        return tuple(_item(item) for item in items)
    except ValueError:
        raise ValueError("a shape such as (2, 2)") from None


def integers(text: str) -> tuple[int, ...]:
    """A shape that holds no None."""
    found = shape(text)
    if None in found:
        raise ValueError("numbers only")
    return tuple(size for size in found if size is not None)


def axes(text: str) -> tuple[int, ...]:
    """Axes, each named once."""
    found = integers(text)
    if len(set(found)) != len(found):
        raise ValueError("different axes")
    return found


def optional(kind: Kind) -> Kind:
    """`kind`, or None where the file says `None`."""

    def parse(text: str) -> Any:
        return None if text.strip() == "None" else kind(text)

    return parse


def one_of(*choices: str) -> Kind:
    """One of the given words."""

    def parse(text: str) -> str:
        if text.strip() not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return text.strip()

    return parse


dtype: Kind = one_of(*DTYPES)


def word(text: str) -> str:
    """A word that is told apart later."""
    return text.strip()


def pairs(text: str) -> tuple[int, ...]:
    """`((1, 2), (0, 0))`: two numbers an axis, in a row."""
    if not re.fullmatch(r"[(\[](\s*[(\[]\s*\d+\s*,\s*\d+\s*[)\]]\s*,?)+\s*[)\]]", text.strip()):
        raise ValueError("two numbers from 0 for each axis such as ((0, 0), (1, 1))")
    return tuple(map(integer, re.findall(r"\d+", text)))


REQUIRED: Any = object()


@dataclass(frozen=True)
class Attribute:
    """How one attribute is read, and what stands in when the file omits it."""

    kind: Kind
    default: Any = REQUIRED


class Attributes(SimpleNamespace):
    """The attributes of one node; it keeps account of which were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(**values)
        vars(self)["_read"] = set()

    def __getattribute__(self, name: str) -> Any:
        values = super().__getattribute__("__dict__")
        if not name.startswith("_") and name in values:
            values["_read"].add(name)
        return super().__getattribute__(name)

    def have_no_effect(self, *names: str) -> None:
        """Account for attributes that MXNet does not look at beside the others of this node."""
        vars(self)["_read"].update(names)

    def unread(self, known: Mapping[str, Attribute]) -> list[str]:
        """What nobody has asked for although it says something else than the default."""
        values = vars(self)
        return [
            f"{name}={values[name]}"
            for name, attribute in known.items()
            if attribute is not IGNORED
            and name not in values["_read"]
            and values[name] != attribute.default
        ]


IGNORED = Attribute(word, None)  # tunes MXNet's speed or memory, not what it computes
_KINDS: dict[str, Kind] = {
    "axes": axes, "boolean": boolean, "double": double, "dtype": dtype, "integer": integer,
    "integers": integers, "pairs": pairs, "real": real, "reals": reals, "shape": shape,
    "word": word,
}  # fmt: skip
_DECLARED = re.compile(r"(\w+): (\w+|\([\w|]+\))(\??)(?: = (.+))?")


def declared(text: str) -> dict[str, Attribute]:
    """Attributes by name, from a text in the manner of a signature.

    A kind is the name of one above, or the words to choose from; with `?` it may be None. A default
    is read as a file's text is. `ignored` attributes are `IGNORED`.

    >>> mode, k = declared("mode: (clip|wrap) = clip, k: integer?").values()
    >>> mode.default, mode.kind("wrap"), k.kind("None"), k.default is REQUIRED
    ('clip', 'wrap', None, True)
    """
    known: dict[str, Attribute] = {}
    for entry in re.split(r", (?=\w+: )", text) if text else ():
        found = _DECLARED.fullmatch(entry)
        if found is None or found[1] in known:
            raise ValueError(f"{entry!r}, expected `name: kind = default`, each name once")
        name, said, may_be_none, default = found.groups()
        if said == "ignored":
            known[name] = IGNORED
            continue
        kind = one_of(*said[1:-1].split("|")) if said.startswith("(") else _KINDS[said]
        if may_be_none:
            kind = optional(kind)
        known[name] = Attribute(kind) if default is None else Attribute(kind, kind(default))
    return known


# Notes that frontends leave on nodes; MXNet renames them to __key__ when it loads a file.
_NOTES = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage", "profiler_scope")


def hidden(key: str) -> bool:
    """True for a note that no operator reads: `__shape__`, `lr_mult`, `weight_lr_mult`, …"""
    dunder = key.startswith("__") and key.endswith("__")
    return dunder or any(key.startswith(note) or key.endswith(note) for note in _NOTES)


def read_attributes(
    where: str,
    written: Mapping[str, str],
    known: Mapping[str, Attribute],
    *,
    strict: bool = True,
) -> dict[str, Any]:
    """Values of all `known` attributes, defaults filled in.

    `where` names the node in errors. `strict` refuses attributes the operator does not have; files
    of MXNet 0.8 keep free-form user attributes beside the operator's, so they are read leniently.
    An operator without attributes takes no notice of any in MXNet either (`zeros_like(dtype=…)`).
    Raises `SymbolError`.
    """
    values: dict[str, Any] = {}
    for key, attribute in known.items():
        if key not in written:
            if attribute.default is REQUIRED:
                raise SymbolError(f"{where}: attribute {key} is missing, and it has no default")
            values[key] = attribute.default
            continue
        text = written[key]
        try:
            if len(text) > LONGEST:
                raise ValueError(f"at most {LONGEST} characters")
            values[key] = attribute.kind(text)
        except ValueError as error:
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise SymbolError(f"{where}: attribute {key}={shown!r}, expected {error}") from None
    extra = sorted(key for key in written if key not in known and not hidden(key))
    if strict and extra and known:
        shown = ", ".join(key[:60] for key in extra[:5])
        raise SymbolError(f"{where}: unknown attribute {shown}; it would change the result unseen")
    return values
