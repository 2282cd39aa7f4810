"""Reads what MXNet's operators draw at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from parity_tests.backends.gluon.tracing.reading import Reader, parse, unknown
from parity_tests.numerics.draws import Draw
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import Arguments, Emit

# Gives an argument of the operator, or a default
_Get = Callable[[str, float], float]


def _uniform(get: _Get) -> Draw:
    low, high = get("low", 0.0), get("high", 1.0)
    return Draw("uniform", high - low, low)


def _normal(get: _Get) -> Draw:
    return Draw("normal", get("scale", 1.0), get("loc", 0.0))


def _sampled_normal(get: _Get) -> Draw:
    return Draw("normal", get("sigma", 1.0), get("mu", 0.0))


def _integers(get: _Get) -> Draw:
    return Draw("integers", parameters={"low": get("low", 0.0), "high": get("high", 0.0)})


def _gamma(get: _Get) -> Draw:
    return Draw("gamma", get("beta", 1.0), parameters={"alpha": get("alpha", 1.0)})


_DRAWS: dict[str, Callable[[_Get], Draw]] = {
    **dict.fromkeys(("_random_uniform", "_random_uniform_like", "_npi_uniform", "_npi_uniform_n",
                     "_sample_uniform"), _uniform),
    **dict.fromkeys(("_random_normal", "_random_normal_like", "_npi_normal", "_npi_normal_n"),
                    _normal),
    "_sample_normal": _sampled_normal,
    **dict.fromkeys(("_random_randint", "_npi_random_randint"), _integers),
    **dict.fromkeys(("_random_gamma", "_random_gamma_like", "_sample_gamma"), _gamma),
    **dict.fromkeys(("_random_exponential", "_random_exponential_like", "_sample_exponential"),
                    lambda get: Draw("exponential", 1.0 / get("lam", 1.0))),
    "_npi_exponential": lambda get: Draw("exponential", get("scale", 1.0)),
    **dict.fromkeys(("_random_poisson", "_random_poisson_like", "_sample_poisson"),
                    lambda get: Draw("poisson", parameters={"lam": get("lam", 1.0)})),
    "_npi_bernoulli": lambda get: Draw("bernoulli", parameters={"p": get("prob", 0.5)}),
}  # fmt: skip
# Whose array says a shape alone
_LIKE = "_like"


def draws_numbers(kind: str) -> bool:
    """Whether an operator is known to draw at random."""
    return kind in _DRAWS


def drawn(
    kind: str, attributes: Mapping[str, Any], arrays: Mapping[str, float | None]
) -> Draw | None:
    """What an operator draws; None of one that is not known, or whose parameters are not.

    `arrays` has the number that is in all places of each array that it is given, by its role.

    >>> drawn("_random_normal", {"loc": "0", "scale": "0.1"}, {})
    Draw(kind='normal', scale=0.1, shift=0.0, parameters={})
    """
    made = _DRAWS.get(kind)
    given = {} if kind.endswith(_LIKE) else dict(arrays)
    if made is None or None in given.values() or (given and kind.startswith("_npi_")):
        return None

    def get(name: str, default: float) -> float:
        value = given.get(name, parse(attributes.get(name)))
        return default if value in (None, "None") else float(value)

    return made(get)


def _read(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    kind, given = args.operation.kind, args.operation.attributes
    draw = drawn(kind, given, {role: emit.number_of(x) for role, x in args.arrays.items()})
    if draw is not None:
        return emit.draw(draw, args.shape)
    if kind == "_npi_bernoulli" and parse(given.get("is_logit")) is False:
        return emit.draw(Draw("bernoulli", parameters={"p": None}), args.shape, args.first)
    return unknown(args, emit)


def compared(form: str) -> Reader:
    """Whether a draw lies below ("less") or above ("greater") a number."""

    def read(args: Arguments, emit: Emit) -> Operand | list[Operand]:
        if emit.drawn(args.first) is None:
            return unknown(args, emit)
        number = float(parse(args.attribute("scalar")))
        return emit(form, [("input", args.first)], args.shape, scalar=number)

    return read


READERS: dict[str, Reader] = {
    **dict.fromkeys(_DRAWS, _read),
    **{f"{head}{name}{tail}_scalar": compared(form)
       for head, names in (("_", ("lesser", "greater")), ("_npi_", ("less", "greater")))
       for name, form in zip(names, ("less", "greater"), strict=True) for tail in ("", "_equal")},
}  # fmt: skip
