"""The table of recorded runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from PySide6.QtCore import QDateTime, QLocale, Qt, Signal, Slot
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from gui import theme
from gui.charts.numbers import DASH, short_number
from gui.engine.run_folders import RunFolder, RunOutcome
from gui.forms.controls import Tone
from gui.icons import icon
from gui.words import duration_text, tr, whole

_LOOKS: dict[RunOutcome, tuple[Tone, str]] = {
    "running": ("accent", "run"),
    "finished": ("ok", "ok"),
    "stopped": ("muted", "stop"),
    "failed": ("error", "error"),
    "died": ("warn", "warning"),
}


def outcome_text(outcome: RunOutcome) -> str:
    """Return how a run ended, in words."""
    return {
        "running": tr("Running"),
        "finished": tr("Finished"),
        "stopped": tr("Stopped"),
        "failed": tr("Failed"),
        "died": tr("Ended unexpectedly"),
    }[outcome]


def outcome_tone(outcome: RunOutcome) -> Tone:
    """Return the colour of how a run ended."""
    return _LOOKS[outcome][0]


def ending_text(run: RunFolder) -> str:
    """Return in a sentence how ``run`` ended and what can be gone on from."""
    step = tr("step {0}").format(whole(run.step))
    state = tr("nothing was saved")
    if run.state:
        state = tr("the last state is of step {0}").format(whole(run.state_step))
    match run.outcome:
        case "died":
            ago = duration_text(time.time() - run.last_sign)
            text = tr("Ended unexpectedly at {0}, {1} ago; {2}.")
            return text.format(step, ago, state)
        case "failed":
            return tr("Failed at {0}: {1}").format(step, run.message)
        case "running":
            return tr("At {0}; it belongs to this or another window.").format(step)
        case "stopped":
            return tr("Stopped at {0}; {1}.").format(step, state)
        case "finished":
            return tr("Finished at {0}; {1}.").format(step, state)


def moment_text(moment: float) -> str:
    """Return a time of day and date as the user writes them."""
    if not moment:
        return DASH
    when = QDateTime.fromSecsSinceEpoch(int(moment))
    return QLocale().toString(when, QLocale.FormatType.ShortFormat)


class RunsTable(QTableWidget):
    """Runs, newest first.

    Signals:
        chosen(RunFolder | None): another one is selected.
        opened(RunFolder): one was double-clicked, or Enter was pressed on it.
    """

    chosen = Signal(object)
    opened = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 5, parent)
        self._runs: list[RunFolder] = []
        titles = (tr("Run"), tr("Status"), tr("Started"), tr("Steps"), tr("Last loss"))
        self.setHorizontalHeaderLabels(list(titles))
        self.setAccessibleName(tr("Recorded runs"))
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(32)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTabKeyNavigation(False)
        head = self.horizontalHeader()
        head.setHighlightSections(False)
        head.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        head.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(5):
            side = Qt.AlignmentFlag.AlignRight if column > 2 else Qt.AlignmentFlag.AlignLeft
            item = self.horizontalHeaderItem(column)
            if item is not None:
                item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
        self.itemSelectionChanged.connect(self._tell)
        self.itemActivated.connect(self._open)
        theme.notifier().changed.connect(self._tint)

    @property
    def run(self) -> RunFolder | None:
        """The selected run."""
        row = self.currentRow()
        has_one = bool(self.selectedItems()) and 0 <= row < len(self._runs)
        return self._runs[row] if has_one else None

    def show_runs(self, runs: Sequence[RunFolder]) -> None:
        """Show ``runs``; the selected one stays selected if it is still there."""
        chosen = self.run.path if self.run is not None else None
        self._runs = list(runs)
        self.blockSignals(True)
        self.setRowCount(len(runs))
        for row, run in enumerate(runs):
            self._fill(row, run)
        self.clearSelection()
        self.blockSignals(False)
        paths = [run.path for run in runs]
        if chosen in paths:
            self.selectRow(paths.index(chosen))
        elif runs:
            self.selectRow(0)
        self._tell()

    def choose(self, path: object) -> bool:
        """Select the run in the folder ``path``; return whether it is there."""
        for row, run in enumerate(self._runs):
            if run.path == path:
                self.selectRow(row)
                return True
        return False

    def _fill(self, row: int, run: RunFolder) -> None:
        steps = whole(run.step)
        if run.total_steps:
            steps = tr("{0} of {1}").format(steps, whole(run.total_steps))
        texts = (
            run.path.name,
            outcome_text(run.outcome),
            moment_text(run.started),
            steps,
            short_number(run.loss),
        )
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            side = Qt.AlignmentFlag.AlignRight if column > 2 else Qt.AlignmentFlag.AlignLeft
            item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
            item.setToolTip(str(run.path) if column == 0 else "")
            if column == 1:
                tone, picture = _LOOKS[run.outcome]
                item.setIcon(icon(picture, tone))
                item.setForeground(QColor(theme.colour(tone)))
            self.setItem(row, column, item)

    @Slot()
    def _tint(self) -> None:
        for row, run in enumerate(self._runs):
            self._fill(row, run)

    @Slot()
    def _tell(self) -> None:
        self.chosen.emit(self.run)

    @Slot()
    def _open(self) -> None:
        if self.run is not None:
            self.opened.emit(self.run)
