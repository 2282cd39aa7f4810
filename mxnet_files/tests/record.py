"""`python -m mxnet_files.tests.record`: what MXNet computes for every operator, into its file.

Of each operator's drawn cases those are kept that say a word, a truth value or a dtype that none
before them said, and the first few. `… record NAME …` takes these operators' cases anew, and leaves
the others as they are.
"""

from __future__ import annotations

import mxnet_compat  # noqa: F401  # first: MXNet beside a current numpy

# isort: split
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings

from mxnet_files.checking.oracle import import_mxnet
from mxnet_files.checking.recorded import FILE, RecordedCase, read, said, write
from mxnet_files.registry import OPERATORS
from mxnet_files.tests import (  # noqa: F401 (fill SPACES)
    spaces_control,
    spaces_int8,
    spaces_numpy,
    spaces_regions,
)
from mxnet_files.tests.mxnet_server import Refusal, Server
from mxnet_files.tests.spaces import SPACES, Case, cases
from mxnet_files.tests.test_symbol_differential import ONE_BY_ONE

DRAWN, FIRST = 200, 4  # cases of an operator that are drawn, and that are kept whatever they say


def drawn(main: str) -> list[Case]:
    """The same cases every time."""
    found: list[Case] = []

    @settings(ONE_BY_ONE, max_examples=DRAWN)
    @given(cases(main))
    def one(case: Case) -> None:
        found.append(case)

    one()
    return found


def kept(main: str, server: Server) -> Iterator[RecordedCase]:
    """The cases of one operator."""
    told: set[tuple[str, Any]] = set()
    count = 0
    for case in drawn(main):
        if any(x.dtype == np.float16 for x in case.inputs):
            continue  # nets are run in float32 and float64
        dtypes = {(f"input {place}", x.dtype.name) for place, x in enumerate(case.inputs)}
        made = RecordedCase(main, case.document(), case.arrays, case.stored)
        try:
            new = (said(made.step()) | dtypes) - told
        except ValueError:  # the import refuses the attributes
            continue
        if not new and count >= FIRST:
            continue
        outputs = server.run(json.dumps(case.document()), case.arrays)
        if isinstance(outputs, Refusal):
            continue
        made = RecordedCase(main, case.document(), case.arrays, case.stored, outputs)
        if not made.difference():  # else it is one of the differences that the tests know
            told |= new
            count += 1
            yield made


def main(asked: Sequence[str]) -> None:
    """Write the file."""
    server = Server()
    names = sorted({operator.name for operator in OPERATORS.values()} & SPACES.keys())
    _, cases = read(set(names) - {*asked} if asked else ())
    found = [*cases, *(case for name in asked or names for case in kept(name, server))]
    server.close()
    write(import_mxnet().__version__, sorted(found, key=lambda case: case.operator))
    _, cases = read()
    assert [case.difference() for case in cases] == [""] * len(found)
    operators = {case.operator for case in found}
    print(
        f"{FILE}: {len(found)} cases of {len(operators)} operators, {FILE.stat().st_size:,} bytes"
    )
    if left := set(names) - operators:
        print(f"none of {', '.join(sorted(left))}")


if __name__ == "__main__":
    main(sys.argv[1:])
