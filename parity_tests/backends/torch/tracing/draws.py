"""Reads what torch's calls draw at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from parity_tests.backends.torch.tracing.reading import Reader, unknown
from parity_tests.numerics.draws import Draw
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import Arguments, Emit

# Gives an argument of the call by its names, or a default
_Get = Callable[..., float]


def _uniform(get: _Get) -> Draw:
    low, high = get("from", "arg.1", default=0.0), get("to", "arg.2", default=1.0)
    return Draw("uniform", high - low, low)


def _normal(get: _Get) -> Draw:
    return Draw("normal", get("std", "arg.2", default=1.0), get("mean", "arg.1", default=0.0))


def _integers(get: _Get) -> Draw:
    ends = {"low": get("low", "from", default=0.0), "high": get("high", "to", default=0.0)}
    return Draw("integers", parameters={**ends})


def _bernoulli(get: _Get) -> Draw:
    return Draw("bernoulli", parameters={"p": get("p", "input", default=0.5)})


def _exponential(get: _Get) -> Draw:
    return Draw("exponential", 1.0 / get("lambd", "arg.1", default=1.0))


# By name, in place or not; of what is drawn into an array its old numbers are not read
_DRAWS: dict[str, Callable[[_Get], Draw]] = {
    "rand": lambda get: Draw("uniform"),
    "rand_like": lambda get: Draw("uniform"),
    "uniform_": _uniform,
    "randn": lambda get: Draw("normal"),
    "randn_like": lambda get: Draw("normal"),
    "normal": _normal,
    "normal_": _normal,
    "randint": _integers,
    "randint_like": _integers,
    "bernoulli": _bernoulli,
    "bernoulli_": _bernoulli,
    "exponential_": _exponential,
    "poisson": lambda get: Draw("poisson", parameters={"lam": get("input", default=1.0)}),
}
_READ = {"normal": ("mean", "std"), "bernoulli": ("input",), "poisson": ("input",),
         "bernoulli_": ("p",)}  # fmt: skip


def draws_numbers(kind: str) -> bool:
    """Whether a call is known to draw at random."""
    return kind in _DRAWS


def drawn(
    kind: str, attributes: Mapping[str, Any], arrays: Mapping[str, float | None]
) -> Draw | None:
    """What a call draws; None of one that is not known, or whose parameters are not.

    `arrays` has the number that is in all places of each array that it is given, by its role.

    >>> drawn("uniform_", {"from": -1, "to": 1}, {"input": None})
    Draw(kind='uniform', scale=2.0, shift=-1.0, parameters={})
    """
    made = _DRAWS.get(kind)
    given = {role: x for role, x in arrays.items() if role in _READ.get(kind, ())}
    if "p" in attributes:
        given.pop("input", None)
    if made is None or None in given.values():
        return None

    def get(*names: str, default: float) -> float:
        found = (given.get(name, attributes.get(name)) for name in names)
        return next((float(x) for x in found if isinstance(x, (int, float))), default)

    return made(get)


def _read(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    kind, given = args.operation.kind, args.operation.attributes
    draw = drawn(kind, given, {role: emit.number_of(x) for role, x in args.arrays.items()})
    if draw is not None:
        return emit.draw(draw, args.shape)
    if kind == "bernoulli":
        return emit.draw(Draw("bernoulli", parameters={"p": None}), args.shape, args.first)
    return unknown(kind.removesuffix("_"), args, emit)


def compared(form: str) -> Reader:
    """Whether a draw lies below ("less") or above ("greater") a number."""

    def read(args: Arguments, emit: Emit) -> Operand | list[Operand]:
        number = args.attribute("other")
        if not isinstance(number, (int, float)) or emit.drawn(args.first) is None:
            return unknown(args.operation.kind, args, emit)
        return emit(form, [("input", args.first)], args.shape, scalar=float(number))

    return read


READERS: dict[str, Reader] = {
    **dict.fromkeys((name.removesuffix("_") for name in _DRAWS), _read),
    **dict.fromkeys(("lt", "le", "less", "less_equal"), compared("less")),
    **dict.fromkeys(("gt", "ge", "greater", "greater_equal"), compared("greater")),
}
