"""MXNet's operators on boxes, in code that TorchScript reads.

Boxes are (x_min, y_min, x_max, y_max), or (x, y, width, height) where `centre` says so. Order and
ties are MXNet's: a stable sort by falling score. Sizes do not depend on the values: a place
without a box holds −1.
"""

import torch
from torch import Tensor

__all__ = [
    "bipartite_matching",
    "box_decode",
    "box_encode",
    "box_iou",
    "box_nms",
    "multibox_detection",
    "multibox_prior",
    "multibox_target",
    "proposal",
]

# ruff: noqa: RUF005 (TorchScript has no [*a, b])


def _overlap(a: Tensor, b: Tensor, centre: bool) -> Tensor:
    """Length of what two intervals share; (…, 1 or n), low and high or middle and width."""
    if centre:
        low = torch.maximum(a[..., 0] - a[..., 2] / 2, b[..., 0] - b[..., 2] / 2)
        high = torch.minimum(a[..., 0] + a[..., 2] / 2, b[..., 0] + b[..., 2] / 2)
    else:
        low = torch.maximum(a[..., 0], b[..., 0])
        high = torch.minimum(a[..., 2], b[..., 2])
    return (high - low).clamp(min=0)


def _area(box: Tensor, centre: bool) -> Tensor:
    """Area of boxes, 0 for one turned inside out."""
    width = box[..., 2] if centre else box[..., 2] - box[..., 0]
    height = box[..., 3] if centre else box[..., 3] - box[..., 1]
    return torch.where((width < 0) | (height < 0), torch.zeros_like(width), width * height)


def _shared(a: Tensor, b: Tensor, centre: bool) -> Tensor:
    """Area that boxes share, broadcast over all axes but the last."""
    return _overlap(a, b, centre) * _overlap(a[..., 1:], b[..., 1:], centre)


def box_iou(lhs: Tensor, rhs: Tensor, centre: bool = False) -> Tensor:
    """Intersection over union of every box of lhs (…, 4) with every box of rhs (…, 4)."""
    a, b = lhs.reshape([-1, 1, 4]), rhs.reshape([1, -1, 4])
    shared = _shared(a, b, centre)
    iou = shared / (_area(a, centre) + _area(b, centre) - shared)
    iou = torch.where(shared <= 0, torch.zeros_like(iou), iou)
    return iou.reshape(lhs.shape[:-1] + rhs.shape[:-1])


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """x (B, N, W) at places (B, K)."""
    return x.gather(1, places.unsqueeze(-1).expand(places.size(0), places.size(1), x.size(2)))


def _survivors(
    boxes: Tensor, group: Tensor, alive: Tensor, threshold: float, centre: bool, inclusive: bool
) -> Tensor:
    """Which of the boxes (B, K, 4), best first, no better survivor of their group overlaps."""
    count = boxes.size(1)
    block = max(1, min(count, 262144 // max(count, 1)))  # rows of pairs held at a time
    for start in range(0, count, block):
        rest = boxes[:, start:].unsqueeze(1)  # (B, 1, K', 4)
        rows = boxes[:, start : start + block].unsqueeze(2)  # (B, R, 1, 4)
        shared = _shared(rows, rest, centre)
        if inclusive:  # MultiBoxDetection: areas as they come, and IoU 0 for an empty union
            wide = (rows[..., 2] - rows[..., 0]) * (rows[..., 3] - rows[..., 1])
            both = (rest[..., 2] - rest[..., 0]) * (rest[..., 3] - rest[..., 1])
            union = wide + both - shared
            iou = torch.where(union <= 0, torch.zeros_like(union), shared / union)
            hit = iou >= threshold
        else:
            hit = shared / (_area(rows, centre) + _area(rest, centre) - shared) > threshold
        hit = hit & (group[:, start : start + block].unsqueeze(2) == group[:, start:].unsqueeze(1))
        hit = ~torch.triu(hit, 1)  # only better boxes suppress
        left = alive[:, start:]
        for row in range(hit.size(1)):
            left = left & (hit[:, row] | ~left[:, row : row + 1])
        alive = torch.cat([alive[:, :start], left], 1)
    return alive


def _to_centre(box: Tensor) -> Tensor:
    """Corners to centre and size; boxes with a negative first number stay."""
    left, top, right, bottom = box.unbind(-1)
    made = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], -1)
    return torch.where(box[..., :1] < 0, box, made)


