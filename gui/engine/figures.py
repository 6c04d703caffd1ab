"""The few figures the run bar shows, kept from the stream of events."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, replace

from aozora.events import Event, MemorySampled, RunPlanned, RunStarted, StepCompleted

_WINDOW = 50
_SMOOTHING = 0.98


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """What a run does now.

    Attributes:
        step: Last finished optimizer step.
        total_steps: Steps of the run; 0 until known.
        seconds_per_step: Median of the last steps; NaN before the first.
        loss: Loss of the last step; NaN before it.
        smooth_loss: Exponential mean of the losses, free of its start's bias.
        lr: Learning rate of the last step.
        grad_norm: Gradient norm of the last step.
        epoch: Passes over the pictures.
        device_used: Bytes of device memory in use, by all programs; 0 without a device.
        device_total: Bytes of device memory.
        process_rss: Bytes of host memory the engine uses.
        host_available: Bytes of host memory left.
        measured_steps: Steps since the engine was started.
        device_peak: Most bytes of device memory this run had in use since its first step.
        process_peak: Most bytes of host memory since then.
    """

    step: int = 0
    total_steps: int = 0
    seconds_per_step: float = math.nan
    loss: float = math.nan
    smooth_loss: float = math.nan
    lr: float = math.nan
    grad_norm: float = math.nan
    epoch: float = 0.0
    device_used: int = 0
    device_total: int = 0
    process_rss: int = 0
    host_available: int = 0
    measured_steps: int = 0
    device_peak: int = 0
    process_peak: int = 0

    @property
    def seconds_left(self) -> float:
        """Seconds to the end at the present pace; NaN when unknown."""
        return self.seconds_per_step * max(0, self.total_steps - self.step)


class FigureKeeper:
    """Follows a run event by event."""

    def __init__(self) -> None:
        self.figures = RunFigures()
        self._paces: deque[float] = deque(maxlen=_WINDOW)
        self._sum = 0.0
        self._weight = 0.0
        self._beside_torch = 0

    def feed(self, event: Event) -> None:
        """Take ``event`` into account."""
        match event:
            case RunStarted():
                self._paces.clear()
                self._sum = self._weight = 0.0
                self.figures = RunFigures(step=event.start_step)
            case RunPlanned():
                self.figures = replace(self.figures, total_steps=event.total_steps)
                self._beside_torch = event.expected_device_bytes - event.expected_reserved_bytes
            case StepCompleted():
                self._step(event)
            case MemorySampled():
                self._memory(event)
            case _:
                pass

    def _memory(self, event: MemorySampled) -> None:
        figures = replace(
            self.figures,
            device_used=event.device_used,
            device_total=event.device_total,
            process_rss=event.process_rss,
            host_available=event.host_available,
        )
        # Before the first step there may be more: the encoders, the model on its way.
        if figures.measured_steps:
            own = event.device_reserved + self._beside_torch if event.device_total else 0
            figures = replace(
                figures,
                device_peak=max(figures.device_peak, own),
                process_peak=max(figures.process_peak, event.process_rss),
            )
        self.figures = figures

    def _step(self, event: StepCompleted) -> None:
        self._paces.append(event.seconds)
        if math.isfinite(event.loss):
            self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * event.loss
            self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        self.figures = replace(
            self.figures,
            step=event.step,
            total_steps=event.total_steps,
            seconds_per_step=statistics.median(self._paces),
            loss=event.loss,
            smooth_loss=self._sum / self._weight if self._weight else math.nan,
            lr=event.lr,
            grad_norm=event.grad_norm,
            epoch=event.epoch,
            measured_steps=self.figures.measured_steps + 1,
        )
