"""What happens between steps: validation and saving."""

from __future__ import annotations

from typing import Any

from aozora.config.schema import TrainConfig
from aozora.data.batch_plan import BatchPlan
from aozora.events import StopReason
from aozora.training.control import RunControl
from aozora.training.run_record import RunRecord
from aozora.training.save_cadence import SaveCadence
from aozora.training.saving import Saver
from aozora.training.trainer import Position
from aozora.training.validation import Validator


class Interludes:
    """Validates and saves when it is time, or when asked to."""

    def __init__(
        self,
        config: TrainConfig,
        record: RunRecord,
        control: RunControl,
        position: Position,
        saver: Saver,
        validator: Validator | None,
        plan: BatchPlan,
    ) -> None:
        self._record = record
        self._control = control
        self._position = position
        self._saver = saver
        self._validator = validator
        self._validate_every = config.validation.every_steps
        checkpoints = config.checkpoints
        self._cadence = SaveCadence(
            checkpoints.every_steps, checkpoints.every_epochs, plan.samples_per_epoch
        )
        self._samples_before = position.samples
        self._validated_step = -1

    def before_training(self, unet: Any) -> None:
        """Measure where a new run starts from."""
        if self._position.step == 0:
            self._validate(unet)

    def after_step(self, unet: Any) -> None:
        """Validate and save when it is time or asked for.

        Raises:
            SaveError: if an earlier save has failed meanwhile.
        """
        self._saver.raise_failure()
        position = self._position
        if position.step % self._validate_every == 0:
            self._validate(unet)
        is_due = self._cadence.is_due(position.step, self._samples_before, position.samples)
        self._samples_before = position.samples
        if self._control.take_save_request() or is_due:
            self._saver.save()

    def after_training(self, unet: Any, reason: StopReason) -> None:
        """Measure and save the end; returns when everything is on disk."""
        if reason == "completed":
            self._validate(unet)
        if reason == "completed" or self._control.should_save_at_stop:
            self._saver.save()
        self._saver.wait()

    def _validate(self, unet: Any) -> None:
        if self._validator is None or self._validated_step == self._position.step:
            return
        with self._record.phase("validate"):
            self._record.emit(self._validator.measure(unet, self._position.step))
        self._validated_step = self._position.step
