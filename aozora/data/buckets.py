"""Aspect buckets: at which size each picture is trained, and how much of it is cut away.

Pure arithmetic on sizes, height before width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Shape(NamedTuple):
    """Height and width of a bucket in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class BucketFit:
    """How one picture is brought to its bucket.

    Attributes:
        height: Height of the bucket.
        width: Width of the bucket.
        resized_height: Height of the whole picture after resizing.
        resized_width: Width of the whole picture after resizing.
        crop_top: Rows of the resized picture cut away above the bucket.
        crop_left: Columns of the resized picture cut away left of the bucket.
        crop_share: Share of the picture's area that is cut away, in [0, 1).
        is_small: The bucket is narrower than the smallest side asked for, since the picture is.
    """

    height: int
    width: int
    resized_height: int
    resized_width: int
    crop_top: int
    crop_left: int
    crop_share: float
    is_small: bool = False


def bucket_shapes(area: int, min_side: int, max_side: int, step: int) -> tuple[Shape, ...]:
    """Return all buckets, sorted by height.

    For each width the largest height is taken that keeps the area within ``area``; each shape comes
    in both orientations, and the square is always among them.

    Args:
        area: Largest area in pixels.
        min_side: Shortest side; rounded up to ``step``.
        max_side: Longest side; rounded down to ``step``.
        step: All sides are multiples of it.
    """
    first, last = -(-min_side // step) * step, max_side // step * step
    shapes = set()
    square = math.isqrt(area) // step * step
    if first <= square <= last:
        shapes.add(Shape(square, square))
    for width in range(first, last + 1, step):
        height = min(last, area // width // step * step)
        if height >= first:
            shapes |= {Shape(height, width), Shape(width, height)}
    return tuple(sorted(shapes))


def crop_share(height: int, width: int, shape: Shape) -> float:
    """Return the share of a picture's area lost when it is scaled to cover ``shape``."""
    across, down = height * shape.width, width * shape.height
    return 1.0 - min(across, down) / max(across, down)


def fit_to_bucket(
    height: int,
    width: int,
    shapes: Sequence[Shape],
    *,
    area: int,
    step: int,
    upscale: bool,
    min_side: int,
) -> BucketFit | None:
    """Return how a picture of this size is trained, or None if it is smaller than one step.

    The bucket that cuts away least is taken. If that one would enlarge the picture and ``upscale``
    is off, the choice is among the buckets that fit inside the picture and two made to measure.

    Args:
        height: Height of the picture as it stands upright.
        width: Width of it.
        shapes: What `bucket_shapes` returned; not empty.
        area: Largest area of a bucket in pixels.
        step: Sides of buckets are multiples of it.
        upscale: Whether small pictures may be enlarged.
        min_side: Buckets with a shorter side are flagged as small.
    """
    best = _least_crop(height, width, shapes)
    if not upscale and (best.height > height or best.width > width):
        longest = max(max(shape) for shape in shapes)
        inside = [shape for shape in shapes if shape.height <= height and shape.width <= width]
        made = _made_to_measure(height, width, area=area, step=step, longest=longest)
        if not inside and not made:
            return None
        best = _least_crop(height, width, [*inside, *made])
    return _cover(height, width, best, min_side)


def time_ids(height: int, width: int, fit: BucketFit) -> tuple[int, int, int, int, int, int]:
    """Return SDXL's size conditioning: original size, crop offset, target size, height first."""
    return (height, width, fit.crop_top, fit.crop_left, fit.height, fit.width)


def _least_crop(height: int, width: int, shapes: Iterable[Shape]) -> Shape:
    def rank(shape: Shape) -> tuple[float, int, Shape]:
        return (crop_share(height, width, shape), -shape.height * shape.width, shape)

    return min(shapes, key=rank)


def _made_to_measure(height: int, width: int, *, area: int, step: int, longest: int) -> list[Shape]:
    """Return shapes for a small picture: one side floored, the other in proportion to it."""
    scale = min(1.0, math.sqrt(area / (height * width)))
    # The small addition keeps a side that is a multiple of the step from falling to the one below.
    tall = min(int(height * scale + 1e-6) // step * step, longest)
    wide = min(int(width * scale + 1e-6) // step * step, longest)
    candidates = [
        Shape(tall, min(tall * width // height // step * step, longest)),
        Shape(min(wide * height // width // step * step, longest), wide),
    ]
    return [s for s in candidates if min(s) >= step and s.height <= height and s.width <= width]


def _cover(height: int, width: int, shape: Shape, min_side: int) -> BucketFit:
    if shape.height * width >= shape.width * height:
        resized_height = shape.height
        resized_width = max(shape.width, _rounded(width * shape.height, height))
    else:
        resized_width = shape.width
        resized_height = max(shape.height, _rounded(height * shape.width, width))
    return BucketFit(
        height=shape.height,
        width=shape.width,
        resized_height=resized_height,
        resized_width=resized_width,
        crop_top=(resized_height - shape.height) // 2,
        crop_left=(resized_width - shape.width) // 2,
        crop_share=crop_share(height, width, shape),
        is_small=min(shape) < min_side,
    )


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
