from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aozora.config.lr_presets import (
    LR_PRESETS,
    constant,
    cosine,
    cosine_restarts,
    inverse_sqrt,
    linear,
    one_cycle,
    warm_up_stable_decay,
)
from aozora.config.lr_schedule import SHAPES, LrPoint, LrSchedule

rates = st.one_of(st.just(0.0), st.floats(1e-12, 1.0))


@st.composite
def schedules(draw):
    inner = draw(st.lists(st.integers(1, 9999), unique=True, max_size=6))
    places = [0.0, *(x / 10_000 for x in sorted(inner)), 1.0]
    return LrSchedule(tuple(LrPoint(x, draw(rates), draw(st.sampled_from(SHAPES))) for x in places))


def texts(issues, severity):
    return [issue.text for issue in issues if issue.severity == severity]


def test_default_curve_is_the_decided_one():
    assert LrSchedule().to_json()[:3] == [
        [0.0, 1e-7, "log"],
        [0.05, 1e-6, "hold"],
        [0.9, 1e-6, "cosine"],
    ]
    assert LrSchedule().to_json()[3][:2] == [1.0, 1e-7]
    assert not texts(LrSchedule().validate(2000), "error")
    assert not texts(LrSchedule().validate(2000), "warning")


@given(schedules())
def test_rate_at_a_point_is_the_rate_of_the_point_exactly(schedule):
    for point in schedule.points:
        assert schedule.at(point.x) == point.lr


@given(schedules(), st.data())
def test_rate_never_leaves_the_ends_of_its_segment_and_is_monotone(schedule, data):
    index = data.draw(st.integers(0, len(schedule.points) - 2))
    start, end = schedule.points[index : index + 2]
    parts = sorted(data.draw(st.lists(st.floats(0.0, 0.999), min_size=2, max_size=8)))
    values = [schedule.at(start.x + (end.x - start.x) * part) for part in parts]
    low, high = sorted((start.lr, end.lr))
    assert all(low <= value <= high for value in values)
    # A straight line in float64 may wobble by rounding, never by more.
    sign = 1.0 if end.lr >= start.lr else -1.0
    assert all(sign * (b - a) >= -1e-12 * high for a, b in itertools.pairwise(values))


@given(schedules())
def test_curve_survives_json_to_the_last_bit(schedule):
    assert LrSchedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


def test_shape_may_be_left_out_in_json():
    assert LrSchedule.from_json([[0, 1e-6], [1, 1e-7]]).points[0].shape == "log"


@pytest.mark.parametrize(
    "data",
    [None, {}, "x", [1], [[0]], [["0", 1]], [[0, True]], [[0, 1, "log", 2]], [[0, None]]],
)
def test_json_of_another_form_is_a_type_error(data):
    with pytest.raises(TypeError, match="curve"):
        LrSchedule.from_json(data)


@pytest.mark.parametrize("data", [[[0, 1, "lgo"]], [[0, 1, 3]], [[0, 10**400]], [[0, 1, ["log"]]]])
def test_json_with_impossible_values_is_a_value_error(data):
    with pytest.raises(ValueError, match="point 1"):
        LrSchedule.from_json(data)


def test_unknown_shape_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        LrSchedule.from_json([[0, 1, "linaer"]])


def test_log_segment_is_straight_on_a_log_axis():
    schedule = LrSchedule((LrPoint(0, 1e-5), LrPoint(1, 1e-9)))
    assert schedule.at(0.5) == pytest.approx(1e-7, rel=1e-12)


@pytest.mark.parametrize(("first", "last"), [(0.0, 1e-6), (1e-6, 0.0)])
def test_log_segment_with_a_zero_end_is_linear(first, last):
    schedule = LrSchedule((LrPoint(0, first, "log"), LrPoint(1, last)))
    assert schedule.at(0.25) == pytest.approx(first + 0.25 * (last - first), rel=1e-12)


def test_hold_keeps_its_rate_until_the_next_point():
    schedule = LrSchedule((LrPoint(0, 1e-5, "hold"), LrPoint(1, 1e-9)))
    assert schedule.at(math.nextafter(1.0, 0.0)) == 1e-5
    assert schedule.at(1.0) == 1e-9


