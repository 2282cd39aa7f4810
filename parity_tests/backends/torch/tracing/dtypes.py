"""The dtypes that a net's own code names: what it gives, and how its copy in another one runs."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from parity_tests.backends.runs import Arrays
from parity_tests.backends.torch.tracing.binding import call_name
from parity_tests.backends.tracing import flatten

# The methods that say a dtype by their name
NAMED = {"half": torch.float16, "float": torch.float32, "double": torch.float64}


class TakenFor(TorchFunctionMode):
    """In this context calls that ask for one of these dtypes are given `kind`.

    So a net of float16 runs as its copy in float32, though its code makes floats of 16 bits.

    Args:
        names: dtypes of floats, such as "float16".
        kind: what is taken for them.

    Examples:
        >>> with TakenFor({"float16"}, "float32"):
        ...     torch.ones(2).half().dtype, torch.zeros(2, dtype=torch.float16).dtype
        (torch.float32, torch.float32)
    """

    def __init__(self, names: Container[str], kind: str) -> None:
        super().__init__()
        self._names = names
        self._kind: torch.dtype = getattr(torch, kind)
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()  # what the net's code holds so

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = call_name(func)
        args, kwargs = self._taken(args), self._taken(kwargs or {})
        named = NAMED.get(name)
        if name == "type" and len(args) > 1:
            named = _of_class(args[1])
        if self._is_meant(named):
            func, args = torch.Tensor.to, (args[0], self._kind)
        return func(*args, **kwargs)

    def _is_meant(self, dtype: Any) -> bool:
        return isinstance(dtype, torch.dtype) and str(dtype).partition(".")[2] in self._names

    def _taken(self, value: Any) -> Any:
        if self._is_meant(value):
            return self._kind
        if isinstance(value, torch.Tensor):
            if value.dtype is self._kind or not self._is_meant(value.dtype):
                return value
            if value not in self._known:
                self._known[value] = value.detach().to(self._kind)
            return self._known[value]
        if type(value) in (tuple, list):
            return type(value)(map(self._taken, value))
        if type(value) is dict:
            return {key: self._taken(part) for key, part in value.items()}
        return value


def _of_class(kind: Any) -> torch.dtype | None:
    """The dtype of a class of tensors, or of its name: "torch.HalfTensor"."""
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return NAMED.get(name.rpartition(".")[2].removesuffix("Tensor").lower())


def given_dtypes(net: nn.Module, inputs: Arrays, kind: str) -> tuple[str, ...]:
    """The dtypes of what a net of dtype `kind` gives; none where it does not run on shapes alone.

    The net must be a copy: it is put into inference.
    """
    tensors = map(torch.from_numpy, inputs)
    floats = getattr(torch, kind)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            out = net.eval()(*(x.to(floats) if x.is_floating_point() else x for x in tensors))
    except Exception:  # a branch that depends on values, say
        return ()
    return tuple(str(y.dtype).removeprefix("torch.") for y in flatten(out, torch.Tensor))
