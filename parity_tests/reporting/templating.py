"""What both pages share: their templates, the style and script that alone may act in them, words.

Whatever a net, a class or an error is called is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from functools import cache
from importlib import resources
from typing import Any

from gluon_cnn_parity import needs

with needs("parity"):
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

# After a dot, slash or underscore of a name, and not inside a number
_BREAK = re.compile(r"(?<=\w)([_/]|\.(?!\d)|(?<!\d)\.)(?=\w)")
_COMMIT = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28}\b")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")  # a browser would break it between its hyphens

# What the pages' words mean, a sentence each; a page shows those that it uses.
WORDS = {
    "u": "the unit roundoff, half the distance from 1 to the next number: 2⁻²⁴ in float32, 2⁻⁵³ "
    "in float64.",
    "bound": "the farthest that the arithmetic of an operation, correctly done, can be from the "
    "exact value; most operations have 16 u of what they sum.",
    "local": "each operation alone, given an input that does not depend on the operations before "
    "it, so that what is found there is its own.",
    "inherited": "each framework's own stream through the whole net, where an operation passes on "
    "what those before it gathered.",
    "envelope": "how far rounding alone may carry a value through this net on this input: the "
    "farthest of several random draws, with a factor.",
    "moved": "a value is not, bit for bit, what the baseline has: within rounding where float64 "
    "stays within its own and float32 within its bound, else in semantics.",
    "agreement": "MXNet and torch compute the same function now, whatever either did before.",
}


def render(template: str, *, words: tuple[str, ...], script: str = "", **values: Any) -> str:
    """A page, self-contained: only its own style and script may act in it, and nothing is fetched.

    `words` are those of WORDS that its legend explains.
    """
    style, code = Markup(_own("report.css")), Markup(_own(script)) if script else Markup("")
    scripts = f"; script-src {_hash(code)}" if code else ""
    return (
        _templates()
        .get_template(template)
        .render(
            style=style,
            script=code,
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}{scripts}",
            words={word: WORDS[word] for word in words},
            **values,
        )
    )


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("parity_tests.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.filters |= {
        "part": _part,
        "digits": _digits,
        "size": _size,
        "sentence": _sentence,
        "names": _names,
    }
    return templates


def _own(name: str) -> str:
    return resources.files("parity_tests.reporting").joinpath("templates", name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _names(text: object) -> Markup:
    """Escaped text whose long names may break after a dot, a slash or an underscore, and nowhere
    else. Of a commit's name twelve digits are shown.

    >>> print(_names("a_b: pass --parity-update"))
    a_<wbr>b: pass <span class="whole">--parity-update</span>
    """
    broken = _BREAK.sub(r"\1<wbr>", _COMMIT.sub(r"\1", str(escape(str(text)))))
    return Markup(_FLAG.sub(r'<span class="whole">\g<0></span>', broken))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _part(fraction: float | None) -> str:
    """Error over bound as a reader wants it."""
    if fraction is None:
        return ""
    if fraction == 0:
        return "equal"
    return "∞" if math.isinf(fraction) else f"{fraction:.3g}"


def _size(number: float | None) -> str:
    """A distance: `3.1e-07`."""
    return "" if number is None else "0" if number == 0 else f"{number:.1e}"


def _digits(value: float, count: int) -> str:
    """One of a window's values; nine digits tell any two float32 apart."""
    return f"{value:.{count}g}" if math.isfinite(value) else str(value)
