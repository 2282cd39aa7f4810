"""Boxes: anchors, overlaps, suppression, and the targets that detectors are trained on."""

from __future__ import annotations

from types import SimpleNamespace

from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_boxes
from mxnet_files.operators.normalise import outputs_of
from mxnet_files.reading.attributes import (
    IGNORED,
    Attribute,
    Attributes,
    boolean,
    integer,
    one_of,
    real,
    reals,
)
from mxnet_files.registry import Wired, Wiring, register

__all__: list[str] = []

FORMAT = one_of("corner", "center")
THIRD = 0.10000000149011612  # 0.1 in float32


def numbers(w: Wiring, a: SimpleNamespace, key: str, count: int | None = None) -> list[float]:
    """A tuple of reals, refused if it is empty or of another length than `count`."""
    values = getattr(a, key)
    if not values or (count is not None and len(values) != count):
        raise w.refuse(f"{key}={values}, expected {count or 'some'} numbers")
    return list(values)


def box_nms(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    if a.coord_start < 0 or a.score_index < 0 or 0 <= a.score_index - a.coord_start < 4:
        raise w.refuse(
            f"coord_start={a.coord_start}, score_index={a.score_index}, expected different places"
        )
    if a.id_index < 0:
        a.have_no_effect("background_id", "force_suppress")
    return w.call(
        mx_boxes.box_nms,
        x,
        a.overlap_thresh,
        a.valid_thresh,
        a.topk,
        a.coord_start,
        a.score_index,
        a.id_index,
        float(a.background_id),
        a.force_suppress,
        a.in_format == "center",
        a.out_format == "center",
    )


register(
    "_contrib_box_nms _contrib_box_non_maximum_suppression",
    box_nms,
    "data",
    {
        "overlap_thresh": Attribute(real, 0.5),
        "valid_thresh": Attribute(real, 0.0),
        "topk": Attribute(integer, -1),
        "coord_start": Attribute(integer, 2),
        "score_index": Attribute(integer, 1),
        "id_index": Attribute(integer, -1),
        "background_id": Attribute(integer, -1),
        "force_suppress": Attribute(boolean, False),
        "in_format": Attribute(FORMAT, "corner"),
        "out_format": Attribute(FORMAT, "corner"),
    },
)
register(
    "_contrib_box_iou",
    lambda w, a, x, y: w.call(mx_boxes.box_iou, x, y, a.format == "center"),
    "lhs rhs",
    {"format": Attribute(FORMAT, "corner")},
)


def box_decode(w: Wiring, a: SimpleNamespace, x: fx.Node, anchors: fx.Node) -> Wired:
    std = [a.std0, a.std1, a.std2, a.std3]
    return w.call(mx_boxes.box_decode, x, anchors, std, a.clip, a.format == "center")


register(
    "_contrib_box_decode",
    box_decode,
    "data anchors",
    {
        **dict.fromkeys(("std0", "std1", "std2", "std3"), Attribute(real, 1.0)),
        "clip": Attribute(real, -1.0),
        "format": Attribute(FORMAT, "center"),
    },
)
register(
    "_contrib_box_encode",
    lambda w, a, *xs: outputs_of(w, w.call(mx_boxes.box_encode, *xs, part="both"), 2),
    "samples matches anchors refs means stds",
    outputs=2,
)


def bipartite_matching(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    arguments = (a.is_ascend, a.threshold, a.topk)
    return outputs_of(w, w.call(mx_boxes.bipartite_matching, x, *arguments, part="both"), 2)


register(
    "_contrib_bipartite_matching",
    bipartite_matching,
    "data",
    {
        "is_ascend": Attribute(boolean, False),
        "threshold": Attribute(real),
        "topk": Attribute(integer, -1),
    },
    2,
)


def multibox_prior(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    sizes, ratios = numbers(w, a, "sizes"), numbers(w, a, "ratios")
    steps, offsets = numbers(w, a, "steps", 2), numbers(w, a, "offsets", 2)
    return w.call(mx_boxes.multibox_prior, x, sizes, ratios, a.clip, steps, offsets)


register(
    "_contrib_MultiBoxPrior _npx_multibox_prior",
    multibox_prior,
    "data",
    {
        "sizes": Attribute(reals, (1.0,)),
        "ratios": Attribute(reals, (1.0,)),
        "clip": Attribute(boolean, False),
        "steps": Attribute(reals, (-1.0, -1.0)),
        "offsets": Attribute(reals, (0.5, 0.5)),
    },
)
VARIANCES = Attribute(reals, (THIRD, THIRD, 2 * THIRD, 2 * THIRD))


def multibox_detection(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    a.have_no_effect("background_id")  # MXNet takes 0, whatever it says
    return w.call(
        mx_boxes.multibox_detection,
        *inputs,
        a.threshold,
        a.clip,
        numbers(w, a, "variances", 4),
        a.nms_threshold,
        a.force_suppress,
        a.nms_topk,
    )


register(
    "_contrib_MultiBoxDetection _npx_multibox_detection",
    multibox_detection,
    "cls_prob loc_pred anchor",
    {
        "clip": Attribute(boolean, True),
        "threshold": Attribute(real, 0.009999999776482582),
        "background_id": Attribute(integer, 0),
        "nms_threshold": Attribute(real, 0.5),
        "force_suppress": Attribute(boolean, False),
        "variances": VARIANCES,
        "nms_topk": Attribute(integer, -1),
    },
)


def multibox_target(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    every = w.call(
        mx_boxes.multibox_target,
        *inputs,
        a.overlap_threshold,
        a.ignore_label,
        a.negative_mining_ratio,
        a.negative_mining_thresh,
        numbers(w, a, "variances", 4),
        part="all",
    )
    return outputs_of(w, every, 3)


register(
    "_contrib_MultiBoxTarget _npx_multibox_target",
    multibox_target,
    "anchor label cls_pred",
    {
        "overlap_threshold": Attribute(real, 0.5),
        "ignore_label": Attribute(real, -1.0),
        "negative_mining_ratio": Attribute(real, -1.0),
        "negative_mining_thresh": Attribute(real, 0.5),
        "minimum_negative_samples": IGNORED,  # by MXNet itself
        "variances": VARIANCES,
    },
    3,
)

MOST_REGIONS = 2**16


def proposal(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    scales, ratios = numbers(w, a, "scales"), numbers(w, a, "ratios")
    if not 1 <= a.rpn_post_nms_top_n <= MOST_REGIONS or a.feature_stride < 1:
        raise w.refuse(
            f"rpn_post_nms_top_n={a.rpn_post_nms_top_n}, feature_stride={a.feature_stride}, "
            f"expected positive numbers and at most {MOST_REGIONS} regions"
        )
    if min(*scales, *ratios) <= 0:
        raise w.refuse(f"scales={a.scales}, ratios={a.ratios}, expected positive numbers")
    both = w.call(
        mx_boxes.proposal,
        *inputs,
        a.rpn_pre_nms_top_n,
        a.rpn_post_nms_top_n,
        a.threshold,
        a.rpn_min_size,
        scales,
        ratios,
        a.feature_stride,
        a.iou_loss,
        w.operator == "_contrib_MultiProposal",
        part="both",
    )
    return outputs_of(w, both, 2 if a.output_score else 1)


for _name in ("_contrib_Proposal", "_contrib_MultiProposal"):
    register(
        _name,
        proposal,
        "cls_prob bbox_pred im_info",
        {
            "rpn_pre_nms_top_n": Attribute(integer, 6000),
            "rpn_post_nms_top_n": Attribute(integer, 300),
            "threshold": Attribute(real, 0.699999988079071),
            "rpn_min_size": Attribute(integer, 16),
            "scales": Attribute(reals, (4.0, 8.0, 16.0, 32.0)),
            "ratios": Attribute(reals, (0.5, 1.0, 2.0)),
            "feature_stride": Attribute(integer, 16),
            "output_score": Attribute(boolean, False),
            "iou_loss": Attribute(boolean, False),
        },
        lambda a: 2 if a.output_score else 1,
        dtypes=Dtypes.FLOATING,
    )
