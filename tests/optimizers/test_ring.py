from __future__ import annotations

import random

import pytest
import torch

from optimizers.ring import Ring


class _Event:
    def synchronize(self):
        pass


def test_what_is_lent_never_overlaps_and_what_is_reused_waits_for_its_last_user():
    rng = random.Random(0)
    ring = Ring(16 * 512, torch.device("cpu"))
    base = ring.take(1).memory.data_ptr()
    ring = Ring(16 * 512, torch.device("cpu"))
    lent, owner = [], {}
    for _ in range(3000):
        lease = ring.take(rng.randint(1, 5 * 512))
        if lease is None:
            assert lent, "a ring with nothing lent must be able to lend"
            old = lent.pop(rng.randrange(min(2, len(lent))))
            event = _Event()
            for block in range(old.start // 512, old.end // 512):
                owner[block] = event
            old.give_back(event)
            continue
        for other in lent:
            assert lease.end <= other.start or other.end <= lease.start
        for block in range(lease.start // 512, lease.end // 512):
            if block in owner:
                assert owner[block] in lease.before, "reused without waiting for its last user"
        lent.append(lease)
    assert base


def test_more_than_the_ring_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Ring(1024, torch.device("cpu")).take(1025)


def test_nothing_is_lent_over_what_is_still_in_use():
    ring = Ring(1024, torch.device("cpu"))
    first = ring.take(512)
    ring.take(512)
    assert ring.take(512) is None
    first.give_back(_Event())
    assert ring.take(512) is not None


def test_what_is_lent_for_long_is_passed_over():
    ring = Ring(10 * 512, torch.device("cpu"))
    held = ring.take(2 * 512)
    for _ in range(20):
        lease = ring.take(3 * 512)
        assert lease is not None
        assert lease.start >= held.end or lease.end <= held.start
        lease.give_back(_Event())
    assert ring.take(9 * 512) is None
