"""The page of the running, last, or a recorded run: charts and facts."""

from __future__ import annotations

import threading
from pathlib import Path

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal, Slot
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.charts.export import write_csv
from gui.charts.group import ChartGroup
from gui.charts.run_history import RunHistory, RunPart
from gui.document import Document
from gui.engine.host import EngineHost
from gui.engine.run_folders import load_history, planned_rates
from gui.engine.states import RunState, RunStatus
from gui.forms.controls import Card, TonedLabel, picture_button
from gui.forms.message_box import warn
from gui.pages.run_facts import FactsStrip
from gui.pages.run_overlay import OverlayButton
from gui.pages.run_picture import stacked
from gui.pages.run_places import outputs_in_use
from gui.pages.run_toolbar import RunToolbar
from gui.shell.form_page import PageHead
from gui.words import whole

_CHART_HEIGHT, _LOSS_HEIGHT = 230, 290
_NARROW = 720


class RunPage(QScrollArea):
    """Charts of the live run, or of a recorded one that was chosen on the Runs page."""

    _loaded = Signal(int, object)

    def __init__(self, document: Document, host: EngineHost, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._host = host
        self._document = document
        self._recorded: Path | None = None
        self._request = 0
        self._planned_for: tuple[RunPart, ...] = ()
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.head = PageHead(self.tr("Run"), "")
        self.toolbar = RunToolbar()
        self.facts = FactsStrip()
        self.group = ChartGroup(self)
        self.overlay = OverlayButton(
            lambda: outputs_in_use(document, host), lambda: self.group.history.run_id
        )
        self.toolbar.add(self.overlay)
        self.back = picture_button("undo", self.tr("Back to the current run"))
        self.back.hide()
        for button in (self.back, self.toolbar.whole, self.toolbar.export):
            self.head.buttons.addWidget(button)
        self.open_folder = picture_button("open", self.tr("Open a recorded run…"))
        self.empty = self._empty_state()
        self.body = QWidget()
        self._lay_out()
        self._wire()
        self._show_current()

    def show_run(self, folder: Path) -> None:
        """Show the recorded run in ``folder``; it is read in a thread."""
        self._recorded = folder
        self._request += 1
        request = self._request
        self.head.purpose.setText(self.tr("Reading {0} …").format(folder.name))

        def read() -> None:
            history = load_history(folder, lambda: request != self._request)
            if request == self._request:
                self._loaded.emit(request, history)

        threading.Thread(target=read, name="recorded-run", daemon=True).start()

    def showEvent(self, event: QShowEvent) -> None:
        """Draw while it can be seen."""
        super().showEvent(event)
        self._set_live()
        # The charts get their places with the first layout.
        QTimer.singleShot(0, self.group.redraw_seen)

    def hideEvent(self, event: QHideEvent) -> None:
        """Draw nothing while it cannot be seen."""
        super().hideEvent(event)
        self.group.set_live(False)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Give the charts their columns and their content when the room for them changes."""
        if event.type() in (QEvent.Type.Resize, QEvent.Type.Show):
            if watched is self.viewport():
                self._arrange()
            QTimer.singleShot(0, self.group.redraw_seen)
        return super().eventFilter(watched, event)

    def _empty_state(self) -> Card:
        card = Card(self.tr("Nothing has run yet"))
        text = TonedLabel(
            self.tr(
                "When training starts, loss, learning rate, gradient norm, memory and the drawn "
                "timesteps appear here while it goes on. Every run is also recorded in its output "
                "folder and can be looked at again."
            )
        )
        text.setWordWrap(True)
        card.body.addWidget(text)
        row = QHBoxLayout()
        row.addWidget(self.open_folder)
        row.addStretch(1)
        card.body.addLayout(row)
        return card

    def _lay_out(self) -> None:
        whole_page = QWidget()
        column = QVBoxLayout(whole_page)
        column.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_4, theme.GAP_5)
        column.setSpacing(theme.GAP_3)
        column.addWidget(self.head)
        column.addWidget(self.empty)
        column.addWidget(self.body)
        column.addStretch(1)
        inner = QVBoxLayout(self.body)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(theme.GAP_3)
        inner.addWidget(self.facts)
        inner.addWidget(self.toolbar)
        self._grid = QGridLayout()
        self._grid.setSpacing(theme.GAP_3)
        inner.addLayout(self._grid)
        for chart in self.group.charts:
            chart.setFixedHeight(_LOSS_HEIGHT if chart.spec.key == "loss" else _CHART_HEIGHT)
        self.group.timesteps.setFixedHeight(_CHART_HEIGHT)
        self._arrangement = (0, 0)  # columns, cards
        self.setWidget(whole_page)
        self.viewport().installEventFilter(self)
        self.body.installEventFilter(self)
        self._arrange()

    def _arrange(self) -> None:
        """Put the charts into one column or two: the loss over all of them."""
        columns = 1 if self.viewport().width() < _NARROW else 2
        loss, *others = self.group.charts
        shown = [chart for chart in others if not chart.spec.is_optional or not chart.isHidden()]
        arrangement = (columns, len(shown))
        if arrangement == self._arrangement:
            return
        self._arrangement = arrangement
        self._grid.addWidget(loss, 0, 0, 1, columns)
        cards = [self.group.timesteps, *shown]
        for number, chart in enumerate(cards):
            row, column = divmod(number, columns)
            # A last one that would stand alone takes the whole line.
            is_alone = number == len(cards) - 1 and column < columns - 1
            self._grid.addWidget(chart, row + 1, column, 1, columns - column if is_alone else 1)
        for column in range(2):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)

    def _wire(self) -> None:
        self._host.status_changed.connect(self._status_changed)
        self._host.keeper.replaced.connect(self._history_replaced)
        self._host.started.connect(self._run_started)
        self._loaded.connect(self._show_recorded)
        self.group.view_changed.connect(self.toolbar.show_view)
        self.group.drawn.connect(self._drawn)
        self.toolbar.asked.connect(self.group.set_view)
        self.toolbar.whole_asked.connect(self.group.show_all)
        self.toolbar.pause_asked.connect(self.group.set_paused)
        self.overlay.chosen.connect(self.group.set_overlay)
        self.overlay.folder_asked.connect(self._choose_overlay)
        self.overlay.failed.connect(self._complain)
        self.toolbar.picture_asked.connect(self._save_picture)
        self.toolbar.table_asked.connect(self._save_table)
        self.back.clicked.connect(self._show_current)
        self.open_folder.clicked.connect(self._choose_recorded)
        self.verticalScrollBar().valueChanged.connect(self.group.redraw_seen)

    @Slot()
    def _show_current(self) -> None:
        self._recorded = None
        self._request += 1
        self.group.set_history(self._host.keeper.history)
        self._status_changed(self._host.status)
        self._set_live()
        self._drawn()

    @Slot(int, object)
    def _show_recorded(self, request: int, history: RunHistory) -> None:
        if request != self._request or self._recorded is None:
            return
        self.group.set_history(history)
        self._show_texts()
        self._set_live()
        self._drawn()

    @Slot(object)
    def _run_started(self, job: object) -> None:
        # Who starts a run wants to see it.
        self._show_current()

    @Slot()
    def _history_replaced(self) -> None:
        if self._recorded is None:
            self.group.set_history(self._host.keeper.history)

    @Slot(object)
    def _status_changed(self, status: RunStatus) -> None:
        if self._recorded is None:
            self._show_texts()
            self._set_live()
            if not status.is_active:
                self.group.refresh()

    @Slot()
    def _drawn(self) -> None:
        self._arrange()
        history = self.group.history
        self.facts.show_plan(history.plan)
        self.toolbar.whole.setEnabled(self.group.is_zoomed)
        if history.parts != self._planned_for:
            self._planned_for = history.parts
            self.group.set_planned(planned_rates(history.parts))

    def _set_live(self) -> None:
        is_live = self._recorded is None and self._host.status.is_engine_alive
        self.group.set_live(is_live and self.isVisible())

    def _show_texts(self) -> None:
        history, status = self.group.history, self._host.status
        has_content = bool(len(history.steps) or history.plan is not None or history.run_id)
        is_known = has_content or self._recorded is not None or status.is_active
        self.empty.setVisible(not is_known)
        for widget in (self.body, self.toolbar.whole, self.toolbar.export):
            widget.setVisible(is_known)
        self.back.setVisible(self._recorded is not None)
        self.head.purpose.setText(self._purpose(history, status))

    def _purpose(self, history: RunHistory, status: RunStatus) -> str:
        if self._recorded is not None:
            text = self.tr("Recorded run {0}, up to step {1}")
            return text.format(self._recorded.name, whole(history.last_step))
        if status.is_active:
            name = Path(status.folder).name if status.folder else ""
            return self.tr("Running: {0}").format(name) if name else self.tr("Starting …")
        if status.state is RunState.FAILED:
            return self.tr("The run failed: {0}").format(status.message)
        if status.folder:
            return self.tr("Last run: {0}").format(Path(status.folder).name)
        return self.tr("What a run does while it goes on, and what it did.")

    @Slot()
    def _choose_recorded(self) -> None:
        folder = self._ask_run()
        if folder is not None:
            self.show_run(folder)

    @Slot()
    def _choose_overlay(self) -> None:
        folder = self._ask_run()
        if folder is not None:
            self.overlay.take(folder)

    def _ask_run(self) -> Path | None:
        """Ask for the folder of a recorded run; None when there is none."""
        start = str(self._document.value("output.folder"))
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Folder of a run"), start)
        if chosen and not (Path(chosen) / "run.json").is_file():
            self._complain(self.tr("This folder holds no recorded run: run.json is missing."))
            return None
        return Path(chosen) if chosen else None

    @Slot()
    def _save_picture(self) -> None:
        path = self._ask_file(self.tr("Save the charts"), "png", self.tr("Pictures (*.png)"))
        if path is None:
            return
        self.group.draw_all()
        # The controls between them are of no use on paper.
        picture = stacked([self.facts.grab(), self.body.grab(self._grid.geometry())])
        if not picture.save(str(path)):
            self._complain(self.tr("{0} cannot be written.").format(path))

    @Slot()
    def _save_table(self) -> None:
        path = self._ask_file(self.tr("Save the numbers"), "csv", self.tr("Tables (*.csv)"))
        if path is None:
            return
        try:
            write_csv(self.group.history, path, self.group.view.smoothing, self.group.overlay)
        except OSError as error:
            self._complain(self.tr("{0} cannot be written: {1}").format(path, error.strerror))

    def _ask_file(self, title: str, ending: str, kinds: str) -> Path | None:
        name = Path(self.group.history.folder).name or "run"
        start = Path(self.group.history.folder).parent / f"{name}.{ending}"
        chosen, _ = QFileDialog.getSaveFileName(self, title, str(start), kinds)
        return Path(chosen) if chosen else None

    @Slot(str)
    def _complain(self, text: str) -> None:
        warn(self, self.tr("Run"), text)


Page = RunPage