def test_place_of_a_step_runs_from_first_to_last_step():
    schedule = LrSchedule((LrPoint(0, 0.0, "linear"), LrPoint(1, 1.0)))
    assert schedule.sample(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert schedule.at_step(0, 1) == 0.0
    for step in (-1, 5):
        with pytest.raises(ValueError, match="outside"):
            schedule.at_step(step, 5)


def test_outside_its_points_the_curve_is_flat():
    schedule = LrSchedule((LrPoint(0.2, 1e-6), LrPoint(0.8, 1e-7)))
    assert schedule.at(0.0) == 1e-6
    assert schedule.at(1.0) == 1e-7


@pytest.mark.parametrize(
    ("step", "share"), [(100, 1.0), (500, 0.895), (1000, 0.541), (1500, 0.161), (2000, 0.0)]
)
def test_golden_cosine_of_2000_steps_with_100_of_warm_up(step, share):
    curve = cosine(1e-4, warm_up=100 / 2000)
    assert curve.at_step(step, 2001) == pytest.approx(share * 1e-4, abs=0.0005e-4)
    closed = 0.5 * (1 + math.cos(math.pi * (step - 100) / 1900))
    assert curve.at_step(step, 2001) == pytest.approx(closed * 1e-4, abs=1e-19)


@pytest.mark.parametrize("name", LR_PRESETS)
def test_every_preset_is_valid_and_peaks_at_its_peak(name):
    curve = LR_PRESETS[name](2e-6)
    issues = curve.validate(2000)
    assert not texts(issues, "error")
    assert not texts(issues, "warning")
    assert max(point.lr for point in curve.points) == 2e-6
    assert LrSchedule.from_json(curve.to_json()) == curve


def test_linear_and_constant_presets_follow_their_formulas():
    for x in (0.05, 0.3, 0.77, 1.0):
        assert linear(1e-6, 1e-7).at(x) == pytest.approx(1e-6 - 9e-7 * (x - 0.05) / 0.95)
        assert constant(1e-6).at(x) == 1e-6


def test_restarts_climb_back_to_the_peak():
    curve = cosine_restarts(1e-6, warm_up=0.1, cycles=3, ramp=0.01)
    assert curve.at(0.1) == curve.at(0.4) == curve.at(0.7) == 1e-6
    assert curve.at(0.39) == 0.0
    assert curve.at(0.1 + 0.29 / 2) == pytest.approx(5e-7)
    with pytest.raises(ValueError, match="cycle"):
        cosine_restarts(1e-6, cycles=0)
    with pytest.raises(ValueError, match="cycle"):
        cosine_restarts(1e-6, cycles=100)


def test_stable_part_is_level_and_one_cycle_starts_at_a_25th():
    curve = warm_up_stable_decay(1e-6, 1e-7, decay=0.2)
    assert curve.at(0.05) == curve.at(0.5) == curve.at(0.8) == 1e-6
    assert curve.at(0.9) == pytest.approx(5.5e-7)
    assert one_cycle(1e-6).at(0.0) == 4e-8
    assert one_cycle(1e-6).at(0.3) == 1e-6
    assert one_cycle(1e-6).at(1.0) == pytest.approx(4e-12)
    with pytest.raises(ValueError, match="warm-up"):
        warm_up_stable_decay(1e-6, warm_up=0.5, decay=0.5)


@pytest.mark.parametrize("warm_up", [0.001, 0.05, 0.5])
def test_inverse_sqrt_stays_within_a_hundredth_of_its_formula(warm_up):
    curve = inverse_sqrt(1e-6, warm_up=warm_up)
    for number in range(1000):
        x = warm_up + (1 - warm_up) * number / 999
        assert curve.at(x) == pytest.approx(1e-6 * math.sqrt(warm_up / x), rel=0.01)


@pytest.mark.parametrize("preset", LR_PRESETS.values())
def test_presets_refuse_a_warm_up_that_is_no_share(preset):
    with pytest.raises(ValueError, match=r"share|cycle|warm-up"):
        preset(1e-6, warm_up=1.0)


def test_presets_without_warm_up_start_at_the_peak():
    for preset in (constant, linear, cosine, warm_up_stable_decay, cosine_restarts):
        assert preset(1e-6, warm_up=0.0).at(0.0) == 1e-6


@given(schedules(), st.floats(0.0001, 0.9999))
def test_point_added_on_the_line_keeps_the_curve(schedule, x):
    straight = LrSchedule(
        tuple(
            dataclasses.replace(p, shape="log") if p.shape == "cosine" else p
            for p in schedule.points
        )
    )
    added = straight.with_point(x)
    for number in range(50):
        place = number / 49
        assert added.at(place) == pytest.approx(straight.at(place), rel=1e-6, abs=1e-15)


def test_point_added_where_one_is_keeps_what_is_not_given():
    curve = LrSchedule((LrPoint(0.0, 0.0), LrPoint(0.5, 0.0, "hold"), LrPoint(1.0, 1.0)))
    assert curve.with_point(0.5) == curve
    assert curve.with_point(0.5, 1e-6).points[1] == LrPoint(0.5, 1e-6, "hold")


def test_point_added_where_one_is_replaces_it():
    changed = LrSchedule().with_point(0.05, 2e-6, "linear")
    assert len(changed.points) == 4
    assert changed.points[1] == LrPoint(0.05, 2e-6, "linear")


def test_ends_of_the_curve_are_never_removed():
    assert len(LrSchedule().without(1).points) == 3
    for index in (0, 3):
        with pytest.raises(ValueError, match="first and the last"):
            LrSchedule().without(index)


@given(st.integers(0, 3), st.floats(-1, 2), st.floats(-1e-5, 1e-5))
def test_moved_curve_stays_valid(index, x, lr):
    moved = LrSchedule().moved(index, x, lr)
    assert moved.points[0].x == 0.0
    assert moved.points[-1].x == 1.0
    assert moved.points[index].lr == max(lr, 0.0)
    assert not texts(moved.validate(2000), "error")


def test_moving_between_crowded_neighbours_leaves_the_place():
    crowded = LrSchedule((LrPoint(0, 1e-6), LrPoint(0.001, 1e-6), LrPoint(1, 1e-6)))
    assert crowded.moved(1, 0.5, 2e-6, gap=0.6).points[1] == LrPoint(0.001, 2e-6)


@pytest.mark.parametrize(
    ("points", "words", "index"),
    [
        ((), "fewer than two", None),
        ((LrPoint(0, 1e-6),), "fewer than two", None),
        ((LrPoint(0.1, 1e-6), LrPoint(1, 1e-6)), "starts at 0.1", 0),
        ((LrPoint(0, 1e-6), LrPoint(0.9, 1e-6)), "ends at 0.9", 1),
        ((LrPoint(0, 1e-6), LrPoint(0.5, 0), LrPoint(0.5, 0), LrPoint(1, 0)), "after point", 2),
        ((LrPoint(0, math.nan), LrPoint(1, 1e-6)), "rate nan", 0),
        ((LrPoint(0, 1e-6), LrPoint(1, math.inf)), "rate inf", 1),
        ((LrPoint(0, -1e-6), LrPoint(1, 1e-6)), "rate -1e-06", 0),
        ((LrPoint(0, 1e-6), LrPoint(1, 1.5)), "rate 1.5", 1),
        ((LrPoint(0, 0.0), LrPoint(1, 0.0)), "0 everywhere", None),
        ((LrPoint(math.nan, 1e-6), LrPoint(1, 1e-6)), "no place", 0),
    ],
)
def test_faults_of_a_curve_are_named_with_their_point(points, words, index):
    (issue, *_) = [i for i in LrSchedule(points).validate(100) if words in i.text]
    assert (issue.severity, issue.index) == ("error", index)
    assert issue.fix


def warnings_of(points, total=1000, **known):
    schedule = LrSchedule(tuple(LrPoint(*point) for point in points))
    return " ".join(texts(schedule.validate(total, **known), "warning"))


def test_doubtful_curves_are_warned_of():
    flat = [(0, 1e-6), (1, 1e-6)]
    rising = [(0, 1e-7), (0.1, 1e-6), (1, 1e-6)]
    assert "high for training" in warnings_of([(0, 1e-6), (0.1, 2e-4), (1, 0)])
    assert "highest rate" in warnings_of(flat)
    assert warnings_of(flat, adam=False) == ""
    assert "20% of the steps" in warnings_of([(0, 1e-7), (0.1, 1e-6, "hold"), (0.8, 0), (1, 0)])
    assert "100 points" in warnings_of([(0, 1e-9)] + [(i / 99, 1e-6) for i in range(1, 100)])
    assert "bfloat16" in warnings_of([(0, 1e-8), (1, 8e-7)], exact_weights=False)
    assert "less than one step" in warnings_of(rising, total=8)
    assert "jumps" in warnings_of(rising, resumed_at=(500, 3e-6))
    assert warnings_of(rising, resumed_at=(500, 1.5e-6)) == ""
    assert warnings_of(rising) == ""


def test_default_curve_trains_runs_of_any_length():
    for total in (None, 1, 2, 8, 20, 100_000):
        assert not texts(LrSchedule().validate(total), "error")


def test_figures_are_given():
    schedule = LrSchedule((LrPoint(0, 0, "linear"), LrPoint(0.5, 1e-6, "linear"), LrPoint(1, 1e-7)))
    figures = " ".join(texts(schedule.validate(1001), "info"))
    assert "mean learning rate 5.2" in figures
    assert "ends at 10%" in figures
    assert "first 50% of the run (to step 501)" in figures
