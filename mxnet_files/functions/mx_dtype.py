"""What MXNet makes of dtypes where torch's rules differ, in code that TorchScript reads.

MXNet's results keep the dtype of the arrays: int32 divided by 2 stays int32, uint8 wraps round.
What has no integer version, such as `sqrt`, is computed in float64 and cut back as C does it on
x86. A number beside an array is cast to the dtype of the array first.
"""

import torch
from torch import Tensor

__all__ = ["cast", "cut", "expect", "floating", "like", "number", "promote", "recast", "widen"]


def cut(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating array as integers: fractions go; what does not fit is the lowest int32, or int64.

    int8 and uint8 are the lowest byte of that int32, as in C on x86.
    """
    x = x.to(torch.float64)
    limit = 2.0**63 if dtype == torch.int64 else 2.0**31
    lowest = -9223372036854775807 - 1 if dtype == torch.int64 else -2147483648
    fits = (x > -limit - 1.0) & (x < limit)
    whole = torch.where(fits, x, torch.zeros_like(x)).to(torch.int64)
    return torch.where(fits, whole, torch.full_like(whole, lowest)).to(dtype)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in another dtype."""
    whole = dtype in [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
    return cut(x, dtype) if whole and x.is_floating_point() else x.to(dtype)


def recast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating point in another precision; integers as they are."""
    return x.to(dtype) if x.is_floating_point() else x


def like(y: Tensor, x: Tensor) -> Tensor:
    """y, which was computed from `widen(x)`, in the dtype of x."""
    return y if x.is_floating_point() else cut(y, x.dtype)


def widen(x: Tensor, where: str) -> Tensor:
    """x in the dtype in which MXNet computes functions of it: float64 for integers."""
    if x.is_floating_point():
        return x
    if x.dtype == torch.bool:
        raise ValueError(where + ": got bool, MXNet computes this for numbers only")
    return x.to(torch.float64)


def floating(x: Tensor, where: str) -> Tensor:
    """x itself; an error for integers, which MXNet refuses there."""
    if not x.is_floating_point():
        raise ValueError(where + ": got integers, MXNet computes this for floating point only")
    return x


def expect(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x itself; an error for another dtype: arithmetic of integers wraps round, of others not.

    int32 and int64, in which places in a table come, are turned into each other.
    """
    wide = [torch.int32, torch.int64]
    if x.dtype != dtype and x.dtype in wide and dtype in wide:
        return x.to(dtype)
    if x.dtype != dtype:
        raise ValueError("an input is " + str(x.dtype) + ", the file declares " + str(dtype))
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript compiles both sides of `and`)
        if torch.compiler.is_exporting():  # else the program would take any dtype
            torch._assert_tensor_metadata(x, dtype=dtype)
    return x


def promote(x: Tensor, is_int: bool) -> Tensor:
    """An array as it is combined with a number: float64 for integers beside a fraction."""
    if x.is_floating_point():
        return x
    if not is_int:
        return x.to(torch.float64)
    return x.to(torch.int64) if x.dtype == torch.bool else x


def number(value: float, x: Tensor) -> Tensor:
    """A number as an array () of the dtype of x."""
    wide = torch.full([], value, dtype=torch.float64, device=x.device)
    return cast(wide, x.dtype)
