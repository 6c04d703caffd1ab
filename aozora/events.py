"""What a run reports: frozen dataclasses of plain Python values, one JSON object a line on a pipe.

Every receiver (the terminal, the window, files) gets the same events, so a run is one and the same.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

Phase = Literal["scan", "encode_text", "encode_pictures", "load_model", "train", "validate", "save"]
StopReason = Literal["completed", "stopped"]


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run began; its folder and log exist."""

    run_id: str
    folder: str
    resumed_from: str = ""
    start_step: int = 0


@dataclass(frozen=True, kw_only=True)
class RunPlanned:
    """Everything is loaded and counted; training is about to begin.

    Attributes:
        ticket_counts: Samples of the whole run, those before a resume included, per bar of the
            timestep distribution.
        parameter_bytes: Bytes of the model's weights, wherever they live.
        state_bytes: Bytes of optimizer states, wherever they live.
        memory: What lives where, in a sentence.
        expected_device_bytes: Most memory of the card the run should need, all counted.
        expected_host_bytes: Most main memory the process should need.
        expected_reserved_bytes: Most memory of the card PyTorch should reserve.
        expected_step_seconds: How long a step should take.
        device_name: Name of the card; empty for the processor.
        pinned_bytes: Main memory that is page-locked.
    """

    total_steps: int
    start_step: int
    pictures: int
    held_out: int
    samples_per_epoch: int
    batches_per_epoch: int
    buckets: dict[str, int]
    ticket_counts: list[int]
    trained_parameters: int
    total_parameters: int
    prediction: str
    zero_terminal_snr: bool
    attention: str
    precision: str
    device: str
    optimizer: str
    parameter_bytes: int
    state_bytes: int
    memory: str
    expected_device_bytes: int
    expected_host_bytes: int
    expected_reserved_bytes: int
    expected_step_seconds: float
    device_name: str
    pinned_bytes: int


@dataclass(frozen=True, kw_only=True)
class PhaseStarted:
    """A part of the run began."""

    phase: Phase


@dataclass(frozen=True, kw_only=True)
class PhaseFinished:
    """A part of the run ended."""

    phase: Phase
    seconds: float
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """``done`` of ``total`` items of a phase are through; sent at most about 20 times a second."""

    phase: Phase
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class StepCompleted:
    """One optimizer step.

    Attributes:
        loss: Mean over the step's samples of the loss that was trained on.
        lr: Learning rate the update rule was called with.
        grad_norm: Norm of all gradients before clipping.
        timesteps: The timestep of each sample as the UNet got it.
        tickets: The timestep each sample drew, which rectified flow shifts; records made before it
            was told have none.
        sample_losses: Unweighted loss of each sample.
        items: Number of the picture of each sample.
        samples: Samples drawn since the run's first step.
        data_wait_seconds: Time the device waited for data.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    timesteps: list[float]
    sample_losses: list[float]
    items: list[int]
    samples: int
    seconds: float
    data_wait_seconds: float
    tickets: list[int] = field(default_factory=list)
    loss_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StepSkipped:
    """A step whose loss or gradients were not finite.

    No weight was touched, except with ``memory.clip_by_last_norm``, which moves layers before the
    norm is known; gradients that were not finite then counted as zero.
    """

    step: int
    total_steps: int
    reason: str
    in_a_row: int
    skipped: int
    timesteps: list[float]
    items: list[int]
    tickets: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ItemSkipped:
    """A picture or caption that is left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class MemorySampled:
    """Memory in use, in bytes; zeros for a device that has none of its own."""

    device_used: int
    device_reserved: int
    device_peak: int
    device_total: int
    process_rss: int
    host_available: int


@dataclass(frozen=True, kw_only=True)
class OptimizerDiagnostics:
    """How far one step moved the weights.

    Attributes:
        share_moved: Share of weights whose value on the device changed.
        second_moment_quantiles: The 1, 25, 50, 75 and 99% quantiles of the second moment; empty
            for a rule without.
    """

    step: int
    update_rms: float
    weight_rms: float
    second_moment_quantiles: list[float]
    share_moved: float


@dataclass(frozen=True, kw_only=True)
class ValidationCompleted:
    """Unweighted loss on the held-out pictures, on fixed noise and timesteps."""

    step: int
    loss: float
    timesteps: list[int]
    losses: list[float]
    pictures: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A model file and the state to resume from are safely on disk.

    Attributes:
        step: The step they are of; training may have gone on meanwhile.
        seconds: From the beginning of the save to its end.
        removed: Saves that were deleted to make room.
        stall_seconds: How much of that time training at most stood still for it.
    """

    step: int
    model: str
    state: str
    bytes: int
    seconds: float
    removed: list[str]
    stall_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Warned:
    """Something the user should know; the run goes on."""

    text: str


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The run ended as it should."""

    reason: StopReason
    step: int
    skipped_steps: int
    seconds: float
    model: str = ""
    state: str = ""


@dataclass(frozen=True, kw_only=True)
class RunFailed:
    """The run could not go on."""

    message: str
    hint: str = ""
    traceback: str = ""


Event = (
    RunStarted
    | RunPlanned
    | PhaseStarted
    | PhaseFinished
    | Progressed
    | StepCompleted
    | StepSkipped
    | ItemSkipped
    | MemorySampled
    | OptimizerDiagnostics
    | ValidationCompleted
    | CheckpointSaved
    | Warned
    | RunFinished
    | RunFailed
)
EventSink = Callable[[Event], None]

EVENT_TYPES: dict[str, type[Any]] = {cls.__name__: cls for cls in typing.get_args(Event)}


def to_json(event: Event, run_id: str, moment: float | None = None) -> str:
    """Return ``event`` as one line of JSON; numbers that are not finite become null."""
    record = {
        "event": type(event).__name__,
        "time": round(time.time() if moment is None else moment, 3),
        "run_id": run_id,
        **dataclasses.asdict(event),
    }
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def from_json(line: str) -> Event:
    """Return the event in a line written by `to_json`.

    Raises:
        ValueError: if the line is not an event.
    """
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("an event is a JSON object")  # noqa: TRY004 - one error for every bad line
    cls = EVENT_TYPES.get(str(record.get("event")))
    if cls is None:
        raise ValueError(f"unknown event {record.get('event')!r}")
    names = {field.name for field in dataclasses.fields(cls)}
    try:
        event: Event = cls(**{key: value for key, value in record.items() if key in names})
    except TypeError as error:
        raise ValueError(f"broken event {cls.__name__}: {error}") from error
    return event


class EventWriter:
    """Writes events to a pipe or file, one a line, from any thread.

    A reader that goes away must not cost what the run has not saved yet: the first event that
    cannot be written is told to ``on_lost``, it and all later ones are dropped.

    Args:
        stream: Where they go; flushed after each.
        on_lost: Called once, with the error, in the thread that reported the event.
    """

    def __init__(self, stream: TextIO, on_lost: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_lost = on_lost
        self._run_id = ""
        self._is_lost = False
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write ``event``."""
        with self._lock:
            if isinstance(event, RunStarted):
                self._run_id = event.run_id
            if self._is_lost:
                return
            try:
                self._stream.write(to_json(event, self._run_id) + "\n")
                self._stream.flush()
            except OSError as error:
                self._is_lost = True
                self._on_lost(error)
