"""The training loop: micro-steps into gradients, gradients into one optimizer step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aozora.config.lr_schedule import LrSchedule
from aozora.errors import NumericsError, OutOfMemory
from aozora.events import (
    EventSink,
    OptimizerDiagnostics,
    StepCompleted,
    StepSkipped,
    StopReason,
    Warned,
)
from aozora.training.control import RunControl
from aozora.training.device import release_memory
from aozora.training.loss_scaler import LossScaler
from aozora.training.step import NoisePredictor, PreparedBatch, StepRecipe, score
from optimizers.gradient_sums import GradientSums
from optimizers.layout import Bucket
from optimizers.precision import UnrepresentableWeightError
from optimizers.streamed import StreamedOptimizer

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: Optimizer steps done or skipped.
        samples: Samples drawn by them.
        skipped: Steps skipped in all.
        skipped_in_a_row: Steps skipped since the last good one.
        last_norm: Norm of the gradients of the last good step; 0 before the first.
    """

    step: int = 0
    samples: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    last_norm: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The plain values the loop needs."""

    total_steps: int
    accumulation_steps: int
    samples_per_epoch: int
    clip_norm: float
    max_skipped_steps: int
    diagnostics_every: int
    clip_by_last_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class _Window:
    """The micro-steps of one optimizer step."""

    loss: Tensor
    sample_losses: Tensor
    timesteps: list[float]
    tickets: list[int]
    items: list[int]
    data_wait_seconds: float


@dataclass
class _Drawn:
    """The batches of one optimizer step, kept until it is done: it may have to be run again."""

    batches: list[PreparedBatch]
    waited: float = 0.0


class TrainingMemory(Protocol):
    """The memory of the run; `relieve` may change its parts.

    Attributes:
        gradients: Takes and sums the gradients of the trained parameters.
        optimizer: Moves them.
    """

    @property
    def gradients(self) -> GradientSums: ...  # noqa: D102

    @property
    def optimizer(self) -> StreamedOptimizer: ...  # noqa: D102

    def after_step(self) -> None:
        """Tell whoever holds copies of weights that these change."""
        ...

    def relieve(self) -> str | None:
        """Make do with less memory; return what was done in words, None if nothing is left."""
        ...


class Trainer:
    """Runs the loop from wherever ``position`` stands.

    Args:
        unet: The model, on ``device``.
        memory: Gradients and optimizer; asked when the device runs out of memory.
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
        memory: TrainingMemory,
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
        self._memory = memory
        self._optimizer = memory.optimizer
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

    def run(self) -> StopReason:
        """Train to the end, or until asked to stop.

        Raises:
            NumericsError: after too many steps in a row without finite numbers.
        """
        while self._position.step < self._settings.total_steps:
            started = time.monotonic()
            window = self._run_window()
            if window is None:
                return "stopped"
            self._finish_window(window, started)
            self._after_step()
        # Of the last step, nobody has looked at the weights yet.
        self._refuse_weights(self._optimizer.largest_weight().item())
        return "completed"

    def _run_window(self) -> _Window | None:
        """Sum the gradients of one optimizer step; None when asked to stop, which drops them."""
        drawn = _Drawn([])
        while True:
            try:
                return self._run_micro_steps(drawn)
            except torch.OutOfMemoryError as error:
                if self._settings.clip_by_last_norm:
                    raise  # some layers may have moved already
                text = ". ".join(str(error).split(". ")[:2])
            # Only here has the error let go of the tensors of the failed micro-step.
            self._make_room(text)

    def _make_room(self, text: str) -> None:
        """Go to the next way of saving memory, after which the step begins anew.

        Raises:
            OutOfMemory: when there is none left.
        """
        self._memory.gradients.discard()
        self._optimizer.wait_all()
        release_memory(self._device)
        done = self._memory.relieve()
        if done is None:
            raise OutOfMemory(
                f"the device ran out of memory: {text}",
                "lower training.batch_size or buckets.resolution, or train fewer layers",
            )
        release_memory(self._device)
        step = self._position.step + 1
        self._emit(Warned(text=f"step {step} ran out of graphics memory and is run again: {done}"))

    def _run_micro_steps(self, drawn: _Drawn) -> _Window | None:
        losses, sample_losses = [], []
        count = self._settings.accumulation_steps
        for micro_step in range(count):
            self._control.wait_while_paused()
            if self._control.should_stop:
                self._memory.gradients.discard()
                return None
            if micro_step == len(drawn.batches):
                batch, seconds = self._next_batch()
                drawn.batches.append(batch)
                drawn.waited += seconds
            batch = drawn.batches[micro_step]
            is_last = micro_step == count - 1
            if micro_step > 0:
                # The sums so far come to the device while forward runs.
                self._memory.gradients.begin(micro_step, is_last=is_last)
            loss, own = score(self._unet, batch.to(self._device), self._recipe)
            # Every sample of the step counts the same, also those of short batches.
            weighted = loss * batch.share
            if self._settings.clip_by_last_norm and not bool(torch.isfinite(weighted)):
                losses.append(weighted.detach())
                sample_losses.append(own)
                continue
            self._backward(weighted, micro_step, is_last=is_last)
            losses.append(weighted.detach())
            sample_losses.append(own)
        return _Window(
            loss=torch.stack(losses).sum(),
            sample_losses=torch.cat(sample_losses),
            timesteps=[float(t) for batch in drawn.batches for t in batch.timesteps.tolist()],
            tickets=[ticket for batch in drawn.batches for ticket in batch.tickets],
            items=[item for batch in drawn.batches for item in batch.items],
            data_wait_seconds=drawn.waited,
        )

    def _backward(self, loss: Tensor, micro_step: int, *, is_last: bool) -> None:
        """Compute the gradients of one micro-step and add them to the sums."""
        if micro_step == 0:
            # Until the last pass is on its way, it needs the room through which gradients travel.
            self._optimizer.wait_until_issued()
            if self._settings.clip_by_last_norm:
                self._begin_update()
            self._memory.gradients.begin(micro_step, is_last=is_last)
        (loss * self._scaler.scale).backward()  # type: ignore[no-untyped-call]
        self._memory.gradients.end()
        if self._settings.clip_by_last_norm:
            self._optimizer.end_step()
            self._memory.after_step()
            self._memory.gradients.on_finished = None

    def _begin_update(self) -> None:
        """Let every layer move as soon as its gradient is there, clipped by the last norm."""
        step = self._position.step + 1
        lr = self._lr(step)
        last = torch.tensor(self._position.last_norm, device=self._device)
        scale = self._scale(last)
        self._optimizer.begin_step(lr, diagnose=self._is_diagnosed(step))

        def update(bucket: Bucket, total: Tensor) -> None:
            # A gradient that is not finite counts as zero; momentum and weight decay still move
            # the weight.
            total.nan_to_num_(0.0, 0.0, 0.0)
            self._optimizer.update_bucket(bucket, total, lr, scale)

        self._memory.gradients.on_finished = update

    def _finish_window(self, window: _Window, started: float) -> None:
        position, scaler = self._position, self._scaler
        norm = self._memory.gradients.norm() / scaler.scale
        largest = self._optimizer.largest_weight().reshape(())
        # The one place where the host waits for the device.
        loss, grad_norm, largest_weight, *sample_losses = torch.cat(
            [torch.stack([window.loss, norm, largest]).double(), window.sample_losses.double()]
        ).tolist()
        self._refuse_weights(largest_weight)
        position.step += 1
        position.samples += len(window.items)
        if math.isfinite(loss) and math.isfinite(grad_norm):
            lr = self._apply(norm)
            position.last_norm = grad_norm
            self._emit(
                StepCompleted(
                    step=position.step,
                    total_steps=self._settings.total_steps,
                    epoch=position.samples / self._settings.samples_per_epoch,
                    loss=loss,
                    lr=lr,
                    grad_norm=grad_norm,
                    timesteps=window.timesteps,
                    tickets=window.tickets,
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

    def _refuse_weights(self, largest: float) -> None:
        """Stop when the steps so far have driven a weight out of its format.

        Raises:
            NumericsError: naming what has.
        """
        try:
            self._optimizer.refuse_weight(largest)
        except UnrepresentableWeightError as error:
            raise NumericsError(
                f"step {self._position.step}: {error}",
                "resume from an earlier save with a lower learning rate",
            ) from error

    def _apply(self, norm: Tensor) -> float:
        """Take the optimizer step, unless it is taken; return its learning rate."""
        step = self._position.step
        lr = self._lr(step)
        if not self._settings.clip_by_last_norm:
            self._optimizer.step(
                self._memory.gradients, lr, self._scale(norm), diagnose=self._is_diagnosed(step)
            )
            self._memory.after_step()
        self._scaler.note_good_step()
        self._position.skipped_in_a_row = 0
        return lr

    def _lr(self, step: int) -> float:
        return self._schedule.at_step(step - 1, self._settings.total_steps)

    def _scale(self, norm: Tensor) -> Tensor:
        """Return what the sums are multiplied by: loss scale undone, and clipped as torch does."""
        scale = torch.ones((), dtype=torch.float32, device=self._device)
        if self._settings.clip_norm > 0:
            scale = torch.clamp(self._settings.clip_norm / (norm + 1e-6), max=1.0)
        return scale / self._scaler.scale

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
        """Count a step without finite numbers; its samples are used up.

        No weight is touched, except where layers move before the norm is known.
        """
        position = self._position
        position.skipped += 1
        # A loss scale that can still be lowered is the search for a fitting one, not a failure.
        is_overflow = math.isfinite(loss) and self._scaler.note_overflow()
        if not is_overflow:
            position.skipped_in_a_row += 1
        reason = f"the loss is {loss}" if not math.isfinite(loss) else f"gradient norm {grad_norm}"
        if math.isfinite(loss) and self._settings.clip_by_last_norm:
            reason += "; gradients that are not finite counted as zero"
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
                tickets=window.tickets,
                items=window.items,
            )
        )
        if position.skipped_in_a_row >= self._settings.max_skipped_steps:
            raise NumericsError(
                f"step {position.step}: {reason}; {position.skipped_in_a_row} steps in a row had no"
                " finite numbers",
                "lower schedule.learning_rate, or train with training.precision bf16 or fp32",
            )
