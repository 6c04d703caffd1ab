"""The pure parts of the learning-rate editor: axes, edits, gestures, snapping, text."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aozora.config.lr_presets import LR_PRESETS
from aozora.config.lr_schedule import SHAPES, LrPoint, LrSchedule
from gui.editors.lr_axes import Decades, LrAxes, nice_step
from gui.editors.lr_edit import (
    MOST_PASTED,
    Run,
    deleted,
    from_text,
    inserted,
    inserted_in_widest_gap,
    moved_together,
    nudged,
    scaled,
    thinned,
    to_text,
    with_shape,
)
from gui.editors.lr_gestures import CurveScale, Modifiers, PointDrag, RubberBand
from gui.editors.lr_scene import place_labels, place_text, spoken_point
from gui.editors.lr_shapes import shape_entries, shaped
from gui.editors.lr_snap import snapped
from gui.editors.numbers import (
    format_parameters,
    format_rate,
    format_short_rate,
    parse_number,
    parse_rate,
)
from gui.editors.run_length import planned_run

RUN = Run(steps=2001)
NO_KEYS = Modifiers()
FREE = Modifiers(alt=True)

rates = st.one_of(st.just(0.0), st.floats(1e-12, 1e-2))


@st.composite
def curves(draw):
    inner = sorted(draw(st.sets(st.integers(1, 999), max_size=6)))
    places = [0.0, *(number / 1000 for number in inner), 1.0]
    points = [LrPoint(x, draw(rates), draw(st.sampled_from(SHAPES))) for x in places]
    return LrSchedule(tuple(points))


def axes_of(schedule, width=800.0, height=324.0):
    return LrAxes(60.0, 10.0, width, height, Decades.around(schedule))


def is_sound(schedule):
    places = [point.x for point in schedule.points]
    ordered = all(a < b for a, b in itertools.pairwise(places))
    positive = all(0.0 <= p.lr <= 1.0 for p in schedule.points)
    return ordered and positive and places[0] == 0.0 and places[-1] == 1.0


@settings(deadline=None)
@given(st.floats(1e-11, 1e-1))
def test_a_rate_is_drawn_where_it_is_read_back(rate):
    axes = axes_of(LrSchedule((LrPoint(0, rate), LrPoint(1, rate))))
    assert axes.to_lr(axes.to_px_y(rate)) == pytest.approx(rate, rel=1e-9)


def test_the_lane_at_the_bottom_is_exactly_zero():
    axes = axes_of(LrSchedule())
    assert axes.to_lr(axes.bottom - 1) == 0.0
    assert axes.to_lr(axes.to_px_y(0.0)) == 0.0
    assert axes.to_px_y(0.0) > axes.lane_top > axes.to_px_y(10.0**axes.decades.low) - 1e-9


@settings(deadline=None)
@given(curves())
def test_the_line_drawn_is_what_is_applied(schedule):
    axes = axes_of(schedule)
    for px, py in axes.polyline(schedule):
        x = (px - axes.left) / axes.width
        near = (schedule.at(x), schedule.at(x + 1e-9), schedule.at(x - 1e-9))
        # A place read back from pixels is off by a rounding, which shows where the line is steep.
        assert min(abs(axes.to_px_y(rate) - py) for rate in near) < 0.05


@settings(deadline=None)
@given(curves())
def test_the_line_passes_through_every_point(schedule):
    axes = axes_of(schedule)
    line = set(axes.polyline(schedule))
    for point in schedule.points:
        assert (axes.to_px_x(point.x), axes.to_px_y(point.lr)) in line


@settings(deadline=None)
@given(curves())
def test_the_axis_leaves_room_around_all_points(schedule):
    decades = Decades.around(schedule)
    for point in schedule.points:
        if point.lr > 0:
            assert decades.low + 0.4 < math.log10(point.lr) or decades.low == -13
            assert math.log10(point.lr) < decades.high - 0.4 or decades.high == 0


@settings(deadline=None)
@given(curves(), st.floats(0.1, 10), st.floats(-12, 0))
def test_zooming_stays_within_what_a_rate_can_be(schedule, factor, centre):
    zoomed = Decades.around(schedule).zoomed(factor, centre)
    assert -13 <= zoomed.low < zoomed.high <= 0
    assert zoomed.high - zoomed.low >= 0.99


@settings(deadline=None)
@given(
    curves(),
    st.sets(st.integers(0, 7), min_size=1),
    st.integers(0, 7),
    st.floats(0, 1),
    rates,
)
def test_moving_points_together_keeps_a_sound_curve(schedule, chosen, grabbed, x, lr):
    changed = moved_together(schedule, chosen, grabbed, x, lr, RUN)
    assert is_sound(changed)
    assert len(changed.points) == len(schedule.points)
    for index, (old, new) in enumerate(zip(schedule.points, changed.points, strict=True)):
        if index not in chosen or grabbed not in chosen or grabbed >= len(schedule.points):
            assert old == new


@settings(deadline=None)
@given(curves(), st.integers(0, 7), st.floats(0, 1), st.floats(1e-9, 1e-3))
def test_moving_and_moving_back_gives_the_curve_again(schedule, index, x, lr):
    if index >= len(schedule.points):
        return
    point = schedule.points[index]
    there = moved_together(schedule, [index], index, x, lr, RUN)
    back = moved_together(there, [index], index, point.x, point.lr, RUN).points[index]
    assert back.x == pytest.approx(point.x, abs=1e-9)
    assert back.lr == point.lr


def test_points_moved_together_keep_the_ratio_of_their_rates():
    schedule = LrSchedule((LrPoint(0, 1e-7), LrPoint(0.3, 2e-6), LrPoint(0.6, 4e-6), LrPoint(1, 0)))
    changed = moved_together(schedule, (1, 2), 1, 0.4, 1e-6, RUN)
    assert changed.points[1].lr == 1e-6
    assert changed.points[2].lr == pytest.approx(2e-6)
    assert changed.points[2].x == pytest.approx(0.7)


def test_points_moved_together_stop_before_the_next_one():
    schedule = LrSchedule(
        (
            LrPoint(0, 1e-7),
            LrPoint(0.3, 2e-6),
            LrPoint(0.6, 4e-6),
            LrPoint(0.7, 1e-6),
            LrPoint(1, 0),
        )
    )
    changed = moved_together(schedule, (1, 2), 1, 0.9, 2e-6, RUN)
    assert changed.points[2].x == pytest.approx(0.7 - RUN.gap)
    assert changed.points[1].x == pytest.approx(0.4 - RUN.gap)


def test_the_trained_part_is_locked():
    schedule = LrSchedule()
    run = Run(2001, trained=0.5)
    assert moved_together(schedule, (1,), 1, 0.2, 1e-5, run) == schedule
    assert moved_together(schedule, (2,), 2, 0.1, 1e-6, run).points[2].x > 0.5
    assert deleted(schedule, (1, 2), run).points == (*schedule.points[:2], schedule.points[3])
    assert scaled(schedule, 2.0, run).points[:2] == schedule.points[:2]
    assert inserted(schedule, 0.3, None, run) is None
    assert with_shape(schedule, (0, 2), "linear", run).points[0].shape == "log"


@settings(deadline=None)
@given(curves(), st.floats(1e-3, 1e3))
def test_scaling_keeps_ratios(schedule, factor):
    for old, new in zip(schedule.points, scaled(schedule, factor, RUN).points, strict=True):
        if old.lr * factor < 1.0:
            assert new.lr == pytest.approx(old.lr * factor, rel=1e-3)


@settings(deadline=None)
@given(curves(), st.floats(0.001, 0.999))
def test_a_point_added_on_the_line_leaves_straight_shapes_as_they_are(schedule, x):
    added = inserted(schedule, x, None, RUN)
    if added is None:
        assert any(abs(p.x - x) < RUN.gap for p in schedule.points)
        return
    changed, index = added
    assert changed.points[index].x == x
    before = next(p for p in reversed(schedule.points) if p.x < x)
    if before.shape != "cosine":
        for place in (0.0, x / 2, x, (1 + x) / 2, 1.0):
            assert changed.at(place) == pytest.approx(schedule.at(place), rel=1e-6, abs=1e-18)


def test_insert_takes_the_widest_gap():
    changed, index = inserted_in_widest_gap(LrSchedule(), RUN)
    assert index == 2
    assert changed.points[2].x == pytest.approx(0.475)
    changed, index = inserted_in_widest_gap(LrSchedule(), Run(2001, trained=0.86))
    assert changed.points[index].x == pytest.approx(0.95)


@settings(deadline=None)
@given(curves(), st.sets(st.integers(0, 7)))
def test_the_ends_are_never_deleted(schedule, chosen):
    left = deleted(schedule, chosen, RUN)
    assert left.points[0] == schedule.points[0]
    assert left.points[-1] == schedule.points[-1]
    inner = {i for i in chosen if 0 < i < len(schedule.points) - 1}
    assert len(left.points) == len(schedule.points) - len(inner)


@settings(deadline=None)
@given(curves(), st.integers(0, 7), st.sampled_from([-0.05, 0.005]), st.sampled_from([0.98, 1.25]))
def test_nudges_keep_a_sound_curve(schedule, index, shift, factor):
    assert is_sound(nudged(schedule, (index,), shift, factor, RUN))


@settings(deadline=None)
@given(curves())
def test_the_clipboard_text_gives_the_curve_back(schedule):
    if any(p.lr > 0 for p in schedule.points):
        assert from_text(to_text(schedule)) == (schedule, len(schedule.points))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{}",
        "[1, 2]",
        "[[0, 1e-6]]",
        '{"learning_rate": [[0, 2.0], [1, 0]]}',
        "[" * 9999,
    ],
)
def test_other_text_on_the_clipboard_is_refused(text):
    with pytest.raises(ValueError, match="clipboard"):
        from_text(text)


def test_a_pasted_curve_of_two_thousand_points_is_thinned_and_stays_close():
    places = [k / 1999 for k in range(2000)]
    dense = LrSchedule(
        tuple(LrPoint(x, 1e-6 * (0.2 + math.sin(3 * x) ** 2), "linear") for x in places)
    )
    schedule, count = from_text(json.dumps(dense.to_json()))
    assert count == 2000
    assert len(schedule.points) == MOST_PASTED
    for x in places[::37]:
        assert schedule.at(x) == pytest.approx(dense.at(x), rel=0.02)


def test_thinning_keeps_a_curve_that_is_small_enough():
    assert thinned(LrSchedule(), 64).points[0] == LrSchedule().points[0]


def drag(schedule, chosen, grabbed, dx, dy, keys, run=RUN):
    axes = axes_of(schedule)
    point = schedule.points[grabbed]
    press = (axes.to_px_x(point.x), axes.to_px_y(point.lr))
    gesture = PointDrag(schedule, chosen, grabbed, press, axes, run)
    return gesture.at(press[0] + dx, press[1] + dy, keys)


@settings(deadline=None)
@given(
    curves(),
    st.sets(st.integers(0, 7)),
    st.integers(0, 7),
    st.floats(-900, 900),
    st.floats(-500, 500),
    st.builds(Modifiers, st.booleans(), st.booleans()),
    st.sampled_from([Run(), Run(2), Run(20), Run(2001, 100.0), Run(2001, trained=0.4)]),
)
def test_no_drag_makes_an_unsound_curve(schedule, chosen, grabbed, dx, dy, keys, run):
    grabbed %= len(schedule.points)
    chosen = tuple(sorted({i for i in chosen if i < len(schedule.points)} | {grabbed}))
    shown = drag(schedule, chosen, grabbed, dx, dy, keys, run)
    assert is_sound(shown.schedule)
    for index in shown.chosen:
        assert index < len(shown.schedule.points)
    for old in schedule.points:
        if run.is_locked(old.x):
            assert old in shown.schedule.points


def test_a_drag_that_does_not_move_changes_nothing():
    schedule = LrSchedule()
    for index in range(4):
        assert drag(schedule, (index,), index, 0, 0, NO_KEYS).schedule == schedule


def test_a_drag_snaps_to_percent_and_two_digits_and_alt_does_not():
    shown = drag(LrSchedule(), (1,), 1, 83.0, -20.3, NO_KEYS)
    point = shown.schedule.points[1]
    assert point.x == round(point.x, 2)
    assert point.lr == float(f"{point.lr:.1e}")
    free = drag(LrSchedule(), (1,), 1, 83.0, -20.3, FREE).schedule.points[1]
    assert free.x == pytest.approx(0.05 + 83 / 800)
    assert free.lr != float(f"{free.lr:.1e}")


def test_shift_locks_the_lesser_direction():
    point = drag(LrSchedule(), (1,), 1, 100.0, 20.0, Modifiers(shift=True)).schedule.points[1]
    assert point.lr == 1e-6
    assert point.x == pytest.approx(0.175, abs=0.01)
    point = drag(LrSchedule(), (1,), 1, 20.0, -60.0, Modifiers(shift=True)).schedule.points[1]
    assert point.x == 0.05
    assert point.lr > 2e-6


def test_dragging_far_off_the_plot_removes_the_point_but_never_an_end():
    shown = drag(LrSchedule(), (1,), 1, 0.0, -400.0, NO_KEYS)
    assert shown.removing
    assert len(shown.schedule.points) == 3
    shown = drag(LrSchedule(), (0,), 0, 0.0, -400.0, NO_KEYS)
    assert not shown.removing
    assert len(shown.schedule.points) == 4


def test_dragging_into_the_lane_gives_exactly_zero():
    assert drag(LrSchedule(), (3,), 3, 0.0, 130.0, FREE).schedule.points[3].lr == 0.0


def test_a_drag_rests_at_epochs_and_at_the_rate_of_another_point():
    schedule = LrSchedule()
    axes = axes_of(schedule)
    run = Run(2001, steps_per_epoch=333)
    rest = snapped(333 / 2000 + 3 / 800, 5e-7, axes, run, schedule, (1,))
    assert rest.guide_x == rest.x == 333 / 2000
    close = axes.to_lr(axes.to_px_y(1e-6) + 4)
    rest = snapped(0.5, close, axes, run, schedule, (1,))
    assert rest.guide_lr == rest.lr == 1e-6


def test_scaling_by_the_mouse_goes_with_the_axis():
    schedule = LrSchedule()
    axes = axes_of(schedule)
    decade = (axes.lane_top - axes.top) / (axes.decades.high - axes.decades.low)
    shown = CurveScale(schedule, (), (100, 200), axes, RUN).at(100, 200 - decade, NO_KEYS)
    assert shown.factor == pytest.approx(10)
    assert shown.schedule.points[1].lr == pytest.approx(1e-5)


def test_a_rubber_band_chooses_what_is_inside_and_keeps_what_was_with_shift():
    schedule = LrSchedule()
    axes = axes_of(schedule)
    band = RubberBand(schedule, (0,), (axes.left + 10, axes.top), axes)
    shown = band.at(axes.right - 10, axes.bottom, NO_KEYS)
    assert shown.chosen == (0, 1, 2)
    assert shown.schedule == schedule


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1.0E-06", 1e-6), ("0.000001", 1e-6), ("0,000001", 1e-6), (" 5 e-6 ", 5e-6)],
)
def test_rates_are_read_as_people_write_them(text, value):
    assert parse_rate(text) == value


@pytest.mark.parametrize("text", ["", "abc", "-1e-6", "2", "nan", "inf", "1e-6x", "1e999", "--1"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError, match=r"number|too large"):
        parse_rate(text)


@settings(deadline=None)
@given(st.floats(1e-12, 1.0))
def test_a_shown_rate_is_read_back_to_its_digits(rate):
    assert parse_rate(format_rate(rate)) == pytest.approx(rate, rel=5.1e-3)
    assert parse_rate(format_short_rate(rate)) == pytest.approx(rate, rel=5.1e-2)


def test_formats_are_those_of_the_interface():
    assert format_rate(5e-6) == "5.00e-06"
    assert format_rate(0.0) == "0"
    assert format_short_rate(2.5e-6) == "2.5e-6"
    assert [format_parameters(n) for n in (4, 11_840, 590e6, 2_567_463_684)] == [
        "4",
        "11.8 K",
        "590 M",
        "2.57 B",
    ]
    assert parse_number("1 234,5") == 1234.5


def test_the_horizontal_axis_counts_steps_epochs_or_percent():
    run = Run(2000, steps_per_epoch=100)
    assert place_labels(run, "steps", 900)[:2] == [(0.0, "1"), (run.x_of(199), "200")]
    assert place_labels(run, "steps", 900)[-1] == (1.0, "2,000")
    assert place_labels(run, "epochs", 900)[1] == (run.x_of(200), "2")
    assert place_labels(run, "percent", 900)[-1] == (1.0, "100 %")
    # Without a length there are no steps to count.
    assert place_labels(Run(), "steps", 900)[-1] == (1.0, "100 %")


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_runs_of_no_or_few_steps_can_be_edited(steps):
    run = Run(steps)
    added = inserted_in_widest_gap(LrSchedule(), run)
    assert added is None or is_sound(added[0])
    assert place_text(0.5, run)
    assert place_labels(run, "steps", 900)
    changed = moved_together(LrSchedule(), (1,), 1, 0.7, 2e-6, run)
    assert is_sound(changed)


def test_points_one_step_apart_stay_where_they_are():
    run = Run(11)
    schedule = LrSchedule((LrPoint(0, 1e-7), LrPoint(0.1, 1e-6), LrPoint(0.2, 1e-6), LrPoint(1, 0)))
    assert moved_together(schedule, (1,), 1, 0.5, 1e-6, run).points[1].x == pytest.approx(0.1)


def test_a_point_in_words():
    schedule = LrSchedule((LrPoint(0, 1e-7), LrPoint(0.5, 5e-6), LrPoint(1, 0)))
    words = spoken_point(schedule, 1, Run(2501))
    assert words == "point 2 of 3, 50.0 % of run, step 1,251, learning rate 5.00e-06"


@settings(deadline=None)
@given(st.floats(1e-6, 1e9), st.integers(1, 40))
def test_axis_steps_are_round_and_few(span, most):
    step = nice_step(span, most)
    assert span / step <= most * (1 + 1e-6)
    assert float(f"{step:.0e}") == pytest.approx(step)


@pytest.mark.parametrize("name", LR_PRESETS)
def test_every_ready_made_curve_has_numbers_that_make_it(name):
    entry = next(e for e in shape_entries() if e.key == name)
    numbers = {n.key: parse_number(n.text) for n in entry.numbers}
    schedule = shaped(name, numbers)
    assert [i for i in schedule.validate(2000) if i.severity == "error"] == []
    assert max(p.lr for p in schedule.points) == 1e-6


def test_a_floor_above_the_peak_is_refused():
    with pytest.raises(ValueError, match="floor"):
        shaped("Cosine", {"peak": 1e-6, "floor": 1e-5, "warm_up": 5})


def test_the_length_of_a_run_is_that_of_the_engine():
    settings = {
        "training.steps": 300,
        "training.epochs": 0.0,
        "training.accumulation_steps": 4,
        "training.batch_size": 2,
    }
    plan = planned_run(settings.__getitem__, 50)
    assert (plan.steps, plan.steps_per_epoch, plan.samples) == (300, 12.5, 2400)
    settings["training.epochs"] = 3.0
    assert planned_run(settings.__getitem__, 50).steps == math.ceil(150 / 4)
    assert planned_run(settings.__getitem__).steps == 0
    settings |= {"training.epochs": 1.1, "training.accumulation_steps": 1}
    assert planned_run(settings.__getitem__, 10).steps == 11
