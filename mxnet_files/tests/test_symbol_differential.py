"""Every registered operator against MXNet itself, on attributes, shapes, dtypes and values drawn.

`pytest -m slow` draws ten times as many. What is left out, and why, is in `spaces.py`; where the
import differs from MXNet on purpose is in `docs/mxnet-differences.md`, a case of each row in
`differences.py`, and more below.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from mxnet_files.checking.recorded import computed, difference
from mxnet_files.checking.supported import is_drawn
from mxnet_files.dtypes import Dtypes
from mxnet_files.registry import OPERATORS
from mxnet_files.tests import (  # noqa: F401 (fill SPACES)
    spaces_control,
    spaces_int8,
    spaces_numpy,
    spaces_regions,
)
from mxnet_files.tests.differences import (
    ANY,
    BY_HAND,
    COMPUTED,
    DIES,
    REFUSED,
    SHOWN,
    bits,
)
from mxnet_files.tests.mxnet_server import Crash, Refusal, Server
from mxnet_files.tests.spaces import SPACES, Case, cases, without_elements

PAGE = Path(__file__).parents[2] / "docs" / "mxnet-differences.md"
# MXNet refuses these, the import computes them: message -> sentence of the page
COMPUTED_HERE = {
    r"Unknown type enum 7|boolean type|MKLDNN :7": "Arrays of bool.",
    r"do not match specified type|in_type->at|floating.point|float16|FP16|kFloat32|kFloat16"
    r"|unknown type for MKLDNN|Other DTypes": "Dtypes that MXNet's operator lacks on the CPU.",
    r"attr in node identity": "Dtypes that MXNet's operator lacks on the CPU.",
    r"ndim|Volume convolution|1D convolution|Only 1D or 2D"
    r"|Invalid Input: 'N.?W'|Dilate is not supported"
    r"|Too many reduction axes": "Numbers of axes that it lacks.",
    r"primitive|only supports MKL-DNN": "What oneDNN cannot do.",
    r"transpose_a": "Transposed vectors in `dot`.",
    r"Shape inconsistent": "Labels of `SoftmaxOutput` without the axes of size 1.",
}
# the import refuses these, MXNet computes them: (operator, message) -> sentence of the page
REFUSED_HERE = {
    (r"Convolution", r"got integers"): "Convolutions of integers.",
    (r"^_np", r"got integers"): "Integers in `mx.np`'s arithmetic and reductions.",
    (r"_contrib_quadratic", r"got integers"): "Integers in `contrib.quadratic`.",
    (r"cumsum|lcm", r"'Bool'"): "`cumsum` and `lcm` of bool.",
    (r"amp_cast", r"expected a floating"): "`amp_cast` to integers.",
    (r"take", r"mode=raise"): "`take` with `mode=raise`.",
    (r"Pooling", r"not implemented for 'Half'"): "Pooling of float16 in three axes.",
    (r"(?i)Flatten|FullyConnected", r"Dimension out of range"): "`Flatten` of one axis.",
}

ONE_BY_ONE = settings(
    deadline=None,
    database=None,
    derandomize=True,  # the same cases every time
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@dataclass
class Tally:
    """What became of the cases of one operator.

    `taken` are the dtypes that MXNet takes, by slot, and `compared` those of cases that both sides
    computed.
    """

    ends: Counter[str] = field(default_factory=Counter)  # "compared", "refused" or "crashed"
    taken: set[str] = field(default_factory=set)
    compared: set[str] = field(default_factory=set)


def dtypes_of(case: Case) -> set[str]:
    """`data float32`, `dtype=int8`."""
    arrays = zip(case.slots, case.inputs, strict=True)
    slots = {f"{slot.rstrip('0123456789')} {x.dtype}" for slot, x in arrays}
    said = case.attributes.get("dtype", "None")
    return slots | ({f"dtype={said}"} if said != "None" else set())


def check(case: Case, server: Server) -> str:
    """Both give the same, or both refuse, or the page says that they differ; and which of these."""
    expected = server.run(json.dumps(case.document()), case.arrays)
    if isinstance(expected, Crash):
        return "crashed"
    got = computed(case.document(), case.arrays, stored=case.stored)
    if isinstance(expected, Refusal):
        known = any(re.search(message, expected) for message in COMPUTED_HERE)
        assert isinstance(got, str) or known, f"{case}\nMXNet refuses: {expected}"
        return "refused"
    if isinstance(got, str):
        known = any(
            re.search(operator, case.operator) and re.search(message, got)
            for operator, message in REFUSED_HERE
        )
        assert known, f"{case}\nrefused: {got}"
        return "refused here"
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        told = difference(a, b, case.inputs, case.operator, case.attributes)
        assert not told, f"{case}\n{told}"
    return "compared"


def draw_and_check(main: str, count: int, server: Server) -> Tally:
    tally = Tally()

    @settings(ONE_BY_ONE, max_examples=count)
    @given(cases(main))
    def one(case: Case) -> None:
        end = check(case, server)
        tally.ends[end] += 1
        if end != "refused":
            tally.taken |= dtypes_of(case)
        if end == "compared":
            tally.compared |= dtypes_of(case)

    one()
    return tally


REGISTERED = {operator.name for operator in OPERATORS.values()}
MAIN_NAMES = sorted(REGISTERED & SPACES.keys())
# dtypes that MXNet takes and that are never compared, by operator -> sentence of the page
NOT_COMPARED = {
    ("Convolution", "int"): "Convolutions of integers.",
    ("amp_cast", "=u?int"): "`amp_cast` to integers.",
    ("_contrib_quadratic", " u?int"): "Integers in `contrib.quadratic`.",
    ("_npi_lcm", " bool"): "`cumsum` and `lcm` of bool.",
}


@pytest.mark.parametrize("main", MAIN_NAMES)
def test_operator(main: str, server: Server) -> None:
    """A case that MXNet refuses, or dies of, says nothing: a quarter has to be compared."""
    tally = draw_and_check(main, 20, server)
    assert tally.ends["compared"] >= 5, tally.ends


@pytest.mark.slow
@pytest.mark.parametrize("main", MAIN_NAMES)
def test_operator_on_many_cases(main: str, server: Server) -> None:
    tally = draw_and_check(main, 200, server)
    assert tally.ends["compared"] >= 50, tally.ends
    known = "|".join(dtype for name, dtype in NOT_COMPARED if re.fullmatch(name, main)) or "none"
    floating = main.startswith("_np") and OPERATORS[main].dtypes is Dtypes.FLOATING
    left = {x for x in tally.taken - tally.compared if not re.search(known, x)}
    assert [x for x in left if not (floating and re.search(r" (u?int|bool)", x))] == []
    assert [x for x in tally.compared if re.search(known, x)] == []  # no longer an exception


# of arrays without elements, which `mx.np` has: (operator, what is told) -> sentence of the page
WITHOUT_ELEMENTS = {
    (r"_np_prod|_npi_mean", r"got \[(1\.|nan)"): "`prod` and `mean` of no elements in `mx.np`.",
    (r"_np_a?max|_np_a?min|_npi_norm|_npi_pad|_npi_percentile", r"refused: \w*Error"):
        "Extremes, percentiles, norms and edges of no elements in `mx.np`.",
    (r"_npx_reshape", r"expected sizes and codes"): "A size of 0 in `mx.npx.reshape`.",
    (r"_npi_where", r"MXNet \w+\("): "`mx.np.where` without elements.",
    (r"", r"Shape size mismatch 0|np_percentile_op|known_dim_size_prod"):
        "Some arrays without elements in `mx.np`.",
}  # fmt: skip
MOST_CRASHES = 3


@pytest.mark.slow
@pytest.mark.parametrize("main", [name for name in MAIN_NAMES if name.startswith("_np")])
def test_arrays_without_elements(main: str, server: Server) -> None:
    ends: Counter[str] = Counter()
    for case in islice(without_elements(main, range(1000)), 50):
        try:
            ends[check(case, server)] += 1
        except AssertionError as error:
            known = any(
                re.search(operator, case.operator) and re.search(message, str(error))
                for operator, message in WITHOUT_ELEMENTS
            )
            if not known:
                raise
            ends["known"] += 1
        if ends["crashed"] == MOST_CRASHES:
            break
    # none is drawn where nothing but numbers is given
    assert not ends or ends["compared"] > 0 or ends["known"] or ends["crashed"] == MOST_CRASHES


def test_every_operator_has_a_space() -> None:
    """One more operator needs a space in spaces.py: the shapes and attributes that fit it."""
    assert SPACES.keys() - REGISTERED == set()
    assert {name for name in REGISTERED - SPACES.keys() if is_drawn(name)} == set()


def test_the_differences_are_documented() -> None:
    page = PAGE.read_text()
    for sentence in (
        *COMPUTED_HERE.values(),
        *REFUSED_HERE.values(),
        *NOT_COMPARED.values(),
        *WITHOUT_ELEMENTS.values(),
    ):
        assert sentence in page


def rows_of_the_page() -> list[str]:
    """What the page's table names, in its order."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][1:]


