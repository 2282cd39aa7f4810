"""The fonts that the names of classes need, which may be in any script.

matplotlib's own font has Latin, Greek, Cyrillic, Arabic and a few emoji. For other characters the
fonts of this machine are searched, and those of the package mplfonts (the extra `fonts`).
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["font_families", "shaped"]

_LOG = logging.getLogger(__name__)

OWN = "DejaVu Sans"  # comes with matplotlib
_PLAIN = 0x250  # characters below are Latin, which every font has
_UNSEEN = dict.fromkeys(map(ord, "\u200d\ufe0e\ufe0f"))  # joiners, and choices between two forms
_said: set[str] = set()  # what was warned of in this process


def font_families(texts: Iterable[str]) -> list[str]:
    """matplotlib's `font.family` for these texts; characters that no font has are said once."""
    lacking = {c for text in texts for c in text if ord(c) >= _PLAIN and c.isprintable()}
    families = [OWN]
    if lacking:
        lacking -= _characters(_path_of_own())
    if lacking:
        for family, path in _others():
            has = _characters(path) & lacking
            if has:
                families.append(family)
                lacking -= has
            if not lacking:
                break
    _say(
        lacking,
        "no font has {}, drawn as boxes: pip install -e '.[fonts]' brings Chinese, Japanese and "
        "Korean; other scripts need a font of the system",
    )
    return families


def shaped(text: str) -> str:
    """A text as matplotlib draws it letter by letter: joined and from right to left where it is.

    >>> shaped("cat")
    'cat'
    """
    text = text.translate(_UNSEEN)
    rightward = {c for c in text if unicodedata.bidirectional(c) in ("R", "AL")}
    if not rightward or _shapes_itself():
        return text
    if find_spec("arabic_reshaper") is None or find_spec("bidi") is None:
        _say(
            rightward,
            "no package joins {} from right to left, drawn letter by letter: "
            "pip install -e '.[fonts]'",
        )
        return text
    from arabic_reshaper import reshape
    from bidi.algorithm import get_display

    return str(get_display(reshape(text)))


def _say(characters: Iterable[str], message: str) -> None:
    new = sorted(set(characters) - _said)
    if new:
        _said.update(new)
        shown = "".join(new[:10]) + ("…" if len(new) > 10 else "")
        _LOG.warning("warning: %s", message.format(f"the class names' {shown}"))


def _shapes_itself() -> bool:
    from matplotlib import ft2font

    return hasattr(ft2font, "__libraqm_version__")


def _path_of_own() -> str:
    from matplotlib import font_manager

    return font_manager.findfont(OWN)


def _others() -> Iterable[tuple[str, str]]:
    """Family and file of the fonts that may have more characters."""
    from matplotlib import font_manager

    spec = find_spec("mplfonts")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).with_name("fonts") / "NotoSansCJKsc-Regular.otf"
        if path.is_file():
            font_manager.fontManager.addfont(path)
            yield font_manager.FontProperties(fname=path).get_name(), str(path)
    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and entry.name != OWN:
            yield entry.name, entry.fname


@lru_cache(maxsize=256)
def _characters(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # a bitmap font of emoji, say, which matplotlib cannot draw
        return frozenset()
