"""Names from a file, made safe for attribute paths and generated code.

Names end up in the source text that `torch.fx` compiles, so nothing but `[A-Za-z0-9_]` and dots
may pass. A parameter keeps MXNet's name verbatim in `state_dict` whenever it can:

- `resnetv10_conv0_weight` is a parameter of the root module;
- `features.0.weight` sits in nested containers, so its key is `features.0.weight` too;
- other characters, Python keywords and names that `torch.nn.Module` uses itself (`forward`, `train`
  …), or `torch.export` (`self`), are changed: the character becomes `_`, the word gets a trailing
  `_`. A name of nothing but digits gets a leading one: ONNX has no such names. The map from such
  keys to MXNet's names is `module.meta["mxnet_names"]`.
"""

from __future__ import annotations

import builtins
import keyword
import re

from torch import fx, nn

DEEPEST = 32  # folders in a path; Python cannot compile an attribute of an attribute of … for ever
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")
# Functions and modules are globals of the generated code, under names that begin with these
_MODULES = ("torch", "typing", "mxnet_files", "operator", "math")
_USED = ("self", "inf", "nan", "NoneType", "device", "fx_pytree", "pytree")
# torch.export calls locals as the parameters they hold, and sets the others on the module
_EXPORT = ("self", "_guards_fn", "_in_spec", "_out_spec")
_PROBE = fx.GraphModule(nn.Module(), fx.Graph())


def identifier(name: str) -> str:
    """A Python identifier that resembles `name`: `3d-conv.w` -> `_3d_conv_w`."""
    safe = _UNSAFE.sub("_", name)
    if not safe or safe[0].isdigit():
        safe = "_" + safe
    return safe + "_" if keyword.iskeyword(safe) else safe


def local_name(name: str) -> str:
    """An identifier for a local variable of `forward`, which must hide no name its code uses.

    Arguments, results and fetched parameters are locals alike: an operator that is called `self`
    would otherwise be what `self.weight` is looked up in.
    """
    safe = identifier(name)
    hides = safe.startswith(_MODULES) or safe in _USED or hasattr(builtins, safe)
    return safe + "_" if hides else safe


def _piece(text: str) -> str:
    """One dot-free part of a path, safe as an attribute of a module."""
    safe = _UNSAFE.sub("_", text) or "_"
    used = keyword.iskeyword(safe) or safe in _EXPORT or hasattr(_PROBE, safe)
    return safe + "_" if used else safe


def attribute_name(name: str) -> str:
    """An attribute of a module that resembles `name` and hides none that every module has."""
    return _piece(identifier(name))


def numbered(name: str, taken: set[str]) -> str:
    """The name, or with the first number from 2 that none of `taken` has; it is one of them then.

    >>> taken = {"conv", "conv_2"}
    >>> numbered("conv", taken), numbered("relu", taken), sorted(taken)
    ('conv_3', 'relu', ['conv', 'conv_2', 'conv_3', 'relu'])
    """
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


class PathNames:
    """Hands out attribute paths, each one unique and none a prefix of another."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._leaves: set[str] = set()
        self._folders: set[str] = set()

    def _free(self, path: str) -> bool:
        pieces = path.split(".")
        parents = {".".join(pieces[:count]) for count in range(1, len(pieces))}
        return path not in self._leaves and path not in self._folders and not parents & self._leaves

    def _take(self, path: str) -> str:
        pieces = path.split(".")
        self._leaves.add(path)
        self._folders |= {".".join(pieces[:count]) for count in range(1, len(pieces))}
        return path

    def parameter(self, name: str) -> str:
        """The path of a parameter or buffer: `name` itself where torch allows it."""
        pieces = [_piece(text) for text in name.split(".")]
        nested = ".".join(pieces)
        nested = f"_{nested}" if nested.isdigit() else nested
        fits = len(pieces) <= DEEPEST and self._free(nested)
        return self._take(nested) if fits else self.layer(name)

    def layer(self, name: str) -> str:
        """A path without dots, for a sub-module."""
        base = path = _piece(identifier(name))
        while not self._free(path):
            self._counts[base] = self._counts.get(base, 0) + 1
            path = f"{base}_{self._counts[base]}"
        return self._take(path)
