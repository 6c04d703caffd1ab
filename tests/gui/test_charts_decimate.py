from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gui.charts.decimate import (
    band,
    clipped_range,
    in_view,
    nearest,
    peaks,
    smoothed,
    thinned,
)


def _plain_mean(values, weight):
    """The recurrence written out, as TensorBoard has it."""
    result, top, bottom = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            top, bottom = weight * top + (1 - weight) * value, weight * bottom + (1 - weight)
        else:
            top, bottom = weight * top, weight * bottom
        result.append(top / bottom if bottom > 0 else math.nan)
    return np.array(result)


@given(
    values=st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(math.nan)), min_size=1, max_size=2000),
    weight=st.sampled_from([0.1, 0.5, 0.9, 0.98, 0.999]),
)
@settings(max_examples=60, deadline=None)
def test_smoothing_is_the_debiased_exponential_mean(values, weight):
    expected = _plain_mean(values, weight)
    found = smoothed(np.array(values), weight)
    assert np.array_equal(np.isnan(expected), np.isnan(found))
    known = ~np.isnan(expected)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-6, atol=1e-6)


def test_smoothing_of_a_constant_is_the_constant_from_the_first_value():
    np.testing.assert_allclose(smoothed(np.full(100_000, 0.25), 0.999), 0.25, rtol=1e-9)


def test_no_smoothing_gives_the_values():
    values = np.array([1.0, 3.0, 2.0])
    assert smoothed(values, 0.0).tolist() == values.tolist()


@pytest.mark.parametrize("weight", [-0.1, 1.0])
def test_a_weight_outside_its_range_is_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        smoothed(np.ones(3), weight)


@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=3000),
    columns=st.integers(1, 400),
)
@settings(max_examples=60, deadline=None)
def test_the_thinned_line_touches_every_extreme_with_at_most_two_points_a_column(values, columns):
    x = np.arange(len(values), dtype=np.float64)
    y = np.array(values)
    px, py = peaks(x, y, y, columns)
    assert len(px) <= 2 * columns or len(px) == len(values)
    assert py.min() == y.min()
    assert py.max() == y.max()
    assert np.all(np.diff(px) >= 0)


@given(
    values=st.lists(st.floats(-100, 100), min_size=2, max_size=3000),
    columns=st.integers(2, 200),
)
@settings(max_examples=60, deadline=None)
def test_a_band_encloses_every_point_and_touches_the_extremes(values, columns):
    x, y = np.arange(len(values), dtype=np.float64), np.array(values)
    outline = band(x, y, y, columns)
    if len(values) <= 2 * columns:
        assert outline is None
        return
    px, py = outline
    half = len(px) // 2
    assert len(px) <= columns + 4
    assert (px[0], px[half - 1]) == (x[0], x[-1])
    assert px[:half].tolist() == px[half:][::-1].tolist()
    assert (py[:half].max(), py[half:].min()) == (y.max(), y.min())
    bins = np.searchsorted(px[: half - 1], x, side="right") - 1
    assert np.all(y <= py[:half][bins])
    assert np.all(y >= py[half:][::-1][bins])


def test_a_gap_is_not_filled():
    y = np.full(1000, 1.0)
    y[500] = math.nan
    assert band(np.arange(1000.0), y, y, 50) is None


def test_few_points_are_drawn_as_they_are():
    x, y = np.arange(10.0), np.arange(10.0) ** 2
    px, py = peaks(x, y, y, 400)
    assert px.tolist() == x.tolist()
    assert py.tolist() == y.tolist()


def test_a_gap_stays_a_gap():
    y = np.array([1.0, math.nan, math.nan, math.nan, 2.0, 3.0, 4.0, 5.0])
    _, py = peaks(np.arange(8.0), y, y, 4)
    assert np.isnan(py).any()
    assert np.nanmax(py) == 5.0


@given(st.integers(0, 500), st.integers(1, 100))
def test_thinning_keeps_the_last_point(count, columns):
    x = np.arange(count, dtype=np.float64)
    px, _ = thinned(x, x, columns)
    assert len(px) <= max(columns, 1) + 1
    if count:
        assert px[-1] == count - 1


def test_a_view_includes_one_point_beyond_each_edge():
    x = np.arange(0.0, 100.0, 10.0)
    assert x[in_view(x, 35, 55)].tolist() == [30.0, 40.0, 50.0, 60.0]
    assert x[in_view(x, -50, 500)].tolist() == x.tolist()


def test_clipping_leaves_out_a_spike():
    values = np.concatenate([np.linspace(0.1, 0.2, 1000), [50.0], [math.nan]])
    low, high = clipped_range(values)
    assert low >= 0.1
    assert high < 1.0
    assert clipped_range(np.array([math.nan])) is None


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50, unique=True), st.integers(0, 1000))
def test_the_nearest_point_is_the_nearest(places, place):
    x = np.array(sorted(places), dtype=np.float64)
    found = nearest(x, place)
    assert abs(x[found] - place) == min(abs(value - place) for value in x)
