"""How long a run will be, as far as it is known before the pictures are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aozora.config.run_length import steps_of_epochs


@dataclass(frozen=True)
class PlannedRun:
    """The length of a run.

    Attributes:
        steps: Optimizer steps, or 0 when it depends on pictures not read yet.
        steps_per_epoch: Optimizer steps of a pass over the pictures, or 0.
        samples: Pictures drawn in all, each with one ticket, or 0. Short batches, which only the
            pictures tell of, can make it a few less.
    """

    steps: int
    steps_per_epoch: float
    samples: int


def planned_run(value: Callable[[str], Any], batches_per_epoch: int = 0) -> PlannedRun:
    """Return the length of the run that settings describe.

    Args:
        value: Gives the value of a setting by its dotted path.
        batches_per_epoch: Batches of one pass over the pictures, or 0 when not known.
    """
    accumulation = _positive(value("training.accumulation_steps"))
    batch = _positive(value("training.batch_size"))
    epochs = value("training.epochs")
    epochs = float(epochs) if isinstance(epochs, int | float) else 0.0
    per_epoch = batches_per_epoch / accumulation
    if epochs > 0.0:
        steps = steps_of_epochs(epochs, batches_per_epoch, accumulation)
        steps = steps if batches_per_epoch else 0
    else:
        steps = _positive(value("training.steps"))
    return PlannedRun(steps, per_epoch, steps * accumulation * batch)


def _positive(number: Any) -> int:
    """Return a setting as a count; a faulty one is listed as a problem elsewhere."""
    return max(1, number) if isinstance(number, int) else 1
