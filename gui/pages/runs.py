"""The page of past runs: how they ended, what they were, going on from them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from PySide6.QtCore import QUrl, Signal, Slot
from PySide6.QtGui import QDesktopServices, QShowEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.document import Document, Origin
from gui.editors.folding_row import FoldingRow
from gui.engine.host import EngineHost
from gui.engine.run_folders import RunFolder, list_runs, read_run, stored_settings
from gui.engine.states import RunState, RunStatus
from gui.forms.controls import Card, TonedLabel, picture_button
from gui.forms.message_box import MessageBox, warn
from gui.pages.run_places import outputs_in_use
from gui.pages.runs_table import RunsTable, ending_text, outcome_tone
from gui.shell.compare import differences
from gui.shell.compare_dialog import CompareDialog
from gui.shell.form_page import PageHead
from gui.words import counted

_FOLD_PX = 860


def _in_a_row(*buttons: QPushButton | None) -> QWidget:
    """Return ``buttons`` side by side; None is the room that is left over, else at the end."""
    part = QWidget()
    row = QHBoxLayout(part)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(theme.GAP_2)
    for button in buttons:
        if button is None:
            row.addStretch(1)
        else:
            row.addWidget(button)
    if None not in buttons:
        row.addStretch(1)
    return part


class RunsPage(QWidget):
    """Lists the runs of the output folders in use and acts on the selected one.

    Signals:
        charts_asked(Path): the charts of the run in this folder are wanted.
        overlay_asked(Path): its loss is wanted in the charts of the current run.
        resume_asked(str): going on from this state file is wanted.
    """

    charts_asked = Signal(object)
    overlay_asked = Signal(object)
    resume_asked = Signal(object)
    _scanned = Signal(int, object)

    def __init__(self, document: Document, host: EngineHost, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._host = host
        self._request = 0
        self._wanted: Path | None = None
        self._added: list[Path] = []
        self._state = host.status.state
        self.table = RunsTable()
        self.head = PageHead(
            self.tr("Runs"), self.tr("Every run with its record, and what can be done with it.")
        )
        self.ending = TonedLabel()
        self.ending.setWordWrap(True)
        self.compared = TonedLabel()
        self.charts = picture_button("run", self.tr("Show charts"))
        self.overlay = picture_button("plus", self.tr("Overlay"))
        self.overlay.setToolTip(self.tr("Show its loss in the charts of the current run, too"))
        self.resume = picture_button("resume", self.tr("Resume…"))
        self.compare = picture_button("compare", self.tr("Compare…"))
        self.compare.setToolTip(self.tr("Compare its settings with those of the document"))
        self.take = picture_button("file", self.tr("Use settings"))
        self.take.setToolTip(self.tr("Begin a document with the settings of this run"))
        self.folder = picture_button("folder", self.tr("Open folder"))
        self.delete = picture_button("trash", self.tr("Delete…"))
        self.empty = Card(self.tr("No runs yet"))
        self.detail = Card(self.tr("Selected run"))
        self._lay_out()
        self._wire()
        self._choose(None)

    def show_run(self, folder: Path) -> None:
        """Select the run in ``folder``, wherever it is."""
        self._wanted = folder
        output = folder.parent.parent
        if output not in self._added:
            self._added.append(output)
        self.refresh()

    @Slot()
    def refresh(self) -> None:
        """Look for runs again, in a thread."""
        self._request += 1
        request, folders = self._request, self._outputs()

        def scan() -> None:
            found = {run.path: run for folder in folders for run in list_runs(folder)}
            runs = sorted(found.values(), key=lambda run: run.started, reverse=True)
            self._scanned.emit(request, runs)

        threading.Thread(target=scan, name="runs", daemon=True).start()

    def showEvent(self, event: QShowEvent) -> None:
        """Look for runs when the page is opened."""
        super().showEvent(event)
        self.refresh()

    def _outputs(self) -> list[Path]:
        """Return the output folders runs are looked for in."""
        paths = outputs_in_use(self._document, self._host)
        return list(dict.fromkeys([*paths, *self._added]))

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_4, theme.GAP_5)
        column.setSpacing(theme.GAP_3)
        self.look = picture_button("open", self.tr("Look in another folder…"))
        self.again = picture_button("reset", self.tr("Refresh"))
        self.head.buttons.addWidget(self.look)
        self.head.buttons.addWidget(self.again)
        column.addWidget(self.head)
        text = TonedLabel(
            self.tr(
                "Runs are listed here as soon as one has started in the output folder of this "
                "document. Runs elsewhere: Look in another folder."
            )
        )
        text.setWordWrap(True)
        self.empty.body.addWidget(text)
        column.addWidget(self.empty)
        self._list = Card()
        self._list.body.setContentsMargins(1, 1, 1, 1)
        self._list.body.addWidget(self.table)
        column.addWidget(self._list, 1)
        self.detail.body.addWidget(self.ending)
        self.detail.body.addWidget(self.compared)
        actions = FoldingRow(_FOLD_PX)
        actions.add(_in_a_row(self.resume, self.charts, self.overlay), 0)
        others = _in_a_row(self.compare, self.take, self.folder, None, self.delete)
        actions.add(others, 1)
        self.detail.body.addWidget(actions)
        column.addWidget(self.detail)
        self._space = QWidget()
        column.addWidget(self._space, 1)

    def _wire(self) -> None:
        self._scanned.connect(self._show_runs)
        self.table.chosen.connect(self._choose)
        self.table.opened.connect(self._open_charts)
        self.again.clicked.connect(self.refresh)
        self.look.clicked.connect(self._look_elsewhere)
        self.charts.clicked.connect(self._open_charts)
        self.overlay.clicked.connect(self._overlay)
        self.resume.clicked.connect(self._resume)
        self.compare.clicked.connect(self._compare)
        self.take.clicked.connect(self._take_settings)
        self.folder.clicked.connect(self._open_folder)
        self.delete.clicked.connect(self._delete)
        self._document.changed.connect(self._document_changed)
        self._host.status_changed.connect(self._status_changed)

    @Slot(int, object)
    def _show_runs(self, request: int, runs: list[RunFolder]) -> None:
        if request != self._request:
            return
        self.table.show_runs(runs)
        if self._wanted is not None and self.table.choose(self._wanted):
            self._wanted = None
        self.empty.setVisible(not runs)
        self._list.setVisible(bool(runs))
        self.detail.setVisible(bool(runs))
        self._space.setVisible(not runs)

    @Slot(object)
    def _choose(self, run: RunFolder | None) -> None:
        self.detail.title.setText(run.path.name if run is not None else self.tr("Selected run"))
        self.ending.setText(ending_text(run) if run is not None else "")
        self.ending.set_tone(outcome_tone(run.outcome) if run is not None else "muted")
        for button in (self.charts, self.compare, self.take, self.folder):
            button.setEnabled(run is not None)
        self.overlay.setEnabled(run is not None and run.step > 0)
        self.delete.setEnabled(run is not None and run.outcome != "running")
        self._show_resume(run)
        self._show_compared(run)

    def _show_resume(self, run: RunFolder | None) -> None:
        is_free = not self._host.status.is_active and not self._host.status.is_engine_alive
        can = run is not None and bool(run.state) and run.outcome != "running" and is_free
        self.resume.setEnabled(can)
        tip = ""
        if run is not None and not run.state:
            tip = self.tr("No state file of this run is left in its checkpoints folder.")
        elif not is_free:
            tip = self.tr("A run is going on.")
        self.resume.setToolTip(tip)

    def _show_compared(self, run: RunFolder | None) -> None:
        settings = stored_settings(run.path) if run is not None else None
        if settings is None:
            self.compared.setText("")
            self.compare.setEnabled(False)
            self.take.setEnabled(False)
            return
        count = len(self._differences(settings))
        if count:
            words = counted(count, self.tr("setting"), self.tr("settings"))
            self.compared.setText(self.tr("{0} other than in the document now.").format(words))
        else:
            self.compared.setText(self.tr("The same settings as the document now."))
        self.compare.setEnabled(count > 0)
        self.take.setEnabled(count > 0)

    def _differences(self, settings: dict[str, object]) -> list[object]:
        plain = {key: value for key, value in settings.items() if key != "schema"}
        return list(differences(plain, self._document.overlay()))

    @Slot(object)
    def _document_changed(self, paths: object) -> None:
        if self.isVisible():
            self._show_compared(self.table.run)

    @Slot(object)
    def _status_changed(self, status: RunStatus) -> None:
        changed, self._state = status.state is not self._state, status.state
        if changed and self.isVisible():
            self._show_resume(self.table.run)
            if status.state is not RunState.SAVING:
                self.refresh()

    @Slot()
    def _open_charts(self) -> None:
        if self.table.run is not None:
            self.charts_asked.emit(self.table.run.path)

    @Slot()
    def _overlay(self) -> None:
        if self.table.run is not None:
            self.overlay_asked.emit(self.table.run.path)

    @Slot()
    def _resume(self) -> None:
        run = self.table.run
        if run is not None and run.state:
            self.resume_asked.emit(run.state)

    @Slot()
    def _compare(self) -> None:
        run = self.table.run
        settings = stored_settings(run.path) if run is not None else None
        if run is None or settings is None:
            return
        plain = {key: value for key, value in settings.items() if key != "schema"}
        rows = differences(plain, self._document.overlay())
        CompareDialog(rows, run.path.name, self).exec()

    @Slot()
    def _take_settings(self) -> None:
        run = self.table.run
        settings = stored_settings(run.path) if run is not None else None
        if run is None or settings is None:
            return
        plain = {key: value for key, value in settings.items() if key != "schema"}
        if self._document.is_dirty:
            # Undo brings back what was there.
            self._document.replace(plain, self.tr("settings of {0}").format(run.path.name))
        else:
            self._document.adopt(plain, Origin("new", run.name))
        self._show_compared(run)

    @Slot()
    def _open_folder(self) -> None:
        if self.table.run is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.table.run.path)))

    @Slot()
    def _delete(self) -> None:
        run = self.table.run
        current = read_run(run.path) if run is not None else None
        if run is None or current is None or current.outcome == "running":
            return
        text = self.tr("Delete the record of {0}?").format(run.path.name)
        box = MessageBox(self, self.tr("Delete the record?"), text, "warning")
        box.setInformativeText(
            self.tr("Its log, events and metrics are deleted. Models and states are kept.")
        )
        delete = box.offer(self.tr("Delete"), QMessageBox.ButtonRole.DestructiveRole, "danger")
        box.offer(self.tr("Keep"), QMessageBox.ButtonRole.RejectRole)
        box.exec()
        if box.clickedButton() is not delete:
            return
        try:
            shutil.rmtree(run.path)
        except OSError as error:
            text = self.tr("{0} cannot be deleted: {1}").format(run.path, error.strerror)
            warn(self, self.tr("Runs"), text)
        self.refresh()

    @Slot()
    def _look_elsewhere(self) -> None:
        start = str(self._document.value("output.folder"))
        title = self.tr("An output folder, or the folder of a run")
        chosen = QFileDialog.getExistingDirectory(self, title, start)
        if not chosen:
            return
        path = Path(chosen)
        if (path / "run.json").is_file():
            self.show_run(path)
            return
        # The folder of all runs is taken for its output folder.
        output = path.parent if path.name == "runs" and not (path / "runs").is_dir() else path
        if output not in self._added:
            self._added.append(output)
        self.refresh()


Page = RunsPage
