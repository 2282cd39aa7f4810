"""What each operator is given in the differential tests: attributes, shapes, dtypes, values.

Words, numbers and truth values are drawn from MXNet's own description of the attribute. A *space*
says the rest: shapes of inputs, and attributes that have to fit them. Operators that are alike
share one. An attribute that is in neither is an error, so none is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from mxnet.operator import get_operator_arguments

from mxnet_files import operators  # noqa: F401 (fills OPERATORS)
from mxnet_files.reading.attributes import IGNORED, Attributes
from mxnet_files.registry import OPERATORS

FLOATS = ("float32", "float64", "float16")
WHOLE = ("uint8", "int8", "int32", "int64")
DTYPES = (*FLOATS, *WHOLE, "bool")
ARRAY = ("NDArray-or-Symbol", "Symbol")
# MXNet's CPU takes little else: every second case of these, so that enough of them are compared
FLOAT32_ALONE = {
    "BatchNorm_v1", "Convolution", "Crop", "Deconvolution", "InstanceNorm", "LRN", "RNN",
    "SoftmaxActivation", "_contrib_SyncBatchNorm", "amp_cast",
}  # fmt: skip
# MXNet binds no array whose size only its values tell where () is a shape: it gives (0,)
UNBOUND = {"_npi_boolean_mask"}
NUMBERS = (0.5, 2.0, 1.0, -1.5, 3.0, 0.0, -2.0, 0.3, 100.0)


@dataclass
class Case:
    """One operator on given arrays, as a graph that both sides read."""

    operator: str  # one of its names
    attributes: dict[str, str]
    inputs: list[np.ndarray]
    slots: list[str]
    outputs: int
    stored: bool  # the arrays are parameters, not inputs
    halved: bool  # the first output goes on, and is divided by 2
    graphs: list[Any] = field(default_factory=list)  # its subgraphs, as the file has them

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {f"in{place}": array for place, array in enumerate(self.inputs)}

    def document(self) -> dict[str, Any]:
        """The symbol, as MXNet writes it."""
        nodes: list[dict[str, Any]] = [
            {"op": "null", "name": name, "inputs": []} for name in self.arrays
        ]
        count = len(nodes)
        nodes.append(
            {
                "op": self.operator,
                "name": "node",
                "attrs": self.attributes,
                "inputs": [[place, 0, 0] for place in range(count)],
                **({"subgraphs": self.graphs} if self.graphs else {}),
            }
        )
        heads = [[count, place, 0] for place in range(self.outputs)]
        if self.halved:
            half = {"op": "_div_scalar", "name": "half", "attrs": {"scalar": "2"}}
            nodes.append({**half, "inputs": [[count, 0, 0]]})
            heads.append([count + 1, 0, 0])
        return {
            "nodes": nodes,
            "arg_nodes": list(range(count)),
            "node_row_ptr": list(range(len(nodes) + 1)),
            "heads": heads,
            "attrs": {
                "mxnet_version": ["int", 10901],
                "is_np_shape": ["int", int(self.operator.startswith("_np"))],
            },
        }

    def __str__(self) -> str:
        arrays = ", ".join(
            f"{slot} {x.dtype}{x.shape} {x.ravel()[:8].tolist()}"
            for slot, x in zip(self.slots, self.inputs, strict=True)
        )
        how = " stored" * self.stored + " halved" * self.halved
        return f"{self.operator}({json.dumps(self.attributes)}) of {arrays}{how}"


@dataclass
class Draw:
    """What a space draws from."""

    rng: np.random.Generator
    a: dict[str, Any]  # attributes: those drawn already, to which a space adds
    dtype: str
    empty: bool = False  # shapes may have a 0, where MXNet takes arrays without elements

    def one(self, *choices: Any) -> Any:
        return choices[self.integer(0, len(choices) - 1)]

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def flag(self) -> bool:
        return bool(self.integer(0, 1))

    def shape(self, fewest: int = 1, most: int = 4, largest: int = 4) -> tuple[int, ...]:
        sizes = [self.integer(1, largest) for _ in range(self.integer(fewest, most))]
        if self.empty and sizes and self.flag():
            sizes[self.integer(0, len(sizes) - 1)] = 0
        return tuple(sizes)

    def axis(self, count: int) -> int:
        """One of `count` axes, counted from either end."""
        return self.integer(-count, count - 1)

    def order(self, count: int) -> list[int]:
        """0 to `count` - 1."""
        return [int(place) for place in self.rng.permutation(count)]

    def axes(self, count: int, fewest: int = 0) -> tuple[int, ...]:
        """Different axes, in any order."""
        order = self.order(count)
        chosen = order[: self.integer(min(fewest, count), count)]
        return tuple(axis - count * self.flag() for axis in chosen)

    def array(
        self,
        shape: Sequence[int],
        dtype: str | None = None,
        low: float = -4,
        high: float = 4,
        *,
        edges: bool = True,
    ) -> np.ndarray:
        """Reals, whole numbers with ties, or the edges of the dtype."""
        dtype = dtype or self.dtype
        rng = np.random.default_rng(self.integer(0, 2**16))
        kind = self.one("real", "whole", "edges" if edges else "real")
        if dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if dtype in WHOLE:
            info = np.iinfo(dtype)
            if kind == "edges":
                near = (info.min, info.max, info.max - 1, 0, 1, 2, 100)
                return rng.choice(np.array(near, dtype=dtype), shape)
            low, high = max(math.floor(low), info.min), min(math.ceil(high), info.max)
            if kind == "whole" or info.bits == 8:
                return rng.integers(low, high, shape, endpoint=True).astype(dtype)
            return rng.integers(low, 20 * high + 1, shape, endpoint=True).astype(dtype)
        if kind == "edges":
            near_float = (np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.5, 2.5, -1.5, -3.0, 1.0, 30.0)
            return rng.choice(np.array(near_float, dtype=dtype), shape)
        if kind == "whole":
            return (np.round(rng.uniform(low, high, shape) * 2) / 2).astype(dtype)
        return rng.uniform(low, high, shape).astype(dtype)


Space: TypeAlias = "Callable[[Draw], list[np.ndarray]]"
SPACES: dict[str, Space] = {}


def space(names: str) -> Callable[[Space], Space]:
    """Enter a space for the operators of these main names."""

    def enter(function: Space) -> Space:
        for name in names.split():
            assert name not in SPACES, f"{name} has two spaces"
            SPACES[name] = function
        return function

    return enter


@cache
def described(name: str) -> dict[str, str]:
    """The attributes of an operator, and how MXNet describes them."""
    found = get_operator_arguments(name)
    return {
        key: kind
        for key, kind in zip(found.names, found.types, strict=True)
        if not kind.startswith(ARRAY)
    }


@cache
def choices(kind: str) -> list[Any] | None:
    """The values of an attribute as far as its description alone tells; None if it does not."""
    if kind.startswith("{"):
        return re.findall(r"'([^']*)'", kind[: kind.index("}")]) + ["None"] * ("None," in kind)
    none = ["None"] if "or None" in kind else []
    if kind.startswith("boolean"):
        return [True, False, *none]
    if kind.startswith(("float", "double")):
        return [*NUMBERS, *none]
    return None


def cases(main: str) -> st.SearchStrategy[Case]:
    """Cases of the operator whose main name is given.

    hypothesis draws one number for a case, and no choice in it: it repeats most of those that it
    made before, and never tried `fix_gamma=False` in float32 among 200 cases of BatchNorm.
    """
    return st.integers(0, 2**64 - 1).map(lambda seed: case_of(main, seed))


def case_of(main: str, seed: int, *, empty: bool = False) -> Case:
    """The case of that number."""
    operator = OPERATORS[main]
    given: dict[str, Any] = {}
    d = Draw(np.random.default_rng(seed), given, "", empty)
    names = sorted(n for n in OPERATORS if OPERATORS[n] is operator and n not in UNBOUND)
    name = d.one(*names)
    left: list[str] = []
    for key, kind in described(name).items():
        values = choices(kind)
        if operator.attributes.get(key) is IGNORED:
            continue
        if values is None:
            left.append(key)
        elif "optional" not in kind or d.flag():
            given[key] = d.one(*values)
    d.dtype = d.one(*DTYPES, "float32", "float64")  # of which nets are
    if main in FLOAT32_ALONE and d.flag():
        d.dtype = "float32"
    d.a["__name__"] = name
    inputs = SPACES[main](d)
    del d.a["__name__"]
    graphs = d.a.pop("__graphs__", [])
    # a space sets an attribute to None where it leaves it out on purpose
    missing = [key for key in left if key not in given]
    assert not missing, f"{name}: no values described for {', '.join(missing)}"
    written = {key: text(value) for key, value in given.items() if value is not None}
    attributes = Attributes(
        {
            key: attribute.kind(written[key]) if key in written else attribute.default
            for key, attribute in operator.attributes.items()
        }
    )
    named = None if graphs else operator.inputs(attributes)
    slots = list(named or [f"data{i}" for i in range(len(inputs))])
    return Case(
        name,
        written,
        inputs,
        slots if len(slots) == len(inputs) else [f"data{i}" for i in range(len(inputs))],
        operator.outputs(attributes),
        stored=d.flag(),
        halved=d.flag(),
        graphs=graphs,
    )


def without_elements(main: str, seeds: Iterable[int]) -> Iterator[Case]:
    """Those of the cases of these numbers in which a size is 0."""
    for seed in seeds:
        try:
            case = case_of(main, seed, empty=True)
        except (ValueError, IndexError, ZeroDivisionError):  # no such attributes beside a 0
            continue
        sizes = [size for array in case.inputs for size in array.shape]
        if 0 in sizes or "0" in re.findall(r"\d+", case.attributes.get("shape", "")):
            yield case


def text(value: Any) -> str:
    """An attribute as it stands in a file."""
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(str, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value) if isinstance(value, float) else str(value)


# ---- one array, elementwise

ELEMENTWISE = """
BlockGrad _copy abs arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil cos cosh degrees erf
erfinv exp expm1 fix floor gammaln log log10 log1p log2 logical_not make_loss negative
ones_like radians rcbrt reciprocal relu rint round rsqrt shape_array sigmoid sign sin sinh
size_array softsign sqrt square tan tanh trunc zeros_like hard_sigmoid MakeLoss Cast
_contrib_round_ste _contrib_sign_ste _contrib_gradientmultiplier
"""


@space(ELEMENTWISE)
def one_array(d: Draw) -> list[np.ndarray]:
    return [d.array(d.shape())]


@space("amp_cast")
def amp_cast(d: Draw) -> list[np.ndarray]:
    d.a["dtype"] = d.one(d.a["dtype"], "float32")  # integers are refused here
    return one_array(d)


@space("gamma")
def gamma(d: Draw) -> list[np.ndarray]:
    x = d.array(d.shape(), low=-0.9)  # beside a pole one unit of x is many of the result
    # 12! and what follows is one unit off in MXNet's float64
    return [np.where((x > 12) & (x < 171), 12, x).astype(x.dtype) if x.dtype.kind in "iu" else x]


@space("clip")
def clip(d: Draw) -> list[np.ndarray]:
    d.a["a_min"], d.a["a_max"] = d.one(-1.5, 0.0, 2.0, -300.0), d.one(2.5, 1.0, 300.0, -1.0)
    return [d.array(d.shape())]


@space("smooth_l1")
def smooth_l1(d: Draw) -> list[np.ndarray]:
    d.a["scalar"] = d.one(1.0, 0.5, 2.0, None)
    return [d.array(d.shape())]


@space("Dropout")
def dropout(d: Draw) -> list[np.ndarray]:
    d.a |= {"p": d.one(0.5, 0.0, 0.9), "mode": "training"}  # `always` is random
    shape = d.shape()
    d.a["axes"] = d.one(None, tuple(axis % len(shape) for axis in d.axes(len(shape))))
    return [d.array(shape)]


SCALARS = """
_div_scalar _equal_scalar _greater_equal_scalar _greater_scalar _hypot_scalar
_lesser_equal_scalar _lesser_scalar _logical_and_scalar _logical_or_scalar _logical_xor_scalar
_maximum_scalar _minimum_scalar _minus_scalar _mod_scalar _mul_scalar _not_equal_scalar
_plus_scalar _power_scalar _rdiv_scalar _rminus_scalar _rmod_scalar _rpower_scalar
"""


@space(SCALARS)
def with_number(d: Draw) -> list[np.ndarray]:
    d.a["scalar"] = d.one(*NUMBERS, 300.0, -200.7, 2.5, "inf", "nan", "3000000000.0")
    whole = d.dtype in WHOLE or d.dtype == "bool"
    x = d.array(d.shape())
    if whole and "power" in d.a["__name__"].lower():
        x = small_whole(d, x.shape)
    if whole and "_div" in d.a["__name__"].lower() and int_of(d.a["scalar"], x) == 0:
        d.a["scalar"] = 3.0  # MXNet's process dies of a division by zero
    return [with_root(d, x)]


def with_root(d: Draw, x: np.ndarray) -> np.ndarray:
    """x, and where torch takes the root for a power, without what that changes the sign of."""
    if d.a["__name__"].endswith(("_power_scalar", "_PowerScalar")) and d.a["scalar"] == 0.5:
        return np.where(np.isneginf(x) | (x == 0), 1, x).astype(x.dtype)
    return x


def small_whole(d: Draw, shape: Sequence[int]) -> np.ndarray:
    """Powers of these fit float32, in which MXNet computes them: its powf rounds by chance."""
    return np.random.default_rng(d.integer(0, 99)).integers(0, 4, shape).astype(d.dtype)


def int_of(number: Any, x: np.ndarray) -> int:
    """The number cast to x's dtype."""
    value = float(number)
    wide = int(value) if math.isfinite(value) and abs(value) < 2**31 else -(2**31)
    kind = np.int64 if x.dtype == bool else x.dtype
    return int(np.array(wide).astype(kind))


