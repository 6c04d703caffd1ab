from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gui.charts.table import Table
from gui.charts.tally import TimestepTally

_rows = st.lists(
    st.one_of(st.floats(-1e6, 1e6, width=32), st.just(math.nan)), min_size=1, max_size=700
)


def _fill(values, capacity, read_every=0):
    table = Table(["step"], ["loss"], capacity=capacity)
    for number, value in enumerate(values):
        table.append([number], [value])
        if read_every and number % read_every == 0:
            table.mean("loss")
    return table


@given(values=_rows, capacity=st.sampled_from([2, 8, 64]), read_every=st.sampled_from([0, 1, 7]))
@settings(max_examples=80, deadline=None)
def test_each_kept_row_has_the_extremes_and_the_mean_of_the_rows_it_stands_for(
    values, capacity, read_every
):
    table = _fill(values, capacity, read_every)
    count, stride = len(table), table.stride
    assert count == math.ceil(len(values) / stride) <= capacity
    assert table.place("step").tolist() == [float(i * stride) for i in range(count)]
    for row in range(count):
        group = np.array(values[row * stride : (row + 1) * stride])
        known = group[np.isfinite(group)]
        if not len(known):
            assert math.isnan(table.mean("loss")[row])
            continue
        assert table.low("loss")[row] == np.float32(known.min())
        assert table.high("loss")[row] == np.float32(known.max())


@given(values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=400))
@settings(max_examples=40, deadline=None)
def test_means_of_whole_rows_are_means_of_what_was_appended(values):
    table = _fill(values, 16)
    for row in range(len(values) // table.stride):
        group = values[row * table.stride : (row + 1) * table.stride]
        assert table.mean("loss")[row] == pytest.approx(np.mean(group), abs=1e-5)


def test_memory_is_flat_over_a_million_points():
    table = Table(["step", "time"], ["loss", "lr"], capacity=4096)
    sizes = []
    for step in range(1_000_000):
        table.append([step, step / 2], [0.1, 1e-6])
        if step % 100_000 == 99_999:
            len(table)
            sizes.append(table.num_bytes())
    assert len(table) <= 4096
    assert len(set(sizes)) == 1


def test_a_spike_survives_any_number_of_joins():
    values = [0.1] * 100_000
    values[54_321] = 9.0
    table = _fill(values, 256)
    assert table.high("loss").max() == 9.0


def test_a_table_below_its_capacity_is_exact():
    values = [float(np.float32(v)) for v in np.random.default_rng(1).random(5000)]
    table = _fill(values, 65_536)
    assert table.stride == 1
    assert table.mean("loss").tolist() == values


def test_cutting_forgets_a_step_and_all_after_it_and_goes_on_from_there():
    table = _fill([float(i) for i in range(100)], 1000)
    table.cut("step", 40)
    assert table.place("step")[-1] == 39
    table.append([40], [-1.0])
    assert table.mean("loss")[-2:].tolist() == [39.0, -1.0]
    assert len(table) == 41


def test_the_stride_counts_rows_that_were_not_read_yet():
    table = Table(["step"], ["loss"], capacity=4)
    for number in range(9):
        table.append([number], [0.0])
    assert table.stride == 4
    assert len(table) == 3


def test_the_version_changes_with_the_content():
    table = _fill([1.0], 8)
    before = table.version
    table.append([1], [2.0])
    assert table.version != before


@given(
    timesteps=st.lists(st.floats(0, 999.99), max_size=200),
    bins=st.sampled_from([10, 20, 25, 40, 50, 100]),
)
@settings(max_examples=50, deadline=None)
def test_tallies_of_any_number_of_bars_hold_every_sample_once(timesteps, bins):
    tally = TimestepTally()
    tally.add(timesteps, [0.5] * len(timesteps))
    counts = tally.counts(bins)
    assert counts.sum() == len(timesteps) == tally.total
    for number, count in enumerate(counts):
        width = 1000 // bins
        inside = [t for t in timesteps if number * width <= int(t) < (number + 1) * width]
        assert count == len(inside)


def test_a_loss_that_is_no_number_counts_the_sample_but_not_the_mean():
    tally = TimestepTally()
    tally.add([10, 12, 990], [1.0, math.nan, 3.0])
    losses = tally.mean_losses(10)
    assert tally.counts(10)[0] == 2
    assert losses[0] == 1.0
    assert losses[9] == 3.0
    assert math.isnan(losses[5])
