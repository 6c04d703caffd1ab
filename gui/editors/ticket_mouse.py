"""The mouse on the ticket chart: what a press begins, a move shows and a release does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QPointF, Qt, QTimer
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QApplication

from gui.editors.ticket_axes import TicketAxes
from gui.editors.ticket_gestures import Painting, Ruling, Scaling, Smoothing, TicketGesture
from gui.editors.ticket_view import TicketView

if TYPE_CHECKING:
    from gui.editors.ticket_chart import TicketChart

_CLICK_PX = 3.0


class TicketMouse(QObject):
    """Turns what the mouse does into gestures of the chart it belongs to."""

    def __init__(self, chart: TicketChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._press: QPointF | None = None
        self._title = ""
        # A click may turn out to be the first half of a double click, which edits the number.
        self._click = QTimer(self, singleShot=True)
        self._click.setInterval(QApplication.doubleClickInterval())
        self._click.timeout.connect(self.finish)
        self.gesture: TicketGesture | None = None
        self.shown: TicketView | None = None
        self.hovered: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a click waits to be a double click."""
        return self._click.isActive()

    def press(self, event: QMouseEvent) -> None:
        """Begin to paint, rule, smooth or scale."""
        chart, axes, place = self._chart, self._chart.axes(), event.position()
        bar, weight = axes.bar_at(place.x()), axes.to_weight(place.y())
        held, weights, locked = event.modifiers(), chart.weights, chart.locked
        self._press = place
        chart.choose((), current=bar)
        if held & Qt.KeyboardModifier.ControlModifier:
            self._title = chart.tr("scale bars")
            self.gesture = Scaling(weights, locked, weight, weights)
        elif held & Qt.KeyboardModifier.ShiftModifier:
            self._title = chart.tr("straight bars")
            self._carry_on(Ruling(weights, locked, (bar, weight), weights), bar, weight)
        elif held & Qt.KeyboardModifier.AltModifier:
            self._title = chart.tr("smooth bars")
            self._carry_on(Smoothing(weights, locked), bar, weight)
        else:
            self._title = chart.tr("paint bars")
            self._carry_on(Painting(weights, locked), bar, weight)

    def _carry_on(self, gesture: TicketGesture, bar: int, weight: float) -> None:
        chart = self._chart
        self.gesture = gesture.to(bar, weight)
        chart.choose((), current=bar)
        self.shown = chart.view.with_weights(self.gesture.weights)
        chart.previewed.emit(self.gesture.weights)
        chart.update()

    def move(self, event: QMouseEvent) -> None:
        """Carry on with the gesture, or show what is under the mouse."""
        axes, place = self._chart.axes(), event.position()
        if self.gesture is None:
            self._hover(place, axes)
            return
        if self.is_waiting:
            return
        if self._press is not None and (place - self._press).manhattanLength() <= _CLICK_PX:
            return
        self._press = self.hovered = None
        self._carry_on(self.gesture, axes.bar_at(place.x()), axes.to_weight(place.y()))

    def _hover(self, place: QPointF, axes: TicketAxes) -> None:
        near = is_near(place, axes)
        if near:
            self._chart.setCursor(Qt.CursorShape.CrossCursor)
        else:
            self._chart.unsetCursor()
        hovered = axes.bar_at(place.x()) if near else None
        if hovered != self.hovered:
            self.hovered = hovered
            self._chart.update()

    def leave(self) -> None:
        """Forget what was under the mouse; a click is a click once the mouse is gone."""
        self.settle()
        self.hovered = None
        self._chart.update()

    def release(self) -> None:
        """End the gesture with what it shows, a click once it is no double click."""
        if self._press is not None and isinstance(self.gesture, Painting):
            self._click.start()
        else:
            self.finish()

    def settle(self) -> None:
        """Take a click that waits to be a double click for what it is."""
        if self.is_waiting:
            self.finish()

    def finish(self) -> None:
        """End the gesture with what it shows."""
        gesture = self.gesture
        self.forget()
        if gesture is not None:
            self._chart.commit(gesture.weights, self._title)
        self._chart.fit()

    def cancel(self) -> None:
        """End a running gesture as if it had not been."""
        if self.gesture is not None:
            self.forget()
            self._chart.previewed.emit(self._chart.weights)
            self._chart.update()

    def forget(self) -> None:
        """Forget the gesture."""
        self._click.stop()
        self.gesture = self.shown = self._press = None


def is_near(place: QPointF, axes: TicketAxes) -> bool:
    """Return whether a place in pixels is in the plot or just beside it."""
    return (
        axes.left - 4 <= place.x() <= axes.right + 4
        and axes.top - 12 <= place.y() <= axes.bottom + 12
    )
