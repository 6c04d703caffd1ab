"""The context menu of the ticket chart, and the field over a bar for its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import QLineEdit, QMenu, QWidget

from gui.editors.numbers import parse_number
from gui.editors.ticket_edit import (
    HIGHEST_PAINTED,
    mirrored,
    normalised,
    smoothed,
    with_values,
)
from gui.theme import CONTROL_HEIGHT

if TYPE_CHECKING:
    from gui.editors.ticket_chart import TicketChart


class TicketMenu(QObject):
    """What can be done to chosen bars, or to all of them."""

    def __init__(self, chart: TicketChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._field: _NumberField | None = None

    def build(self) -> QMenu:
        """Return the menu for the chosen bars."""
        chart = self._chart
        menu = QMenu(chart)
        menu.aboutToHide.connect(menu.deleteLater)
        self._add(menu, chart.tr("Set value…"), self.ask_number)
        self._add(menu, chart.tr("Set 0"), self.set_zero)
        self._add(menu, chart.tr("Set 1\u00d7"), self.set_one)
        lock = menu.addAction(chart.tr("Lock bar"))
        lock.setCheckable(True)
        lock.setChecked(self._bars() <= chart.locked)
        lock.toggled.connect(self.set_locked)
        menu.addSeparator()
        self._add(menu, chart.tr("Mirror"), self.mirror)
        self._add(menu, chart.tr("Smooth"), self.smooth)
        self._add(menu, chart.tr("Normalise"), self.normalise)
        self._add(menu, chart.tr("Reset to uniform"), self.reset)
        return menu

    def _add(self, menu: QMenu, text: str, slot: Callable[[], None]) -> None:
        menu.addAction(text).triggered.connect(slot)

    def _bars(self) -> frozenset[int]:
        return self._chart.chosen or frozenset({self._chart.current})

    def _set(self, value: float, title: str) -> None:
        chart = self._chart
        values = dict.fromkeys(self._bars(), value)
        chart.commit(with_values(chart.weights, values, chart.locked), title)

    def set_zero(self) -> None:
        """Give the chosen bars no tickets."""
        self._set(0.0, self._chart.tr("clear bars"))

    def set_one(self) -> None:
        """Give the chosen bars the density of a uniform pool."""
        self._set(1.0, self._chart.tr("set bars"))

    def set_locked(self, on: bool) -> None:
        """Lock or unlock the chosen bars."""
        self._chart.lock(self._bars(), on=on)

    def mirror(self) -> None:
        """Exchange fine detail and composition."""
        chart = self._chart
        chart.commit(mirrored(chart.weights, chart.locked), chart.tr("mirror bars"))

    def smooth(self) -> None:
        """Even out the chosen bars, or all when one is chosen."""
        chart = self._chart
        bars = chart.chosen if len(chart.chosen) > 1 else range(chart.view.bins)
        chart.commit(smoothed(chart.weights, bars, chart.locked), chart.tr("smooth bars"))

    def normalise(self) -> None:
        """Bring the mean of the bars to 1."""
        chart = self._chart
        chart.commit(normalised(chart.weights), chart.tr("normalise bars"))

    def reset(self) -> None:
        """Make all bars equal."""
        chart = self._chart
        chart.lock(chart.locked, on=False)
        chart.commit((1.0,) * chart.view.bins, chart.tr("reset bars"))

    def ask_number(self) -> None:
        """Open the field for the number of the current bar."""
        self._chart.edit_number(self._chart.current)

    def edit_number(self, bar: int, typed: str) -> None:
        """Open a field over ``bar``, beginning with what was typed."""
        chart = self._chart
        if self._field is not None:
            self._field.finish()
        value = chart.weights[bar]
        self._field = _NumberField(chart, typed or f"{value:g}", self._take, self._closed)
        place = chart.bar_position(bar, value)
        left = min(max(round(place.x()) - 36, 4), max(chart.width() - 76, 4))
        top = min(max(round(place.y()) - 34, 4), max(chart.height() - 34, 4))
        self._field.setGeometry(left, top, 72, CONTROL_HEIGHT)
        self._field.show()
        self._field.setFocus()
        if typed:
            self._field.deselect()
            self._field.end(False)
        else:
            self._field.selectAll()

    def _take(self, text: str) -> str:
        """Set the chosen bars to ``text``; return what is wrong with it, if anything."""
        chart = self._chart
        try:
            value = parse_number(text.strip().rstrip("xX\u00d7"))
        except ValueError as error:
            return str(error)
        highest = max(HIGHEST_PAINTED, *chart.weights)
        if not 0.0 <= value <= highest:
            return chart.tr("a bar is 0 to {:g} times uniform").format(highest)
        self._set(value, chart.tr("set bars"))
        return ""

    def _closed(self) -> None:
        self._field = None
        self._chart.setFocus()


class _NumberField(QLineEdit):
    """A field over the chart: Enter takes the number, Escape drops it."""

    def __init__(
        self,
        chart: TicketChart,
        text: str,
        take: Callable[[str], str],
        closed: Callable[[], None],
    ) -> None:
        super().__init__(text, chart)
        self._chart = chart
        self._take = take
        self._closed = closed
        self._is_open = True
        self.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.setAccessibleName(chart.tr("Weight of the bar"))

    def finish(self) -> None:
        """Close the field without a change."""
        if self._is_open:
            self._is_open = False
            self.hide()
            self.deleteLater()
            self._closed()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            fault = self._take(self.text())
            if fault:
                self._refuse(fault)
            else:
                self.finish()
        elif event.key() == Qt.Key.Key_Escape:
            self.finish()
        else:
            super().keyPressEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        # Leaving takes a good number; a bad one is dropped, since it can no longer be mended here.
        if self._is_open and event.reason() != Qt.FocusReason.PopupFocusReason:
            self._take(self.text())
            self.finish()

    def _refuse(self, fault: str) -> None:
        self.setProperty("invalid", "true")
        widget: QWidget = self
        widget.style().unpolish(widget)
        widget.style().polish(widget)
        self._chart.noticed.emit(fault[:1].upper() + fault[1:] + ".")
