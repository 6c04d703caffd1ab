"""The window's one door to the engine.

Everything here happens in the window's thread. The engine's thread only fills a mailbox, which is
emptied at most about ten times a second, so that any stream of events costs the window the same.

The pages that show it are built as ``Page(document, host, parent)``: `gui.pages.run.RunPage`,
`gui.pages.samples.SamplesPage`, `gui.pages.runs.RunsPage`, `gui.pages.console.ConsolePage`. They
import pyqtgraph when first shown, not before. `RunsPage` has the signals ``charts_asked(Path)``
(show the Run page and call its ``show_run``) and ``resume_asked(str)`` (for
`gui.engine.resume_wizard.resume_with_wizard(document, host, state, parent)`).
`gui.engine.desktop.DesktopLink(host, window)` keeps the computer awake, shows progress in the
taskbar and notifies at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal, Slot

from gui.engine.bodies import DemoJob, EngineBody, HostMode, Job, TrainJob, body_for
from gui.engine.console_log import ConsoleLog
from gui.engine.figures import FigureKeeper, RunFigures
from gui.engine.history_keeper import HistoryKeeper
from gui.engine.mailbox import Arrived, LogLine, Mailbox
from gui.engine.states import (
    Checked,
    Happening,
    RunState,
    RunStatus,
    Silence,
    StartRequested,
    StopOverdue,
    StopRequested,
    advance,
)
from gui.engine.thread import EngineThread
from gui.words import tr

_DRAIN_INTERVAL_MS = 100
_FIGURES_INTERVAL_SECONDS = 0.25


@dataclass(frozen=True)
class Patience:
    """How long the host waits before it says something.

    Attributes:
        stop_seconds: For a requested stop, before ending by force is offered.
        silence_seconds: For any word of the engine, before its silence is told.
    """

    stop_seconds: float = 15.0
    silence_seconds: float = 60.0


class EngineHost(QObject):
    """Starts, follows and stops one run at a time.

    Signals, all in the window's thread:
        status_changed(RunStatus): any field changed; at most about 10 times a second. Draw every
            control from it (``status.can_start``, ``can_stop``, ``can_save_now``, ``state``, ...).
        figures_changed(RunFigures): step, pace, loss, memory; at most 4 times a second in a run.
        reported(tuple[Arrived, ...]): a batch of events in order, with their arrival times; at
            most about 10 times a second; no event but superseded progress is ever left out.
        logged(tuple[LogLine, ...]): lines that were no events: what libraries printed.
        started(Job): a run is being started; what charts showed is of the past.
        ended(RunStatus): the engine is gone, however it ended; for notifications. Exactly once for
            each `started`.

    Besides, `keeper` has the history for the charts and `console` the lines for the console, both
    bounded, so that a page that is made late has missed nothing.

    Methods return at once; `start` and `start_demo` say whether the run was begun, `hindrance`
    why not.
    """

    status_changed = Signal(object)
    figures_changed = Signal(object)
    reported = Signal(object)
    logged = Signal(object)
    started = Signal(object)
    ended = Signal(object)

    def __init__(
        self,
        parent: QObject | None = None,
        *,
        mode: HostMode = "process",
        patience: Patience | None = None,
        make_body: Callable[[Job, HostMode], EngineBody] = body_for,
    ) -> None:
        super().__init__(parent)
        self._mode: HostMode = mode
        self._patience = patience if patience is not None else Patience()
        self._make_body = make_body
        self._status = RunStatus()
        self._told = self._status
        self._figures = FigureKeeper()
        self.keeper = HistoryKeeper(self)
        self.console = ConsoleLog()
        self._told_figures_at = 0.0
        self._mailbox = Mailbox()
        self._body: EngineBody | None = None
        self._thread: EngineThread | None = None
        self._job: Job | None = None
        self._number = 0
        self._stop_asked_at = 0.0
        self._drain_timer = QTimer(self)
        self._drain_timer.setSingleShot(True)
        self._drain_timer.setInterval(_DRAIN_INTERVAL_MS)
        self._drain_timer.timeout.connect(self._drain)
        self._watch_timer = QTimer(self)
        self._watch_timer.setInterval(500)
        self._watch_timer.timeout.connect(self._watch)

    @property
    def status(self) -> RunStatus:
        """Where the run is."""
        return self._status

    @property
    def figures(self) -> RunFigures:
        """What the run does; the last run's figures when none is active."""
        return self._figures.figures

    @property
    def job(self) -> Job | None:
        """What runs, or ran last."""
        return self._job

    @property
    def mode(self) -> HostMode:
        """How the next run is hosted."""
        return self._mode

    @property
    def can_force_quit(self) -> bool:
        """Whether the running engine can be ended by force: only a child process can."""
        return self._body is not None and self._body.can_kill and self._status.is_engine_alive

    @property
    def hindrance(self) -> str:
        """Why no run can be started now, in words; empty when one can."""
        if self._status.is_free:
            return ""
        if self._status.is_active:
            return tr("A run is going on. Stop it first.")
        return tr("The last run is still ending. Try again in a moment.")

    def set_mode(self, mode: HostMode) -> None:
        """Host the next run in ``mode``; a run that is going on stays where it is."""
        self._mode = mode

    def set_problems(self, count: int) -> None:
        """Say how many problems keep the document from being trained."""
        self._advance(Checked(count))
        self._tell_status()

    def start(self, config: Mapping[str, Any], *, resume: str = "") -> bool:
        """Train ``config`` (plain JSON values); ``resume`` is a state file or ``last``.

        The document's problems are no matter here: ``config`` need not come from it.
        """
        return self._start(TrainJob(config=dict(config), resume=resume))

    def start_demo(self, folder: str) -> bool:
        """Run the whole demo in ``folder``, which must be empty, new, or an earlier demo's."""
        return self._start(DemoJob(folder=folder))

    def stop(self, *, save: bool = True) -> None:
        """Ask the run to end at the next moment; with ``save`` the last finished step is kept.

        Asked again without ``save``, a stop that wanted to save no longer does.
        """
        before = self._status
        self._advance(StopRequested(save))
        if self._status is before or self._body is None:
            return
        self._stop_asked_at = time.monotonic()
        self._body.send("stop_and_save" if self._status.stop_requested == "save" else "stop")
        self._tell_status()

    def save_now(self) -> None:
        """Ask for a checkpoint at the end of the current step."""
        if self._status.can_save_now and self._body is not None:
            self._body.send("save_now")

    def force_quit(self) -> None:
        """End the engine at once; what was not saved is lost."""
        if self.can_force_quit and self._body is not None:
            self._body.kill()

    def wait(self, seconds: float) -> bool:
        """Block until the engine is gone, for at most ``seconds``; return whether it is.

        Only for the end of the program, after `stop` or `force_quit`.
        """
        thread = self._thread
        if thread is None:
            return True
        if not thread.wait(max(0, round(seconds * 1000))):
            return False
        self._end(self._number)
        return True

    def _start(self, job: Job) -> bool:
        if not self._status.is_free:
            return False
        self._drop_thread()
        self._job = job
        self._mailbox = Mailbox()
        self._figures = FigureKeeper()
        self.keeper.begin()
        self._advance(StartRequested())
        self._body = self._make_body(job, self._mode)
        self._number += 1
        self._thread = EngineThread(self._number, self._body, self._mailbox, self)
        self._thread.arrived.connect(self._wake)
        self._thread.ended.connect(self._end)
        self.started.emit(job)
        self._tell_status()
        self.figures_changed.emit(self.figures)
        self._watch_timer.start()
        self._thread.start()
        return True

    def _advance(self, happening: Happening) -> None:
        self._status = advance(self._status, happening)

    def _tell_status(self) -> None:
        if self._status != self._told:
            self._told = self._status
            self.status_changed.emit(self._status)

    @Slot()
    def _wake(self) -> None:
        if not self._drain_timer.isActive():
            self._drain_timer.start()

    @Slot()
    def _drain(self) -> None:
        items = self._mailbox.take()
        events: list[Arrived] = []
        lines: list[LogLine] = []
        for item in items:
            self.console.feed(item)
            if isinstance(item, LogLine):
                lines.append(item)
                continue
            events.append(item)
            self._advance(item.event)
            self._figures.feed(item.event)
            self.keeper.feed(item)
        if items and self._status.silent_seconds:
            self._advance(Silence(0.0))
        if lines:
            self.logged.emit(tuple(lines))
        if events:
            self.reported.emit(tuple(events))
        self._tell_status()
        now = time.monotonic()
        if events and now - self._told_figures_at >= _FIGURES_INTERVAL_SECONDS:
            self._told_figures_at = now
            self.figures_changed.emit(self.figures)

    @Slot()
    def _watch(self) -> None:
        silent = self._mailbox.silent_seconds()
        if silent >= self._patience.silence_seconds:
            self._advance(Silence(round(silent)))
        is_stopping = self._status.state is RunState.STOPPING
        waited = time.monotonic() - self._stop_asked_at
        if is_stopping and waited >= self._patience.stop_seconds:
            self._advance(StopOverdue())
        self._tell_status()

    @Slot(int)
    def _end(self, number: int) -> None:
        if number != self._number or self._thread is None or not self._status.is_engine_alive:
            return
        end = self._thread.end
        self._watch_timer.stop()
        self._drain_timer.stop()
        self._drain()
        self._advance(end)
        if end.message:
            self.console.add(time.time(), "warning" if end.was_forced else "error", end.message)
        self._tell_status()
        self.figures_changed.emit(self.figures)
        self._body = None
        self.ended.emit(self._status)

    def _drop_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.wait()
            thread.deleteLater()
