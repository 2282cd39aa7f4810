"""`mxnet-files operators`: what it says is what the registry, the tests and MXNet's zoo have."""

from __future__ import annotations

import json
from pathlib import Path

import mxnet
import pytest
from mxnet.gluon.model_zoo import vision

from mxnet_files.__main__ import main
from mxnet_files.checking.supported import IN_ZOO, is_drawn, supported_operators
from mxnet_files.checking.zoo import MODELS
from mxnet_files.registry import OPERATORS
from mxnet_files.tests import (  # noqa: F401 (fill SPACES)
    spaces_control,
    spaces_int8,
    spaces_numpy,
    spaces_regions,
)
from mxnet_files.tests.spaces import SPACES

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def table_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `") or "| operator" in line]


def test_the_page_has_the_table_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators"]) == 0
    printed = capsys.readouterr().out
    assert printed in PAGE.read_text(encoding="utf-8")
    assert table_of(printed) == table_of(PAGE.read_text(encoding="utf-8"))


def test_every_name_of_the_registry_is_in_one_row() -> None:
    names = [name for row in supported_operators() for name in (row.name, *row.aliases)]
    assert sorted(names) == sorted(OPERATORS)


def test_drawn_are_the_operators_that_have_a_space() -> None:
    rows = supported_operators()
    assert {row.name for row in rows if "drawn" in row.verified} == SPACES.keys()
    assert {row.name for row in rows if "by hand" in row.verified}.isdisjoint(SPACES)
    assert is_drawn("_npi_add")
    assert not is_drawn("_sg_mkldnn_conv")


def test_the_zoos_operators_are_those_of_its_symbols() -> None:
    found = set()
    for model in MODELS:
        symbol = vision.get_model(model)(mxnet.sym.var("data"))
        found |= {node["op"] for node in json.loads(symbol.tojson())["nodes"]} - {"null"}
    assert {OPERATORS[name].name for name in found} == IN_ZOO


def test_named_operators_alone_by_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "flatten", "relu", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["operators"]
    assert [(row["name"], row["verified"]) for row in rows] == [
        ("Flatten", ["drawn", "zoo"]),
        ("relu", ["drawn"]),
    ]


def test_an_unknown_operator_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "Convolutoin"]) == 2
    said = capsys.readouterr().err
    assert "no operator 'Convolutoin'; did you mean Convolution?" in said
    assert said.count("\n") == 1
