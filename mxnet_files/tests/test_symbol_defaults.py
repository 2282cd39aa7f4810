"""The attribute tables against MXNet's own: every attribute known, the same ones required, the
same defaults, the same inputs."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from mxnet.operator import get_operator_arguments

from mxnet_files import operators  # noqa: F401 (fills OPERATORS)
from mxnet_files.reading.attributes import IGNORED, REQUIRED, Attribute
from mxnet_files.registry import AUXILIARY, OPERATORS

ARRAY = ("NDArray-or-Symbol", "Symbol")
# written by frontends beside any number of inputs, whether MXNet lists it or not
COUNT = "num_args"
# MXNet lists it as required and fills in 1 itself; attributes of older versions than 1.9.1
FILLED_IN = {("smooth_l1", "scalar")}
OLDER = {
    ("_contrib_SparseEmbedding", "deterministic"),
    ("linalg_gemm2", "axis"),
}
MISLISTED = {  # MXNet lists _arange's attributes, and Concat's, there
    **dict.fromkeys(("_linspace", "_npi_linspace"), "start stop num endpoint dtype ctx"),
    "_npi_concatenate": "num_args axis",
    "_npi_norm": "ord axis keepdims flag",
    # of what oneDNN's passes write it lists nothing
    "_sg_mkldnn_conv": "quantized min_calib_range max_calib_range with_bn with_act with_sum"
    " with_postsum_act",
    "_sg_mkldnn_fully_connected": "quantized min_calib_range max_calib_range with_eltwise"
    " enable_float_output channel_wise_quantize",
}


def mxnet_attributes(name: str) -> dict[str, str]:
    found = get_operator_arguments(name)
    return {
        key: kind
        for key, kind in zip(found.names, found.types, strict=True)
        if not kind.startswith(ARRAY)
    }


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_attributes(name: str) -> None:
    known = OPERATORS[name].attributes
    if name in MISLISTED:
        assert known.keys() == set(MISLISTED[name].split())
        return
    for key, kind in mxnet_attributes(name).items():
        assert key in known, f"{name} has an attribute {key} ({kind}) that the import would refuse"
        if known[key] is IGNORED or key == COUNT or (name, key) in FILLED_IN:
            continue
        required = "required" in kind.split(", ")
        assert (known[key].default is REQUIRED) == required, (name, key, kind)
        written = re.search(r"default='?([^']*)'?$", kind)
        if written is not None:
            assert read(known[key], written[1]) == known[key].default, (name, key, kind)


def read(attribute: Attribute, text: str) -> object:
    return attribute.kind(text)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_no_attribute_is_invented(name: str) -> None:
    invented = OPERATORS[name].attributes.keys() - mxnet_attributes(name).keys() - {COUNT}
    assert name in MISLISTED or {(name, key) for key in invented} <= OLDER


@pytest.mark.parametrize("name", sorted(name for name in OPERATORS if not OPERATORS[name].graphs))
def test_inputs(name: str) -> None:
    operator = OPERATORS[name]
    found = get_operator_arguments(name)
    arrays = [
        key for key, kind in zip(found.names, found.types, strict=True) if kind.startswith(ARRAY)
    ]
    every = SimpleNamespace(
        **{key: attribute.default for key, attribute in operator.attributes.items()}
        | {"no_bias": False, "act_type": "prelu", "use_length": True, "num_args": 2,
           "sample_type": "nearest", "use_sequence_length": True, "mode": "lstm",
           "use_data_lengths": True, "use_label_lengths": True,
           "to_begin_arr_given": True, "to_end_arr_given": True}
    )  # fmt: skip
    slots = operator.inputs(every)
    one_or_two = ("Crop", "_contrib_BilinearResize2D", "_contrib_quantized_concat")
    if slots is not None and name not in one_or_two:
        assert list(slots[: len(arrays)]) == arrays
        assert set(slots[len(arrays) :]) <= set(AUXILIARY)  # MXNet lists these elsewhere


def test_the_tables_would_notice_a_wrong_default() -> None:
    eps = OPERATORS["BatchNorm"].attributes["eps"]
    assert read(eps, "0.0010000000474974513") == eps.default
    assert read(eps, "0.00001") != eps.default
