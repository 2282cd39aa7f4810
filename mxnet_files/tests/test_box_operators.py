"""Anchors, overlaps, suppression and targets of detectors, against MXNet."""

from __future__ import annotations

import itertools
import json
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import import_symbol
from mxnet_files.errors import SymbolError
from mxnet_files.tests.test_index_operators import alike

S = mx.sym
d, x, y = S.var("data"), S.var("x"), S.var("y")


def boxes(rng: np.random.Generator, *shape: int, centre: bool = False) -> np.ndarray:
    """Boxes that overlap, some without area, some equal, some turned inside out."""
    corner = rng.integers(-2, 8, (*shape, 2))
    size = rng.integers(-1, 6, (*shape, 2))
    made = np.concatenate([corner, size if centre else corner + size], -1)
    return made / 8


def candidates(seed: int, *shape: int, centre: bool = False) -> np.ndarray:
    """Rows of class, score and box; scores tie."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(-1, 3, (*shape, 1))
    score = rng.integers(-2, 7, (*shape, 1)) / 7
    return np.concatenate([kind, score, boxes(rng, *shape, centre=centre)], -1)


NMS: list[dict[str, Any]] = [
    {},
    {"id_index": 0},
    {"id_index": 0, "background_id": 1, "valid_thresh": 0.3},
    {"id_index": 0, "force_suppress": True, "overlap_thresh": 0.2},
    {"topk": 5, "overlap_thresh": 0.7},
    {"topk": 0},
    {"topk": 100, "id_index": 0, "valid_thresh": -1},
    {"valid_thresh": 9},
]


@pytest.mark.parametrize("options", NMS, ids=str)
@pytest.mark.parametrize(
    "formats", list(itertools.product(["corner", "center"], repeat=2)), ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_box_nms(options: dict[str, Any], formats: tuple[str, str], dtype: str) -> None:
    node = S.contrib.box_nms(d, in_format=formats[0], out_format=formats[1], **options)
    for seed, shape in enumerate([(30,), (2, 25), (2, 3, 12), (1, 1), (3, 40)]):
        rows = candidates(seed, *shape, centre=formats[0] == "center").astype(dtype)
        alike(node[0], {"data": rows})


def test_box_nms_of_other_columns() -> None:
    rng = np.random.default_rng(5)
    rows = np.concatenate(
        [boxes(rng, 2, 20), candidates(1, 2, 20)[..., :2], rng.random((2, 20, 3))], -1
    )
    node = S.contrib.box_nms(d, coord_start=0, score_index=5, id_index=4, topk=9)
    alike(node[0], {"data": rows.astype(np.float32)})


def test_box_nms_beside_nan() -> None:
    """A score that is NaN is below every threshold; a box with one overlaps none."""
    rows = candidates(2, 2, 12).astype(np.float32)
    rows[:, 3, 1] = rows[:, 7, 2] = np.nan
    for options in NMS:
        alike(S.contrib.box_nms(d, **options)[0], {"data": rows})


def test_box_nms_in_blocks() -> None:
    """More boxes than pairs are held for at a time."""
    rows = candidates(3, 1, 3000).astype(np.float32)
    rows[..., 2:] *= 40
    alike(S.contrib.box_nms(d, id_index=0, overlap_thresh=0.3)[0], {"data": rows})


@pytest.mark.parametrize("form", ["corner", "center"])
def test_box_iou(form: str) -> None:
    rng = np.random.default_rng(2)
    for left, right in (((4,), (6,)), ((2, 3), (5,)), ((1,), (2, 2, 2))):
        arrays = {
            name: boxes(rng, *shape, centre=form == "center").astype(np.float32)
            for name, shape in (("x", left), ("y", right))
        }
        alike(S.contrib.box_iou(x, y, format=form), arrays)


def near(node: Any, arrays: dict[str, np.ndarray], unit: float = 2.0**-24) -> None:
    """Values within a few units of MXNet's, shapes and dtypes as its own."""
    given = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
    wanted = [out.asnumpy() for out in node.bind(mx.cpu(), given).forward()]
    module = import_symbol(json.loads(node.tojson()), {}, inputs=list(arrays))
    found = module(*(torch.from_numpy(array) for array in arrays.values()))
    found = found if isinstance(found, tuple) else (found,)
    for a, b in zip(found, wanted, strict=True):
        assert a.numpy().dtype == b.dtype
        size = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a.numpy(), b, rtol=16 * unit, atol=16 * unit * size)


