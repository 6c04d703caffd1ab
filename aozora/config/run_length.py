"""Epochs as the decimal numbers they were written as: 1.1 epochs of 10 batches are 11, not 12."""

from __future__ import annotations

import math
from fractions import Fraction


def exact_epochs(epochs: float) -> Fraction:
    """Return the number that ``epochs`` was written as; 1.1 is 11/10, which no float is."""
    return Fraction(repr(epochs))


def steps_of_epochs(epochs: float, batches_per_epoch: int, accumulation_steps: int) -> int:
    """Return the optimizer steps of a run of ``epochs``, at least 1; one begun counts whole."""
    batches = exact_epochs(epochs) * batches_per_epoch
    return max(1, math.ceil(batches / accumulation_steps))
