"""The dataset of a run: each picture with its bucket, and what is to be said about the whole."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from aozora.data.buckets import BucketFit, Shape, bucket_shapes, fit_to_bucket
from aozora.data.captions import show_text
from aozora.data.scan import ImageRecord, SkippedItem
from aozora.errors import DatasetError

_CROP_WORTH_SAYING = 0.25
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class DatasetItem:
    """One picture and how it is brought to its bucket."""

    record: ImageRecord
    fit: BucketFit


@dataclass(frozen=True)
class Dataset:
    """All pictures of a run.

    Attributes:
        items: In the order of the scan.
        skipped: Pictures too small for any bucket.
        warnings: Texts for the user.
    """

    items: tuple[DatasetItem, ...]
    skipped: tuple[SkippedItem, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class BucketRow:
    """One line of the bucket table.

    Attributes:
        height: Height of the bucket.
        width: Width of the bucket.
        num_images: Pictures in it.
        num_samples: Pictures in it, each counted as often as it is repeated.
        mean_crop_share: Mean share of their area that is cut away.
        max_crop_share: Largest share cut away.
    """

    height: int
    width: int
    num_images: int
    num_samples: int
    mean_crop_share: float
    max_crop_share: float


def build_dataset(
    records: Sequence[ImageRecord],
    *,
    area: int,
    min_side: int,
    max_side: int,
    step: int,
    upscale: bool,
) -> Dataset:
    """Give every picture its bucket.

    Args:
        records: Pictures as the scan found them.
        area: Largest area of a bucket in pixels.
        min_side: Shortest side of a bucket.
        max_side: Longest side of a bucket.
        step: Sides of buckets are multiples of it.
        upscale: Whether small pictures may be enlarged.

    Raises:
        DatasetError: if the limits leave no bucket, or no picture is large enough.
    """
    shapes = bucket_shapes(area, min_side, max_side, step)
    if not shapes:
        raise DatasetError(
            f"there is no bucket of at most {area} pixels with sides from {min_side} to {max_side}",
            "raise buckets.resolution or lower buckets.min_side",
        )
    items = []
    skipped = []
    for record in records:
        fit = fit_to_bucket(
            record.height,
            record.width,
            shapes,
            area=area,
            step=step,
            upscale=upscale,
            min_side=min_side,
        )
        if fit is None:
            size = f"{record.width} x {record.height}"
            reason = f"it is {size} pixels, less than one step of {step}, and enlarging is off"
            skipped.append(SkippedItem(record.relative, reason, show_text(str(record.path))))
        else:
            items.append(DatasetItem(record, fit))
    if not items:
        raise DatasetError(
            f"none of the {len(records)} pictures is large enough for a bucket",
            "use larger pictures or allow enlarging with buckets.upscale",
        )
    return Dataset(tuple(items), tuple(skipped), tuple(_warnings(items, min_side)))


def _warnings(items: Sequence[DatasetItem], min_side: int) -> list[str]:
    texts = []
    cropped = [item for item in items if item.fit.crop_share > _CROP_WORTH_SAYING]
    small = [item for item in items if item.fit.is_small]
    if cropped:
        cropped.sort(key=lambda item: (-item.fit.crop_share, item.record.relative))
        names = ", ".join(
            f"{item.record.relative} ({item.fit.crop_share:.0%})" for item in cropped[:_NAMES_SHOWN]
        )
        limit = f"{_CROP_WORTH_SAYING:.0%}"
        texts.append(f"{len(cropped)} pictures lose more than {limit} of their area: {names}")
    if small:
        names = ", ".join(item.record.relative for item in small[:_NAMES_SHOWN])
        texts.append(f"{len(small)} pictures are trained narrower than {min_side} pixels: {names}")
    return texts


def bucket_table(items: Sequence[DatasetItem]) -> tuple[BucketRow, ...]:
    """Return one row for each bucket in use, the fullest first."""
    buckets: dict[Shape, list[DatasetItem]] = defaultdict(list)
    for item in items:
        buckets[Shape(item.fit.height, item.fit.width)].append(item)
    rows = [_row(shape, members) for shape, members in buckets.items()]
    return tuple(sorted(rows, key=lambda row: (-row.num_samples, row.height, row.width)))


def _row(shape: Shape, members: Sequence[DatasetItem]) -> BucketRow:
    shares = [item.fit.crop_share for item in members]
    return BucketRow(
        height=shape.height,
        width=shape.width,
        num_images=len(members),
        num_samples=sum(item.record.repeats for item in members),
        mean_crop_share=sum(shares) / len(shares),
        max_crop_share=max(shares),
    )


def dataset_fingerprint(items: Sequence[DatasetItem]) -> str:
    """Return a hash of all that decides what is trained: names, contents, captions, fits, repeats.

    The folders' places are not part of it, so a dataset may be moved between runs.
    """
    digest = hashlib.blake2b(digest_size=20)
    for item in items:
        record = item.record
        facts = (
            record.relative,
            record.content_hash,
            record.caption,
            record.repeats,
            astuple(item.fit),
        )
        digest.update(json.dumps(facts).encode("ascii") + b"\n")
    return digest.hexdigest()
