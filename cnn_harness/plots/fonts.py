"""The fonts that the names of classes need, which may be in any script.

matplotlib's own font has Latin, Greek, Cyrillic, Arabic and a few emoji. For other characters the
fonts of this machine are searched, and those that the extra `fonts` brings.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_LOG = logging.getLogger(__name__)

OWN = "DejaVu Sans"  # comes with matplotlib
# So does this from 3.11 on: it has every character there is, each drawn as the same box
BOXES = "Last Resort High-Efficiency"
# Package -> the files of its fonts that are used
PACKAGES = {"mplfonts": "fonts/NotoSansCJKsc-Regular.otf", "manimgx_fonts": "Noto*[[]wght].ttf"}
_PLAIN = 0x250  # characters below are Latin, which every font has
_UNSEEN = dict.fromkeys(map(ord, "\u200d\ufe0e\ufe0f"))  # joiners, and choices between two forms
_LEFTWARD = "\u200e"  # LEFT-TO-RIGHT MARK, https://unicode.org/reports/tr9
_said: set[str] = set()  # what was warned of in this process


def font_families(texts: Iterable[str]) -> list[str]:
    """matplotlib's `font.family` for these texts; what cannot be drawn as it is is said once."""
    lacking = {c for text in texts for c in text if ord(c) >= _PLAIN and c.isprintable()}
    apart = set() if _joins() else {c for c in lacking if _is_rightward(c)}
    families = [OWN]
    if lacking:
        lacking -= _characters(_path_of_own())
    if lacking:
        for path in _others():
            has = _characters(path) & lacking
            if has:
                families.append(_known(path))
                lacking -= has
            if not lacking:
                break
    _say({"no font has {}, drawn as boxes": lacking,
          "no package joins {} from right to left, drawn letter by letter": apart})  # fmt: skip
    return families


def shaped(text: str) -> str:
    """A text as matplotlib draws it letter by letter: joined and from right to left where it is.

    >>> shaped("cat")
    'cat'
    """
    text = text.translate(_UNSEEN)
    if not any(map(_is_rightward, text)) or not _joins():
        return text
    if _shapes_itself():  # the whole line, in which a name must not turn what stands beside it
        return f"{_LEFTWARD}{text}{_LEFTWARD}"
    from arabic_reshaper import reshape
    from bidi.algorithm import get_display

    return str(get_display(reshape(text)))


def _is_rightward(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL")


def _joins() -> bool:
    """Whether what is written from right to left is drawn so, and joined."""
    return _shapes_itself() or None not in map(find_spec, ("arabic_reshaper", "bidi"))


def _say(wrong: Mapping[str, set[str]]) -> None:
    """One warning of what goes wrong with which characters, unless each has been said."""
    said = []
    for message, characters in wrong.items():
        if new := sorted(characters - _said):
            shown = "".join(new[:10]) + ("…" if len(new) > 10 else "")
            said.append(message.format(f"the class names' {shown}"))
    _said.update(*wrong.values())
    if said:
        _LOG.warning(
            "warning: %s: pip install -e '.[fonts]' brings Chinese, Japanese, Korean, emoji and "
            "more, and joins Arabic; other scripts need a font of the system", "; ".join(said)
        )  # fmt: skip


def _shapes_itself() -> bool:
    from matplotlib import ft2font

    return hasattr(ft2font, "__libraqm_version__")


def _path_of_own() -> str:
    from matplotlib import font_manager

    return font_manager.findfont(OWN)


def _others() -> Iterable[str]:
    """The files of the fonts that may have more characters."""
    from matplotlib import font_manager

    for package, pattern in PACKAGES.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            yield from map(str, sorted(Path(spec.origin).parent.glob(pattern)))
    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and entry.name not in (OWN, BOXES):
            yield entry.fname


@lru_cache(maxsize=256)
def _known(path: str) -> str:
    """The family of a font's file, which matplotlib knows from now on."""
    from matplotlib import font_manager

    if path not in (entry.fname for entry in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name()


@lru_cache(maxsize=256)
def _characters(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # a bitmap font of emoji, say, which matplotlib cannot draw
        return frozenset()
