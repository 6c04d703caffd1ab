from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aozora.data.buckets import Shape, bucket_shapes, fit_to_bucket, time_ids

AREA, STEP = 1024 * 1024, 64
SHAPES = bucket_shapes(AREA, 512, 2048, STEP)
WIDE_SHAPES = bucket_shapes(AREA, 256, 2048, STEP)
SIDES = st.integers(1, 6000)


def fit(height, width, *, upscale=False, shapes=SHAPES, min_side=512):
    return fit_to_bucket(
        height, width, shapes, area=AREA, step=STEP, upscale=upscale, min_side=min_side
    )


def test_the_ladder_has_the_known_number_of_buckets():
    assert len(WIDE_SHAPES) == 41
    assert len(SHAPES) == 33


def test_every_bucket_keeps_area_sides_and_step_and_comes_in_both_orientations():
    for height, width in WIDE_SHAPES:
        assert height * width <= AREA
        assert height % STEP == width % STEP == 0
        assert 256 <= min(height, width) <= max(height, width) <= 2048
        assert (width, height) in WIDE_SHAPES
    assert Shape(1024, 1024) in SHAPES


def test_sides_that_are_no_multiple_of_the_step_are_brought_inside():
    shapes = bucket_shapes(AREA, 500, 2100, 64)
    assert min(min(s) for s in shapes) == 512
    assert max(max(s) for s in shapes) == 2048


def test_golden_1600_x_900():
    found = fit(900, 1600)
    assert (found.height, found.width) == (768, 1344)
    assert (found.resized_height, found.resized_width) == (768, 1365)
    assert (found.crop_top, found.crop_left) == (0, 10)
    assert time_ids(900, 1600, found) == (900, 1600, 0, 10, 768, 1344)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (700, 1500), (703, 1535), (768, 1024)])
def test_pictures_below_the_area_lose_little(height, width):
    assert fit(height, width).crop_share < 0.05


def test_a_picture_of_exactly_a_bucket_is_left_as_it_is():
    found = fit(896, 1152)
    assert (found.height, found.width) == (found.resized_height, found.resized_width) == (896, 1152)
    assert found.crop_share == 0


def test_a_small_picture_is_flagged_and_not_enlarged():
    found = fit(300, 300)
    assert (found.height, found.width) == (256, 256)
    assert (found.resized_height, found.resized_width) == (256, 256)
    assert found.is_small


def test_a_small_picture_is_enlarged_on_request():
    found = fit(300, 300, upscale=True)
    assert (found.height, found.width) == (1024, 1024)
    assert not found.is_small


def test_a_picture_below_one_step_has_no_bucket_unless_enlarged():
    assert fit(10, 20000) is None
    assert fit(63, 63) is None
    assert fit(63, 63, upscale=True) is not None


def test_of_two_buckets_that_cut_alike_the_larger_is_taken():
    shapes = (Shape(512, 512), Shape(1024, 1024))
    assert fit(2000, 2000, shapes=shapes).height == 1024


@given(SIDES, SIDES, st.booleans(), st.sampled_from([SHAPES, WIDE_SHAPES]))
def test_geometry_is_consistent_for_any_size(height, width, upscale, shapes):
    found = fit(height, width, upscale=upscale, shapes=shapes)
    if found is None:
        assert not upscale
        assert min(height, width) < STEP or max(height, width) / min(height, width) > 2
        return
    assert found.height % STEP == found.width % STEP == 0
    assert found.height * found.width <= AREA
    assert max(found.height, found.width) <= 2048
    excess = (found.resized_height - found.height, found.resized_width - found.width)
    assert min(excess) == 0
    assert (found.crop_top, found.crop_left) == (excess[0] // 2, excess[1] // 2)
    # The picture keeps its proportions to half a pixel.
    assert abs(found.resized_height * width - found.resized_width * height) <= max(height, width)
    kept = found.height * found.width / (found.resized_height * found.resized_width)
    assert abs((1 - kept) - found.crop_share) <= 1 / min(found.height, found.width)
    assert found.is_small == (min(found.height, found.width) < 512)


@given(SIDES, SIDES)
def test_without_upscale_nothing_is_enlarged(height, width):
    found = fit(height, width)
    if found is not None:
        assert found.resized_height <= height
        assert found.resized_width <= width


@given(st.integers(512, 6000), st.integers(512, 6000))
def test_no_bucket_that_fits_cuts_less(height, width):
    found = fit(height, width)
    for shape in SHAPES:
        if shape.height <= height and shape.width <= width:
            across, down = height * shape.width, width * shape.height
            assert found.crop_share <= 1 - min(across, down) / max(across, down)


@given(st.integers(256, 6000), st.floats(0.5, 2.0))
def test_usual_proportions_lose_at_most_one_step_of_a_side(height, ratio):
    width = round(height * ratio)
    found = fit(height, width)
    if found is not None:
        assert found.crop_share < STEP / min(found.height, found.width)


@given(SIDES, SIDES)
def test_turning_the_picture_turns_the_bucket(height, width):
    upright, turned = fit(height, width, upscale=True), fit(width, height, upscale=True)
    assert upright.crop_share == turned.crop_share
