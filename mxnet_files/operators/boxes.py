"""Boxes: anchors, overlaps, suppression, and the targets that detectors are trained on."""

from __future__ import annotations

from types import SimpleNamespace

from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_boxes
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, outputs_of, register, register_call, registered


def numbers(w: Wiring, a: SimpleNamespace, key: str, count: int | None = None) -> list[float]:
    """A tuple of reals, refused if it is empty or of another length than `count`."""
    values = getattr(a, key)
    if not values or (count is not None and len(values) != count):
        raise w.refuse(f"{key}={values}, expected {count or 'some'} numbers")
    return list(values)


@registered(
    "_contrib_box_nms _contrib_box_non_maximum_suppression",
    "data",
    "overlap_thresh: real = 0.5, valid_thresh: real = 0.0, topk: integer = -1, "
    "coord_start: integer = 2, score_index: integer = 1, id_index: integer = -1, "
    "background_id: integer = -1, force_suppress: boolean = False, "
    "in_format: (corner|center) = corner, out_format: (corner|center) = corner",
)
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
    "_contrib_box_iou",
    lambda w, a, x, y: w.call(mx_boxes.box_iou, x, y, a.format == "center"),
    "lhs rhs",
    "format: (corner|center) = corner",
)


@registered(
    "_contrib_box_decode",
    "data anchors",
    "std0: real = 1.0, std1: real = 1.0, std2: real = 1.0, std3: real = 1.0, "
    "clip: real = -1.0, format: (corner|center) = center",
)
def box_decode(w: Wiring, a: SimpleNamespace, x: fx.Node, anchors: fx.Node) -> Wired:
    std = [a.std0, a.std1, a.std2, a.std3]
    return w.call(mx_boxes.box_decode, x, anchors, std, a.clip, a.format == "center")


register_call(
    "_contrib_box_encode", mx_boxes.box_encode, "samples matches anchors refs means stds", outputs=2
)
register_call(
    "_contrib_bipartite_matching",
    mx_boxes.bipartite_matching,
    "data",
    "is_ascend: boolean = False, threshold: real, topk: integer = -1",
    2,
)


@registered(
    "_contrib_MultiBoxPrior _npx_multibox_prior",
    "data",
    "sizes: reals = (1.0,), ratios: reals = (1.0,), clip: boolean = False, "
    "steps: reals = (-1.0, -1.0), offsets: reals = (0.5, 0.5)",
)
def multibox_prior(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    sizes, ratios = numbers(w, a, "sizes"), numbers(w, a, "ratios")
    steps, offsets = numbers(w, a, "steps", 2), numbers(w, a, "offsets", 2)
    return w.call(mx_boxes.multibox_prior, x, sizes, ratios, a.clip, steps, offsets)


VARIANCES = "variances: reals = (0.1, 0.1, 0.2, 0.2)"


@registered(
    "_contrib_MultiBoxDetection _npx_multibox_detection",
    "cls_prob loc_pred anchor",
    "clip: boolean = True, threshold: real = 0.01, background_id: integer = 0, "
    f"nms_threshold: real = 0.5, force_suppress: boolean = False, {VARIANCES}, "
    "nms_topk: integer = -1",
)
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


@registered(
    "_contrib_MultiBoxTarget _npx_multibox_target",
    "anchor label cls_pred",
    "overlap_threshold: real = 0.5, ignore_label: real = -1.0, "
    "negative_mining_ratio: real = -1.0, negative_mining_thresh: real = 0.5, "
    # MXNet itself ignores the first of these
    f"minimum_negative_samples: ignored, {VARIANCES}",
    3,
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
        "rpn_pre_nms_top_n: integer = 6000, rpn_post_nms_top_n: integer = 300, "
        "threshold: real = 0.7, rpn_min_size: integer = 16, "
        "scales: reals = (4.0, 8.0, 16.0, 32.0), ratios: reals = (0.5, 1.0, 2.0), "
        "feature_stride: integer = 16, output_score: boolean = False, iou_loss: boolean = False",
        lambda a: 2 if a.output_score else 1,
        dtypes=Dtypes.FLOATING,
    )
