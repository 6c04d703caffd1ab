"""The pure parts of the ticket editor: bars, gestures, ready-made distributions, losses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aozora.config.checks import ticket_pool
from aozora.config.choices.distributions import DISTRIBUTIONS, Custom
from aozora.config.choices.predictions import Epsilon, Flow, VPrediction
from aozora.config.choices.weightings import MinSnr
from aozora.config.codec import decode_config, encode_config
from aozora.config.flow_shift import shifted_density
from aozora.config.schema import TrainConfig
from aozora.config.sections import ObjectiveSection
from aozora.config.ticket_pool import BIN_COUNTS, rebin
from aozora.diffusion.objectives import make_objective
from aozora.diffusion.schedule import sdxl_schedule
from aozora.diffusion.weightings import sample_weights
from aozora.errors import AozoraError
from gui.document import Document
from gui.editors.checked_run import CheckedRun
from gui.editors.loss_by_timestep import as_weights, mean_losses
from gui.editors.numbers import parse_number
from gui.editors.ticket_axes import TicketAxes
from gui.editors.ticket_edit import (
    HIGHEST_PAINTED,
    axis_top,
    mirrored,
    normalised,
    nudged,
    scaled,
    smoothed,
    stroked,
    tidy,
    with_values,
)
from gui.editors.ticket_gestures import Painting, Ruling, Scaling, Smoothing
from gui.editors.ticket_shapes import (
    bar_weights,
    min_snr_weights,
    shape_entries,
    shaped,
    signal_to_noise,
)
from gui.editors.ticket_view import TicketView, drawn_weights, spoken_bar

weights_of = st.sampled_from(BIN_COUNTS).flatmap(
    lambda bins: st.lists(st.floats(0.0, 8.0), min_size=bins, max_size=bins).map(tuple)
)
FLAT = (1.0,) * 20


def view_of(weights, total=8000, **settings):
    config = decode_config({"timesteps": settings})
    return TicketView(config, total, drawn_weights(config)).with_weights(tuple(weights))


def flat_view(bins=20, checked=None, **sections):
    """Return even bars for a run with these sections of settings."""
    config = decode_config({"timesteps": {"bins": bins}, **sections})
    return TicketView(config, 0, drawn_weights(config), checked or CheckedRun())


@settings(deadline=None)
@given(weights_of, st.data())
def test_a_stroke_paints_every_bar_it_passes_and_no_other(weights, data):
    bars = st.integers(0, len(weights) - 1)
    start = (data.draw(bars), data.draw(st.floats(0, 8)))
    stop = (data.draw(bars), data.draw(st.floats(0, 8)))
    locked = data.draw(st.frozensets(bars, max_size=3))
    painted = stroked(weights, start, stop, locked)
    low, high = sorted((start[0], stop[0]))
    for index, (old, new) in enumerate(zip(weights, painted, strict=True)):
        if index in locked or not low <= index <= high:
            assert new == old
        else:
            bounds = sorted((start[1], stop[1]))
            assert bounds[0] - 0.04 <= new <= bounds[1] + 0.04
    if stop[0] not in locked:
        assert painted[stop[0]] == tidy(stop[1])


def test_a_stroke_ends_at_the_very_height_of_the_mouse():
    # As floats, 1 + (0.03 - 1) is a little more than 0.03, which rests at 0.
    assert stroked(FLAT, (0, 1.0), (0, 0.03))[0] == 0.0


@settings(deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_painted_weights_are_always_possible(value):
    assert 0.0 <= tidy(value) <= HIGHEST_PAINTED


def test_painting_rests_at_zero_and_at_one():
    assert tidy(0.02) == 0.0
    assert tidy(0.98) == 1.0
    assert tidy(1.5) == 1.5


@settings(deadline=None)
@given(weights_of, st.floats(-4, 4))
def test_bars_that_are_not_touched_never_change(weights, change):
    after = nudged(weights, change, (2, 5), locked=(5,))
    assert after[2] == pytest.approx(min(max(weights[2] + change, 0), 8), abs=1e-4)
    assert after[:2] == weights[:2]
    assert after[3:] == weights[3:]


@settings(deadline=None)
@given(weights_of)
def test_mirroring_twice_gives_the_bars_again(weights):
    assert mirrored(mirrored(weights)) == weights


@settings(deadline=None)
@given(weights_of)
def test_normalising_keeps_the_tickets(weights):
    if sum(weights) < 0.1:
        return
    even = normalised(weights)
    assert math.fsum(even) / len(even) == pytest.approx(1.0, abs=1e-6)
    total = 10 * len(weights)
    before, after = view_of(weights, total).counts(), view_of(even, total).counts()
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 1


@settings(deadline=None)
@given(weights_of, st.integers(0, 50_000))
def test_the_tickets_shown_are_those_of_the_trainer(weights, total):
    if sum(weights) == 0.0:
        return
    view = view_of(weights, total, bins=len(weights))
    config = encode_config(TrainConfig())
    config["timesteps"] |= {
        "distribution": {"kind": "custom", "weights": list(weights)},
        "bins": len(weights),
    }
    counts = ticket_pool(decode_config(config)).counts(total)
    assert view.counts() == counts
    assert sum(counts) == total


@settings(deadline=None)
@given(weights_of)
def test_other_numbers_of_bars_keep_the_mass(weights):
    if sum(weights) == 0.0:
        return
    for bins in BIN_COUNTS:
        other = rebin(weights, bins)
        assert math.fsum(other) / bins == pytest.approx(math.fsum(weights) / len(weights))


@settings(deadline=None)
@given(weights_of)
def test_smoothing_lies_between_the_neighbours(weights):
    after = smoothed(weights, range(len(weights)))
    for index, value in enumerate(after):
        near = weights[max(index - 1, 0) : index + 2]
        assert min(near) - 1e-4 <= value <= max(near) + 1e-4


def test_scaling_stops_at_the_ceiling_and_leaves_locked_bars():
    assert scaled((1.0, 6.0, 2.0), 2.0, (0, 1, 2), locked=(2,)) == (2.0, 8.0, 2.0)


def test_locked_bars_are_not_set():
    assert with_values((1.0, 1.0), {0: 3.0, 1: 3.0}, locked=(1,)) == (3.0, 1.0)


def test_the_axis_holds_all_bars():
    assert axis_top((1.0, 4.0)) == 4.0
    assert axis_top((4.1,)) == 8.0
    assert axis_top((20.0,)) == 32.0
    assert axis_top((0.0,)) == 4.0


def test_a_fast_sweep_paints_the_bars_between():
    painting = Painting(FLAT, frozenset()).to(3, 2.0).to(9, 5.0)
    assert painting.weights[3:10] == (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
    back = painting.to(5, 0.0)
    assert back.weights[9] == 5.0
    assert back.weights[5] == 0.0


def test_a_ruled_line_forgets_where_the_mouse_was_in_between():
    ruling = Ruling(FLAT, frozenset(), (2, 1.0), FLAT).to(10, 8.0).to(4, 3.0)
    assert ruling.weights[2:5] == (1.0, 2.0, 3.0)
    assert ruling.weights[5:] == FLAT[5:]


def test_the_smoothing_brush_passes_every_bar_once():
    spiked = (*FLAT[:5], 4.0, *FLAT[6:])
    brushed = Smoothing(spiked, frozenset()).to(3, 0.0).to(7, 0.0).to(7, 3.0)
    assert brushed.weights[5] < 4.0
    assert brushed.weights[4] > 1.0
    assert brushed.weights[8] == 1.0


def test_scaling_goes_with_the_height_of_the_mouse():
    scaling = Scaling(FLAT, frozenset({0}), 1.0, FLAT).to(5, 1.5)
    assert scaling.factor == 1.5
    assert scaling.weights == (1.0, *(1.5,) * 19)


@settings(deadline=None)
@given(st.sampled_from(BIN_COUNTS), st.floats(0, 1))
def test_bars_and_pixels_agree(bins, part):
    axes = TicketAxes(40.0, 10.0, 800.0, 300.0, bins, 4.0)
    bar = axes.bar_at(axes.left + part * axes.width * 0.9999)
    assert axes.bar_left(bar) <= axes.left + part * axes.width
    assert axes.to_weight(axes.to_py(part * 4.0)) == pytest.approx(part * 4.0, abs=1e-9)
    assert axes.bar_at(-100) == 0
    assert axes.bar_at(5000) == bins - 1


@pytest.mark.parametrize("entry", shape_entries(), ids=lambda entry: entry.key)
@pytest.mark.parametrize("bins", BIN_COUNTS)
def test_every_ready_made_distribution_is_one_the_engine_takes(entry, bins):
    numbers = {n.key: parse_number(n.text) for n in entry.numbers}
    distribution = shaped(entry.key, numbers, flat_view(bins))
    config = decode_config({"timesteps": {"distribution": distribution, "bins": bins}})
    assert ticket_pool(config).counts(1000)
    assert bar_weights(distribution, bins) == config.timesteps.distribution.bin_weights(bins)


@pytest.mark.parametrize("entry", shape_entries(), ids=lambda entry: entry.key)
def test_the_limits_of_the_numbers_are_possible(entry):
    for pick in ("low", "high"):
        numbers = {n.key: getattr(n, pick) for n in entry.numbers}
        distribution = shaped(entry.key, numbers, flat_view())
        weights = bar_weights(distribution, 20)
        assert all(math.isfinite(w) and w >= 0 for w in weights)
        assert sum(weights) > 0


def test_every_distribution_of_the_engine_is_offered():
    offered = {entry.key for entry in shape_entries()}
    assert set(DISTRIBUTIONS) - {"custom"} <= offered


def test_detail_favours_low_timesteps_structure_high_and_ends_both():
    def halves(key, **numbers):
        weights = bar_weights(shaped(key, numbers, flat_view()), 20)
        return sum(weights[:10]), sum(weights[10:]), weights

    low, high, _ = halves("detail", strength=1.0)
    assert low > 1.5 * high
    low, high, _ = halves("structure", strength=1.0)
    assert high > 1.5 * low
    low, high, weights = halves("ends", strength=1.0)
    assert low == pytest.approx(high)
    assert weights[0] > weights[10]
    assert halves("detail", strength=0.0)[2] == pytest.approx((1.0,) * 20)


def test_the_noise_levels_are_those_of_the_trained_schedule():
    for is_zero in (False, True):
        engine = sdxl_schedule(zero_terminal_snr=is_zero).snr.tolist()
        assert signal_to_noise(zero_terminal=is_zero) == pytest.approx(engine, rel=1e-4, abs=1e-9)


def test_bars_like_min_snr_rise_towards_noise_and_stay_flat_from_gamma_on():
    weights = min_snr_weights(5.0, flat_view(100))
    assert math.fsum(weights) / 100 == pytest.approx(1.0)
    assert weights[0] < 0.05
    assert weights[-1] == weights[-2] == max(weights)


@pytest.mark.parametrize("gamma", [0.5, 5.0])
@pytest.mark.parametrize(
    ("prediction", "is_zero"),
    [
        (Epsilon(), False),
        (VPrediction(), False),
        (VPrediction(), True),
        (Flow(shift=1.0), False),
        (Flow(shift=2.0), False),
    ],
)
def test_bars_like_min_snr_are_as_the_trainer_weighs_the_loss(prediction, is_zero, gamma):
    side = 1536
    objective = make_objective(prediction, zero_terminal_snr=is_zero)
    timesteps = objective.model_timesteps(torch.arange(1000), side, side)
    weights = sample_weights(MinSnr(gamma=gamma), objective, timesteps).double().reshape(20, 50)
    bars = (weights.mean(1) / weights.mean()).tolist()
    view = flat_view(checked=CheckedRun(prediction, is_zero, ((side, side, 3),)))
    assert min_snr_weights(gamma, view) == pytest.approx(bars, rel=1e-4, abs=1e-6)


def test_bars_like_min_snr_are_means_over_the_sizes_of_the_pictures():
    def bars(*buckets):
        return np.array(min_snr_weights(5.0, flat_view(checked=CheckedRun(Flow(), False, buckets))))

    small, large = (512, 512, 3), (1024, 1024, 1)
    mixed = bars(small, large)
    assert not np.allclose(bars(small), bars(large))
    assert mixed == pytest.approx(bars(large, small))
    assert (np.minimum(bars(small), bars(large)) - 0.02 < mixed).all()


SUMMARY = {
    "prediction": "flow",
    "prediction_options": {"shift": 2.0, "resolution_shift": True},
    "zero_terminal_snr": False,
    "buckets": [
        {"height": 512, "width": 512, "num_samples": 3},
        {"height": 1024, "width": 1024, "num_samples": 1},
    ],
}


def test_what_a_check_says_of_a_run_is_read():
    found = CheckedRun.of_summary(SUMMARY)
    assert found.prediction == Flow(shift=2.0)
    assert found.shifts(ObjectiveSection(), 1024) == {1.0: 3.0, 2.0: 1.0}
    assert CheckedRun.of_summary({}) == CheckedRun()


def test_the_settings_come_before_the_check():
    checked = CheckedRun.of_summary(SUMMARY)
    given = ObjectiveSection(prediction=Flow(shift=5.0, resolution_shift=False))
    assert checked.shifts(given, 1024) == {5.0: 4.0}
    assert checked.shifts(ObjectiveSection(prediction=Epsilon()), 1024) == {}
    with_zero = CheckedRun(VPrediction(), True)
    assert with_zero.has_zero_terminal_snr(ObjectiveSection())
    assert not with_zero.has_zero_terminal_snr(ObjectiveSection(zero_terminal_snr="off"))
    assert not with_zero.has_zero_terminal_snr(ObjectiveSection(prediction=Epsilon()))
    assert CheckedRun().has_zero_terminal_snr(ObjectiveSection(zero_terminal_snr="on"))


def test_what_the_base_model_says_decides_what_is_shown_for_automatic(qapp):
    document = Document()
    unknown = TicketView.of_settings(document.value, 100)
    assert any("not known yet" in issue.text for issue in unknown.issues())
    view = TicketView.of_settings(document.value, 100, CheckedRun.of_summary(SUMMARY))
    assert view.shifted() == pytest.approx(shifted_density(view.pool(), {1.0: 3.0, 2.0: 1.0}))
    # Three of four samples: 50%; one: 1/3.
    texts = [issue.text for issue in view.issues()]
    assert any(text.startswith("46% below timestep 500 after the flow shift") for text in texts)
    assert not any("not known yet" in text for text in texts)


def write_run(folder, lines):
    folder.mkdir()
    (folder / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def step(tickets, losses):
    return json.dumps(
        {"event": "StepCompleted", "tickets": tickets, "sample_losses": losses, "time": 0}
    )


def test_bars_follow_the_losses_of_a_run(tmp_path):
    lines = [step([10, 990], [0.4, 0.1]), '{"event": "Warned"}', step([20], [0.2]), '{"half']
    losses = mean_losses(write_run(tmp_path / "run", lines), 10)
    assert losses[0] == pytest.approx(0.3)
    assert losses[9] == pytest.approx(0.1)
    assert losses[1:9] == [None] * 8
    weights = as_weights(losses)
    assert weights[0] == 1.5
    assert weights[9] == 0.5
    assert weights[4] == 1.0


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(AozoraError, match="no event log"):
        mean_losses(tmp_path, 10)
    with pytest.raises(AozoraError, match="no step"):
        mean_losses(write_run(tmp_path / "run", ["{}"]), 10)


def test_a_view_of_the_document_shows_formulas_and_bars(qapp):
    document = Document()
    view = TicketView.of_settings(document.value, 8000)
    assert (view.kind, view.weights) == ("uniform", FLAT)
    bars = [0.5, 1.5] * 10
    document.set_values({"timesteps.distribution": {"kind": "custom", "weights": bars}}, "x")
    view = TicketView.of_settings(document.value, 8000)
    # Bars are shown as they were drawn, not normalised.
    assert view.weights == tuple(bars)
    assert isinstance(view.config.timesteps.distribution, Custom)


def test_what_the_unet_is_given_after_the_flow_shift_is_shown(qapp):
    document = Document()
    assert TicketView.of_settings(document.value, 100).shifted() is None
    document.set_values({"objective.prediction": {"kind": "flow", "shift": 3.0}}, "x")
    shifted = TicketView.of_settings(document.value, 100).shifted()
    assert math.fsum(shifted) == pytest.approx(20.0)
    assert shifted[-1] > 2.0 > 0.5 > shifted[0]
    document.set_values({"objective.prediction.shift": 1.0}, "x")
    assert TicketView.of_settings(document.value, 100).shifted() is None


def test_a_bar_in_words():
    weights = (*FLAT[:9], 1.8, *FLAT[10:])
    assert spoken_bar(view_of(weights, 10_000), 9) == "450\u2013499: 1.80\u00d7, 865 tickets, 8.7%"


def test_no_bars_at_all_are_no_pool():
    view = view_of((0.0,) * 20)
    assert view.pool() is None
    assert view.counts() == (0,) * 20