# ---- two arrays and more

PAIRS = """
_equal _greater _greater_equal _hypot _lesser _lesser_equal _logical_and _logical_or _logical_xor
_maximum _minimum _mod _not_equal _power broadcast_add elemwise_add elemwise_div elemwise_mul
elemwise_sub
"""


@space(PAIRS)
def two_arrays(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    other = shape
    if d.a["__name__"].startswith("broadcast"):
        other = tuple(d.one(size, 1) for size in shape)
        shape = tuple(
            d.one(size, 1) if size == small else size
            for size, small in zip(shape, other, strict=True)
        )
    x, y = d.array(shape), d.array(other)
    if d.dtype in WHOLE and "power" in d.a["__name__"].lower():
        x, y = small_whole(d, shape), small_whole(d, other)
    if "div" in d.a["__name__"].lower() and d.dtype in WHOLE:
        y = np.where(y == 0, 1, np.where(y == -1, 2, y)).astype(y.dtype)  # MXNet dies of these
    return [x, y]


@space("add_n")
def add_n(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    count = d.integer(1, 4)
    d.a["num_args"] = count
    return [d.array(shape) for _ in range(count)]


@space("where")
def where(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    condition = d.one(shape, shape[:1])
    return [d.array(condition, d.one(*DTYPES)), d.array(shape), d.array(shape)]


@space("Concat stack")
def joined(d: Draw) -> list[np.ndarray]:
    shape = d.shape(fewest=2)
    count = d.integer(1, 3)
    d.a["num_args"] = count
    if d.a["__name__"] == "stack":
        d.a["axis"] = d.axis(len(shape) + 1)
        return [d.array(shape) for _ in range(count)]
    axis = d.a["dim"] = d.axis(len(shape))
    if axis == 1 and d.flag():
        d.a["dim"] = None
    shapes = [list(shape) for _ in range(count)]
    for each in shapes:
        each[axis] = d.integer(1, 3)
    return [d.array(each) for each in shapes]


@space("amp_multicast")
def multicast(d: Draw) -> list[np.ndarray]:
    count = d.a["num_outputs"] = d.integer(1, 3)
    kinds = [d.one(*FLOATS) for _ in range(count)]
    return [d.array(d.shape(), kind) for kind in kinds]


@space("dot")
def dot(d: Draw) -> list[np.ndarray]:
    inner = d.shape(1, 1)
    left, right = [*d.shape(0, 2), *inner], [*inner, *d.shape(0, 2)]
    if d.a.get("transpose_a"):
        left = left[-1:] + left[:-1]
    if d.a.get("transpose_b"):
        right = right[1:] + right[:1]
    return [d.array(left), d.array(right)]


@space("batch_dot _linalg_gemm2")
def batch_dot(d: Draw) -> list[np.ndarray]:
    batch = d.shape(1, 1) if "batch" in d.a["__name__"] else d.shape(0, 2)
    rows, inner, columns = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    left = (inner, rows) if d.a.get("transpose_a") else (rows, inner)
    right = (columns, inner) if d.a.get("transpose_b") else (inner, columns)
    if "gemm2" in d.a["__name__"]:
        d.a["axis"] = d.one(None, -2)
    return [d.array((*batch, *left)), d.array((*batch, *right))]


# ---- reductions


@space("max mean min nanprod nansum prod sum")
def reduced(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    single = d.axis(len(shape))
    d.a["axis"] = d.one(None, d.axes(len(shape)), single, ())
    low = 0.5 if "prod" in d.a["__name__"] else -4
    x = d.array(shape, low=low, high=3 if low > 0 else 4)
    if d.a["__name__"] == "nansum":
        x = without_infinities(x)  # what follows one is NaN in MXNet, by its compensated sum
    return [x]


def without_infinities(x: np.ndarray) -> np.ndarray:
    """Infinite values replaced by 8."""
    return np.where(np.isinf(x), 8, x).astype(x.dtype) if x.dtype.kind == "f" else x


@space("norm")
def norm(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["ord"] = d.one(None, 1, 2)
    d.a["axis"] = d.one(None, d.axis(len(shape)), d.axes(len(shape))[:2], ())
    x = without_infinities(d.array(shape))  # as for nansum
    if x.dtype.kind == "i":  # MXNet overflows, by the place of the element
        x = np.clip(x, max(np.iinfo(x.dtype).min + 1, -(2**52)), min(np.iinfo(x.dtype).max, 2**52))
    return [x.astype(d.dtype)]


@space("argsort sort")
def sorted_along(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axis"] = d.one(None, "None", d.axis(len(shape)))
    return [different(d, shape)]


def different(d: Draw, shape: Sequence[int]) -> np.ndarray:
    """No two elements are equal: their order would be that of the C++ library."""
    rng = np.random.default_rng(d.integer(0, 2**16))
    return (rng.permutation(math.prod(shape)).reshape(shape) - 3).astype(d.dtype)


@space("argmax argmin cumsum")
def along_one_axis(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axis"] = d.one(None, "None", d.axis(len(shape)))
    return [d.array(shape)]


@space("argmax_channel")
def argmax_channel(d: Draw) -> list[np.ndarray]:
    return [d.array(d.shape(2, 4))]


@space("topk")
def topk(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    axis = d.a["axis"] = d.one(None, "None", d.axis(len(shape)))
    size = math.prod(shape) if axis == "None" else shape[-1 if axis is None else axis]
    d.a["k"] = d.one(None, d.integer(1, size))
    return [different(d, shape)]


@space("moments")
def moments(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axes"] = d.one(None, d.axes(len(shape), fewest=1))
    return [d.array(shape)]


# ---- shapes


@space("Flatten")
def flatten(d: Draw) -> list[np.ndarray]:
    return [d.array(d.shape(1, 4))]


@space("Reshape")
def reshape(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    size = math.prod(shape)
    d.a |= {"target_shape": None, "keep_highest": None}
    plain: list[Any] = [(-1,), (0, -1), (size,), (1, size), (-1, shape[-1]), (*shape, 1)]
    if d.a.get("reverse"):  # MXNet writes outside its arrays for other codes read from the right
        d.a["shape"] = d.one(*plain, (-1, 0), (0, 0, -1))
        return [d.array(shape)]
    coded: list[Any] = [(-2,), (0, -2), (-3, -2), (-4, 1, -1, -2), (-4, shape[0], 1, -2)]
    if d.a.get("reverse") is None and d.integer(0, 5) == 0:
        d.a["shape"] = None  # as files before 0.9 have it
        d.a["target_shape"] = d.one((shape[0], 0), (0, size // shape[0]))
        d.a["keep_highest"] = d.one(None, d.a["target_shape"][0] == 0)
        return [d.array(shape)]
    d.a["shape"] = d.one(*plain, *coded)
    return [d.array(shape)]


@space("reshape_like")
def reshape_like(d: Draw) -> list[np.ndarray]:
    like = d.shape(2, 3)
    keys = ("lhs_begin", "lhs_end", "rhs_begin", "rhs_end")
    d.a |= dict.fromkeys(keys)
    if d.flag():
        return [d.array((math.prod(like),)), d.array(like, d.one(*DTYPES))]
    d.a |= {"lhs_begin": d.one(0, -1, None), "lhs_end": d.one(1, None, "None")}
    d.a |= {"rhs_begin": d.one(0, None), "rhs_end": d.one(len(like), "None")}
    return [d.array((math.prod(like),)), d.array(like, d.one(*DTYPES))]


@space("SwapAxis")
def swap(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    d.a |= {"dim1": d.one(None, d.axis(len(shape))), "dim2": d.axis(len(shape))}
    return [d.array(shape)]


@space("transpose")
def transpose(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axes"] = d.one(None, (), d.axes(len(shape), fewest=9))
    return [d.array(shape)]


@space("expand_dims")
def expand_dims(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axis"] = d.axis(len(shape) + 1)
    return [d.array(shape)]


@space("squeeze")
def squeeze(d: Draw) -> list[np.ndarray]:
    shape = tuple(d.one(1, size) for size in d.shape())
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    chosen = tuple(axis - len(shape) * d.flag() for axis in ones[: d.integer(0, 3)])
    d.a["axis"] = d.one(None, chosen or None)
    return [d.array(shape)]


@space("SliceChannel")
def split(d: Draw) -> list[np.ndarray]:
    shape = list(d.shape(2, 4))
    axis = d.axis(len(shape))
    count = d.a["num_outputs"] = d.integer(1, 3)
    shape[axis] = count if d.a.get("squeeze_axis") else count * d.integer(1, 2)
    d.a["axis"] = axis if axis != 1 else d.one(None, 1)
    return [d.array(shape)]


@space("_split_v2")
def split_v2(d: Draw) -> list[np.ndarray]:
    shape = list(d.shape(2, 3))
    axis = d.axis(len(shape))
    d.a["axis"] = axis if axis != 1 else d.one(None, 1)
    if d.flag():
        count = d.a["sections"] = d.integer(1, 3)
        d.a["indices"] = (0,)
        shape[axis] = count if d.a.get("squeeze_axis") else count * d.integer(1, 2)
        return [d.array(shape)]
    d.a["sections"] = d.one(None, 0)
    squeezed = d.a.get("squeeze_axis")
    shape[axis] = d.integer(2, 5)
    inner = range(1, shape[axis])
    d.a["indices"] = tuple(inner[:0] if d.integer(0, 4) == 0 else inner[:: d.integer(1, 2)])
    d.a["indices"] = (0, *(inner if squeezed else d.a["indices"]))
    return [d.array(shape)]


def slice_ends(d: Draw, size: int) -> tuple[Any, Any]:
    """Two ends that leave something, counted from either end, or open."""
    first = d.integer(0, size - 1)
    last = d.integer(first + 1, size)
    begin = d.one(first, first - size)
    return begin, d.one(last, last - size if last < size else last)


@space("slice")
def slices(d: Draw) -> list[np.ndarray]:
    return [sliced(d)[0]]


@space("_slice_assign")
def slice_assign(d: Draw) -> list[np.ndarray]:
    x, part = sliced(d)
    return [x, d.array(part)]


@space("_slice_assign_scalar")
def slice_assign_number(d: Draw) -> list[np.ndarray]:
    d.a["scalar"] = d.one(*NUMBERS)
    return [sliced(d)[0]]


def sliced(d: Draw) -> tuple[np.ndarray, tuple[int, ...]]:
    """An array, and the shape of the slice that the attributes say."""
    shape = d.shape()
    begin, end, step = [], [], []
    for size in shape[: d.integer(1, len(shape))]:
        first, last = slice_ends(d, size)
        stride = d.one(1, 2, -1, None)
        if stride == -1:
            first, last = (last - 1 if last else size - 1), first - 1
            if last in (-1, -size - 1):
                last = None
        begin.append(d.one(first, None) if first in (0, -size) and stride != -1 else first)
        end.append(d.one(last, None) if last == size else last)
        step.append(stride)
    d.a |= {"begin": tuple(begin), "end": tuple(end), "step": tuple(step)}
    if set(step) <= {1, None}:
        d.a["step"] = d.one(None, tuple(step), ())
    taken = tuple(map(slice, begin, end, d.a["step"] or [1] * len(begin)))
    return d.array(shape), np.zeros(shape)[taken].shape


@space("slice_axis")
def slice_axis(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    axis = d.a["axis"] = d.axis(len(shape))
    d.a["begin"], d.a["end"] = slice_ends(d, shape[axis])
    if d.a["end"] == shape[axis]:
        d.a["end"] = d.one("None", d.a["end"])
    return [d.array(shape)]


@space("slice_like")
def slice_like(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    axes = d.a["axes"] = d.one(None, d.axes(len(shape), fewest=1))
    like = [d.integer(1, size) for size in shape]
    if axes is not None:
        kept = {axis % len(shape) for axis in axes}
        like = [size if axis in kept else d.integer(1, 4) for axis, size in enumerate(like)]
    return [d.array(shape), d.array(like)]


@space("tile")
def tile(d: Draw) -> list[np.ndarray]:
    d.a["reps"] = d.shape(1, 3, largest=3)  # from four on MXNet reads outside its arrays
    return [d.array(d.shape(1, 3))]


@space("repeat")
def repeat(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a |= {"repeats": d.integer(1, 3), "axis": d.one(None, "None", d.axis(len(shape)))}
    return [d.array(shape)]


@space("reverse")
def reverse(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axis"] = tuple(axis % len(shape) for axis in d.axes(len(shape), fewest=1))
    return [d.array(shape)]


@space("broadcast_to")
def broadcast_to(d: Draw) -> list[np.ndarray]:
    shape = tuple(d.one(1, size) for size in d.shape())
    d.a["shape"] = tuple(d.one(0, size) if size > 1 else d.integer(0, 3) for size in shape)
    return [d.array(shape)]


@space("broadcast_axis")
def broadcast_axis(d: Draw) -> list[np.ndarray]:
    shape = tuple(d.one(1, size) for size in d.shape())
    axes = [axis for axis, size in enumerate(shape) if size == 1][: d.integer(0, 3)]
    d.a |= {"axis": tuple(axes), "size": tuple(d.integer(1, 3) for _ in axes)}
    return [d.array(shape)]


@space("broadcast_like")
def broadcast_like(d: Draw) -> list[np.ndarray]:
    like = d.shape(1, 3)
    shape = tuple(d.one(1, size) for size in like)
    d.a |= {"lhs_axes": None, "rhs_axes": None}
    if d.flag():
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
        if axes:
            d.a |= {"lhs_axes": axes, "rhs_axes": tuple(axis - len(like) for axis in axes)}
    return [d.array(shape), d.array(like)]


@space("diag")
def diag(d: Draw) -> list[np.ndarray]:
    shape = d.shape(1, 3)
    d.a |= {"k": d.one(None, 0, 1, -1), "axis1": None, "axis2": None}
    if len(shape) > 1 and d.flag():
        d.a["axis1"], d.a["axis2"] = d.axes(len(shape), fewest=2)[:2]
    if len(shape) > 1:
        shape = tuple(size + 1 for size in shape)
    return [d.array(shape)]


@space("depth_to_space")
def depth_to_space(d: Draw) -> list[np.ndarray]:
    block = d.a["block_size"] = d.integer(1, 3)
    n, c, h, w = d.shape(4, 4, largest=3)
    return [d.array((n, c * block * block, h, w))]


@space("space_to_depth")
def space_to_depth(d: Draw) -> list[np.ndarray]:
    block = d.a["block_size"] = d.integer(1, 3)
    n, c, h, w = d.shape(4, 4, largest=3)
    return [d.array((n, c, h * block, w * block))]


@space("Pad")
def pad(d: Draw) -> list[np.ndarray]:
    shape = d.shape(4, 5)
    mode = d.a["mode"]
    largest = [size - 1 if mode == "reflect" else 3 for size in shape[2:]]
    d.a["pad_width"] = (0, 0, 0, 0, *(d.integer(0, most) for most in largest for _ in "ab"))
    return [d.array(shape)]


@space("Crop")
def crop(d: Draw) -> list[np.ndarray]:
    n, c, h, w = d.shape(4, 4, largest=6)
    size = d.integer(1, h), d.integer(1, w)
    d.a["offset"] = d.one(None, (d.integer(0, h - size[0]), d.integer(0, w - size[1])))
    d.a["h_w"], d.a["num_args"] = size, d.integer(1, 2)
    if d.a["num_args"] == 1:
        return [d.array((n, c, h, w))]
    return [d.array((n, c, h, w)), d.array((n, c, *size))]


# ---- images


@space("_image_to_tensor _image_crop")
def image(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS, *WHOLE)  # MXNet's process dies of bool
    height, width = d.shape(2, 2, largest=5)
    shape = (height, width, d.one(1, 3))
    if d.a["__name__"].endswith("_image_crop"):
        left, top = d.integer(0, width - 1), d.integer(0, height - 1)
        d.a |= {"x": left, "width": d.integer(1, width - left)}
        d.a |= {"y": top, "height": d.integer(1, height - top)}
    return [d.array(shape if d.flag() else (2, *shape), high=255)]


@space("_image_flip_top_bottom _image_flip_left_right")
def flipped_image(d: Draw) -> list[np.ndarray]:
    height, width = d.shape(2, 2, largest=3)  # MXNet leaves the middle of odd ones unwritten
    return [d.array((2 * height, 2 * width, d.one(1, 3)))]


@space("_image_resize")
def resized_image(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("uint8", "uint8", "float32", "float64", "int32")
    height, width = d.shape(2, 2, largest=d.one(3, 6, 12))
    size = (d.integer(1, 2 * width), d.integer(1, 2 * height))
    if d.integer(0, 5) == 0:
        size, height, width = (width, height), 2 * height, 2 * width  # half as large
    d.a |= {"size": d.one(size, size, size[:1]), "interp": d.one(None, 0, 1)}
    if d.dtype == "int32":
        d.a["interp"] = 0
    channels = d.one(1, 3, 2, 4)
    if d.dtype != "uint8" or d.a["interp"] != 0:  # where MXNet leaves the last one unwritten
        channels = d.one(channels, 5)
    shape = (height, width, channels)
    return [d.array(shape if d.flag() else (2, *shape), low=0, high=255, edges=False)]


@space("_image_normalize")
def normalized_image(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS, *WHOLE)
    _, height, width = d.shape(3, 3)
    channels = d.one(1, 3)
    for key, numbers in (("mean", (0.485, 0.25, -3.0, 0.0)), ("std", (0.229, 0.5, 2.0, 1.0))):
        d.a[key] = tuple(d.one(*numbers) for _ in range(d.one(1, channels)))
    shape = (channels, height, width)
    return [d.array(shape if d.flag() else (2, *shape), high=255)]


# ---- indices


@space("take")
def take(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    axis = d.axis(len(shape))
    d.a["axis"] = axis if axis != 0 else d.one(None, 0)
    index = d.array(d.shape(1, 2), d.one(*FLOATS, *WHOLE), -3, 6, edges=False)
    return [d.array(shape), index]


@space("pick")
def pick(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    axis = d.axis(len(shape))
    d.a["axis"] = axis if axis != -1 else d.one(None, -1)
    rest = list(shape)
    if d.flag():
        rest[axis] = 1
    else:
        del rest[axis]
    return [d.array(shape), d.array(rest, d.one(*FLOATS, *WHOLE), -3, 6, edges=False)]


@space("one_hot")
def one_hot(d: Draw) -> list[np.ndarray]:
    d.a["depth"] = d.integer(1, 5)
    return [d.array(d.shape(1, 3), d.one(*FLOATS, *WHOLE), -2, 6, edges=False)]


@space("gather_nd")
def gather_nd(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    depth = d.integer(1, len(shape))
    width = d.integer(1, 4)
    rng = np.random.default_rng(d.integer(0, 99))
    rows = [rng.integers(-size, size, width) for size in shape[:depth]]
    return [d.array(shape), np.array(rows).astype(d.one(*FLOATS, "int32", "int64", "int8"))]


@space("scatter_nd")
def scatter_nd(d: Draw) -> list[np.ndarray]:
    shape = d.a["shape"] = d.shape(1, 3)
    depth = d.integer(1, len(shape))
    places = list(np.ndindex(*shape[:depth]))
    order = d.order(len(places))[: d.integer(1, 4)]  # different places
    rows = np.array([places[place] for place in order]).T.reshape(depth, -1)
    kind = d.one(*FLOATS, "int32", "int64")
    return [d.array((rows.shape[1], *shape[depth:])), rows.astype(kind)]


@space("_contrib_index_copy")
def index_copy(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    order = np.array(d.order(shape[0])[: d.integer(1, shape[0])])
    return [d.array(shape), order.astype(d.one(*FLOATS, *WHOLE)), d.array((len(order), *shape[1:]))]


@space("Embedding _contrib_SparseEmbedding")
def embedding(d: Draw) -> list[np.ndarray]:
    rows, width = d.integer(1, 5), d.integer(1, 4)
    weight = d.one(*FLOATS)
    d.a |= {"input_dim": rows, "output_dim": width, "dtype": weight}
    index = d.array(d.shape(1, 3), d.one(*FLOATS, *WHOLE), -3, 7, edges=False)
    return [index, d.array((rows, width), weight)]


# ---- arrays from a shape alone


@space("_zeros _ones _full")
def constant(d: Draw) -> list[np.ndarray]:
    d.a["shape"] = d.shape()
    return []


@space("_eye")
def eye(d: Draw) -> list[np.ndarray]:
    d.a |= {"N": d.integer(1, 4), "M": d.one(None, 0, d.integer(1, 4)), "k": d.one(None, 1, -1)}
    return []


@space("_arange")
def arange(d: Draw) -> list[np.ndarray]:
    start = d.a["start"] = d.one(0.0, 1.5, -2.0)
    d.a |= {"step": d.one(None, 1.0, 0.5, 2.0), "repeat": d.one(None, 1, 2), "infer_range": None}
    d.a["stop"] = d.one(start + 3, start + 2.5)
    return []


@space("_linspace")
def linspace(d: Draw) -> list[np.ndarray]:
    start = d.a["start"] = d.one(0.0, 1.5, -2.0)
    d.a |= {"step": None, "repeat": None, "infer_range": None, "stop": d.one(start + 3, start)}
    d.a |= {"num": d.integer(1, 5), "endpoint": d.one(None, True, False)}  # MXNet describes neither
    return []


@space("_contrib_arange_like")
def arange_like(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a |= {"start": d.one(None, 1.5, -1.0), "step": d.one(None, 0.5, 2.0)}
    d.a |= {"repeat": d.one(None, 1, 2), "axis": d.one(None, "None", d.axis(len(shape)))}
    return [d.array(shape)]


# ---- windows

LAYOUTS = {
    1: ("NCW",),
    2: ("NCHW",),
    3: ("NCDHW",),
}


def window(d: Draw, most: int = 3) -> tuple[int, ...]:
    """The kernel; its number of axes is drawn too."""
    return d.shape(1, most, largest=3)


def per_axis(d: Draw, count: int, low: int, high: int) -> tuple[int, ...] | None:
    """A number for each axis, or the default."""
    if d.flag():
        return None
    return tuple(d.integer(low, high) for _ in range(count))


def spatial_sizes(d: Draw, kernel: Sequence[int], dilate: Sequence[int] | None = None) -> list[int]:
    """Sizes that hold the kernel."""
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilate or (1,) * len(kernel), strict=True)]
    return [d.integer(size, size + 4) for size in reach]


def small(d: Draw, shape: Sequence[int]) -> np.ndarray:
    """Values for what sums products."""
    return d.array(shape, low=-2, high=2, edges=False)


def bias_of(d: Draw, count: int) -> list[np.ndarray]:
    given = d.a.get("no_bias")
    default = d.a["__name__"] == "Deconvolution"
    return [] if (default if given is None else given) else [small(d, (count,))]


@space("Convolution")
def convolution(d: Draw) -> list[np.ndarray]:
    kernel = d.a["kernel"] = window(d)
    count = len(kernel)
    d.a |= {"stride": per_axis(d, count, 1, 3), "pad": per_axis(d, count, 0, 2)}
    d.a["dilate"] = None if d.a["__name__"].endswith("v1") else per_axis(d, count, 1, 2)
    groups = d.one(None, 1, 2)
    d.a |= {"num_group": groups, "num_filter": (groups or 1) * d.integer(1, 2)}
    d.a["layout"] = d.one(None, "None", *LAYOUTS[count])  # MXNet has channels last on GPUs alone
    channels = (groups or 1) * d.integer(1, 2)
    x = (d.integer(1, 2), channels, *spatial_sizes(d, kernel, d.a["dilate"]))
    weight = (d.a["num_filter"], channels // (groups or 1), *kernel)
    return [small(d, x), small(d, weight), *bias_of(d, d.a["num_filter"])]


@space("Deconvolution")
def deconvolution(d: Draw) -> list[np.ndarray]:
    kernel = d.a["kernel"] = window(d)
    count = len(kernel)
    stride = d.a["stride"] = per_axis(d, count, 1, 3)
    dilate = None if d.dtype == "float64" else per_axis(d, count, 1, 2)  # wrong in MXNet
    d.a["dilate"], d.a["pad"] = dilate, d.one(None, tuple(min(k - 1, 1) for k in kernel))
    groups = d.one(None, 1, 2)
    d.a |= {"num_group": groups, "num_filter": (groups or 1) * d.integer(1, 2)}
    d.a["layout"] = d.one(None, *LAYOUTS[count])
    sizes = [d.integer(2, 4) for _ in kernel]
    d.a |= {"adj": None, "target_shape": None}
    if stride is not None and d.flag():
        d.a["adj"] = tuple(d.integer(0, s - 1) for s in stride)
    elif d.flag() and count < 3:  # of three axes oneDNN takes the padding of a call before it
        full = [
            (stride[i] if stride else 1) * (sizes[i] - 1)
            + (kernel[i] - 1) * (dilate[i] if dilate else 1)
            + 1
            for i in range(count)
        ]
        d.a["target_shape"] = tuple(max(size - d.integer(0, 2), 1) for size in full)
    channels = (groups or 1) * d.integer(1, 2)
    weight = (channels, d.a["num_filter"] // (groups or 1), *kernel)
    x = (d.integer(1, 2), channels, *sizes)
    return [small(d, x), small(d, weight), *bias_of(d, d.a["num_filter"])]


@space("FullyConnected")
def dense(d: Draw) -> list[np.ndarray]:
    shape = d.shape(1, 4)
    hidden = d.a["num_hidden"] = d.integer(1, 4)
    if len(shape) == 1:
        shape = (*shape, 2)
    width = shape[-1] if d.a.get("flatten") is False else math.prod(shape[1:])
    return [small(d, shape), small(d, (hidden, width)), *bias_of(d, hidden)]


@space("Pooling")
def pooling(d: Draw) -> list[np.ndarray]:
    kernel = window(d)
    count = len(kernel)
    last = {1: "NWC", 2: "NHWC", 3: "NDHWC"}[count]
    d.a["layout"] = d.one(None, "None", *LAYOUTS[count], last)
    d.a |= {"kernel": kernel, "stride": per_axis(d, count, 1, 3)}
    d.a["pad"] = per_axis(d, count, 0, 2)
    if d.a["pad"] is not None:
        d.a["pad"] = tuple(min(p, k - 1) for p, k in zip(d.a["pad"], kernel, strict=True))
    d.a["p_value"] = d.one(1, 2, 3) if d.a.get("pool_type") == "lp" else None
    if d.a.get("pooling_convention") == "same":
        d.a["pooling_convention"] = "full"  # MXNet reads outside its arrays
    if d.a.get("global_pool") and d.flag():
        d.a |= {"kernel": None, "stride": None, "pad": None, "layout": None}
    shape = [d.integer(1, 2), d.integer(1, 2), *spatial_sizes(d, kernel)]
    if d.a["layout"] == last:
        shape = [shape[0], *shape[2:], shape[1]]
    low = 0.1 if d.a.get("pool_type") == "lp" else -4  # roots of negative sums
    x = d.array(shape, low=low)
    if x.dtype.kind == "f":
        # MXNet's maximum skips some of them, and of windows of -inf alone it is the lowest number
        x = np.where(np.isnan(x) | np.isneginf(x), 1, x).astype(x.dtype)
    return [x]


@space("Pooling_v1")
def pooling_v1(d: Draw) -> list[np.ndarray]:
    kernel = d.a["kernel"] = d.shape(2, 2, largest=3)
    d.a |= {"stride": per_axis(d, 2, 1, 2), "pad": per_axis(d, 2, 0, 1)}
    if d.a["pad"] is not None:
        d.a["pad"] = tuple(min(p, k - 1) for p, k in zip(d.a["pad"], kernel, strict=True))
    return [d.array((d.integer(1, 2), d.integer(1, 2), *spatial_sizes(d, kernel)))]


@space("_contrib_AdaptiveAvgPooling2D")
def adaptive(d: Draw) -> list[np.ndarray]:
    d.a["output_size"] = d.one(None, (), d.shape(1, 2))
    return [d.array(d.shape(4, 4, largest=6))]


# of finite values: MXNet weighs some neighbours with 0
@space("_contrib_BilinearResize2D")
def bilinear(d: Draw) -> list[np.ndarray]:
    shape = tuple(size + 1 for size in d.shape(4, 4))
    d.a |= {"height": d.one(None, d.integer(1, 7)), "width": d.one(None, d.integer(1, 7))}
    scales = d.one((None, None), (None, None), (2.0, 1.5), (0.5, 3.0))
    d.a["scale_height"], d.a["scale_width"] = scales
    if d.a.get("mode") == "like":
        return [d.array(shape, edges=False), d.array(d.shape(4, 4, largest=5))]
    return [d.array(shape, edges=False)]


@space("UpSampling")
def upsampling(d: Draw) -> list[np.ndarray]:
    n, c, h, w = d.shape(4, 4, largest=3)
    scale = d.a["scale"] = d.integer(1, 3)
    if d.a["sample_type"] == "bilinear":
        d.a |= {"num_filter": c, "num_args": 2}
        side = 2 * scale - scale % 2
        return [d.array((n, c, h, w)), d.array((c, 1, side, side))]
    count = d.a["num_args"] = d.integer(1, 2)
    d.a["num_filter"] = None
    other = c if d.a.get("multi_input_mode") == "sum" else d.integer(1, 3)
    sizes = [(n, c, 2 * h, 2 * w), (n, other, h, w)]
    if count == 2 and (4 * h * scale) % (2 * h):
        count = 1
    return [d.array(size) for size in sizes[:count]]


# ---- normalisation


def statistics(d: Draw, size: int) -> list[np.ndarray]:
    """gamma, beta, mean and variance."""
    rest = [d.array((size,), low=-1, high=1, edges=False) for _ in range(3)]
    return [*rest, np.abs(d.array((size,), low=0.3, high=2, edges=False)) + d.one(0, 1)]


def same_dtype(arrays: list[np.ndarray], d: Draw) -> list[np.ndarray]:
    """Parameters of float16 arrays are float32 in MXNet's normalisation."""
    kind = "float32" if d.dtype == "float16" else d.dtype
    return [array.astype(kind) for array in arrays]


@space("BatchNorm BatchNorm_v1 _contrib_SyncBatchNorm _contrib_BatchNormWithReLU")
def batch_norm(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 5)
    if d.a["__name__"] in ("BatchNorm_v1", "_contrib_SyncBatchNorm") and d.integer(0, 3):
        shape = d.shape(4, 4)  # the only number of axes that their CPU kernels have
    axis = d.axis(len(shape)) if d.a["__name__"] == "BatchNorm" else 1
    if "axis" in described(d.a["__name__"]):
        d.a["axis"] = axis if axis != 1 else d.one(None, 1)
    if d.a["__name__"] == "_contrib_BatchNormWithReLU" and d.integer(0, 4):
        shape, d.dtype = d.shape(4, 4), "float32"  # of what there is in oneDNN alone
    d.a["eps"] = d.one(None, 1e-5, 0.1)
    d.a |= dict.fromkeys({"min_calib_range", "max_calib_range"} & d.a.keys())
    if d.a["__name__"] == "_contrib_SyncBatchNorm":
        d.a |= {"ndev": 1, "key": "one"}
    if d.a["__name__"] in ("BatchNorm_v1", "_contrib_SyncBatchNorm"):
        d.a["output_mean_var"] = None  # MXNet does not fill them in
    return [d.array(shape), *same_dtype(statistics(d, shape[axis]), d)]


@space("InstanceNorm")
def instance_norm(d: Draw) -> list[np.ndarray]:
    shape = d.shape(3, 5)
    d.a["eps"] = d.one(None, 1e-3, 0.1)
    return [d.array(shape, edges=False), *statistics(d, shape[1])[:2]]


@space("LayerNorm")
def layer_norm(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    axis = d.axis(len(shape))
    d.a |= {"axis": axis if axis != -1 else d.one(None, -1), "eps": d.one(None, 1e-3, 0.1)}
    return [d.array(shape, edges=False), *statistics(d, shape[axis])[:2]]


@space("GroupNorm")
def group_norm(d: Draw) -> list[np.ndarray]:
    n, c, *rest = d.shape(3, 4)
    groups = d.one(None, 1, 2)
    d.a |= {"num_groups": groups, "eps": d.one(None, 1e-3, 0.1)}
    groups = groups or 1
    shape = (n, c * groups, *rest)
    return [d.array(shape, edges=False), *statistics(d, groups)[:2]]


@space("LRN")
def lrn(d: Draw) -> list[np.ndarray]:
    d.a |= {"nsize": d.one(1, 3, 5), "alpha": d.one(None, 0.1, 2.0), "beta": d.one(None, 0.5)}
    d.a["knorm"] = d.one(None, 1.0, 2.0)
    return [d.array(d.shape(4, 4), edges=False)]


@space("L2Normalization")
def l2(d: Draw) -> list[np.ndarray]:
    d.a["eps"] = d.one(None, 1e-3)
    return [d.array(d.shape(3 if d.a.get("mode", "instance") != "instance" else 2, 4))]


@space("Activation")
def activation(d: Draw) -> list[np.ndarray]:
    x = d.array(d.shape())
    relu = d.a["act_type"] == "relu"  # of NaN it is 0 for some shapes of float32, by oneDNN
    return [np.where(np.isnan(x), 1, x).astype(x.dtype) if relu and x.dtype.kind == "f" else x]


@space("LeakyReLU")
def leaky(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    d.a |= {"lower_bound": None, "upper_bound": None}
    if d.a.get("act_type") == "prelu":
        return [d.array(shape), d.array((d.one(1, shape[1]),), low=0, high=1, edges=False)]
    x = d.array(shape)
    single = d.a.get("act_type") == "gelu" and x.dtype == np.float32
    return [
        np.where(np.isposinf(x), 8, x).astype(x.dtype) if single else x
    ]  # NaN by torch's oneDNN


@space("softmax log_softmax softmin")
def softmax(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    axis = d.axis(len(shape))
    d.a["axis"] = axis if axis != -1 else d.one(None, -1)
    d.a["temperature"] = d.one(None, "None", 0.5, 2.0)
    x = comparable(d.array(shape))
    if d.a.get("use_length") is not True or len(shape) == 1 or d.a["__name__"] != "softmax":
        d.a["use_length"] = d.one(None, False)
        return [x]
    rest = [size for place, size in enumerate(shape) if place != axis % len(shape)]
    rng = np.random.default_rng(d.integer(0, 99))
    lengths = rng.integers(1, shape[axis], rest, endpoint=True)
    return [x, lengths.astype(d.one("int32", "int64"))] if rest else [x, lengths.reshape(1)]


def comparable(x: np.ndarray) -> np.ndarray:
    """Without NaN and infinity, of which oneDNN's softmax makes 0 in some places."""
    return np.where(np.isfinite(x), x, 8).astype(x.dtype) if x.dtype.kind == "f" else x


@space("SoftmaxActivation")
def softmax_activation(d: Draw) -> list[np.ndarray]:
    return [comparable(d.array(d.shape(2, 4)))]


# ---- output layers


@space("SoftmaxOutput")
def softmax_output(d: Draw) -> list[np.ndarray]:
    n, c, *rest = d.shape(2, 4)
    if d.a.get("multi_output"):
        d.a["preserve_shape"] = d.one(None, False)
        label = (n, *rest)
    elif d.a.get("preserve_shape"):
        label = (n, c, *rest)[:-1]
    else:
        label = (n,)
    x = comparable(d.array((n, c, *rest)))
    return [x, d.array(label, low=0, high=3, edges=False)]


@space("LinearRegressionOutput LogisticRegressionOutput MAERegressionOutput")
def regression(d: Draw) -> list[np.ndarray]:
    shape = d.shape(1, 3)
    return [d.array(shape), d.array(shape, edges=False)]


# ---- sequences


@space("SequenceMask SequenceLast SequenceReverse")
def sequence(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    reverse = d.a["__name__"] == "SequenceReverse"
    axis = 0 if reverse else d.integer(0, 1)
    d.a["axis"] = axis or d.one(None, 0)
    x = d.array(shape)
    if not d.a.get("use_sequence_length"):
        return [x]
    rng = np.random.default_rng(d.integer(0, 99))
    lengths = rng.integers(1, shape[axis], shape[1 - axis], endpoint=True)
    return [x, lengths.astype(d.one(d.dtype, "float32", "int32", "int64"))]


@space("RNN")
def rnn(d: Draw) -> list[np.ndarray]:
    layers, size = d.integer(1, 2), d.integer(1, 3)
    steps, batch, width = d.shape(3, 3, largest=3)
    both = 2 if d.a.get("bidirectional") else 1
    mode = d.a["mode"]
    projects = mode == "lstm" and size > 1 and d.flag()
    if d.a["__name__"] == "_npx_rnn":  # MXNet's process dies of a projection where () is a shape
        projects = False
    projection = d.integer(1, size - 1) if projects else None
    d.a |= {"num_layers": layers, "state_size": size, "projection_size": projection, "p": None}
    d.a |= dict.fromkeys(("lstm_state_clip_min", "lstm_state_clip_max", "lstm_state_clip_nan"))
    d.a["use_sequence_length"] = None  # for cuDNN: the CPU refuses it, or ignores the lengths
    gates = {"lstm": 4, "gru": 3}.get(mode, 1)
    out = projection or size
    count = 0
    for layer in range(layers):
        inner = width if layer == 0 else out * both
        count += both * gates * size * (inner + out + 2)
        count += both * size * projection if projection else 0
    arrays = [small(d, (steps, batch, width)), small(d, (count,)),
              small(d, (layers * both, batch, out))]  # fmt: skip
    if mode == "lstm":
        arrays.append(small(d, (layers * both, batch, size)))
    return arrays


# ---- boxes


def boxes(d: Draw, shape: Sequence[int]) -> np.ndarray:
    """(…, 4) corners within the unit square, the first above and left of the second."""
    rng = np.random.default_rng(d.integer(0, 2**16))
    corners = np.sort(rng.uniform(0, 1, (*shape, 2, 2)), axis=-2)
    return corners.reshape(*shape, 4).astype(d.dtype)


@space("_contrib_box_iou")
def box_iou(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS)
    return [boxes(d, d.shape(1, 2)), boxes(d, d.shape(1, 2))]


@space("_contrib_box_encode")
def box_encode(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    batch, count, targets = d.shape(3, 3)
    rng = np.random.default_rng(d.integer(0, 99))
    samples = rng.choice([-1.0, 0.0, 1.0], (batch, count)).astype(d.dtype)
    matches = rng.integers(0, targets, (batch, count)).astype(d.dtype)
    spread = [np.array(x, d.dtype) for x in ((0.0, 0.1, 0.0, 0.2), (0.1, 0.1, 0.2, 0.2))]
    return [samples, matches, boxes(d, (batch, count)), boxes(d, (batch, targets)), *spread]


@space("_contrib_box_decode")
def box_decode(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    batch, count = d.shape(2, 2)
    for key in ("std0", "std1", "std2", "std3"):
        d.a[key] = d.one(None, 0.1, 0.5)
    d.a["clip"] = d.one(None, -1.0, 0.5)
    x = d.array((batch, count, 4), low=-1, high=1, edges=False)
    return [x, boxes(d, (1, count))]


@space("_contrib_box_nms")
def box_nms(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    batch, count = d.integer(1, 2), d.integer(1, 6)
    rng = np.random.default_rng(d.integer(0, 99))
    ids = rng.integers(0, 2, (batch, count, 1))
    scores = rng.permutation(batch * count).reshape(batch, count, 1) / (batch * count)
    d.a |= {"topk": d.one(None, -1, 2), "coord_start": d.one(None, 2), "score_index": None}
    d.a |= {"id_index": d.one(None, -1, 0), "background_id": d.one(None, -1, 0)}
    d.a |= {"overlap_thresh": d.one(None, 0.1, 0.5), "valid_thresh": d.one(None, 0.0, 0.3)}
    return [np.concatenate([ids, scores, boxes(d, (batch, count))], -1).astype(d.dtype)]


@space("_contrib_bipartite_matching")
def bipartite(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    shape = d.shape(2, 3)
    d.a |= {"threshold": d.one(0.0, 3.0, 1e-12), "topk": d.one(None, -1, 1)}
    return [different(d, shape)]


@space("_contrib_MultiBoxPrior")
def prior(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    d.a |= {"sizes": d.one(None, (0.5,), (0.5, 0.2)), "ratios": d.one(None, (1.0, 2.0))}
    d.a |= {"steps": d.one(None, (0.3, 0.2)), "offsets": d.one(None, (0.4, 0.6))}
    return [d.array(d.shape(4, 4), edges=False)]


@space("_contrib_MultiBoxDetection")
def detection(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    batch, classes, count = d.integer(1, 2), d.integer(2, 3), d.integer(1, 5)
    rng = np.random.default_rng(d.integer(0, 99))
    ranks = rng.permutation(batch * classes * count).reshape(batch, classes, count)
    d.a |= {"background_id": None, "nms_topk": d.one(None, 2), "variances": None}
    d.a |= {"threshold": d.one(None, 0.3), "nms_threshold": d.one(None, 0.3)}
    location = d.array((batch, count * 4), low=-0.5, high=0.5, edges=False)
    scores = ((ranks + 1) / (ranks.size + 1)).astype(d.dtype)
    return [scores, location, boxes(d, (1, count))]


@space("_contrib_MultiBoxTarget")
def target(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    batch, classes, count, labels = d.integer(1, 2), d.integer(2, 3), d.integer(1, 5), 2
    rng = np.random.default_rng(d.integer(0, 99))
    d.a |= {"overlap_threshold": d.one(None, 0.3), "ignore_label": d.one(None, -1.0)}
    d.a |= {"negative_mining_ratio": d.one(None, 1.0), "negative_mining_thresh": d.one(None, 0.4)}
    d.a |= {"minimum_negative_samples": d.one(None, 0), "variances": None}
    ids = rng.integers(0, classes - 1, (batch, labels, 1)).astype(d.dtype)
    rows = np.concatenate([ids, boxes(d, (batch, labels))], -1)
    for row in rows:
        row[d.integer(0, labels) :] = -1  # no box from here on
    prediction = d.array((batch, classes, count), edges=False)
    return [boxes(d, (1, count)), rows, prediction]


# ---- labels, storage and coordinates


@space("SVMOutput softmax_cross_entropy")
def scores_and_labels(d: Draw) -> list[np.ndarray]:
    rows, classes = d.integer(1, 4), d.integer(1, 5)
    d.a |= {"margin": d.one(None, 0.5), "regularization_coefficient": d.one(None, 2.0)}
    label = np.random.default_rng(d.integer(0, 99)).integers(0, classes, rows).astype(d.dtype)
    x = d.array((rows, classes), high=d.one(4, 40))
    return [x, label]


@space("cast_storage")
def stored(d: Draw) -> list[np.ndarray]:
    return [d.array(d.shape(2, 2))]


@space("batch_take")
def batch_take(d: Draw) -> list[np.ndarray]:
    rows, columns, other = d.integer(1, 4), d.integer(1, 4), d.integer(1, 2)
    index = d.array(d.one((rows,), (rows, 1), (1, rows)), "int32", -3, 6, edges=False)
    if d.flag():
        rows, index = rows * other, np.concatenate([index] * other)
    return [d.array((rows, columns)), index]


@space("_unravel_index _ravel_multi_index")
def coordinates(d: Draw) -> list[np.ndarray]:
    size = d.a["shape"] = (d.one(-1, 3), *d.shape(0, 3, largest=5))
    shape = d.shape(1, 1)
    ravel = d.a["__name__"].endswith("ravel_multi_index")
    return [d.array((len(size), *shape) if ravel else shape, low=-9, high=90, edges=False)]


@space("_contrib_index_array")
def index_array(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axes"] = d.one(None, "None", d.axes(len(shape), fewest=1))
    return [d.array(shape)]


@space("_contrib_boolean_mask")
def boolean_mask(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axis"] = d.one(None, 0)
    mask = d.array(shape[:1], d.one(*DTYPES))
    mask[0] = 1  # what follows cannot take an array without elements in MXNet
    return [d.array(shape), mask]


# ---- linear algebra


@space("_linalg_gemm")
def gemm(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS)
    batch, rows, inner, columns = d.shape(0, 2), *(d.integer(1, 4) for _ in range(3))
    left = (inner, rows) if d.a.get("transpose_a") else (rows, inner)
    right = (columns, inner) if d.a.get("transpose_b") else (inner, columns)
    d.a["axis"] = d.one(None, -2)
    return [d.array((*batch, *shape)) for shape in (left, right, (rows, columns))]


@space("_linalg_syrk")
def syrk(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS)
    return [d.array(d.shape(2, 4))]


@space("_linalg_potrf")
def potrf(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    size = d.integer(1, 4)
    x = d.array((*d.shape(0, 2), size, size), edges=False).astype("float64")
    whole = x @ np.swapaxes(x, -1, -2) + d.one(1.0, 30.0) * np.eye(size)
    other = d.one(whole, d.array(whole.shape, "float64"))  # MXNet reads the lower half
    return [np.where(np.tri(size, dtype=bool), whole, other).astype(d.dtype)]


def well_conditioned(d: Draw, batch: Sequence[int], size: int) -> np.ndarray:
    """Matrices whose diagonal outweighs the rest, with either sign."""
    d.dtype = d.one("float32", "float64")
    x = d.array((*batch, size, size), low=-1, high=1, edges=False)
    sign = np.where(d.array((size,), low=-1, high=1, edges=False) < 0, -1, 1)
    return (x + 2 * size * np.diag(sign)).astype(d.dtype)


@space("_linalg_det _linalg_slogdet")
def determinants(d: Draw) -> list[np.ndarray]:
    return [well_conditioned(d, d.shape(0, 2), d.integer(1, 4))]


@space("_linalg_inverse")
def inverse(d: Draw) -> list[np.ndarray]:
    return [well_conditioned(d, d.shape(0, 2), d.integer(1, 4))]


@space("_linalg_potri _linalg_sumlogdiag")
def of_factor(d: Draw) -> list[np.ndarray]:
    size = d.integer(1, 4)
    x = well_conditioned(d, d.shape(0, 2), size)
    return [np.where(np.eye(size, dtype=bool), np.abs(x), x)]


@space("_linalg_trmm _linalg_trsm")
def triangular(d: Draw) -> list[np.ndarray]:
    batch, size, other = d.shape(0, 2), d.integer(1, 4), d.integer(1, 4)
    x = well_conditioned(d, batch, size)
    shape = (other, size) if d.a.get("rightside") else (size, other)
    return [x, d.array((*batch, *shape), edges=False)]


@space("_linalg_extractdiag _linalg_extracttrian")
def of_square(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    size = d.integer(1, 4)
    d.a["offset"] = d.one(None, d.integer(1 - size, size - 1))
    return [d.array((*d.shape(0, 2), size, size))]


@space("_linalg_makediag _linalg_maketrian")
def to_square(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    d.a["offset"] = d.one(None, d.integer(-3, 3))
    count = d.integer(1, 4) if d.a["__name__"].endswith("makediag") else d.one(1, 3, 6, 10)
    return [d.array((*d.shape(0, 2), count))]


# ---- windows as columns


@space("im2col col2im")
def columns(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS)
    kernel = d.a["kernel"] = (d.integer(1, 3), d.integer(1, 3))
    stride = d.a["stride"] = d.one(None, (1, 2), (2, 1))
    dilate = d.a["dilate"] = d.one(None, (1, 1), (2, 1))
    pad = d.a["pad"] = d.one(None, (0, 1), (1, 1))
    size, count = (d.integer(5, 7), d.integer(5, 7)), 1
    for side, width, step, far, more in zip(
        size, kernel, stride or (1, 1), dilate or (1, 1), pad or (0, 0), strict=True
    ):
        count *= (side + 2 * more - far * (width - 1) - 1) // step + 1
    n, channels = d.integer(1, 2), d.integer(1, 3)
    if d.a["__name__"] == "im2col":
        return [d.array((n, channels, *size))]
    d.a["output_size"] = size
    return [d.array((n, channels * kernel[0] * kernel[1], count), edges=False)]