def _to_corner(box: Tensor) -> Tensor:
    """Centre and size to corners; boxes with a negative first number stay."""
    x, y, width, height = box.unbind(-1)
    half, tall = width / 2, height / 2
    made = torch.stack([x - half, y - tall, x + half, y + tall], -1)
    return torch.where(box[..., :1] < 0, box, made)


def box_nms(
    data: Tensor,
    overlap: float = 0.5,
    valid: float = 0.0,
    topk: int = -1,
    coordinates: int = 2,
    score: int = 1,
    class_index: int = -1,
    background: float = -1.0,
    force: bool = False,
    centre_in: bool = False,
    centre_out: bool = False,
) -> Tensor:
    """Non-maximum suppression of (…, N, W): survivors first, by falling score, then rows of −1.

    Only boxes with a score above `valid` and of another class than `background` take part, and of
    these the best `topk` (below 0: all). Boxes of different classes do not suppress each other
    unless `force`.
    """
    x = data.reshape([-1, data.size(-2), data.size(-1)])
    number = x.size(1)
    count = number if topk < 0 else min(number, topk)
    if count < 1:
        return data
    scores = x[..., score]
    takes_part = scores > valid
    if class_index >= 0:
        takes_part = takes_part & (x[..., class_index] != background)
    ranked = scores.masked_fill(~takes_part, -float("inf"))
    order = torch.sort(ranked, stable=True, dim=1, descending=True)[1][:, :count]
    rows = _rows(x, order)
    alive = takes_part.gather(1, order)
    group = torch.zeros_like(rows[..., 0], dtype=torch.int64)
    if class_index >= 0 and not force:
        group = rows[..., class_index].to(torch.int64)
    boxes = rows[..., coordinates : coordinates + 4]
    alive = _survivors(boxes, group, alive, overlap, centre_in, False)
    first = torch.sort((~alive).to(torch.int64), stable=True, dim=1)[1]
    rows = _rows(rows, first)
    rows = torch.where(alive.gather(1, first).unsqueeze(-1), rows, torch.full_like(rows, -1.0))
    if count < number:
        rest = torch.full_like(x[:, count:], -1.0)
        rows = torch.cat([rows, rest], 1)
    if centre_in != centre_out:
        box = rows[..., coordinates : coordinates + 4]
        box = _to_centre(box) if centre_out else _to_corner(box)
        rows = torch.cat([rows[..., :coordinates], box, rows[..., coordinates + 4 :]], -1)
    return rows.reshape(data.shape)


def box_decode(
    data: Tensor, anchors: Tensor, std: list[float], clip: float, centre: bool
) -> Tensor:
    """Corners from offsets (B, N, 4) beside anchors (1, N, 4); sizes clipped before exp."""
    x, y, width, height = anchors.unbind(-1)
    if not centre:
        width, height = width - x, height - y
        x, y = x + width * 0.5, y + height * 0.5
    dx, dy, dw, dh = data.unbind(-1)
    ox, oy = dx * std[0] * width + x, dy * std[1] * height + y
    dw, dh = dw * std[2], dh * std[3]
    if clip > 0:
        dw, dh = dw.clamp(max=clip), dh.clamp(max=clip)
    ow, oh = torch.exp(dw) * width * 0.5, torch.exp(dh) * height * 0.5
    return torch.stack([ox - ow, oy - oh, ox + ow, oy + oh], -1)


