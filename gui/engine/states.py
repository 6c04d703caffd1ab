"""The states of a run, as a pure function: what is, plus what happens, gives what is next.

Buttons, chips, the taskbar and dialogs are all drawn from one `RunStatus`, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from aozora.events import (
    CheckpointSaved,
    Event,
    PhaseFinished,
    PhaseStarted,
    Progressed,
    RunFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    StepCompleted,
    StepSkipped,
)

StopKind = Literal["", "save", "now"]


class RunState(Enum):
    """Where a run is."""

    BLOCKED = "blocked"
    READY = "ready"
    PREPARING = "preparing"
    TRAINING = "training"
    SAVING = "saving"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


ACTIVE = frozenset({RunState.PREPARING, RunState.TRAINING, RunState.SAVING, RunState.STOPPING})
ENDED = frozenset({RunState.FINISHED, RunState.STOPPED, RunState.FAILED})


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Everything the window needs to know about the run to draw its controls.

    Attributes:
        state: Where the run is.
        problems: How many problems keep the current document from being trained.
        is_engine_alive: Whether an engine process or call still exists; it may outlive the run's
            last event for a moment.
        phase: Current part of the run in the engine's words, such as ``encode_pictures``.
        done: Items of the phase that are through.
        total: Items of the phase; 0 when unknown.
        step: Last finished optimizer step.
        total_steps: Steps of the whole run; 0 until the engine has planned it.
        start_step: Step the run began at; more than 0 when resumed.
        last_saved_step: Step of the newest checkpoint of this run, or `start_step`.
        stop_requested: How the person asked to stop; empty when nobody did.
        is_stop_overdue: A stop was asked for long ago and the engine has not come to it.
        silent_seconds: For how long nothing was heard from the engine; 0 while it talks.
        run_id: Identity of the run.
        folder: Folder of the run's record.
        model: Newest saved model file.
        state_file: Newest state file to resume from.
        message: Why it failed, or how it ended.
        hint: What to do about it.
        traceback: For bugs, the whole story.
    """

    state: RunState = RunState.READY
    problems: int = 0
    is_engine_alive: bool = False
    phase: str = ""
    done: int = 0
    total: int = 0
    step: int = 0
    total_steps: int = 0
    start_step: int = 0
    last_saved_step: int = 0
    stop_requested: StopKind = ""
    is_stop_overdue: bool = False
    silent_seconds: float = 0.0
    run_id: str = ""
    folder: str = ""
    model: str = ""
    state_file: str = ""
    message: str = ""
    hint: str = ""
    traceback: str = ""

    @property
    def is_active(self) -> bool:
        """Whether a run is going on."""
        return self.state in ACTIVE

    @property
    def is_free(self) -> bool:
        """Whether a run may begin, whatever is in the document."""
        return not self.is_active and not self.is_engine_alive

    @property
    def can_start(self) -> bool:
        """Whether the document may be trained, anew or from its last state."""
        return self.is_free and not self.problems

    @property
    def can_stop(self) -> bool:
        """Whether a stop may be asked for, or a saving one turned into an immediate one."""
        return self.is_active and self.stop_requested != "now"

    @property
    def can_save_now(self) -> bool:
        """Whether a checkpoint may be asked for."""
        return self.state in (RunState.TRAINING, RunState.SAVING) and not self.stop_requested

    @property
    def unsaved_steps(self) -> int:
        """Steps that stopping without saving would lose."""
        return max(0, self.step - self.last_saved_step)

    @property
    def share_done(self) -> float | None:
        """How much is done, 0 to 1: of the run while training, else of the phase."""
        if self.state in (RunState.PREPARING, RunState.BLOCKED, RunState.READY):
            return self.done / self.total if self.total else None
        return self.step / self.total_steps if self.total_steps else None


@dataclass(frozen=True)
class Checked:
    """The document was checked; ``problems`` of them forbid a start."""

    problems: int


@dataclass(frozen=True)
class StartRequested:
    """The person wants a run: of the document, from a state, or the demo."""


@dataclass(frozen=True)
class StopRequested:
    """The person asked to stop, with or without saving."""

    save: bool


@dataclass(frozen=True)
class StopOverdue:
    """The engine has not come to a requested stop within the time it is given."""


@dataclass(frozen=True)
class Silence:
    """Nothing was heard from the engine for this long; 0 when it speaks again."""

    seconds: float


@dataclass(frozen=True)
class EngineEnded:
    """The engine is gone.

    Attributes:
        message: Why, when it ended otherwise than it should; empty after a proper end.
        hint: What to do about it.
        output: The last lines it wrote.
        was_forced: The person ended it by force.
    """

    message: str = ""
    hint: str = ""
    output: str = ""
    was_forced: bool = False


