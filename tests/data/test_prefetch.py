from __future__ import annotations

import threading
import time

import pytest

from aozora.data.prefetch import Prefetcher


def test_items_come_in_order_and_then_end():
    with Prefetcher(lambda k: k * k, 3, 40, depth=4) as items:
        assert list(items) == [k * k for k in range(3, 40)]
        assert list(items) == []


def test_an_empty_range_gives_nothing():
    with Prefetcher(lambda k: k, 5, 5, depth=2) as items:
        assert list(items) == []


def test_no_more_than_depth_items_are_made_ahead():
    made = []
    with Prefetcher(lambda k: made.append(k) or k, 0, 100, depth=3) as items:
        for taken in range(1, 6):
            assert next(items) == taken - 1
            time.sleep(0.02)
            assert len(made) <= taken + 3


def test_the_work_is_done_in_one_other_thread():
    with Prefetcher(lambda _: threading.get_ident(), 0, 20, depth=5) as items:
        threads = set(items)
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_an_error_is_raised_where_its_item_would_have_been():
    def fetch(k):
        if k == 2:
            raise KeyError("two")
        return k

    with Prefetcher(fetch, 0, 5, depth=4) as items:
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(KeyError, match="two"):
            next(items)


def test_waiting_is_measured():
    with Prefetcher(lambda k: time.sleep(0.05) or k, 0, 3, depth=1) as items:
        list(items)
    assert 0.1 < items.wait_seconds < 1
    with Prefetcher(lambda k: k, 0, 3, depth=3) as items:
        time.sleep(0.05)
        list(items)
    assert items.wait_seconds < 0.04


def test_closing_drops_what_is_not_begun_and_joins_the_thread():
    before = threading.active_count()
    made = []

    def fetch(k):
        time.sleep(0.05)
        made.append(k)
        return k

    items = Prefetcher(fetch, 0, 1000, depth=50)
    next(items)
    started = time.perf_counter()
    items.close()
    assert time.perf_counter() - started < 0.5
    assert len(made) <= 3
    assert threading.active_count() == before
    items.close()
    with pytest.raises(StopIteration):
        next(items)


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ValueError, match="depth"):
        Prefetcher(lambda k: k, 0, 1, depth=0)