def box_encode(
    samples: Tensor, matches: Tensor, anchors: Tensor, refs: Tensor, means: Tensor, stds: Tensor
) -> tuple[Tensor, Tensor]:
    """Offsets (B, N, 4) of the references (B, M, 4) matched, and where samples (B, N) are 1."""
    ref = _rows(refs, matches.to(torch.int64).clamp(0, refs.size(1) - 1))
    size, wanted = anchors[..., 2:] - anchors[..., :2], ref[..., 2:] - ref[..., :2]
    middle, goal = anchors[..., :2] + size * 0.5, ref[..., :2] + wanted * 0.5
    offsets = torch.cat([(goal - middle) / size, torch.log(wanted / size)], -1)
    valid = (samples > 0.5).unsqueeze(-1).expand(anchors.shape)
    targets = (offsets - means) / stds
    return torch.where(valid, targets, torch.zeros_like(targets)), valid.to(anchors.dtype)


def bipartite_matching(
    scores: Tensor, ascending: bool, threshold: float, topk: int
) -> tuple[Tensor, Tensor]:
    """Pairs of rows and columns of (…, R, C), best first, as MXNet picks them: (…, R), (…, C).

    Each row holds its column's number and each column its row's, −1 without one. `topk` lets one
    pair more through than it says, as MXNet does.
    """
    rows, columns = scores.size(-2), scores.size(-1)
    flat = scores.reshape([-1, rows * columns])
    values, order = torch.sort(flat, stable=True, dim=1, descending=not ascending)
    row = torch.full([flat.size(0), rows], -1.0, dtype=scores.dtype, device=scores.device)
    column = torch.full([flat.size(0), columns], -1.0, dtype=scores.dtype, device=scores.device)
    good = values < threshold if ascending else values > threshold
    most = min(rows, columns)
    if topk > 0:
        most = min(most, topk + 1)
    r = torch.div(order, columns, rounding_mode="floor")
    c = order - r * columns
    for _ in range(most):  # the first good pair whose row and column are both free
        free = good & (row.gather(1, r) == -1) & (column.gather(1, c) == -1)
        found, place = free.to(torch.int64).max(1, keepdim=True)
        rr, cc = r.gather(1, place), c.gather(1, place)
        hit = found > 0
        row = row.scatter(1, rr, torch.where(hit, cc.to(row.dtype), row.gather(1, rr)))
        column = column.scatter(1, cc, torch.where(hit, rr.to(row.dtype), column.gather(1, cc)))
    return row.reshape(scores.shape[:-1]), column.reshape(list(scores.shape[:-2]) + [columns])


def multibox_prior(
    x: Tensor,
    sizes: list[float],
    ratios: list[float],
    clip: bool,
    steps: list[float],
    offsets: list[float],
) -> Tensor:
    """Anchors (1, H·W·(sizes + ratios − 1), 4) of a feature map (N, C, H, W), in parts of 1."""
    height, width = x.size(2), x.size(3)
    kind = torch.float32  # as MXNet reckons, whatever x is
    size = torch.tensor(sizes + [sizes[0]] * (len(ratios) - 1), dtype=kind, device=x.device)
    ratio = torch.tensor([ratios[0]] * len(sizes) + ratios[1:], dtype=kind, device=x.device)
    ratio = torch.sqrt(ratio)
    half = size * height / width * ratio / 2
    tall = size / ratio / 2
    step = torch.tensor(steps, dtype=kind, device=x.device)
    if steps[0] <= 0 or steps[1] <= 0:
        step = torch.ones_like(step) / torch.tensor([height, width], dtype=kind, device=x.device)
    y = (torch.arange(height, device=x.device).to(kind) + offsets[0]) * step[0]
    z = (torch.arange(width, device=x.device).to(kind) + offsets[1]) * step[1]
    shape = [height, width, size.size(0)]
    y, z = y.reshape([-1, 1, 1]), z.reshape([1, -1, 1])
    corners = [z - half, y - tall, z + half, y + tall]
    out = torch.stack([corner.expand(shape) for corner in corners], -1).reshape([1, -1, 4])
    out = out.to(x.dtype)
    return out.clamp(0.0, 1.0) if clip else out


