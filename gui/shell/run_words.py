"""The words and tones of the run bar, from the state of the run; free of widgets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gui.engine.figures import RunFigures
from gui.engine.states import RunState, RunStatus
from gui.shell.estimate import Estimate, headline
from gui.words import counted, duration_text, memory_text, pace_text, tr, whole

Tone = Literal["muted", "accent", "ok", "warn", "error"]


@dataclass(frozen=True)
class Chip:
    """What the state chip shows: text, tone and icon, never a tone alone."""

    text: str
    tone: Tone
    icon: str


def chip(status: RunStatus, estimate: Estimate | None, is_checking: bool) -> Chip:
    """Return the state chip."""
    if status.is_stop_overdue:
        return Chip(tr("Stopping takes long"), "warn", "warning")
    if status.silent_seconds and status.is_active:
        text = tr("No word for {0}").format(duration_text(status.silent_seconds))
        return Chip(text, "warn", "warning")
    if status.problems and not status.is_active and status.state is not RunState.FAILED:
        return _before(status, estimate, is_checking)
    match status.state:
        case RunState.PREPARING:
            return Chip(phase_words(status), "accent", "run")
        case RunState.TRAINING:
            is_validating = status.phase == "validate"
            return Chip(tr("Validating") if is_validating else tr("Training"), "accent", "run")
        case RunState.SAVING:
            return Chip(tr("Saving"), "accent", "save")
        case RunState.STOPPING:
            is_saving = status.stop_requested == "save"
            return Chip(tr("Saving and stopping") if is_saving else tr("Stopping"), "warn", "stop")
        case RunState.FINISHED:
            return Chip(tr("Finished"), "ok", "ok")
        case RunState.STOPPED:
            return Chip(tr("Stopped"), "muted", "stop")
        case RunState.FAILED:
            return Chip(tr("Failed"), "error", "error")
        case _:
            return _before(status, estimate, is_checking)


def _before(status: RunStatus, estimate: Estimate | None, is_checking: bool) -> Chip:
    if status.problems:
        text = counted(status.problems, tr("problem"), tr("problems"))
        return Chip(text, "error", "warning")
    if estimate is None:
        return Chip(tr("Checking…") if is_checking else tr("Ready"), "muted", "clock")
    if estimate.failure:
        return Chip(headline(estimate), "warn", "warning")
    tone: Tone = "error" if estimate.problems else "ok"
    return Chip(headline(estimate), tone, "warning" if estimate.problems else "ok")


_PHASES = {
    "scan": "Reading pictures",
    "encode_text": "Encoding captions",
    "encode_pictures": "Encoding pictures",
    "load_model": "Loading the model",
    "train": "Training",
    "validate": "Validating",
    "save": "Saving",
}


def phase_words(status: RunStatus) -> str:
    """Return the part of the preparation that goes on."""
    return tr(_PHASES.get(status.phase, "Starting"))


def progress_words(status: RunStatus) -> str:
    """Return how far the run is."""
    if status.state is RunState.PREPARING:
        return f"{whole(status.done)} / {whole(status.total)}" if status.total else ""
    if not status.total_steps:
        return ""
    text = tr("step {0} / {1}").format(whole(status.step), whole(status.total_steps))
    share = status.share_done
    return f"{text}  ·  {share:.0%}" if share is not None else text


def pace_words(figures: RunFigures, status: RunStatus) -> str:
    """Return pace and time left."""
    seconds = figures.seconds_per_step
    if not math.isfinite(seconds) or seconds <= 0:
        return ""
    pace = pace_text(seconds)
    if not status.is_active or not math.isfinite(figures.seconds_left):
        return pace
    left = tr("{0} left").format(duration_text(figures.seconds_left))
    return f"{pace}  ·  {left}"


def loss_words(figures: RunFigures) -> str:
    """Return the smoothed loss."""
    loss = figures.smooth_loss
    return tr("loss {0}").format(f"{loss:.4f}") if math.isfinite(loss) else ""


def memory_words(figures: RunFigures) -> str:
    """Return the memory in use: of the device where it has its own, else of the engine."""
    if figures.device_total:
        used, total = memory_text(figures.device_used), memory_text(figures.device_total)
        return tr("VRAM {0} of {1}").format(used, total)
    return tr("RAM {0}").format(memory_text(figures.process_rss)) if figures.process_rss else ""


def memory_share(figures: RunFigures) -> float:
    """Return the share of memory in use, 0 to 1."""
    if figures.device_total:
        return min(1.0, figures.device_used / figures.device_total)
    whole_memory = figures.process_rss + figures.host_available
    return figures.process_rss / whole_memory if whole_memory else 0.0