@pytest.mark.parametrize("form", ["corner", "center"])
@pytest.mark.parametrize("clip", [-1.0, 0.3])
def test_box_decode(form: str, clip: float) -> None:
    rng = np.random.default_rng(2)
    arrays = {
        "data": rng.normal(size=(2, 7, 4)).astype(np.float32),
        "anchors": boxes(rng, 1, 7, centre=form == "center").astype(np.float32),
    }
    options = {"std0": 0.1, "std1": 0.2, "std2": 0.3, "std3": 0.4, "clip": clip, "format": form}
    near(S.contrib.box_decode(d, S.var("anchors"), **options), arrays)


def test_box_encode() -> None:
    rng = np.random.default_rng(2)
    corner = rng.random((2, 9, 2))
    refs = rng.random((2, 3, 2))
    arrays = {
        "samples": rng.integers(-1, 2, (2, 9)),
        "matches": rng.integers(0, 3, (2, 9)),
        "anchors": np.concatenate([corner, corner + rng.random((2, 9, 2)) + 0.1], -1),
        "refs": np.concatenate([refs, refs + rng.random((2, 3, 2)) + 0.1], -1),
        "means": rng.random(4),
        "stds": rng.random(4) + 0.1,
    }
    node = S.contrib.box_encode(*(S.var(name) for name in arrays))
    near(S.Group(list(node)), {k: v.astype(np.float32) for k, v in arrays.items()})


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("topk", [-1, 1, 3])
def test_bipartite_matching(ascending: bool, topk: int) -> None:
    for seed, shape in enumerate([(3, 5), (2, 5, 3), (2, 2, 4, 4)]):
        scores = np.random.default_rng(seed).integers(0, 9, shape) / 8
        node = S.contrib.bipartite_matching(d, is_ascend=ascending, threshold=0.45, topk=topk)
        alike(S.Group(list(node)), {"data": scores.astype(np.float32)})


PRIORS: list[dict[str, Any]] = [
    {},
    {"sizes": (0.3, 0.5), "ratios": (1, 2, 0.5)},
    {"sizes": (0.9,), "ratios": (3, 0.3), "clip": True},
    {"steps": (0.1, 0.2), "offsets": (0.2, 0.9)},
]


@pytest.mark.parametrize("options", PRIORS, ids=str)
def test_multibox_prior(options: dict[str, Any]) -> None:
    for size in ((2, 3, 4, 5), (1, 1, 7, 3), (1, 2, 1, 1)):
        alike(S.contrib.MultiBoxPrior(d, **options), {"data": np.zeros(size, np.float32)})


DETECTIONS: list[dict[str, Any]] = [
    {},
    {"threshold": 0.4, "clip": False},
    {"nms_threshold": 0.2, "force_suppress": True},
    {"nms_threshold": 0.3, "nms_topk": 6},
    {"nms_threshold": -1},
    {"threshold": 2},
    {"variances": (0.3, 0.2, 0.1, 0.4), "nms_threshold": 0.9},
]


