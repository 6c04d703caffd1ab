"""The keys of the ticket chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QKeyEvent, QKeySequence

from gui.editors.ticket_edit import nudged, scaled

if TYPE_CHECKING:
    from gui.editors.ticket_chart import TicketChart

_STEP, _LARGE_STEP = 0.05, 0.5


class TicketKeys(QObject):
    """Turns keys into edits of the chart it belongs to."""

    def __init__(self, chart: TicketChart) -> None:
        super().__init__(chart)
        self._chart = chart

    def pressed(self, event: QKeyEvent) -> bool:
        """Do what the key asks for; return whether it is one of the chart's."""
        chart, key = self._chart, event.key()
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        if event.matches(QKeySequence.StandardKey.SelectAll):
            chart.choose(range(chart.view.bins))
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self._step(1 if key == Qt.Key.Key_Right else -1, extend=shift)
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self._nudge(1 if key == Qt.Key.Key_Up else -1, large=shift)
        elif key in (Qt.Key.Key_Home, Qt.Key.Key_End):
            bar = 0 if key == Qt.Key.Key_Home else chart.view.bins - 1
            chart.choose((bar,), current=bar)
        else:
            return self._single(key, event)
        return True

    def _single(self, key: int, event: QKeyEvent) -> bool:
        chart = self._chart
        plain = not event.modifiers() & ~(
            Qt.KeyboardModifier.KeypadModifier | Qt.KeyboardModifier.ShiftModifier
        )
        if key in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            chart.menu().set_zero()
        elif key == Qt.Key.Key_L and plain:
            bars = self.bars()
            chart.lock(bars, on=not bars <= chart.locked)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_F2):
            chart.edit_number(chart.current)
        elif plain and event.text() and event.text() in "0123456789.,":
            chart.edit_number(chart.current, event.text())
        elif key == Qt.Key.Key_Escape and chart.chosen:
            chart.choose(())
        else:
            return False
        return True

    def bars(self) -> frozenset[int]:
        """Return the bars keys act on: the chosen ones, or the current one."""
        return self._chart.chosen or frozenset({self._chart.current})

    def _step(self, by: int, *, extend: bool) -> None:
        chart = self._chart
        bar = min(max(chart.current + by, 0), chart.view.bins - 1)
        chart.choose({*chart.chosen, chart.current, bar} if extend else (bar,), current=bar)

    def _nudge(self, up: int, *, large: bool) -> None:
        chart = self._chart
        bars, weights = self.bars(), chart.weights
        if len(bars) == chart.view.bins:
            factor = (1.0 + (_LARGE_STEP if large else _STEP)) ** up
            changed = scaled(weights, factor, bars, chart.locked)
            chart.commit(changed, chart.tr("scale bars"), may_merge=True)
            return
        change = up * (_LARGE_STEP if large else _STEP)
        changed = nudged(weights, change, bars, chart.locked)
        chart.commit(changed, chart.tr("nudge bars"), may_merge=True)
