"""Runs an executed torch call again, on other arrays and in another dtype."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FunctionType
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import resolve_name

from parity_tests.backends.torch.tracing.dtypes import TakenFor
from parity_tests.backends.torch.tracing.recurrent import in_steps
from parity_tests.backends.tracing import flatten
from parity_tests.numerics.operators.table import as_mxnet_holds, single_arguments

# What makes an array of numbers, and reads others for their shape or dtype alone
_OF_NUMBERS = ("full_like", "new_full", "new_tensor", "fill", "fill_")


@dataclass(frozen=True)
class _Slot:
    """The place of an array in a call."""

    position: int


@dataclass(frozen=True)
class _Packed:
    """A packed sequence, with places for its arrays."""

    parts: tuple[Any, ...]


class ReplayCall:
    """One recorded call of a function: its arrays are given anew, all else is as it was.

    Args:
        function: what was called.
        args: its positional arguments; arrays among `tensors` are replaced.
        kwargs: its named arguments.
        tensors: the arrays, in the order in which the call is given others.
        outputs: what came out; one that is among `tensors` was changed in place.
        dtype: what the net computed in, which another run may do in another.
        gradients: whether autograd recorded the call.

    What it makes of no array is of the dtype of the run. It starts from the numbers that the net
    has, as parameters do: 0.1 is that of float32.

    Numbers are rounded that MXNet's operator of the same kind holds in float32; `unrounded` is the
    call with the net's own, for where MXNet executes something else. What the call gives in float64
    it gives in the dtype of the run; `widened` does what it gives in float16, too.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        dtype: torch.dtype,
        gradients: bool,
    ) -> None:
        self._unrounded: ReplayCall | None = None
        self._same = {dtype, torch.float64} if dtype.is_floating_point else {dtype}
        named = _named(function, args, kwargs)
        if named is not None:
            args, kwargs = (), dict(named)
            for argument in single_arguments(name):
                if isinstance(named.get(argument), float):
                    kwargs[argument] = as_mxnet_holds(argument, named[argument])
        self._sets = name == "setitem"
        if self._sets and isinstance(args[-1], float):
            args = (*args[:-1], as_mxnet_holds(name, args[-1]))
        self._function = function
        self._args = _template(tuple(args), tensors)
        self._kwargs = _template(dict(kwargs), tensors)
        self._changed = [i for i, x in enumerate(tensors) if any(x is y for y in outputs)]
        self._casts = outputs[0].dtype if name in _CASTS else None
        self._gradients = gradients
        self._made = not tensors or name in _OF_NUMBERS
        self._dtype = dtype
        if named is not None and kwargs != named:
            self._unrounded = copy.copy(self)
            self._unrounded._kwargs = _template(named, tensors)

    @property
    def unrounded(self) -> ReplayCall:
        """The call with the net's own numbers."""
        return self._unrounded or self

    @property
    def widened(self) -> ReplayCall:
        """The call where float16 is the dtype of the run."""
        copied = copy.copy(self)
        copied._same = {*self._same, torch.float16}
        return copied

    def written(self, names: Sequence[str]) -> str:
        """The call as Python, on arrays of these names. Raises ValueError where it has no words."""
        name = resolve_name(self._function) or ""
        if self._sets or self._casts or not name or "<" in name or name.endswith("__get__"):
            raise ValueError(f"{name or self._function} cannot be called from outside")
        given = [f"{n}.clone()" if i in self._changed else n for i, n in enumerate(names)]
        args = [_text(part, given, self._same) for part in self._args]
        args += [f"{key}={_text(part, given, self._same)}" for key, part in self._kwargs.items()]
        return f"{name}({', '.join(args)})"

    def __call__(self, tensors: Sequence[torch.Tensor], dtype: str) -> list[torch.Tensor]:
        kind: torch.dtype = getattr(torch, dtype)
        given = list(tensors)
        for position in self._changed:
            given[position] = given[position].clone()
        recording = nullcontext() if self._gradients else torch.no_grad()
        # What is counted, and then divided, or added to 1e-5, is of the default dtype
        made = self._made or not any(x.is_floating_point() for x in given)
        with recording, _default(kind) if made else nullcontext():
            if self._casts in self._same:
                return [given[0].to(kind)]
            same = dict.fromkeys(self._same, kind)
            args = _filled(self._args, given, same)
            result = self._function(*args, **_filled(self._kwargs, given, same))
            if self._sets:
                return [given[0]]
            outputs = list(flatten(result, torch.Tensor))
            if self._made:
                outputs = [
                    y.to(self._dtype).to(kind) if y.is_floating_point() else y for y in outputs
                ]
            return outputs


# The methods that say a dtype by their name, or by that of a class of tensors
_CASTS = ("float", "double", "half", "type")


@contextmanager
def _default(kind: torch.dtype) -> Iterator[None]:
    """Floats are of this dtype where a call names none."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind if kind.is_floating_point else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _named(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The arguments of a Python function by name; None where they cannot all be named."""
    if not isinstance(function, FunctionType):
        return None
    try:
        signature = inspect.signature(function)
        bound = signature.bind(*args, **kwargs)
    except (TypeError, ValueError):
        return None
    loose = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    hidden = (*loose, inspect.Parameter.POSITIONAL_ONLY)
    if any(parameter.kind in hidden for parameter in signature.parameters.values()):
        return None
    return dict(bound.arguments)


