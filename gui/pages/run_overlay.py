"""The button that chooses an earlier run to be shown under the loss of this one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QPoint, Qt, Signal, Slot
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QToolButton, QWidget

from gui import theme
from gui.charts.numbers import short_number
from gui.charts.overlay import Overlay
from gui.charts.run_history import RunHistory
from gui.engine.run_folders import RunFolder, list_runs, load_history
from gui.words import whole

_MOST_RUNS = 15


def overlay_runs(runs: list[RunFolder], shown_id: str) -> list[RunFolder]:
    """Return the runs worth comparing with, each once with its last part, newest first.

    Args:
        runs: Recorded runs, newest first.
        shown_id: The run the charts are of, which is left out.
    """
    by_id: dict[str, RunFolder] = {}
    for run in runs:
        if run.run_id != shown_id and run.step > 0:
            by_id.setdefault(run.run_id or str(run.path), run)
    return list(by_id.values())[:_MOST_RUNS]


class OverlayButton(QToolButton):
    """Opens a menu of recorded runs; it is down while one of them is shown.

    Runs are looked for and read in threads.

    Args:
        outputs: Output folders whose runs are listed.
        shown_id: Identity of the run the charts are of.

    Signals:
        chosen(Overlay | None): what is to be shown from now on.
        folder_asked(): a run in another folder is wanted; `take` it.
        failed(str): why a chosen run cannot be shown.
    """

    chosen = Signal(object)
    folder_asked = Signal()
    failed = Signal(str)
    _scanned = Signal(int, object)
    _loaded = Signal(int, object, object)

    def __init__(
        self,
        outputs: Callable[[], list[Path]],
        shown_id: Callable[[], str],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._outputs, self._shown_id = outputs, shown_id
        self._folder: Path | None = None
        self._request = 0
        self.setText(self.tr("Overlay…"))
        self.setToolTip(self.tr("Show the loss of an earlier run, too"))
        self.setCheckable(True)
        self.setFixedHeight(theme.CONTROL_HEIGHT)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.menu_of_runs = QMenu(self)
        self.menu_of_runs.setToolTipsVisible(True)
        self.clicked.connect(self._scan)
        self._scanned.connect(self._offer)
        self._loaded.connect(self._show)

    def take(self, folder: Path) -> None:
        """Show the run recorded in ``folder`` as soon as it is read."""
        self._request += 1
        request = self._request

        def read() -> None:
            history = load_history(folder, lambda: request != self._request)
            self._loaded.emit(request, folder, history)

        threading.Thread(target=read, name="overlay", daemon=True).start()

    @Slot()
    def drop(self) -> None:
        """Show no other run any more."""
        self._request += 1
        self._set(None)
        self.chosen.emit(None)

    @Slot()
    def _scan(self) -> None:
        # A click opens the menu; only a choice there changes anything.
        self.setChecked(self._folder is not None)
        self._request += 1
        request, outputs, shown_id = self._request, self._outputs(), self._shown_id()

        def scan() -> None:
            found = {run.path: run for output in outputs for run in list_runs(output)}
            runs = sorted(found.values(), key=lambda run: run.started, reverse=True)
            self._scanned.emit(request, overlay_runs(runs, shown_id))

        threading.Thread(target=scan, name="overlay-runs", daemon=True).start()

    @Slot(int, object)
    def _offer(self, request: int, runs: list[RunFolder]) -> None:
        if request != self._request:
            return
        menu = self.menu_of_runs
        menu.clear()
        for run in runs:
            text = self.tr("{0}: step {1}, loss {2}")
            text = text.format(run.path.name, whole(run.step), short_number(run.loss))
            action = menu.addAction(text)
            action.setData(run.path)
            action.setToolTip(str(run.path))
            action.setCheckable(True)
            action.setChecked(run.path == self._folder)
            action.triggered.connect(self._taken)
        if not runs:
            menu.addAction(self.tr("No other run is recorded here")).setEnabled(False)
        menu.addSeparator()
        menu.addAction(self.tr("Another folder…"), self.folder_asked.emit)
        none = menu.addAction(self.tr("No overlay"), self.drop)
        none.setEnabled(self._folder is not None)
        menu.popup(self.mapToGlobal(QPoint(0, self.height())))

    @Slot()
    def _taken(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self.take(action.data())

    @Slot(int, object, object)
    def _show(self, request: int, folder: Path, history: RunHistory) -> None:
        if request != self._request:
            return
        if not len(history.steps):
            self.failed.emit(self.tr("{0} has no recorded loss.").format(folder.name))
            return
        self._set(folder)
        self.chosen.emit(Overlay(folder.name, history))

    def _set(self, folder: Path | None) -> None:
        self._folder = folder
        self.setChecked(folder is not None)
