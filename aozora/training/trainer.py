"""The training loop: micro-steps into gradients, gradients into one optimizer step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aozora.config.lr_schedule import LrSchedule
from aozora.errors import NumericsError
from aozora.events import EventSink, OptimizerDiagnostics, StepCompleted, StepSkipped, StopReason
from aozora.training.control import RunControl
from aozora.training.gradients import GradientAccumulator, LossScaler
from aozora.training.step import NoisePredictor, PreparedBatch, StepRecipe, score
from optimizers.precision import UnrepresentableWeightError
from optimizers.protocol import MasterOptimizer

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: Optimizer steps done or skipped.
        samples: Samples drawn by them.
        skipped: Steps skipped in all.
        skipped_in_a_row: Steps skipped since the last good one.
    """

    step: int = 0
    samples: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The plain values the loop needs."""

    total_steps: int
    accumulation_steps: int
    samples_per_epoch: int
    clip_norm: float
    max_skipped_steps: int
    diagnostics_every: int


@dataclass(frozen=True, kw_only=True)
class _Window:
    """The micro-steps of one optimizer step."""

    loss: Tensor
    sample_losses: Tensor
    timesteps: list[float]
    items: list[int]
    data_wait_seconds: float


class Trainer:
    """Runs the loop from wherever ``position`` stands.

    Args:
        unet: The model, on ``device``.
        parameters: Its trained parameters, by name.
        optimizer: Moves them.
        recipe: How predictions are scored.
        schedule: The learning rate over the run.
        scaler: Loss scale; disabled unless fp16.
        settings: Plain values.
        position: Where the run stands; moved on with every step.
        device: Where the model is.
        emit: Receiver of events.
        control: Requests of whoever started the run.
        next_batch: Returns the next batch and the seconds it was waited for.
        after_step: Called at every step's end, for saving and validation.
    """

    def __init__(
        self,
        *,
        unet: NoisePredictor,
        parameters: Mapping[str, nn.Parameter],
        optimizer: MasterOptimizer,
        recipe: StepRecipe,
        schedule: LrSchedule,
        scaler: LossScaler,
        settings: LoopSettings,
        position: Position,
        device: torch.device,
        emit: EventSink,
        control: RunControl,
        next_batch: Callable[[], tuple[PreparedBatch, float]],
        after_step: Callable[[], None],
    ) -> None:
        self._unet = unet
        self._optimizer = optimizer
        self._recipe = recipe
        self._schedule = schedule
        self._scaler = scaler
        self._settings = settings
        self._position = position
        self._device = device
        self._emit = emit
        self._control = control
        self._next_batch = next_batch
        self._after_step = after_step
        self._gradients = GradientAccumulator(parameters)

    def run(self) -> StopReason:
        """Train to the end, or until asked to stop.

        Raises:
            NumericsError: after too many steps in a row without finite numbers.
        """
        try:
            while self._position.step < self._settings.total_steps:
                started = time.monotonic()
                window = self._run_window()
                if window is None:
                    return "stopped"
                self._finish_window(window, started)
                self._after_step()
        finally:
            self._gradients.close()
        return "completed"

    def _run_window(self) -> _Window | None:
        """Sum the gradients of one optimizer step; None when asked to stop, which drops them."""
        losses, sample_losses, waited = [], [], 0.0
        timesteps: list[float] = []
        items: list[int] = []
        for _ in range(self._settings.accumulation_steps):
            self._control.wait_while_paused()
            if self._control.should_stop:
                self._gradients.clear()
                return None
            batch, seconds = self._next_batch()
            waited += seconds
            timesteps += [float(value) for value in batch.timesteps.tolist()]
            items += batch.items
            loss, own = score(self._unet, batch.to(self._device), self._recipe)
            # Every sample of the step counts the same, also those of short batches.
            weighted = loss * batch.share
            (weighted * self._scaler.scale).backward()  # type: ignore[no-untyped-call]
            losses.append(weighted.detach())
            sample_losses.append(own)
        return _Window(
            loss=torch.stack(losses).sum(),
            sample_losses=torch.cat(sample_losses),
            timesteps=timesteps,
            items=items,
            data_wait_seconds=waited,
        )

    def _finish_window(self, window: _Window, started: float) -> None:
        position = self._position
        if self._scaler.enabled:
            self._gradients.scale(1.0 / self._scaler.scale)
        norm = self._gradients.norm()
        # The one place where the host waits for the device.
        loss, grad_norm, *sample_losses = torch.cat(
            [torch.stack([window.loss, norm]).double(), window.sample_losses.double()]
        ).tolist()
        position.step += 1
        position.samples += len(window.items)
        if math.isfinite(loss) and math.isfinite(grad_norm):
            lr = self._apply(norm)
            self._emit(
                StepCompleted(
                    step=position.step,
                    total_steps=self._settings.total_steps,
                    epoch=position.samples / self._settings.samples_per_epoch,
                    loss=loss,
                    lr=lr,
                    grad_norm=grad_norm,
                    timesteps=window.timesteps,
                    sample_losses=sample_losses,
                    items=window.items,
                    samples=position.samples,
                    seconds=time.monotonic() - started,
                    data_wait_seconds=window.data_wait_seconds,
                    loss_scale=self._scaler.scale,
                )
            )
            self._report_diagnostics()
        else:
            self._skip(window, loss, grad_norm)
        self._gradients.clear()

    def _apply(self, norm: Tensor) -> float:
        """Clip, take the optimizer step, return the learning rate it was taken with."""
        if self._settings.clip_norm > 0:
            self._gradients.clip(norm, self._settings.clip_norm)
        step = self._position.step
        lr = self._schedule.at_step(step - 1, self._settings.total_steps)
        try:
            self._optimizer.step(self._gradients.sums, lr, diagnose=self._is_diagnosed(step))
        except UnrepresentableWeightError as error:
            raise NumericsError(
                f"step {step}: {error}", "resume from an earlier save with a lower learning rate"
            ) from error
        self._scaler.note_good_step()
        self._position.skipped_in_a_row = 0
        return lr

    def _is_diagnosed(self, step: int) -> bool:
        every = self._settings.diagnostics_every
        return every > 0 and step % every == 0

    def _report_diagnostics(self) -> None:
        if not self._is_diagnosed(self._position.step):
            return
        found = self._optimizer.diagnostics()
        assert found is not None
        self._emit(
            OptimizerDiagnostics(
                step=self._position.step,
                update_rms=found.update_rms,
                weight_rms=found.weight_rms,
                second_moment_quantiles=list(found.v_quantiles),
                share_moved=found.share_moved,
            )
        )

    def _skip(self, window: _Window, loss: float, grad_norm: float) -> None:
        """Count a step without finite numbers; its samples are used up, no weight is touched."""
        position = self._position
        position.skipped += 1
        # A loss scale that can still be lowered is the search for a fitting one, not a failure.
        is_overflow = math.isfinite(loss) and self._scaler.note_overflow()
        if not is_overflow:
            position.skipped_in_a_row += 1
        reason = f"the loss is {loss}" if not math.isfinite(loss) else f"gradient norm {grad_norm}"
        if is_overflow:
            reason = f"fp16 overflow, loss scale lowered to {self._scaler.scale:g}"
        self._emit(
            StepSkipped(
                step=position.step,
                total_steps=self._settings.total_steps,
                reason=reason,
                in_a_row=position.skipped_in_a_row,
                skipped=position.skipped,
                timesteps=window.timesteps,
                items=window.items,
            )
        )
        if position.skipped_in_a_row >= self._settings.max_skipped_steps:
            raise NumericsError(
                f"step {position.step}: {reason}; {position.skipped_in_a_row} steps in a row had no"
                " finite numbers",
                "lower schedule.learning_rate, or train with training.precision bf16 or fp32",
            )
