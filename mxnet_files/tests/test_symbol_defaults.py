"""The attribute tables against MXNet's own: every attribute known, the same ones required, the
same defaults, the same inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from mxnet.operator import get_operator_arguments

from mxnet_files import operators  # noqa: F401 (fills OPERATORS)
from mxnet_files.reading.attributes import IGNORED, REQUIRED, Attribute
from mxnet_files.registry import AUXILIARY, OPERATORS
from mxnet_files.tests import (  # noqa: F401 (fill SPACES)
    spaces_int8,
    spaces_numpy,
    spaces_regions,
)
from mxnet_files.tests.mxnet_server import Refusal, Server
from mxnet_files.tests.spaces import case_of, choices, described, text

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


# Attributes that are not read -> why none of their values matters here; of which operators
UNREAD: dict[str, tuple[str, str]] = {
    "workspace": (
        "memory that a convolution may take at one time",
        "Convolution Deconvolution UpSampling _contrib_DeformableConvolution"
        " _contrib_ModulatedDeformableConvolution _contrib_quantized_conv",
    ),
    "im2col_step": (
        "how many images are convolved at one time",
        "_contrib_ModulatedDeformableConvolution",
    ),
    "cudnn_tune": (
        "how cuDNN's algorithm is chosen",
        "Convolution Deconvolution _contrib_quantized_conv",
    ),
    "cudnn_off": (
        "whether a GPU takes cuDNN's kernel or MXNet's own",
        "BatchNorm BilinearSampler Convolution Deconvolution Dropout Pooling SpatialTransformer"
        " _contrib_BatchNormWithReLU _contrib_quantized_batch_norm _contrib_quantized_conv"
        " _contrib_quantized_pooling",
    ),
    "min_calib_range": (
        "where a quantised copy of the layer cuts its results off",
        "BatchNorm _contrib_BatchNormWithReLU",
    ),
    "max_calib_range": (
        "where a quantised copy of the layer cuts its results off",
        "BatchNorm _contrib_BatchNormWithReLU",
    ),
    "ndev": ("over how many devices training takes its statistics", "_contrib_SyncBatchNorm"),
    "key": ("with which layers of other devices", "_contrib_SyncBatchNorm"),
    "ctx": (
        "the device of an array that is made",
        "_arange _contrib_arange_like _eye _full _linspace _npi_arange _npi_blackman _npi_eye"
        " _npi_full_like _npi_hamming _npi_hanning _npi_identity _npi_indices _npi_logspace"
        " _npi_ones _npi_zeros _ones _zeros",
    ),
    "forward_stype": ("how the product is stored, not what it is", "batch_dot dot"),
    "sparse_grad": (
        "how the gradient is stored",
        "Embedding _contrib_SparseEmbedding _contrib_quantized_embedding",
    ),
    "deterministic": ("the order of sums in the gradient", "_contrib_SparseEmbedding"),
    "optimize": ("the order of products", "_npi_einsum"),
    "copy": ("whether the memory of the input is written to", "_npi_nan_to_num"),
    "dim": ("MXNet's own code does not heed it", "_npi_dstack _npi_hstack"),
    "minimum_negative_samples": ("MXNet's own code does not heed it", "_contrib_MultiBoxTarget"),
}


def test_what_is_not_read_is_known() -> None:
    """One more attribute that is ignored needs a reason here."""
    found = {
        (operator.name, key)
        for operator in OPERATORS.values()
        for key, attribute in operator.attributes.items()
        if attribute is IGNORED
    }
    assert found == {(name, key) for key, (_, names) in UNREAD.items() for name in names.split()}


# Values of what MXNet describes as a number or a word of any kind
VALUES = {
    "workspace": ("0", "1", "64", "4096"),
    "im2col_step": ("1", "2", "64"),
    "min_calib_range": ("-1.5", "-0.1", "None"),
    "max_calib_range": ("0.1", "1.5", "None"),
    "ndev": ("1", "2"),
    "key": ("a", "b"),
    "ctx": ("cpu(0)", "cpu(1)"),
    "optimize": ("0", "1", "2"),
    "dim": ("0", "1", "2", "-1"),
    "minimum_negative_samples": ("0", "1", "5"),
}
# which MXNet 1.9.1 refuses, whatever they say: files of older versions have them
REFUSED = {("_contrib_SparseEmbedding", key) for key in ("sparse_grad", "deterministic")}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for key, (_, names) in UNREAD.items() for name in names.split()],
)
def test_what_is_not_read_does_not_matter_to_mxnet(name: str, key: str, server: Server) -> None:
    kind = described(name).get(key, "")
    values = VALUES.get(key) or [text(value) for value in choices(kind) or ()]
    taken: set[str] = set()
    compared = 0
    for seed in range(60):
        case = case_of(name, seed)
        plain = server.run(json.dumps(case.document()), case.arrays)
        if isinstance(plain, Refusal):
            continue
        for value in values:
            case.attributes[key] = value
            other = server.run(json.dumps(case.document()), case.arrays)
            if isinstance(other, Refusal):
                continue
            taken.add(value)
            for a, b in zip(plain, other, strict=True):
                if key == "optimize":  # sums of another order
                    np.testing.assert_allclose(a, b, 2.0**-20, 2.0**-20, err_msg=f"{case}")
                else:
                    np.testing.assert_array_equal(a, b, err_msg=f"{case}")
        compared += 1
        if compared == 5:
            break
    assert compared == 5
    assert len(taken) >= 2 or (name, key) in REFUSED, (values, taken)
