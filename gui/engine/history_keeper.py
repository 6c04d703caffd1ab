"""The history of the run the window follows, joined with what was recorded before a resume."""

from __future__ import annotations

import threading
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from aozora.events import RunPlanned, RunStarted
from gui.charts.run_history import RunHistory
from gui.engine.mailbox import Arrived
from gui.engine.run_folders import load_history


class HistoryKeeper(QObject):
    """Feeds events to a `RunHistory`.

    When a run goes on from a state whose earlier part is not known here, that part is read from
    disk in a thread, and what came meanwhile is put behind it.

    Signals:
        replaced(): `history` is another object than before.
    """

    replaced = Signal()
    _loaded = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.history = RunHistory()
        self._waiting: list[Arrived] | None = None
        self._folder = ""
        self._request = 0
        self._loaded.connect(self._join)

    @property
    def is_loading(self) -> bool:
        """Whether an earlier part is being read."""
        return self._waiting is not None

    def begin(self) -> None:
        """A run is being started; it is not known yet whether it goes on from another."""
        self._waiting = None
        self._request += 1

    def feed(self, arrived: Arrived) -> None:
        """Take in an event."""
        event = arrived.event
        if isinstance(event, RunStarted):
            self._started(event)
        if self._waiting is not None:
            self._waiting.append(arrived)
            # The run's folder is complete by now, so that what it goes on from can be found.
            if isinstance(event, RunPlanned):
                self._load(self._folder)
            return
        self.history.feed(arrived.time, event)

    def _started(self, event: RunStarted) -> None:
        known = self.history.run_id == event.run_id and self.history.last_step >= event.start_step
        self._folder = event.folder
        if event.start_step > 0 and not known:
            self._waiting = []
        elif not event.start_step:
            self._replace(RunHistory())

    def _replace(self, history: RunHistory) -> None:
        self.history = history
        self.replaced.emit()

    def _load(self, folder: str) -> None:
        self._request += 1
        request = self._request

        def read() -> None:
            self._loaded.emit(request, load_history(Path(folder), with_itself=False))

        threading.Thread(target=read, name="history", daemon=True).start()

    @Slot(int, object)
    def _join(self, request: int, history: RunHistory) -> None:
        if request != self._request or self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None
        for arrived in waiting:
            history.feed(arrived.time, arrived.event)
        self._replace(history)
