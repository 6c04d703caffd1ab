from __future__ import annotations

import hashlib
import json
import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aozora.config.choices.distributions import HighNoise, LogitNormal
from aozora.config.flow_shift import (
    flow_timestep,
    resolution_factor,
    shifted,
    shifted_counts,
    shifted_density,
    shifted_share_below,
    shifted_shares,
)
from aozora.config.ticket_pool import BIN_COUNTS, TicketPool, rebin
from aozora.config.ticket_pool import _draw_all as draw_anew
from aozora.config.ticket_segments import SegmentedPool, TicketSegment

COVERAGES = ("shuffled", "stratified")

weight_lists = st.sampled_from(BIN_COUNTS).flatmap(
    lambda bins: st.lists(
        st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-9, 8.0)), min_size=bins, max_size=bins
    ).filter(lambda weights: sum(weights) > 0)
)


def uniform(bins=20, seed=42, **more):
    return TicketPool((1.0,) * bins, seed, **more)


def histogram(pool, tickets):
    return np.bincount(tickets // (1000 // pool.bins), minlength=pool.bins)


def texts(issues, severity):
    return [issue.text for issue in issues if issue.severity == severity]


@given(weight_lists, st.integers(0, 123_457))
def test_ticket_counts_sum_to_pool_size_and_stay_within_one_of_the_share(weights, total):
    pool = TicketPool(tuple(weights), 0)
    counts = pool.counts(total)
    assert sum(counts) == total
    for count, share in zip(counts, pool.shares(), strict=True):
        assert abs(count - share * total) < 1
        assert share or not count


def test_uniform_counts_are_exact_for_every_total_and_ties_go_to_lower_bins():
    pool = uniform()
    for total in range(500):
        whole, rest = divmod(total, 20)
        assert pool.counts(total) == (whole + 1,) * rest + (whole,) * (20 - rest)


def test_equal_weights_that_floats_cannot_hold_still_tie():
    assert TicketPool((0.1,) * 10, 0).counts(13) == (2, 2, 2, *(1,) * 7)


@pytest.mark.parametrize("coverage", COVERAGES)
@settings(max_examples=25, deadline=None)
@given(weights=weight_lists, total=st.integers(0, 3000), seed=st.integers(0, 2**53))
def test_drawn_tickets_have_exactly_the_counts(coverage, weights, total, seed):
    pool = TicketPool(tuple(weights), seed, coverage)
    tickets = pool.draw_all(total)
    assert tickets.shape == (total,)
    assert tuple(histogram(pool, tickets)) == pool.counts(total)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_limits_narrow_the_bins_they_cut(coverage):
    pool = uniform(10, coverage=coverage, minimum=150, maximum=349)
    assert pool.shares() == (0, Fraction(1, 4), Fraction(1, 2), Fraction(1, 4), *(0,) * 6)
    tickets = pool.draw_all(20_000)
    assert tickets.min() == 150
    assert tickets.max() == 349
    assert len(np.unique(tickets)) == 200


def test_a_single_timestep_can_be_all_there_is():
    assert set(uniform(minimum=999).draw_all(50).tolist()) == {999}


@pytest.mark.parametrize("coverage", COVERAGES)
def test_tickets_are_the_same_bits_when_built_again(coverage):
    pool = TicketPool(LogitNormal().bin_weights(50), 7, coverage)
    first = pool.draw_all(5000).copy()
    draw_anew.cache_clear()
    again = TicketPool(LogitNormal().bin_weights(50), 7, coverage)
    assert np.array_equal(first, again.draw_all(5000))
    assert [again.timestep(k, 5000) for k in (0, 17, 4999)] == first[[0, 17, 4999]].tolist()


@pytest.mark.parametrize(
    ("coverage", "digest"),
    [("shuffled", "bc13a40cb9e429f6"), ("stratified", "9fa78a0a0e7e607b")],
)
def test_tickets_never_change_between_versions(coverage, digest):
    tickets = TicketPool(HighNoise(start=300).bin_weights(20), 42, coverage).draw_all(10_000)
    assert hashlib.blake2b(tickets.astype("<i2").tobytes(), digest_size=8).hexdigest() == digest


@pytest.mark.parametrize("coverage", COVERAGES)
def test_every_part_of_the_pool_decides_the_order(coverage):
    base = uniform(coverage=coverage).draw_all(1000)
    for other in (
        uniform(coverage=coverage, seed=43).draw_all(1000),
        uniform(coverage=coverage).draw_all(1000, first_sample=500),
    ):
        assert np.mean(base == other) < 0.1


def test_drawn_tickets_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        uniform().draw_all(10)[0] = 3


@pytest.mark.parametrize("coverage", COVERAGES)
def test_draws_pass_a_chi_square_test_over_the_timesteps(coverage):
    drawn = np.bincount(uniform(coverage=coverage).draw_all(100_000), minlength=1000)
    chi_square = float(((drawn - 100.0) ** 2 / 100.0).sum())
    if coverage == "stratified":
        assert set(drawn.tolist()) == {100}
    else:
        # 20 bins are exact, so 980 degrees of freedom; five standard deviations either way.
        assert abs(chi_square - 980) < 5 * math.sqrt(2 * 980)


def test_neighbouring_tickets_of_a_shuffled_pool_are_not_correlated():
    tickets = uniform(coverage="shuffled").draw_all(100_000).astype(np.float64)
    assert abs(np.corrcoef(tickets[:-1], tickets[1:])[0, 1]) < 5 / math.sqrt(100_000)


def test_shuffled_order_is_level_in_both_halves_of_a_run():
    tickets = uniform(coverage="shuffled").draw_all(100_000)
    first = histogram(uniform(), tickets[:50_000])
    # Draws without replacement: the spread of 5000 of 100,000 in one half is about 34.
    assert np.abs(first - 2500).max() < 5 * 34.5


@settings(max_examples=25, deadline=None)
@given(weights=weight_lists, total=st.integers(1, 3000), seed=st.integers(0, 2**53))
def test_stratified_bins_hold_their_share_at_every_moment(weights, total, seed):
    pool = TicketPool(tuple(weights), seed, "stratified")
    bins = pool.draw_all(total) // (1000 // pool.bins)
    for index, count in enumerate(pool.counts(total)):
        so_far = np.cumsum(bins == index)
        due = np.arange(1, total + 1) * (count / total)
        # A shuffled pool of 3000 strays by 30 and more.
        assert np.abs(so_far - due).max() <= 8


@pytest.mark.parametrize("window", [2, 4, 8, 64])
def test_stratified_windows_have_one_ticket_in_each_equal_part(window):
    tickets = uniform(25).draw_all(64 * 250).reshape(-1, window)
    parts = np.sort(tickets, axis=1)
    middles = (np.arange(window) + 0.5) * 1000 / window
    # A bin is 40 wide; beside that, the parts of a pool whose size is no power of two shift a bit.
    assert np.abs(parts - middles).max() <= 500 / window + 60


def test_stratified_order_within_a_window_is_left_to_chance():
    pairs = uniform().draw_all(40_000).reshape(-1, 2)
    rising = np.mean(pairs[:, 0] < pairs[:, 1])
    assert abs(rising - 0.5) < 5 * 0.5 / math.sqrt(20_000)
    low = np.sort(pairs, axis=1)
    assert abs(np.corrcoef(low[:, 0], low[:, 1])[0, 1]) < 0.05


def test_stratified_bin_goes_through_all_its_timesteps_before_one_repeats():
    tickets = uniform().draw_all(20 * 50 * 3)
    for index in range(20):
        decks = tickets[tickets // 50 == index].reshape(3, 50)
        assert np.array_equal(
            np.sort(decks, axis=1), np.tile(np.arange(index * 50, index * 50 + 50), (3, 1))
        )
        assert not np.array_equal(decks[0], decks[1])


def test_stratified_windows_are_steadier_than_shuffled_ones():
    weights = LogitNormal().bin_weights(20)

    def spread(coverage):
        tickets = TicketPool(weights, 1, coverage).draw_all(40_000)
        return tickets.reshape(-1, 40).mean(axis=1).std()

    assert spread("stratified") < 0.2 * spread("shuffled")


def test_a_million_tickets_are_drawn_quickly():
    start = time.perf_counter()
    for coverage in COVERAGES:
        uniform(100, seed=987_654_321, coverage=coverage).draw_all(1_000_000)
    # About 0.2 and 0.6 s; the bound leaves room for a busy machine.
    assert time.perf_counter() - start < 5


@given(weight_lists, st.sampled_from(BIN_COUNTS))
def test_rebinning_keeps_the_mass(weights, bins):
    new = TicketPool(tuple(weights), 0).rebinned(bins)
    assert new.bins == bins
    assert math.fsum(new.weights) / bins == pytest.approx(math.fsum(weights) / len(weights))
    assert math.fsum(new.weights[: bins // 2]) / bins == pytest.approx(
        sum(
            weight
            * min(
                max(Fraction(bins // 2, bins) - Fraction(i, len(weights)), 0),
                Fraction(1, len(weights)),
            )
            for i, weight in enumerate(weights)
        ),
        abs=1e-12,
    )


def test_rebinning_to_finer_bins_and_back_changes_nothing():
    weights = LogitNormal().bin_weights(20)
    assert rebin(rebin(weights, 100), 20) == pytest.approx(weights)
    assert rebin(weights, 20) == weights
    assert rebin((0.0, 4.0, *(1.0,) * 8), 25)[2] == pytest.approx(2.0)
    with pytest.raises(ValueError, match="30 bins"):
        rebin(weights, 30)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (TicketPool((), 0), "0 bins"),
        (TicketPool((1.0,) * 7, 0), "7 bins"),
        (TicketPool((1.0,) * 9 + (math.nan,), 0), "900-999 is nan"),
        (TicketPool((1.0,) * 9 + (-1.0,), 0), "900-999 is -1"),
        (TicketPool((math.inf,) * 10, 0), "0-99 is inf"),
        (TicketPool((0.0,) * 10, 0), "no timestep"),
        (uniform(minimum=5, maximum=4), "no range"),
        (uniform(minimum=-1), "no range"),
        (uniform(maximum=1000), "no range"),
        (TicketPool((1.0, *(0.0,) * 9), 0, minimum=100), "no timestep from 100 to 999"),
    ],
)
def test_faulty_pools_say_why_and_draw_nothing(pool, words):
    (issue,) = pool.validate(100)
    assert issue.severity == "error"
    assert words in issue.text
    for use in (pool.counts, pool.draw_all):
        with pytest.raises(ValueError, match=words):
            use(100)


def test_doubtful_pools_are_warned_of():
    def warned(pool, total=10_000, **known):
        return " ".join(texts(pool.validate(total, **known), "warning"))

    assert warned(uniform()) == ""
    assert "only 5 tickets for 20" in warned(uniform(), 5)
    assert "950-999 get no ticket" in warned(uniform(), 19)
    assert "timesteps 250-499, 750-999 get no" in warned(
        TicketPool((1.0,) * 5 + (0.1,) * 5 + (1.0,) * 5 + (0.1,) * 5, 0), 10
    )
    assert "0-99 get 90%" in warned(TicketPool((81.0, *(1.0,) * 9), 0))
    no_end = TicketPool((1.0,) * 9 + (0.0,), 0)
    assert "never trained: timesteps 900-999" in warned(no_end)
    assert "999 is never trained" not in warned(no_end)
    assert "999 is never trained" in warned(no_end, zero_terminal_snr=True)
    assert "999 is never trained" in warned(uniform(maximum=998), zero_terminal_snr=True)


def test_figures_of_a_pool_are_given():
    figures = " ".join(texts(uniform().validate(1010), "info"))
    assert "20 equal bars" in figures
    assert "50% below timestep 500" in figures
    assert "50 to 51 tickets" in figures


@pytest.mark.parametrize(("shifts", "low"), [({3.0: 1.0}, 0.25), ({3.0: 1.0, 1.0: 1.0}, 0.375)])
def test_the_share_of_low_timesteps_is_that_after_the_shift(shifts, low):
    found = shifted_share_below(uniform(), shifts, 0.5)
    assert found == pytest.approx(low)
    figures = " ".join(texts(uniform().validate(1000, shifted_low=found), "info"))
    assert f"{low:.0%} below timestep 500 after the flow shift" in figures


def test_samples_outside_the_run_are_refused():
    for sample in (-1, 10):
        with pytest.raises(ValueError, match="outside"):
            uniform().timestep(sample, 10)
        with pytest.raises(ValueError, match="outside"):
            SegmentedPool.of(uniform(), 10).timestep(sample)
    with pytest.raises(ValueError, match="cannot hold"):
        uniform().counts(-1)


def test_pool_survives_json():
    pool = TicketPool(LogitNormal().bin_weights(25), 3, "shuffled", 10, 800)
    assert TicketPool.from_json(json.loads(json.dumps(pool.to_json()))) == pool
    with pytest.raises(ValueError, match="coverage"):
        TicketPool.from_json({**pool.to_json(), "coverage": "random"})


def test_run_of_one_segment_draws_what_its_pool_draws():
    run = SegmentedPool.of(uniform(), 300)
    assert [run.timestep(k) for k in range(300)] == uniform().draw_all(300).tolist()


@pytest.mark.parametrize("rule", ["rebuild", "finish"])
def test_resume_with_the_same_settings_changes_nothing(rule):
    run = SegmentedPool.of(uniform(), 300)
    assert run.resumed(120, 300, uniform(), rule) == run
    assert run.resumed(300, 300, uniform(seed=7), rule) is run


@pytest.mark.parametrize(("drawn", "total"), [(120, 500), (120, 200), (1, 300), (299, 1000)])
def test_resume_with_another_length_keeps_the_past_and_fills_the_rest_exactly(drawn, total):
    run = SegmentedPool.of(uniform(), 300)
    pool = uniform(seed=42, coverage="shuffled")
    longer = run.resumed(drawn, total, pool, "rebuild")
    assert longer.total == total
    assert longer.left_of_begun(drawn, total) == 0
    assert [longer.timestep(k) for k in range(drawn)] == [run.timestep(k) for k in range(drawn)]
    rest = np.array([longer.timestep(k) for k in range(drawn, total)])
    assert tuple(histogram(pool, rest)) == pool.counts(total - drawn)
    restored = SegmentedPool.from_json(json.loads(json.dumps(longer.to_json())))
    assert restored == longer


@pytest.mark.parametrize("drawn", [1, 120, 299])
def test_a_finished_pool_meets_its_counts_and_so_does_the_one_after_it(drawn):
    old, new = uniform(), TicketPool(LogitNormal().bin_weights(20), 3)
    run = SegmentedPool.of(old, 300).resumed(drawn, 500, new, "finish")
    assert [run.timestep(k) for k in range(300)] == old.draw_all(300).tolist()
    rest = np.array([run.timestep(k) for k in range(300, 500)])
    assert tuple(histogram(new, rest)) == new.counts(200)
    assert run.counts(20, 500) == tuple(
        a + b for a, b in zip(old.counts(300), new.counts(200), strict=True)
    )
    assert run.left_of_begun(drawn, 500) == 300 - drawn


def test_a_pool_that_outlasts_the_run_leaves_no_room_for_another():
    run = SegmentedPool.of(uniform(), 300)
    assert run.resumed(120, 300, uniform(seed=7), "finish") == run
    shorter = run.resumed(120, 200, uniform(seed=7), "finish")
    assert shorter == run
    assert shorter.left_of_begun(120, 200) == 80
    assert sum(shorter.counts(20, 200)) == 200


@pytest.mark.parametrize("rule", ["rebuild", "finish"])
@pytest.mark.parametrize("again", [130, 299, 300, 301, 499])
def test_resuming_again_with_the_same_settings_changes_nothing(rule, again):
    new = uniform(seed=7, coverage="shuffled")
    run = SegmentedPool.of(uniform(), 300).resumed(120, 500, new, rule)
    assert run.resumed(again, 500, new, rule) == run
    # Nor does it matter from which state of the first part it was resumed when it is finished.
    if rule == "finish":
        assert SegmentedPool.of(uniform(), 300).resumed(200, 500, new, rule) == run


def test_a_pool_that_has_not_begun_gives_way():
    run = SegmentedPool.of(uniform(), 300).resumed(120, 500, uniform(seed=7), "finish")
    third = uniform(seed=8)
    later = run.resumed(200, 500, third, "finish")
    assert later.segments[1:] == (TicketSegment(300, 200, third),)
    now = run.resumed(200, 500, uniform(seed=7), "rebuild")
    assert now.segments[1:] == (TicketSegment(200, 300, uniform(seed=7)),)


def test_resume_before_a_rebuilt_stretch_drops_it():
    run = SegmentedPool.of(uniform(), 300).resumed(200, 400, uniform(), "rebuild")
    again = run.resumed(100, 600, uniform(), "rebuild")
    assert [segment.first_sample for segment in again.segments] == [0, 100]
    for rule in ("rebuild", "finish"):
        begun_anew = SegmentedPool.of(uniform(), 300).resumed(0, 600, uniform(), rule)
        assert begun_anew == SegmentedPool.of(uniform(), 600)


def test_resume_of_more_samples_than_the_run_has_is_refused():
    with pytest.raises(ValueError, match="120 samples were drawn"):
        SegmentedPool.of(uniform(), 300).resumed(120, 100, uniform(), "rebuild")


def test_counts_are_those_of_what_is_drawn_whatever_the_number_of_bars():
    run = SegmentedPool.of(uniform(), 300).resumed(120, 500, uniform(seed=7), "rebuild")
    drawn = np.array([run.timestep(k) for k in range(450)])
    for bins in (10, 25, 100):
        expected = np.bincount(drawn * bins // 1000, minlength=bins)
        assert run.counts(bins, 450) == tuple(expected.tolist())
    assert sum(run.counts(20, 60)) == 60
    with pytest.raises(ValueError, match="501 samples"):
        run.counts(20, 501)


@pytest.mark.parametrize("starts", [(), (1,), (0, 0), (0, 5, 3)])
def test_segments_out_of_order_are_refused(starts):
    with pytest.raises(ValueError, match="follow one another"):
        SegmentedPool(tuple(TicketSegment(start, 10, uniform()) for start in starts))


def test_sample_between_segments_is_refused():
    run = SegmentedPool((TicketSegment(0, 10, uniform()), TicketSegment(20, 10, uniform())))
    with pytest.raises(ValueError, match="gap"):
        run.timestep(15)


def test_golden_shift():
    assert shifted(0.5, 3.0) == 0.75
    assert shifted(0.5, math.exp(1.15)) == pytest.approx(3.158193 / 4.158193, rel=1e-6)
    assert [round(resolution_factor(h, w), 3) for h, w in ((768, 768), (832, 1216))] == [
        0.75,
        0.982,
    ]
    assert resolution_factor(1536, 1536) == 1.5


@given(st.floats(0.001, 0.999), st.floats(0.05, 20.0))
def test_shift_multiplies_the_odds_of_noise_and_can_be_undone(u, k):
    moved = shifted(u, k)
    assert moved / (1 - moved) == pytest.approx(k * u / (1 - u), rel=1e-9)
    assert shifted(moved, 1 / k) == pytest.approx(u, rel=1e-9)


def test_flow_timestep_of_every_ticket_is_inside_the_range():
    values = [flow_timestep(ticket, 3.0) for ticket in range(1000)]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] < 1000
    assert np.median(values) == pytest.approx(750, abs=0.5)
    assert flow_timestep(0, 1.0) == 0.5


@pytest.mark.parametrize("shift", [1.0, 0.5, 3.0])
def test_shifted_density_is_that_of_the_timesteps_drawn(shift):
    pool = TicketPool(LogitNormal().bin_weights(20), 5)
    tickets = pool.draw_all(200_000)
    timesteps = np.array([flow_timestep(t, shift) for t in range(1000)])[tickets]
    drawn = np.histogram(timesteps, bins=20, range=(0, 1000))[0] / 200_000
    shares = shifted_shares(pool, {shift: 2.0})
    assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)
    # A ticket stands for a thousandth of the range, and a bar may cut through it.
    assert np.abs(drawn - shares).max() < 0.0015
    assert shifted_density(pool, {shift: 2.0}) == pytest.approx([20 * s for s in shares])


def test_shift_of_one_shows_the_pool_itself():
    pool = TicketPool(HighNoise(start=500).bin_weights(20), 5, minimum=600)
    shares = [float(share) for share in pool.shares()]
    assert shifted_shares(pool, {1.0: 1.0}) == pytest.approx(shares, abs=1e-12)


def test_shifts_of_several_resolutions_mix_by_how_often_they_occur():
    pool = uniform()
    parts = [np.array(shifted_shares(pool, {k: 1.0})) for k in (2.0, 3.0)]
    mixed = shifted_shares(pool, {2.0: 1.0, 3.0: 3.0})
    assert mixed == pytest.approx(list(0.25 * parts[0] + 0.75 * parts[1]))
    assert sum(shifted_counts(pool, 1237, {2.0: 1.0, 3.0: 3.0})) == 1237
    for faulty in ({}, {0.0: 1.0}, {1.0: 0.0}, {1.0: -1.0, 2.0: 3.0}):
        with pytest.raises(ValueError, match="above 0"):
            shifted_shares(pool, faulty)
