from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aozora.data.dataset import bucket_table, build_dataset, dataset_fingerprint
from aozora.data.scan import ImageRecord
from aozora.errors import DatasetError

LIMITS = {"area": 512 * 512, "min_side": 256, "max_side": 1024, "step": 64, "upscale": False}


def record(name, height, width, **options):
    return ImageRecord(
        **{
            "path": Path("/pictures") / name,
            "relative": name,
            "height": height,
            "width": width,
            "caption": name,
            "caption_source": "name",
            "repeats": 1,
            "content_hash": name,
            **options,
        }
    )


def test_pictures_below_one_step_are_skipped_and_named():
    dataset = build_dataset([record("a", 600, 600), record("tiny", 30, 600)], **LIMITS)
    assert [item.record.relative for item in dataset.items] == ["a"]
    assert dataset.skipped[0].path == "tiny"
    assert "600 x 30" in dataset.skipped[0].reason


def test_heavy_crops_and_small_pictures_are_said():
    dataset = build_dataset([record("long", 256, 4000), record("small", 128, 128)], **LIMITS)
    assert any("1 pictures lose more" in w and "long (7" in w for w in dataset.warnings)
    assert any("1 pictures are trained narrower than 256" in w for w in dataset.warnings)


def test_limits_without_a_bucket_and_sets_without_a_usable_picture_are_errors():
    with pytest.raises(DatasetError, match="no bucket") as caught:
        build_dataset([record("a", 600, 600)], **{**LIMITS, "min_side": 640})
    assert "buckets." in caught.value.hint
    with pytest.raises(DatasetError, match="none of the 1"):
        build_dataset([record("a", 10, 10)], **LIMITS)


def test_the_bucket_table_counts_images_samples_and_crops():
    records = [record("a", 512, 512), record("b", 512, 540, repeats=3), record("c", 256, 1024)]
    rows = bucket_table(build_dataset(records, **LIMITS).items)
    assert [(r.height, r.width, r.num_images, r.num_samples) for r in rows] == [
        (512, 512, 2, 4),
        (256, 1024, 1, 1),
    ]
    assert rows[0].max_crop_share == pytest.approx(28 / 540)
    assert rows[0].mean_crop_share == pytest.approx(14 / 540)


def test_the_fingerprint_tells_what_is_trained_and_not_where_it_lies():
    def fingerprint(*records):
        return dataset_fingerprint(build_dataset(records, **LIMITS).items)

    a, b = record("a", 512, 600), record("b", 512, 512)
    base = fingerprint(a, b)
    assert fingerprint(replace(a, path=Path("/moved/a")), b) == base
    changed = [
        replace(a, relative="c"),
        replace(a, caption="other"),
        replace(a, content_hash="other"),
        replace(a, repeats=2),
        replace(a, width=900),
    ]
    assert (
        len({base, fingerprint(b, a), fingerprint(a), *(fingerprint(x, b) for x in changed)}) == 8
    )