Happening = Event | Checked | StartRequested | StopRequested | StopOverdue | Silence | EngineEnded


def advance(status: RunStatus, happening: Happening) -> RunStatus:
    """Return the status after ``happening``; what does not concern it changes nothing."""
    match happening:
        case Checked(problems):
            return _checked(status, problems)
        case StartRequested():
            if not status.is_free:
                return status
            # The demo and a state bring settings of their own: the document's faults stay its own.
            return RunStatus(
                state=RunState.PREPARING, problems=status.problems, is_engine_alive=True
            )
        case StopRequested(save):
            return _stop_requested(status, save)
        case StopOverdue():
            overdue = status.state is RunState.STOPPING
            return replace(status, is_stop_overdue=True) if overdue else status
        case Silence(seconds):
            return replace(status, silent_seconds=seconds if status.is_active else 0.0)
        case EngineEnded():
            return _engine_ended(status, happening)
        case _:
            # An engine that is being ended by force, or was, has nothing to say any more.
            return _reported(status, happening) if status.is_engine_alive else status


def _checked(status: RunStatus, problems: int) -> RunStatus:
    state = status.state
    if state in (RunState.BLOCKED, RunState.READY):
        state = RunState.BLOCKED if problems else RunState.READY
    return replace(status, state=state, problems=problems)


def _stop_requested(status: RunStatus, save: bool) -> RunStatus:
    if not status.can_stop:
        return status
    kind: StopKind = "save" if save and status.stop_requested != "now" else "now"
    return replace(status, state=RunState.STOPPING, stop_requested=kind)


def _engine_ended(status: RunStatus, end: EngineEnded) -> RunStatus:
    gone = replace(
        status, is_engine_alive=False, is_stop_overdue=False, silent_seconds=0.0, done=0, total=0
    )
    if status.state in ENDED or not status.is_active:
        return gone
    if end.was_forced:
        return replace(gone, state=RunState.STOPPED, message=end.message, hint=end.hint)
    if not end.message and status.stop_requested:
        return replace(gone, state=RunState.STOPPED)
    message = end.message or "the engine ended without saying how the run went"
    return replace(
        gone, state=RunState.FAILED, message=message, hint=end.hint, traceback=end.output
    )


def _reported(status: RunStatus, event: Event) -> RunStatus:
    match event:
        case RunStarted():
            return _started(status, event)
        case RunPlanned():
            return replace(
                status,
                total_steps=event.total_steps,
                start_step=event.start_step,
                step=event.start_step,
                last_saved_step=event.start_step,
            )
        case PhaseStarted():
            return replace(
                status, state=_state_in(status, event.phase), phase=event.phase, done=0, total=0
            )
        case PhaseFinished():
            # Saving and validating happen within training and lead back to it.
            inner = event.phase in ("save", "validate") and status.total_steps > 0
            phase = "train" if inner else ""
            return replace(
                status, state=_state_in(status, phase or "done"), phase=phase, done=0, total=0
            )
        case Progressed():
            return replace(status, phase=event.phase, done=event.done, total=event.total)
        case StepCompleted() | StepSkipped():
            return replace(
                status,
                state=_state_in(status, "train"),
                step=event.step,
                total_steps=event.total_steps,
            )
        case CheckpointSaved():
            return replace(
                status, last_saved_step=event.step, model=event.model, state_file=event.state
            )
        case RunFinished():
            return _finished(status, event)
        case RunFailed():
            return replace(
                status,
                state=RunState.FAILED,
                message=event.message,
                hint=event.hint,
                traceback=event.traceback,
            )
        case _:
            return status


def _started(status: RunStatus, event: RunStarted) -> RunStatus:
    state = RunState.STOPPING if status.stop_requested else RunState.PREPARING
    return replace(
        status,
        state=state,
        run_id=event.run_id,
        folder=event.folder,
        step=event.start_step,
        start_step=event.start_step,
        last_saved_step=event.start_step,
        state_file=event.resumed_from,
        message="",
    )


def _state_in(status: RunStatus, phase: str) -> RunState:
    """Return the state while the engine is in ``phase``; a requested stop outshines it."""
    if status.stop_requested:
        return RunState.STOPPING
    if phase == "save":
        return RunState.SAVING
    if phase in ("train", "validate") or status.state in (RunState.TRAINING, RunState.SAVING):
        return RunState.TRAINING
    return RunState.PREPARING


def _finished(status: RunStatus, event: RunFinished) -> RunStatus:
    state = RunState.FINISHED if event.reason == "completed" else RunState.STOPPED
    return replace(
        status,
        state=state,
        step=event.step,
        model=event.model or status.model,
        state_file=event.state or status.state_file,
        phase="",
        done=0,
        total=0,
        is_stop_overdue=False,
        silent_seconds=0.0,
    )
