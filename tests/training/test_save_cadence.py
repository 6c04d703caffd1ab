from __future__ import annotations

import pytest

from aozora.training.save_cadence import SaveCadence


def due(every_steps, every_epochs, samples_per_epoch, last):
    cadence = SaveCadence(every_steps, every_epochs, samples_per_epoch)
    return [n for n in range(1, last + 1) if cadence.is_due(n, n - 1, n)]


def test_parts_of_epochs_are_due_at_their_very_sample():
    # As floats, 1.1 x 50 is a little more than 55.
    assert due(0, 1.1, 50, 120) == [55, 110]
    assert due(0, 0.5, 10, 12) == [5, 10]


@pytest.mark.parametrize(("steps", "expected"), [(0, []), (4, [4, 8])])
def test_steps_are_counted_where_epochs_are_not(steps, expected):
    assert due(steps, 0.0, 50, 10) == expected
