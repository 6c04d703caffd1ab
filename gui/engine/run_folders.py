"""The records of past runs on disk: what they were, how they ended, what they measured.

A run that died without a last word is told apart from one that is going on by its process; while a
run lives its ``events.jsonl`` grows every second, because memory is reported that often.
"""

from __future__ import annotations

import calendar
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from aozora.config.codec import decode_config
from aozora.config.lr_schedule import LrSchedule
from aozora.errors import ConfigError
from aozora.events import (
    CheckpointSaved,
    Event,
    RunFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    StepCompleted,
    StepSkipped,
    ValidationCompleted,
)
from gui.charts.planned import PlannedPart, PlannedRates
from gui.charts.run_history import RunHistory, RunPart
from gui.engine.wire import parse_recorded_line

RunOutcome = Literal["running", "finished", "stopped", "failed", "died"]

_TAIL_BYTES = 256 << 10
_CLOCK_TOLERANCE_SECONDS = 5.0
_STARTED_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """One recorded run.

    Attributes:
        started: Seconds since the epoch; 0 when unknown.
        last_sign: When something was last written, in seconds since the epoch.
        step: The last step it reported.
        total_steps: Steps it was to make; 0 when it ended before that was known.
        loss: Loss of the last reported step; NaN before the first.
        state: The newest state file of the run that is still there; empty without one.
        state_step: Step of that state.
    """

    path: Path
    run_id: str
    name: str
    outcome: RunOutcome
    started: float
    last_sign: float
    step: int = 0
    total_steps: int = 0
    loss: float = float("nan")
    state: str = ""
    state_step: int = 0
    resumed_from: str = ""
    message: str = ""


def list_runs(output: Path) -> list[RunFolder]:
    """Return the runs recorded under ``output``, newest first; unreadable ones are left out."""
    folder = output / "runs"
    try:
        paths = [path for path in folder.iterdir() if (path / "run.json").is_file()]
    except OSError:
        return []
    runs = [run for run in map(read_run, paths) if run is not None]
    return sorted(runs, key=lambda run: run.started, reverse=True)


def read_run(path: Path) -> RunFolder | None:
    """Return the run recorded in the folder ``path``; None when it is no record."""
    facts = _read_object(path / "run.json")
    if facts is None:
        return None
    events = path / "events.jsonl"
    tail = list(_tail_events(events))
    try:
        last_sign = events.stat().st_mtime
    except OSError:
        last_sign = 0.0
    started = _moment(str(facts.get("started", "")))
    values: dict[str, Any] = {"step": 0, "total_steps": 0, "loss": float("nan"), "message": ""}
    outcome: RunOutcome | None = None
    for event in tail:
        outcome = _outcome_after(event, outcome)
        values |= _values_of(event)
    if outcome is None:
        outcome = "running" if _is_alive(facts.get("process"), started) else "died"
    state, state_step = _newest_state(path, str(facts.get("name", "")), tail)
    return RunFolder(
        path=path,
        run_id=str(facts.get("run_id", "")),
        name=str(facts.get("name", path.name)),
        outcome=outcome,
        started=started,
        last_sign=last_sign,
        state=state,
        state_step=state_step,
        resumed_from=str(facts.get("resumed_from", "")),
        **values,
    )


def stored_settings(path: Path) -> dict[str, Any] | None:
    """Return the configuration of the run in the folder ``path``; None when it is unreadable."""
    return _read_object(path / "config.json")


def stored_curve(path: Path) -> LrSchedule | None:
    """Return the curve the run in the folder ``path`` was started with; None when unreadable."""
    settings = stored_settings(path)
    try:
        return decode_config(settings).schedule.learning_rate if settings is not None else None
    except ConfigError:
        return None


def planned_rates(parts: Iterable[RunPart]) -> PlannedRates | None:
    """Return the curves that were in force in the parts of a run; None when none is known."""
    known = tuple(
        PlannedPart(part.start_step, part.total_steps, stored_curve(Path(part.folder)))
        for part in parts
        if part.total_steps
    )
    return PlannedRates(known) if any(part.schedule is not None for part in known) else None


def run_chain(path: Path) -> list[Path]:
    """Return the folders of the run in ``path`` and of those it goes on from, oldest first."""
    facts = _read_object(path / "run.json") or {}
    run_id, started = facts.get("run_id"), _moment(str(facts.get("started", "")))
    if not facts.get("resumed_from"):
        return [path]
    earlier: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError):
        for other in path.parent.iterdir():
            if other == path:
                continue
            found = _read_object(other / "run.json") or {}
            moment = _moment(str(found.get("started", "")))
            is_before = moment < started or (moment == started and other.name < path.name)
            if found.get("run_id") == run_id and is_before:
                earlier.append((moment, other))
    return [*(other for _, other in sorted(earlier)), path]