def multibox_detection(
    probability: Tensor,
    location: Tensor,
    anchors: Tensor,
    threshold: float,
    clip: bool,
    variances: list[float],
    overlap: float,
    force: bool,
    topk: int,
) -> Tensor:
    """(N, A, 6) of class, score, box from (N, classes, A), (N, 4·A), (1, A, 4).

    Class −1 is no detection, or a suppressed one whose other numbers stay where they are; without
    suppression (`overlap` not in 0 to 1) the detections keep the order of their anchors.
    """
    n, count = probability.size(0), probability.size(2)
    score = torch.full([n, count], -1.0, dtype=probability.dtype, device=probability.device)
    kind = torch.zeros_like(score)
    for number in range(1, probability.size(1)):
        better = probability[:, number] > score
        score = torch.where(better, probability[:, number], score)
        kind = torch.where(better, torch.full_like(kind, float(number)), kind)
    kind = torch.where(score < threshold, torch.zeros_like(kind), kind) - 1
    low, high = anchors[..., :2], anchors[..., 2:]
    size, middle = high - low, (low + high) / 2
    offset = location.reshape([n, count, 4])
    moved = offset[..., :2] * torch.tensor(variances[:2], dtype=score.dtype, device=score.device)
    scaled = offset[..., 2:] * torch.tensor(variances[2:], dtype=score.dtype, device=score.device)
    goal, half = moved * size + middle, torch.exp(scaled) * size / 2
    box = torch.cat([goal - half, goal + half], -1)
    if clip:
        box = box.clamp(0.0, 1.0)
    rows = torch.cat([kind.unsqueeze(-1), score.unsqueeze(-1), box], -1)
    found = kind >= 0
    order = torch.sort((~found).to(torch.int64), stable=True, dim=1)[1]  # detections first
    rows, found = _rows(rows, order), found.gather(1, order)
    rows = torch.where(found.unsqueeze(-1), rows, torch.full_like(rows, -1.0))
    if overlap <= 0 or overlap > 1:
        return rows
    ranked = rows[..., 1].masked_fill(~found, -float("inf"))
    keep = count if topk <= 0 else min(count, topk)
    best = torch.sort(ranked, stable=True, dim=1, descending=True)[1][:, :keep]
    chosen, alive = _rows(rows, best), found.gather(1, best)
    group = torch.zeros_like(chosen[..., 0]) if force else chosen[..., 0]
    alive = _survivors(chosen[..., 2:], group, alive, overlap, False, True)
    rows = torch.cat([chosen, rows[:, keep:]], 1)
    alive = torch.cat([alive, torch.zeros_like(found[:, keep:])], 1)
    first = torch.where(alive, rows[..., 0], torch.full_like(rows[..., 0], -1.0))
    return torch.cat([first.unsqueeze(-1), rows[..., 1:]], -1)