@pytest.mark.parametrize("options", DETECTIONS, ids=str)
def test_multibox_detection(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    for classes in (1, 2, 4):
        arrays = {
            "data": rng.integers(0, 9, (3, classes, 20)) / 8,
            "x": rng.integers(-2, 3, (3, 80)) / 2,
            "y": boxes(rng, 1, 20),
        }
        node = S.contrib.MultiBoxDetection(d, x, y, **options)
        near(node, {name: value.astype(np.float32) for name, value in arrays.items()})


TARGETS: list[dict[str, Any]] = [
    {},
    {"overlap_threshold": 0.2, "ignore_label": -7},
    {"overlap_threshold": -1},
    {"negative_mining_ratio": 2, "negative_mining_thresh": 0.6},
    {"negative_mining_ratio": 1.5, "negative_mining_thresh": 0.9, "overlap_threshold": 0.3},
    {"variances": (0.3, 0.2, 0.1, 0.4)},
]


@pytest.mark.parametrize("options", TARGETS, ids=str)
def test_multibox_target(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    for labels in (1, 4):
        corner = rng.integers(0, 5, (1, 60, 2)) / 8
        anchors = np.concatenate([corner, corner + rng.integers(1, 4, (1, 60, 2)) / 8], -1)
        place = rng.integers(0, 5, (3, labels, 2)) / 8
        truth = np.concatenate([place, place + rng.integers(1, 4, (3, labels, 2)) / 8], -1)
        kind = rng.integers(0, 3, (3, labels, 1))
        rows = np.concatenate([kind, truth, rng.random((3, labels, 1))], -1)
        rows[1, labels // 2 :, :5] = -1  # fewer labels, then none
        rows[2, :, :5] = -1
        arrays = {"x": anchors, "y": rows, "data": rng.normal(size=(3, 4, 60))}
        node = S.contrib.MultiBoxTarget(x, y, d, **options)
        near(S.Group(list(node)), {k: v.astype(np.float32) for k, v in arrays.items()})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (S.contrib.box_nms(d, coord_start=0, score_index=3), "expected different places"),
        (S.contrib.MultiBoxPrior(d, sizes=()), "expected some numbers"),
        (S.contrib.MultiBoxPrior(d, steps=(1,)), "expected 2 numbers"),
        (S.contrib.MultiBoxDetection(d, x, y, variances=(1, 2)), "expected 4 numbers"),
    ],
)
def test_what_has_no_meaning_is_refused(node: Any, message: str) -> None:
    with pytest.raises(SymbolError, match=message):
        import_symbol(json.loads(node.tojson()), {})


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_proposals_of_regions(several: bool, corners: bool) -> None:
    """A feature map as Faster R-CNN's, that its images do not fill."""
    rng, images = np.random.default_rng(3), 2 if several else 1
    shape = (images, 24, 14, 11)
    arrays = {
        "cls_prob": (rng.permutation(np.prod(shape)) / np.prod(shape)).reshape(shape),
        "bbox_pred": rng.normal(size=(images, 48, 14, 11)) * (9 if corners else 0.2),
        "im_info": np.array([[224, 170, 1.5], [200, 176, 0.7]][:images]),
    }
    operator = S.contrib.MultiProposal if several else S.contrib.Proposal
    node = operator(*map(S.var, arrays), rpn_post_nms_top_n=40, output_score=True, iou_loss=corners)
    near(node, {name: array.astype(np.float32) for name, array in arrays.items()})


def test_what_is_no_region_is_refused() -> None:
    for options in ({"rpn_post_nms_top_n": 0}, {"feature_stride": 0}, {"scales": (0.0,)}):
        node = S.contrib.Proposal(d, x, y, **options)
        with pytest.raises(SymbolError, match="expected positive"):
            import_symbol(json.loads(node.tojson()), {}, inputs=["data", "x", "y"])
    node = S.contrib.Proposal(d, x, y)
    module = import_symbol(json.loads(node.tojson()), {}, inputs=["data", "x", "y"])
    for size in ((2, 24, 1, 1), (1, 4, 1, 1)):
        given = (torch.ones(size), torch.ones(size[0], 2 * size[1], 1, 1), torch.ones(size[0], 3))
        with pytest.raises(ValueError, match="Proposal: expected"):
            module(*given)
