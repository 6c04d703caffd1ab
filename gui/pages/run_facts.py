"""What the engine said about a run before its first step, as a line of small facts."""

from __future__ import annotations

from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QVBoxLayout, QWidget

from aozora.events import RunPlanned
from gui import theme
from gui.charts.numbers import DASH
from gui.forms.controls import TonedLabel
from gui.words import counted, memory_text, tr, whole

_WIDE = 720


def facts_of(plan: RunPlanned) -> list[tuple[str, str]]:
    """Return names and values worth knowing about a planned run."""
    share = plan.trained_parameters / max(plan.total_parameters, 1)
    objective = plan.prediction + (tr(", zero terminal SNR") if plan.zero_terminal_snr else "")
    pictures = whole(plan.pictures)
    if plan.held_out:
        pictures += tr(" and {0} held out").format(whole(plan.held_out))
    return [
        (tr("Pictures"), pictures),
        (tr("Sizes"), counted(len(plan.buckets), tr("size"), tr("sizes"))),
        (tr("Trained"), tr("{0} parameters ({1:.0%})").format(_short(plan), share)),
        (tr("Objective"), objective),
        (tr("Optimizer"), f"{plan.optimizer}, {plan.precision}"),
        (tr("Device"), f"{plan.device}, {plan.attention}"),
        (tr("Expected memory"), expected_memory(plan)),
        (tr("Weights and states"), memory_text(plan.parameter_bytes + plan.state_bytes)),
    ]


def expected_memory(plan: RunPlanned) -> str:
    """Return what the engine expects to need."""
    parts = []
    if plan.expected_device_bytes:
        parts.append(tr("VRAM {0}").format(memory_text(plan.expected_device_bytes)))
    if plan.expected_host_bytes:
        parts.append(tr("RAM {0}").format(memory_text(plan.expected_host_bytes)))
    return ", ".join(parts) or DASH


def _short(plan: RunPlanned) -> str:
    count = plan.trained_parameters
    if count >= 1e9:
        return f"{count / 1e9:.2f} G"
    return f"{count / 1e6:.1f} M" if count >= 1e6 else whole(count)


class FactsStrip(QWidget):
    """Rows of facts, or nothing."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, theme.GAP_1)
        self._grid.setHorizontalSpacing(theme.GAP_4)
        self._grid.setVerticalSpacing(theme.GAP_2)
        self._plan: RunPlanned | None = None
        self._cells: list[tuple[QWidget, TonedLabel, TonedLabel]] = []
        self._columns = 0
        self.hide()

    def show_plan(self, plan: RunPlanned | None) -> None:
        """Show the facts of ``plan``."""
        if plan == self._plan:
            return
        self._plan = plan
        self.setVisible(plan is not None)
        if plan is None:
            return
        facts = facts_of(plan)
        while len(self._cells) < len(facts):
            self._add_cell()
        self._arrange()
        for (name, value), (_, name_label, value_label) in zip(facts, self._cells, strict=True):
            name_label.setText(name)
            value_label.setText(value)
            is_memory = name == tr("Expected memory")
            value_label.setToolTip(plan.memory if is_memory and plan.memory else value)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Take as many columns as there is room for."""
        super().resizeEvent(event)
        self._arrange()

    def _add_cell(self) -> None:
        cell = QWidget()
        column = QVBoxLayout(cell)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        name, value = TonedLabel(), TonedLabel(tone="text")
        name.setFont(theme.small_font())
        value.setFont(theme.number_font())
        value.setWordWrap(True)
        column.addWidget(name)
        column.addWidget(value)
        column.addStretch(1)
        # A long value must not widen the page.
        cell.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._cells.append((cell, name, value))

    def _arrange(self) -> None:
        columns = 4 if self.width() >= _WIDE else 2
        if columns == self._columns and self._grid.count() == len(self._cells):
            return
        self._columns = columns
        for number, (cell, _, _) in enumerate(self._cells):
            self._grid.addWidget(cell, number // columns, number % columns)
        for column in range(4):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