def multibox_target(
    anchors: Tensor,
    labels: Tensor,
    predictions: Tensor,
    overlap: float,
    ignore: float,
    ratio: float,
    threshold: float,
    variances: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of training for anchors (1, A, 4), labels (N, L, 5 or more), scores (N, classes, A).

    Returns offsets (N, 4·A), where they count (N, 4·A), and classes (N, A), 0 the background.
    Each label takes its best anchor, then anchors above `overlap` take their best label; with
    `ratio` the hardest others become background and the rest `ignore`, without it all others.
    """
    n, count = labels.size(0), anchors.size(1)
    # labels end at the first whose class is -1
    real = torch.cumsum((labels[..., 0] == -1).to(torch.int64), 1) == 0  # (N, L)
    some = real.any(1, keepdim=True)  # an image without labels keeps ignored anchors
    box = labels[..., 1:5]
    a, b = anchors.unsqueeze(2), box.unsqueeze(1)  # (1, A, 1, 4), (N, 1, L, 4)
    shared = _shared(a, b, False)
    union = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    union = union + (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) - shared
    iou = torch.where(union == 0, torch.zeros_like(shared), shared / union)  # (N, A, L)
    iou = iou.masked_fill(~real.unsqueeze(1), -1.0)
    match = torch.full([n, count], -1, dtype=torch.int64, device=labels.device)
    free = iou
    for _ in range(labels.size(1)):  # the best pair of a free anchor and a free label
        value, place = free.reshape([n, -1]).max(1, keepdim=True)
        anchor = torch.div(place, labels.size(1), rounding_mode="floor")
        label = place - anchor * labels.size(1)
        hit = value > 9.999999974752427e-07
        match = match.scatter(1, anchor, torch.where(hit, label, match.gather(1, anchor)))
        taken = torch.zeros_like(match, dtype=torch.bool).scatter(1, anchor, hit).unsqueeze(2)
        used = torch.zeros_like(real).scatter(1, label, hit).unsqueeze(1)
        free = free.masked_fill(taken | used, -2.0)
    best, nearest = iou.max(2)
    matched = match >= 0
    if overlap > 0:
        near = ~matched & (best > overlap)
        match = torch.where(near, nearest, match)
        matched = matched | near
    negative = ~matched
    if ratio > 0:
        wanted = (matched.sum(1, keepdim=True).to(torch.float32) * ratio).to(torch.int64)
        wanted = torch.minimum(wanted, negative.sum(1, keepdim=True))
        hard = torch.softmax(predictions, 1)[:, 0]
        ranked = hard.masked_fill(matched | ~(best < threshold), float("inf"))
        order = torch.sort(ranked, stable=True, dim=1)[1]
        rank = torch.argsort(order, dim=1)
        negative = negative & (best < threshold) & (rank < wanted)
    match, matched, negative = match.clamp(min=0), matched & some, negative & some
    kind = labels[..., 0].gather(1, match) + 1
    empty = torch.full_like(kind, ignore)
    kind = torch.where(matched, kind, torch.where(negative, torch.zeros_like(kind), empty))
    goal = _rows(box, match).to(torch.float32)
    own = anchors.to(torch.float32)
    size, length = own[..., 2:] - own[..., :2], goal[..., 2:] - goal[..., :2]
    moved = ((goal[..., :2] + goal[..., 2:]) * 0.5 - (own[..., :2] + own[..., 2:]) * 0.5) / size
    offsets = torch.cat([moved, torch.log(length / size)], -1)
    offsets = offsets / torch.tensor(variances, dtype=torch.float32, device=labels.device)
    mask = matched.unsqueeze(-1).expand(n, count, 4)
    offsets = torch.where(mask, offsets, torch.zeros_like(offsets)).to(labels.dtype)
    return offsets.reshape([n, -1]), mask.to(labels.dtype).reshape([n, -1]), kind


def _anchors(scales: list[float], ratios: list[float], stride: int) -> Tensor:
    """Corners (ratios·scales, 4) of the boxes around the first cell, whole sizes as MXNet's are."""
    side = float(stride)
    ratio = torch.tensor(ratios, dtype=torch.float32).reshape([-1, 1])
    scale = torch.tensor(scales, dtype=torch.float32).reshape([1, -1])
    root = torch.sqrt(torch.floor(torch.full_like(ratio, side * side) / ratio))
    width = torch.floor(root + 0.5) * scale
    height = torch.floor(width / scale * ratio + 0.5) * scale
    middle = 0.5 * (side - 1.0)
    half, tall = 0.5 * (width - 1.0), 0.5 * (height - 1.0)
    corners = [middle - half, middle - tall, middle + half, middle + tall]
    return torch.stack(corners, -1).reshape([-1, 4])


def proposal(
    scores: Tensor,
    offsets: Tensor,
    info: Tensor,
    before: int,
    after: int,
    overlap: float,
    smallest: int,
    scales: list[float],
    ratios: list[float],
    stride: int,
    corners: bool,
    several: bool,
) -> tuple[Tensor, Tensor]:
    """Regions (N·after, 5), the image's number first, and their scores (N·after, 1).

    From scores (N, 2·A, H, W), of which the second half is of the foreground, and offsets
    (N, 4·A, H, W) beside anchors, or of `corners`; info (N, 3) is height, width and scale. Where
    fewer regions survive the suppression, they come again from the first one on.
    """
    n, count, high, wide = scores.size(0), scores.size(1) // 2, scores.size(2), scores.size(3)
    if n != 1 and not several:
        raise ValueError("Proposal: expected one image")
    if count != len(scales) * len(ratios):
        raise ValueError("Proposal: expected two scores for each scale and ratio")
    anchors = _anchors(scales, ratios, stride).to(scores)
    row = torch.arange(high, device=scores.device).reshape([-1, 1]).expand(high, wide)
    column = torch.arange(wide, device=scores.device).reshape([1, -1]).expand(high, wide)
    moved = (torch.stack([column, row, column, row], -1) * stride).to(scores.dtype)
    box = (moved.unsqueeze(2) + anchors).reshape([1, -1, 4])  # by row, column and anchor
    delta = offsets.reshape([n, count, 4, high, wide]).permute(0, 3, 4, 1, 2).reshape([n, -1, 4])
    if corners:
        made = box + delta
    else:
        size = box[..., 2:] - box[..., :2] + 1.0
        middle = delta[..., :2] * size + (box[..., :2] + 0.5 * (size - 1.0))
        half = 0.5 * (torch.exp(delta[..., 2:]) * size - 1.0)
        made = torch.cat([middle - half, middle + half], -1)
    border = info[:, [1, 0, 1, 0]].unsqueeze(1) - 1.0
    made = torch.minimum(made, border).clamp(min=0.0)
    cells = torch.floor(info[:, :2] / stride).reshape([n, 2, 1, 1])
    padded = (row >= cells[:, 0]) | (column >= cells[:, 1])  # (N, H, W)
    least = (smallest * info[:, 2]).reshape([n, 1, 1])
    small = (made[..., 2:] - made[..., :2] + 1.0 < least).any(-1)
    grown = torch.cat([made[..., :2] - least / 2, made[..., 2:] + least / 2], -1)
    made = torch.where(small.unsqueeze(-1), grown, made)
    score = scores[:, count:].permute(0, 2, 3, 1)
    score = score.masked_fill(padded.unsqueeze(-1), -1.0).reshape([n, -1]).masked_fill(small, -1.0)
    order = torch.sort(score, stable=True, dim=1, descending=True)[1]
    if before > 0:
        order = order[:, :before]
    made, score = _rows(made, order), score.gather(1, order)
    whole = torch.cat([made[..., :2], made[..., 2:] + 1.0], -1)  # the last pixel counts
    alive = torch.ones_like(order, dtype=torch.bool)
    alive = _survivors(whole, torch.zeros_like(order), alive, overlap, False, False)
    first = torch.sort((~alive).to(torch.int64), stable=True, dim=1)[1]
    found = alive.sum(1, keepdim=True).clamp(max=after)
    chosen = first.gather(1, torch.remainder(torch.arange(after, device=scores.device), found))
    image = torch.arange(n, device=scores.device).to(scores.dtype).reshape([-1, 1, 1])
    regions = torch.cat([image.expand(n, after, 1), _rows(made, chosen)], -1)
    return regions.reshape([-1, 5]), score.gather(1, chosen).reshape([-1, 1])
