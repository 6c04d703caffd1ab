from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aozora.data.batch_plan import BatchPlan

SHAPES = [(64, 64), (64, 128), (128, 64)]


@st.composite
def plans(draw):
    count = draw(st.integers(1, 25))
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=count, max_size=count))
    repeats = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    batch_size = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32))
    return shapes, [f"{i}.png" for i in range(count)], repeats, batch_size, seed


def order(plan, epoch=0):
    first = epoch * plan.batches_per_epoch
    return [i for k in range(plan.batches_per_epoch) for i in plan.batch(first + k).items]


@given(plans())
def test_every_item_is_drawn_as_often_as_repeated_in_every_epoch(arguments):
    plan = BatchPlan(*arguments)
    for epoch in range(2):
        assert Counter(order(plan, epoch)) == dict(enumerate(arguments[2]))
        assert len(order(plan, epoch)) == plan.samples_per_epoch


@given(plans())
def test_batches_are_of_one_bucket_and_none_is_empty_or_too_large(arguments):
    plan = BatchPlan(*arguments)
    for k in range(2 * plan.batches_per_epoch):
        items = plan.batch(k).items
        assert 1 <= len(items) <= arguments[3]
        assert len({arguments[0][i] for i in items}) == 1
        assert plan.batch(k).epoch == k // plan.batches_per_epoch


@given(plans())
def test_samples_are_counted_without_gaps(arguments):
    plan = BatchPlan(*arguments)
    drawn = 0
    for k in range(2 * plan.batches_per_epoch + 1):
        assert plan.batch(k).first_sample == plan.samples_before(k) == drawn
        drawn += len(plan.batch(k).items)


@given(plans(), st.integers(0, 60))
def test_a_batch_is_the_same_however_it_is_reached(arguments, k):
    straight = BatchPlan(*arguments)
    walked = [straight.batch(i) for i in range(k + 1)][-1]
    assert BatchPlan(*arguments).batch(k) == walked
    straight.batch(0)
    assert straight.batch(k) == walked


@settings(max_examples=40)
@given(plans(), st.integers(0, 24))
def test_leaving_an_item_out_keeps_the_order_of_the_others(arguments, index):
    shapes, ids, repeats, _, seed = arguments
    gone = index % len(ids)
    kept = [i for i in range(len(ids)) if i != gone]
    if not kept:
        return
    whole = BatchPlan(shapes, ids, repeats, 1, seed)
    smaller = BatchPlan(
        [shapes[i] for i in kept], [ids[i] for i in kept], [repeats[i] for i in kept], 1, seed
    )
    names = [ids[i] for i in order(whole) if i != gone]
    assert names == [ids[kept[i]] for i in order(smaller)]


def test_epochs_and_seeds_give_different_orders():
    shapes, ids, repeats = [(64, 64)] * 30, [str(i) for i in range(30)], [1] * 30
    plan = BatchPlan(shapes, ids, repeats, 4, 42)
    assert order(plan, 0) != order(plan, 1)
    assert order(plan) != order(BatchPlan(shapes, ids, repeats, 4, 43))


def test_buckets_are_mixed_over_an_epoch():
    shapes = [SHAPES[i % 3] for i in range(60)]
    plan = BatchPlan(shapes, [str(i) for i in range(60)], [1] * 60, 2, 1)
    sequence = [shapes[plan.batch(k).items[0]] for k in range(plan.batches_per_epoch)]
    changes = sum(a != b for a, b in pairwise(sequence))
    assert changes > 8


def test_the_order_of_a_seed_stays_what_it_is():
    plan = BatchPlan([(64, 64)] * 6, list("abcdef"), [1] * 6, 2, 42)
    assert [plan.batch(k).items for k in range(4)] == [(2, 4), (5, 0), (3, 1), (0, 4)]


def test_no_order_is_made_twice_where_one_epoch_goes_over_into_the_next(monkeypatch):
    made = []
    real = BatchPlan._order

    def counting(plan, epoch):
        made.append(epoch)
        return real(plan, epoch)

    monkeypatch.setattr(BatchPlan, "_order", counting)
    plan = BatchPlan([(64, 64)] * 10, list("abcdefghij"), [1] * 10, 2, 42)
    window, last = 3, 9 * plan.batches_per_epoch + 2
    samples = plan.samples_before(last)
    drawn = 0
    for k in range(last):
        drawn += len(plan.batch(k).items)
        first = k - k % window
        plan.samples_before(first + window)
        plan.samples_before(first)
    assert drawn == samples
    # The run's last epoch is counted before it begins.
    assert made == [9, *range(10)]


@pytest.mark.parametrize(
    "arguments",
    [
        ([], [], [], 1, 0),
        ([(1, 1)] * 2, ["a", "a"], [1, 1], 1, 0),
        ([(1, 1)], ["a"], [0], 1, 0),
        ([(1, 1)], ["a"], [1], 0, 0),
        ([(1, 1)], ["a", "b"], [1, 1], 1, 0),
    ],
)
def test_plans_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=r"\w"):
        BatchPlan(*arguments)
