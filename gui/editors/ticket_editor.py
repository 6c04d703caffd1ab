"""The whole editor of a ticket pool: strip of shapes, chart, table, remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from aozora.config.choices.distributions import DISTRIBUTIONS
from aozora.config.ticket_pool import BIN_COUNTS
from aozora.errors import AozoraError
from gui.editors.folding_row import FoldingRow
from gui.editors.issue_list import IssueList
from gui.editors.loss_by_timestep import as_weights, mean_losses
from gui.editors.numbers import format_count
from gui.editors.preset_strip import PresetStrip
from gui.editors.segments import Segments
from gui.editors.ticket_chart import TicketChart
from gui.editors.ticket_edit import with_values
from gui.editors.ticket_shapes import bar_weights, shape_entries, shaped
from gui.editors.ticket_table import TicketTable
from gui.editors.ticket_view import TicketView
from gui.forms.controls import Card, TonedLabel, tool_button
from gui.theme import CONTROL_HEIGHT, GAP_2, GAP_3, GAP_4

_FOLD_PX = 760


class TicketEditor(QWidget):
    """Edits a ticket pool; the owner hears of each change and gives the pool back.

    Signals:
        previewed: The bars while they are painted.
        committed: The distribution as it stands in a configuration, what was done, and whether it
            may join the step before.
        bins_chosen: Another number of bars.
    """

    previewed = Signal(object)
    committed = Signal(object, str, bool)
    bins_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.chart = TicketChart()
        self.table = TicketTable()
        self.strip = PresetStrip(self.tr("Ready-made…"))
        self.remarks = IssueList()
        self.notice = TonedLabel()
        self.notice.setWordWrap(True)
        self.summary = TonedLabel()
        self.summary.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignTop)
        self.bins = Segments(self.tr("Bars"), [(str(n), str(n)) for n in BIN_COUNTS])
        self._soon = QTimer(self, interval=100, singleShot=True)
        self._build()
        self._connect()
        self.strip.set_entries(shape_entries())
        self._refresh()

    # What is shown

    @property
    def view(self) -> TicketView:
        """The pool."""
        return self.chart.view

    def show_view(self, view: TicketView) -> None:
        """Show ``view``."""
        self.chart.set_view(view)
        self.bins.set_value(str(view.bins))
        self._refresh()

    def show_progress(
        self, planned: Sequence[int], drawn: Sequence[int], losses: Sequence[float]
    ) -> None:
        """Show what a run has drawn so far; see `TicketChart.set_progress`."""
        self.chart.set_progress(planned, drawn, losses)
        self.say("")

    # Building

    def _build(self) -> None:
        card = Card()
        bar = QHBoxLayout()
        bar.setSpacing(GAP_2)
        bar.addWidget(self.strip.box)
        measured = tool_button("run", self.tr("Take the bars from the losses of a run"))
        measured.clicked.connect(self._ask_run)
        bar.addWidget(measured)
        bar.addStretch(1)
        bar.addWidget(QLabel(self.tr("Bars")))
        bar.addWidget(self.bins)
        card.body.addLayout(bar)
        card.body.addWidget(self.strip)
        card.body.addWidget(self.chart, 1)
        below = QHBoxLayout()
        below.setSpacing(GAP_4)
        below.addWidget(self.notice, 1)
        below.addWidget(self.summary)
        card.body.addLayout(below)
        self.chart.setMinimumHeight(250)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_3)
        layout.addWidget(card, 3)
        layout.addWidget(self._build_lower(), 2)

    def _build_lower(self) -> QWidget:
        lower = FoldingRow(_FOLD_PX)
        bars = Card(self.tr("Bars"))
        bars.head.addStrut(CONTROL_HEIGHT)
        bars.body.addWidget(self.table, 1)
        self.table.setMinimumHeight(170)
        remarks = Card(self.tr("What it comes to"))
        remarks.head.addStrut(CONTROL_HEIGHT)
        remarks.body.addWidget(self.remarks)
        remarks.body.addStretch(1)
        remarks.setMinimumWidth(260)
        lower.add(bars, 5)
        lower.add(remarks, 3)
        return lower

    def _connect(self) -> None:
        self.chart.previewed.connect(self._previewed)
        self.chart.committed.connect(self._committed)
        self.chart.selected.connect(self.table.choose)
        self.chart.noticed.connect(self.say_fault)
        self.table.chosen.connect(self._rows_chosen)
        self.table.edited.connect(self._edited)
        self.table.bars.refused.connect(self.say_fault)
        self.strip.previewed.connect(self._shape_previewed)
        self.strip.applied.connect(self._shape_applied)
        self.bins.chosen.connect(self._bins_chosen)
        self._soon.timeout.connect(self._show_remarks)

    # Changes

    def _committed(self, weights: tuple[float, ...], title: str, may_merge: bool) -> None:
        self._refresh()
        self.committed.emit({"kind": "custom", "weights": list(weights)}, title, may_merge)

    def _previewed(self, weights: tuple[float, ...]) -> None:
        self._soon.start()
        self.previewed.emit(weights)

    def _rows_chosen(self, rows: tuple[int, ...]) -> None:
        self.chart.choose(rows)

    def _edited(self, rows: tuple[int, ...], weight: float) -> None:
        changed = with_values(self.view.weights, dict.fromkeys(rows, weight), self.chart.locked)
        self.chart.commit(changed, self.tr("set bars"))

    def _bins_chosen(self, number: str) -> None:
        self.chart.settle()
        self.bins_chosen.emit(int(number))

    # Ready-made distributions

    def _shape_previewed(self, key: str, numbers: Mapping[str, float]) -> None:
        self.say("")
        if not key:
            self.chart.set_ghost(None)
            return
        if key == "min_snr" and self.view.is_min_snr_weighted:
            self.say(
                self.tr(
                    "The loss is weighted by min-SNR already (loss.weighting): with these bars too,"
                    " each noise level is weighted twice."
                )
            )
        try:
            distribution = shaped(key, numbers, self.view)
            self.chart.set_ghost(bar_weights(distribution, self.view.bins))
        except ValueError as error:
            self.chart.set_ghost(None)
            self.strip.say(f"{str(error)[:1].upper()}{str(error)[1:]}")

    def _shape_applied(self, key: str, numbers: Mapping[str, float]) -> None:
        distribution = shaped(key, numbers, self.view)
        self.chart.choose(())
        self.committed.emit(distribution, self.tr("ready-made distribution"), False)

    def _ask_run(self) -> None:
        dialog = QFileDialog(self, self.tr("Folder of a run"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setOption(QFileDialog.Option.ShowDirsOnly)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.take_run)
        dialog.open()

    def take_run(self, folder: str) -> None:
        """Take the bars from the losses measured in the run in ``folder``."""
        try:
            losses = mean_losses(Path(folder), self.view.bins)
        except AozoraError as error:
            self.say_fault(str(error))
            return
        self.chart.choose(())
        self.chart.commit(tuple(as_weights(losses)), self.tr("bars from losses"))

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
        text = self.tr(
            "Drag to paint. Shift: a straight line. Alt: smooth. Ctrl+drag: all bars."
            " Double-click: a number. L: lock."
        )
        if self.view.shifted() is not None:
            text += self.tr(" Line: what the UNet is given after the flow shift.")
        return text + self._progress_hint()

    def _progress_hint(self) -> str:
        planned = self.chart.planned
        if not planned:
            return ""
        if len(planned) != self.view.bins:
            text = self.tr(" The run has {0} bars: with as many, its progress is shown here.")
            return text.format(len(planned))
        dots = self.tr(" Dots: mean loss.")
        if self.view.is_like(planned):
            return self.tr(" Inner bars: drawn so far, of the whole run.") + dots
        text = self.tr(
            " The run draws from another pool than these bars: inner bars say how much of each of"
            " its own is drawn so far."
        )
        return text + dots

    def _refresh(self) -> None:
        self.say("")
        self._show_remarks()

    def _show_remarks(self) -> None:
        view = self.chart.scene().view
        self.table.show_view(view)
        self.table.choose(tuple(sorted(self.chart.chosen)))
        if view.pool() is None:
            self.summary.setText("")
            self.say_fault(self.tr("No bar gets a ticket: raise one."))
            self.remarks.show_issues([])
            return
        self.remarks.show_issues(view.issues())
        words = [DISTRIBUTIONS.label(view.kind)]
        if view.total:
            words.append(self.tr("{} tickets").format(format_count(view.total)))
        self.summary.setText(" \u00b7 ".join(words))
