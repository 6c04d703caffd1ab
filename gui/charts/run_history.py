"""What a run did so far, for the charts; fed by live events and by recorded ones alike."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from aozora.events import (
    CheckpointSaved,
    Event,
    MemorySampled,
    OptimizerDiagnostics,
    RunPlanned,
    RunStarted,
    StepCompleted,
    StepSkipped,
    ValidationCompleted,
)
from gui.charts.decimate import nearest
from gui.charts.table import Table
from gui.charts.tally import TimestepTally

PLACES = ("step", "seconds", "epoch")
STEP_VALUES = ("loss", "lr", "grad_norm", "seconds_per_step", "data_wait")
MEMORY_VALUES = ("device_used", "device_total", "process_rss", "host_available")
MOTION_VALUES = ("share_moved", "update_rms", "weight_rms")

MarkKind = Literal["checkpoint", "resume", "skipped"]
_MOST_MARKS = 2_000
_MOST_DRAWN = 10_000


@dataclass(frozen=True)
class Mark:
    """Something that happened at a place of the charts."""

    kind: MarkKind
    step: float
    seconds: float
    epoch: float
    text: str

    def place(self, name: str) -> float:
        """Return where it is in the measure called ``name``."""
        return float(getattr(self, name))


@dataclass(frozen=True)
class RunPart:
    """What one start of the engine did of a run; a run that was resumed has several.

    Attributes:
        folder: Its record, with the settings that were in force.
        start_step: Steps done before it.
        total_steps: Steps of the whole run as planned then; 0 until that is known.
    """

    folder: str
    start_step: int
    total_steps: int = 0


class RunHistory:
    """Tables, marks and the timestep tally of one run, with its resumes; bounded in memory.

    Seconds count while an engine ran: the time between a stop and its resume is left out.
    """

    def __init__(self) -> None:
        self.steps = Table(PLACES, STEP_VALUES)
        self.memory = Table(PLACES, MEMORY_VALUES, capacity=16_384)
        self.validation = Table(PLACES, ("loss",), capacity=4_096)
        self.motion = Table(PLACES, MOTION_VALUES, capacity=4_096)
        self.tally = TimestepTally()
        self.marks: list[Mark] = []
        self.parts: tuple[RunPart, ...] = ()
        self.plan: RunPlanned | None = None
        self.folder = ""
        self.run_id = ""
        self._seconds = 0.0
        self._clock: float | None = None
        self._step = 0.0
        self._epoch = 0.0
        # What the last steps drew, to be taken back when a run goes back to an earlier one.
        self._drawn: deque[tuple[int, list[int], list[float]]] = deque(maxlen=_MOST_DRAWN)

    @property
    def version(self) -> tuple[int, ...]:
        """Numbers that change with the content."""
        tables = (self.steps, self.memory, self.validation, self.motion)
        return (*(table.version for table in tables), len(self.marks), self.tally.total)

    @property
    def last_step(self) -> int:
        """The last step it knows of."""
        return int(self._step)

    def feed(self, time: float, event: Event) -> None:
        """Take in ``event``, which came at ``time`` (seconds since the epoch)."""
        match event:
            case RunStarted():
                self._started(event)
            case RunPlanned():
                self._planned(event)
            case StepCompleted():
                self._stepped(time, event)
            case StepSkipped():
                self._tick(time)
                self._step = event.step
                self._draw(event.step, event.tickets, [float("nan")] * len(event.tickets))
                self._mark("skipped", event.reason)
            case MemorySampled():
                self._tick(time)
                values = [float(getattr(event, name)) for name in MEMORY_VALUES]
                self.memory.append(self._here(), values)
            case ValidationCompleted():
                self._tick(time)
                self._step = event.step
                self.validation.append(self._here(), [event.loss])
            case OptimizerDiagnostics():
                values = [event.share_moved, event.update_rms, event.weight_rms]
                self.motion.append(self._here(), values)
            case CheckpointSaved():
                self._tick(time)
                self._mark("checkpoint", event.model, event.step)
            case _:
                pass

    def feed_numbers(self, step: int, numbers: dict[str, float]) -> None:
        """Take in a line of ``metrics.jsonl``, which knows no timesteps, memory or time of day."""
        nan = float("nan")
        if "loss" in numbers:
            self._seconds += numbers.get("seconds", 0.0)
            self._step, self._epoch = step, numbers.get("epoch", self._epoch)
            names = ("loss", "lr", "grad_norm", "seconds", "data_wait_seconds")
            self.steps.append(self._here(), [numbers.get(name, nan) for name in names])
        if "validation/loss" in numbers:
            self.validation.append(self._here(), [numbers["validation/loss"]])
        if "optimizer/share_moved" in numbers:
            motion = [numbers.get(f"optimizer/{name}", nan) for name in MOTION_VALUES]
            self.motion.append(self._here(), motion)
        if "skipped" in numbers:
            self._step = step
            self._mark("skipped", "")

    def mark_resume(self, step: int) -> None:
        """Go back to ``step``: what came after it is done again by another run."""
        for table in (self.steps, self.memory, self.validation, self.motion):
            table.cut("step", step + 1)
        self.marks = [mark for mark in self.marks if mark.step <= step]
        if len(self.steps):
            self._seconds = float(self.steps.place("seconds")[-1])
            self._epoch = float(self.steps.place("epoch")[-1])
        while self._drawn and self._drawn[-1][0] > step:
            _, tickets, losses = self._drawn.pop()
            self.tally.add(tickets, losses, times=-1)
        self._step = step
        self._clock = None
        self._mark("resume", "")

    def _started(self, event: RunStarted) -> None:
        self.folder, self.run_id = event.folder, event.run_id
        self._clock = None
        # A part whose steps are all done again has left nothing.
        kept = (part for part in self.parts if part.start_step < event.start_step)
        self.parts = (*kept, RunPart(event.folder, event.start_step))
        if event.start_step > 0:
            self.mark_resume(event.start_step)

    def _planned(self, event: RunPlanned) -> None:
        self.plan = event
        if self.parts:
            last = replace(self.parts[-1], total_steps=event.total_steps)
            self.parts = (*self.parts[:-1], last)

    def _stepped(self, time: float, event: StepCompleted) -> None:
        self._tick(time)
        self._step, self._epoch = event.step, event.epoch
        self.steps.append(
            self._here(),
            [event.loss, event.lr, event.grad_norm, event.seconds, event.data_wait_seconds],
        )
        self._draw(event.step, event.tickets, event.sample_losses)

    def _draw(self, step: int, tickets: list[int], losses: list[float]) -> None:
        self.tally.add(tickets, losses)
        self._drawn.append((step, tickets, losses))

    def _tick(self, time: float) -> None:
        # A clock that was set back must not turn the axis around.
        if self._clock is not None:
            self._seconds += max(0.0, time - self._clock)
        self._clock = time

    def _here(self) -> tuple[float, float, float]:
        return (float(self._step), self._seconds, self._epoch)

    def _mark(self, kind: MarkKind, text: str, step: int | None = None) -> None:
        self.marks.append(Mark(kind, *self._place_of(step), text))
        if len(self.marks) > _MOST_MARKS:
            # The oldest skipped steps say least; checkpoints and resumes are few.
            skips = [mark for mark in self.marks if mark.kind == "skipped"]
            self.marks.remove(skips[0] if skips else self.marks[0])

    def _place_of(self, step: int | None) -> tuple[float, float, float]:
        """Return where ``step`` was; a save is reported when training has gone on already."""
        row = nearest(self.steps.place("step"), step) if step is not None else None
        if step is None or row is None or step >= self._step:
            return self._here()
        seconds = float(self.steps.place("seconds")[row])
        return (float(step), seconds, float(self.steps.place("epoch")[row]))