def load_history(
    path: Path, should_stop: Callable[[], bool] = lambda: False, *, with_itself: bool = True
) -> RunHistory:
    """Return what the run in the folder ``path`` did, from its first start on.

    Numbers come from ``events.jsonl``, which also knows timesteps, memory and saves; where that is
    missing, from ``metrics.jsonl``.

    Args:
        path: The run's folder.
        should_stop: Asked now and then; when true what was read so far is returned.
        with_itself: Without it only the runs it goes on from are read.
    """
    history = RunHistory()
    for folder in run_chain(path):
        if folder == path and not with_itself:
            continue
        history.folder = str(folder)
        if not _feed_events(history, folder / "events.jsonl", should_stop):
            _feed_metrics(history, folder / "metrics.jsonl", should_stop)
    return history


def _feed_events(history: RunHistory, path: Path, should_stop: Callable[[], bool]) -> bool:
    """Feed the events in ``path``; return whether there were steps among them."""
    has_steps = False
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file):
            if number % 1000 == 0 and should_stop():
                return True
            event = parse_recorded_line(line)
            if event is None:
                continue
            has_steps = has_steps or isinstance(event, StepCompleted)
            if isinstance(event, RunStarted):
                # The record may have been moved since.
                event = replace(event, folder=str(path.parent))
            history.feed(_time_of(line), event)
    return has_steps


def _feed_metrics(history: RunHistory, path: Path, should_stop: Callable[[], bool]) -> None:
    is_first = True
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file):
            if number % 1000 == 0 and should_stop():
                return
            try:
                record = json.loads(line)
                step = int(record.pop("step"))
                numbers = {
                    name: float(value) for name, value in record.items() if value is not None
                }
            except (ValueError, TypeError, KeyError, AttributeError):
                # The last line of a run that was killed may be cut off.
                continue
            if is_first and 1 < step <= history.last_step:
                history.mark_resume(step - 1)
            is_first = False
            history.feed_numbers(step, numbers)


def _time_of(line: str) -> float:
    # The time stands near the front of each line; parsing it all again would double the work.
    start = line.find('"time": ')
    end = line.find(",", start)
    try:
        return float(line[start + 8 : end])
    except ValueError:
        return 0.0


def _outcome_after(event: Event, before: RunOutcome | None) -> RunOutcome | None:
    if isinstance(event, RunFinished):
        return "finished" if event.reason == "completed" else "stopped"
    return "failed" if isinstance(event, RunFailed) else before


def _values_of(event: Event) -> dict[str, Any]:
    match event:
        case StepCompleted():
            return {"step": event.step, "total_steps": event.total_steps, "loss": event.loss}
        case StepSkipped():
            return {"step": event.step, "total_steps": event.total_steps}
        case RunPlanned():
            return {"step": event.start_step, "total_steps": event.total_steps}
        case ValidationCompleted() | RunFinished():
            return {"step": event.step}
        case RunFailed():
            return {"message": event.message}
        case _:
            return {}


def _newest_state(path: Path, name: str, tail: list[Event]) -> tuple[str, int]:
    """Return the newest complete checkpoint of the run's name and its step."""
    for event in reversed(tail):
        if isinstance(event, CheckpointSaved) and Path(event.state).is_file():
            return event.state, event.step
    checkpoints = path.parent.parent / "checkpoints"
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError):
        for manifest in checkpoints.glob("*.json"):
            stem, _, digits = manifest.stem.rpartition("_step_")
            state = manifest.with_suffix(".pt")
            if stem == name and digits.isdigit() and state.is_file():
                found.append((int(digits), state))
    if not found:
        return "", 0
    step, state = max(found)
    return str(state), step


def _is_alive(process: Any, started: float) -> bool:
    if not isinstance(process, int):
        return False
    try:
        born = psutil.Process(process).create_time()
    except psutil.Error:
        return False
    # A younger process only has the number of the one that wrote the record.
    return not started or born <= started + _CLOCK_TOLERANCE_SECONDS


def _moment(text: str) -> float:
    with contextlib.suppress(ValueError, OverflowError):
        parsed = time.strptime(text, _STARTED_FORMAT)
        return float(calendar.timegm(parsed) - (parsed.tm_gmtoff or 0))
    return 0.0


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _tail_events(path: Path) -> Iterator[Event]:
    """Yield the last events of a file, without reading all of a long run."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - _TAIL_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError:
        return
    for line in lines[1:] if start else lines:
        event = parse_recorded_line(line.decode("utf-8", errors="replace"))
        if event is not None:
            yield event