def _template(value: Any, tensors: Sequence[torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return next((_Slot(i) for i, x in enumerate(tensors) if x is value), value.detach())
    if isinstance(value, PackedSequence):
        return _Packed(tuple(_template(part, tensors) for part in value))
    if type(value) in (tuple, list):
        return type(value)(_template(part, tensors) for part in value)
    if type(value) is dict:
        return {key: _template(part, tensors) for key, part in value.items()}
    return value


def _filled(
    template: Any, tensors: Sequence[torch.Tensor], dtypes: Mapping[torch.dtype, torch.dtype]
) -> Any:
    if type(template) is _Slot:
        return tensors[template.position]
    if type(template) is torch.dtype:
        return dtypes.get(template, template)
    if type(template) is _Packed:
        return PackedSequence(*_filled(template.parts, tensors, dtypes))
    if type(template) in (tuple, list):
        return type(template)(_filled(part, tensors, dtypes) for part in template)
    if type(template) is dict:
        return {key: _filled(part, tensors, dtypes) for key, part in template.items()}
    return template


def _text(template: Any, names: Sequence[str], same: Container[torch.dtype]) -> str:
    """A template of arguments as Python, with names in place of arrays and the run's dtype."""
    if type(template) is _Slot:
        return names[template.position]
    if type(template) is torch.dtype and template in same:
        return "dtype"
    if type(template) in (tuple, list):
        inside = ", ".join(_text(part, names, same) for part in template)
        return f"[{inside}]" if type(template) is list else f"({inside}{',' if template else ''})"
    if isinstance(template, (torch.Tensor, Mapping, _Packed)):
        raise ValueError("it was given an array that nothing produced")
    if isinstance(template, torch.device):
        return f"torch.{template!r}"
    return repr(template)


class ReplayFunction:
    """One recorded call of an `autograd.Function`, whose own code may name dtypes both ways.

    Args:
        function: the class that was applied.
        args: its positional arguments; arrays among `tensors` are replaced.
        kwargs: its named arguments.
        tensors: the arrays, in the order in which the call is given others.
        same: the dtypes of floats that are that of the run.
    """

    def __init__(
        self,
        function: type[torch.autograd.Function],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: Sequence[torch.Tensor],
        same: Container[str],
    ) -> None:
        self._function = function
        self._arguments = _template((tuple(args), dict(kwargs)), tensors)
        self._same = same

    def __call__(self, tensors: Sequence[torch.Tensor], dtype: str) -> list[torch.Tensor]:
        function, floats = self._function, getattr(torch, dtype)
        # torch has two names for it: https://docs.pytorch.org/docs/stable/notes/extending.html
        name = "backward" if function.vjp is torch.autograd.Function.vjp else "vjp"
        way_back = getattr(function, name)

        def back(*args: Any) -> Any:
            with TakenFor(self._same, dtype), _default(floats):
                return way_back(*args)

        copied: Any = type(function.__name__, (function,), {name: staticmethod(back)})
        with TakenFor(self._same, dtype), _default(floats):
            args, kwargs = _filled(self._arguments, tensors, {})
            return list(flatten(copied.apply(*args, **kwargs), torch.Tensor))


class ReplayViewWrite:
    """What was written into a view, written into a copy of the tensor that it views."""

    def __init__(self, base: torch.Tensor, view: torch.Tensor) -> None:
        offset = view.storage_offset() - base.storage_offset()
        self._geometry = tuple(view.shape), view.stride(), offset

    def __call__(self, tensors: Sequence[torch.Tensor], dtype: str) -> list[torch.Tensor]:
        base, value = tensors
        shape, stride, offset = self._geometry
        changed = base.clone(memory_format=torch.contiguous_format)
        return [torch.as_strided_scatter(changed, value.reshape(shape), shape, stride, offset)]


class ReplayModule:
    """A module that counts as one operation, with parameters that are given anew."""

    in_steps = True

    def __init__(self, module: nn.Module, names: Sequence[str], args: Any, tensors: Any) -> None:
        self._module = module
        self._names = tuple(names)
        self._args = _template(tuple(args), tensors)
        self._inputs = len(tensors)
        self._training = module.training

    def __call__(
        self,
        tensors: Sequence[torch.Tensor],
        dtype: str,
        between: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """What it gives; with `between` it runs in steps, and that changes the numbers inside.

        Dropout between its layers passes its input on, as it does as a leaf.
        """
        inputs, parameters = tensors[: self._inputs], tensors[self._inputs :]
        values = dict(zip(self._names, parameters, strict=True))
        module = self._module
        # a cell has no dropout
        with mock.patch.multiple(module, training=self._training, dropout=0.0, create=True):
            args = _filled(self._args, inputs, {torch.float32: getattr(torch, dtype)})
            out = None if between is None else in_steps(module, values, args, between)
            if out is None:
                out = torch.func.functional_call(module, values, args)
        return list(flatten(out, torch.Tensor))
