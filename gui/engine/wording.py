"""What the console says about an event; None for those that are shown elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from aozora.events import (
    CheckpointSaved,
    Event,
    ItemSkipped,
    MemorySampled,
    OptimizerDiagnostics,
    PhaseFinished,
    PhaseStarted,
    Progressed,
    RunFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    StepCompleted,
    StepSkipped,
    ValidationCompleted,
    Warned,
)
from gui.engine.mailbox import Level
from gui.words import size_text, tr, whole

_STEPS_BETWEEN_LINES = 10


def phase_name(phase: str) -> str:
    """Return what people call a phase of the engine."""
    names = {
        "scan": tr("Reading pictures"),
        "encode_text": tr("Encoding captions"),
        "encode_pictures": tr("Encoding pictures"),
        "load_model": tr("Loading the model"),
        "train": tr("Training"),
        "validate": tr("Validating"),
        "save": tr("Saving"),
    }
    return names.get(phase, phase)


def line_of(event: Event) -> tuple[Level, str] | None:  # noqa: C901 - a line an event
    """Return level and text for ``event``, or None when it is not worth a line."""
    match event:
        case RunStarted():
            text = tr("Run {0}, recorded in {1}").format(event.run_id, event.folder)
            if event.resumed_from:
                more = tr("resumed from {0} at step {1}")
                text += "; " + more.format(event.resumed_from, whole(event.start_step))
            return "info", text
        case RunPlanned():
            return "info", _plan(event)
        case PhaseStarted():
            return None
        case PhaseFinished():
            if not event.summary:
                return None
            return "info", f"{phase_name(event.phase)}: {event.summary} ({event.seconds:.1f} s)"
        case Progressed() | MemorySampled():
            return None
        case StepCompleted():
            if event.step % _STEPS_BETWEEN_LINES and event.step != event.total_steps:
                return None
            text = tr("Step {0} of {1}: loss {2:.4f}, learning rate {3:.2e}, {4:.2f} s")
            step, total = whole(event.step), whole(event.total_steps)
            return "info", text.format(step, total, event.loss, event.lr, event.seconds)
        case StepSkipped():
            text = tr("Step {0} skipped: {1} ({2} in a row)")
            return "warning", text.format(whole(event.step), event.reason, event.in_a_row)
        case ItemSkipped():
            return "warning", tr("Left out {0}: {1}").format(event.path, event.reason)
        case OptimizerDiagnostics():
            text = tr("Step {0}: {1:.1%} of stored weights moved, update rms {2:.2e}")
            return "info", text.format(whole(event.step), event.share_moved, event.update_rms)
        case ValidationCompleted():
            text = tr("Step {0}: validation loss {1:.5f}")
            return "info", text.format(whole(event.step), event.loss)
        case CheckpointSaved():
            text = tr("Step {0}: saved {1} ({2})")
            name = Path(event.model).name
            return "info", text.format(whole(event.step), name, size_text(event.bytes))
        case Warned():
            return "warning", event.text
        case RunFinished():
            text = tr("Finished at step {0}")
            if event.reason != "completed":
                text = tr("Stopped at step {0}")
            return "info", text.format(whole(event.step))
        case RunFailed():
            parts = [event.message, event.hint, event.traceback.rstrip()]
            return "error", "\n".join(part for part in parts if part)
        case _:
            assert_never(event)


def _plan(event: RunPlanned) -> str:
    text = tr("{0} steps over {1} pictures; {2} of {3} parameters trained; {4} on {5}, {6}")
    return text.format(
        whole(event.total_steps),
        whole(event.pictures),
        whole(event.trained_parameters),
        whole(event.total_parameters),
        event.optimizer,
        event.device,
        event.precision,
    )
