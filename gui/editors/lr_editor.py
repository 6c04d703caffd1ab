"""The whole editor of a learning-rate curve: strip of shapes, chart, table, remarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QVBoxLayout,
    QWidget,
)

from aozora.config.lr_schedule import LrSchedule
from aozora.errors import ConfigError
from gui.editors.curve_store import curves_folder, keep_curve, kept_curves, read_curve
from gui.editors.folding_row import FoldingRow
from gui.editors.issue_list import IssueList
from gui.editors.lr_chart import LrChart
from gui.editors.lr_edit import Run, deleted, inserted_in_widest_gap
from gui.editors.lr_shapes import peak_text, shape_entries, shaped
from gui.editors.lr_table import LrTable
from gui.editors.preset_strip import PresetEntry, PresetStrip
from gui.editors.segments import Segments
from gui.forms.controls import Card, TonedLabel, tool_button
from gui.theme import CONTROL_HEIGHT, GAP_1, GAP_2, GAP_3

_KEPT = "kept:"
_FOLD_PX = 760


class LrEditor(QWidget):
    """Edits a learning-rate curve; the owner hears of each change and gives the curve back.

    Signals:
        previewed: The curve while it is dragged, an LrSchedule.
        committed: The new curve, what was done, and whether it may join the step before.
    """

    previewed = Signal(object)
    committed = Signal(object, str, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._adam = True
        self._resumed_at: tuple[int, float] | None = None
        self._compared: LrSchedule | None = None
        self.chart = LrChart()
        self.table = LrTable()
        self.strip = PresetStrip(self.tr("Ready-made…"))
        self.remarks = IssueList()
        self.notice = TonedLabel()
        self.notice.setWordWrap(True)
        self._soon = QTimer(self, interval=100, singleShot=True)
        self._build()
        self._connect()
        self._offer()
        self._refresh()

    # What is shown

    @property
    def schedule(self) -> LrSchedule:
        """The curve."""
        return self.chart.schedule

    def show_schedule(self, schedule: LrSchedule) -> None:
        """Show ``schedule``."""
        self.chart.set_schedule(schedule)
        self._refresh()

    def set_run(self, run: Run, *, adam: bool = True) -> None:
        """Say what run the curve is for, and whether its optimizer needs a warm-up."""
        self._adam = adam
        self.chart.set_run(run)
        self.units.button("epochs").setEnabled(run.steps_per_epoch > 0.0)
        self._refresh()

    def set_resume(self, step: int | None, rate: float = 0.0) -> None:
        """Say that a run resumes after ``step`` steps, where its rate was ``rate``."""
        self._resumed_at = None if step is None else (step, rate)
        self._refresh()

    def compare(self, schedule: LrSchedule | None) -> None:
        """Show ``schedule`` dashed beside the curve."""
        self._compared = schedule
        self.chart.set_ghost(schedule)

    def show_applied(self, applied: Sequence[tuple[float, float]]) -> None:
        """Show places and rates of the steps a run has made."""
        self.chart.set_applied(applied)

    # Building

    def _build(self) -> None:
        card = Card()
        bar = QHBoxLayout()
        bar.setSpacing(GAP_2)
        bar.addWidget(self.strip.box)
        bar.addStretch(1)
        units = [("steps", self.tr("Steps")), ("epochs", self.tr("Epochs")), ("percent", "%")]
        self.units = Segments(self.tr("Count the run in"), units)
        self.units.button("epochs").setEnabled(False)
        bar.addWidget(self.units)
        more = tool_button("open", self.tr("Take the curve of another configuration"))
        more.clicked.connect(self._ask_file)
        keep = tool_button("save", self.tr("Save the curve as a preset of yours"))
        keep.clicked.connect(self.ask_name)
        fit = tool_button("search", self.tr("Fit the axis to the curve"))
        fit.clicked.connect(self.chart.reset_zoom)
        for tool in (more, keep, fit):
            bar.addWidget(tool)
        card.body.addLayout(bar)
        card.body.addWidget(self.strip)
        card.body.addWidget(self.chart, 1)
        self.chart.setMinimumHeight(260)
        card.body.addWidget(self.notice)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_3)
        layout.addWidget(card, 3)
        layout.addWidget(self._build_lower(), 2)

    def _build_lower(self) -> QWidget:
        lower = FoldingRow(_FOLD_PX)
        points = Card(self.tr("Points"))
        self.add_button = tool_button("plus", self.tr("Add a point in the widest gap"))
        self.add_button.clicked.connect(self._add)
        self.remove_button = tool_button("minus", self.tr("Remove the chosen points"))
        self.remove_button.clicked.connect(self._remove)
        points.head.setSpacing(GAP_1)
        points.head.addWidget(self.add_button)
        points.head.addWidget(self.remove_button)
        points.body.addWidget(self.table, 1)
        self.table.setMinimumHeight(170)
        remarks = Card(self.tr("What it comes to"))
        # As high as the other card's head, which holds buttons.
        remarks.head.addStrut(CONTROL_HEIGHT)
        remarks.body.addWidget(self.remarks)
        remarks.body.addStretch(1)
        remarks.body.setSpacing(GAP_2)
        remarks.setMinimumWidth(260)
        lower.add(points, 5)
        lower.add(remarks, 3)
        return lower

    def _connect(self) -> None:
        self.chart.previewed.connect(self._previewed)
        self.chart.committed.connect(self._committed)
        self.chart.selected.connect(self.table.choose)
        self.chart.selected.connect(self._selected)
        self.chart.noticed.connect(self.say)
        self.chart.kept.connect(self.ask_name)
        self.chart.restored.connect(self._restore)
        self.table.chosen.connect(self.chart.choose)
        self.table.inserted.connect(self._add)
        self.table.removed.connect(self._remove)
        self.table.points.edited.connect(self._edited)
        self.table.points.refused.connect(self.say_fault)
        self.strip.previewed.connect(self._shape_previewed)
        self.strip.applied.connect(self._shape_applied)
        self.units.chosen.connect(self.chart.set_units)
        self._soon.timeout.connect(self._show_remarks)

    # Changes

    def commit(self, schedule: LrSchedule, title: str, *, may_merge: bool = False) -> None:
        """Make ``schedule`` the curve and tell the owner."""
        self.chart.commit(schedule, title, may_merge=may_merge)

    def _committed(self, schedule: LrSchedule, title: str, may_merge: bool) -> None:
        self.say("")
        self._refresh()
        self.committed.emit(schedule, title, may_merge)

    def _previewed(self, schedule: LrSchedule) -> None:
        self._soon.start()
        self.previewed.emit(schedule)

    def _edited(self, schedule: LrSchedule) -> None:
        self.commit(schedule, self.tr("set point"))

    def _add(self) -> None:
        added = inserted_in_widest_gap(self.schedule, self.chart.run)
        if added is not None:
            self.commit(added[0], self.tr("add point"))
            self.chart.choose((added[1],))

    def _remove(self) -> None:
        changed = deleted(self.schedule, self.chart.chosen, self.chart.run)
        self.chart.choose(())
        self.commit(changed, self.tr("remove point"))

    def _restore(self) -> None:
        self.chart.choose(())
        self.commit(LrSchedule(), self.tr("reset curve"))

    def _selected(self, chosen: tuple[int, ...]) -> None:
        last = len(self.schedule.points) - 1
        self.remove_button.setEnabled(any(0 < index < last for index in chosen))

    # Ready-made curves

    def _offer(self) -> None:
        kept = [PresetEntry(f"{_KEPT}{name}", name) for name in kept_curves()]
        self.strip.set_entries([*shape_entries(), *kept])

    def _shape(self, key: str, numbers: dict[str, float]) -> LrSchedule | None:
        try:
            if key.startswith(_KEPT):
                return read_curve(curves_folder() / f"{key.removeprefix(_KEPT)}.json")
            return shaped(key, numbers)
        except (ValueError, ConfigError) as error:
            text = str(error.problems[0]) if isinstance(error, ConfigError) else str(error)
            self.strip.say(text[:1].upper() + text[1:])
            return None

    def _shape_previewed(self, key: str, numbers: dict[str, float]) -> None:
        if not key:
            self.chart.set_ghost(self._compared)
            self.strip.set_number("peak", peak_text(self.schedule))
            return
        self.chart.set_ghost(self._shape(key, numbers))

    def _shape_applied(self, key: str, numbers: dict[str, float]) -> None:
        schedule = self._shape(key, numbers)
        if schedule is not None:
            self.chart.choose(())
            self.commit(schedule, self.tr("ready-made curve"))

    def _ask_file(self) -> None:
        dialog = QFileDialog(self, self.tr("Take the curve of"))
        dialog.setNameFilter(self.tr("Configurations (*.json)"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.take_file)
        dialog.open()

    def take_file(self, path: str) -> None:
        """Take the curve of a configuration, a preset or a kept curve."""
        try:
            schedule = read_curve(Path(path))
        except ConfigError as error:
            self.say_fault(str(error.problems[0]))
            return
        self.chart.choose(())
        self.commit(schedule, self.tr("curve from file"))

    def ask_name(self) -> None:
        """Ask for a name to keep the curve by."""
        dialog = QInputDialog(self)
        dialog.setWindowTitle(self.tr("Save as preset"))
        dialog.setLabelText(self.tr("Name of the curve"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.textValueSelected.connect(self.keep)
        dialog.open()

    def keep(self, name: str) -> None:
        """Keep the curve as a preset of the user's."""
        try:
            keep_curve(name.strip(), self.schedule)
        except (ValueError, OSError) as error:
            self.say_fault(str(error)[:1].upper() + str(error)[1:])
            return
        self._offer()
        self.say(self.tr("Saved as \u201c{}\u201d.").format(name.strip()))

    # Words

    def say(self, text: str) -> None:
        """Show a sentence under the chart."""
        self.notice.set_tone("muted")
        self.notice.setText(text or self._hint())

    def say_fault(self, text: str) -> None:
        """Show what was wrong with something typed."""
        self.notice.set_tone("error")
        self.notice.setText(text)

    def _hint(self) -> str:
        return self.tr(
            "Click the line to add a point; drag one off to remove it."
            " Alt: no snap. Shift: one direction. Ctrl: whole curve."
        )

    def _refresh(self) -> None:
        self.say("")
        self._selected(self.chart.chosen)
        if self.strip.box.currentIndex() == 0:
            self.strip.set_number("peak", peak_text(self.schedule))
        self._show_remarks()

    def _show_remarks(self) -> None:
        schedule = self.chart.scene().schedule
        run = self.chart.run
        steps = run.steps or None
        found = schedule.validate(steps, adam=self._adam, resumed_at=self._resumed_at)
        self.remarks.show_issues(found)
        marked = {
            issue.index: issue.text
            for issue in reversed(found)
            if issue.index is not None and issue.severity != "info"
        }
        faulty = {i.index for i in found if i.severity == "error" and i.index is not None}
        self.chart.set_faulty(faulty)
        self.table.show_curve(schedule, run, marked)
        self.table.choose(self.chart.chosen)
