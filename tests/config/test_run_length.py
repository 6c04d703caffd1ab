from __future__ import annotations

from fractions import Fraction

import pytest

from aozora.config.run_length import exact_epochs, steps_of_epochs


@pytest.mark.parametrize(
    ("epochs", "batches", "accumulation", "steps"),
    [
        (1.1, 10, 1, 11),
        (0.07, 100, 1, 7),
        (3.0, 50, 4, 38),
        (3, 8, 4, 6),
        (1e-5, 100, 1, 1),
        (0.15, 10, 1, 2),
    ],
)
def test_epochs_are_the_numbers_they_were_written_as(epochs, batches, accumulation, steps):
    assert steps_of_epochs(epochs, batches, accumulation) == steps


def test_an_epoch_written_with_an_exponent_is_exact_too():
    assert exact_epochs(1e-07) == Fraction(1, 10_000_000)
