"""After which steps a run saves."""

from __future__ import annotations

from aozora.config.run_length import exact_epochs


class SaveCadence:
    """Says after which steps to save.

    Args:
        every_steps: Steps between saves; 0 for never.
        every_epochs: Epochs between saves; 0 for never.
        samples_per_epoch: Samples of an epoch.
    """

    def __init__(self, every_steps: int, every_epochs: float, samples_per_epoch: int) -> None:
        self._every_steps = every_steps
        self._every_samples = exact_epochs(every_epochs) * samples_per_epoch

    def is_due(self, step: int, samples_before: int, samples: int) -> bool:
        """Return whether to save after ``step``, which took the samples drawn up to ``samples``."""
        if self._every_steps and step % self._every_steps == 0:
            return True
        if not self._every_samples:
            return False
        return samples // self._every_samples > samples_before // self._every_samples