def test_every_row_of_the_page_is_shown() -> None:
    assert sorted({*SHOWN, *BY_HAND}) == sorted(rows_of_the_page())


@pytest.mark.parametrize("row", BY_HAND)
def test_a_difference_by_hand(row: str) -> None:
    BY_HAND[row]()


@pytest.mark.parametrize(
    "row",  # another process of MXNet takes a second
    [pytest.param(row, marks=pytest.mark.slow) if DIES in shown else row
     for row, shown in SHOWN.items()],
)  # fmt: skip
def test_a_difference(row: str, server: Server) -> None:
    given, theirs, ours = SHOWN[row]
    here = computed(given.document(), given.arrays, stored=given.stored)
    assert (REFUSED if isinstance(here, str) else COMPUTED) == ours, here
    if theirs == ANY:
        return
    there = server.run(json.dumps(given.document()), given.arrays)
    end = DIES if isinstance(there, Crash) else REFUSED if isinstance(there, Refusal) else COMPUTED
    assert end == theirs, there
    if end == ours == COMPUTED:
        assert list(map(bits, here)) != list(map(bits, there))


@pytest.mark.parametrize("fault", ["value", "dtype", "shape", "rule"])
def test_a_wrong_operator_is_noticed(
    fault: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OPERATORS["square"]
    wrong = {
        "value": replace(right, build=lambda w, a, x: w.call(torch.mul, x, 2)),
        "dtype": replace(right, build=lambda w, a, x: w.method("double", x)),
        "shape": replace(right, build=lambda w, a, x: w.call(torch.unsqueeze, x, 0)),
        "rule": replace(right, dtypes=Dtypes.MADE),  # takes integers for floating point
    }
    monkeypatch.setitem(OPERATORS, "square", wrong[fault])
    with pytest.raises(AssertionError):
        draw_and_check("square", 50, server)


def test_a_crash_of_mxnet_ends_one_case(server: Server) -> None:
    ones, zeros = np.ones(2, np.int32), np.zeros(2, np.int32)
    case = Case("elemwise_div", {}, [ones, zeros], ["lhs", "rhs"], 1, stored=False, halved=False)
    assert isinstance(server.run(json.dumps(case.document()), case.arrays), Crash)
    case = replace(case, inputs=[ones, ones])
    answer = server.run(json.dumps(case.document()), case.arrays)
    assert not isinstance(answer, Refusal)
    np.testing.assert_array_equal(answer[0], ones)


def test_arrays_without_elements_are_refused_by_mxnet(server: Server) -> None:
    """So the spaces have none: a 0 in a shape means "unknown" in MXNet's symbols."""
    for shape in ((0,), (2, 0)):
        case = Case("relu", {}, [np.ones(shape, "float32")], ["data"], 1, False, False)
        assert isinstance(server.run(json.dumps(case.document()), case.arrays), Refusal)
