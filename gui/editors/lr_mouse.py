"""The mouse on the learning-rate chart: what a press begins, a move shows and a release does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QPointF, Qt
from PySide6.QtGui import QMouseEvent

from gui.editors.lr_edit import inserted
from gui.editors.lr_gestures import (
    CurveScale,
    Gesture,
    Modifiers,
    PointDrag,
    RubberBand,
    Shown,
)
from gui.editors.lr_hits import is_in_plot, is_on_line, point_at

if TYPE_CHECKING:
    from gui.editors.lr_chart import LrChart

_DRAG_PX = 3.0


class LrMouse(QObject):
    """Turns what the mouse does into gestures of the chart it belongs to."""

    def __init__(self, chart: LrChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._gesture: Gesture | None = None
        self._press: QPointF | None = None
        self._dropped: int | None = None
        self._title = ""
        self.shown: Shown | None = None
        self.hovered: int | None = None

    @property
    def is_dragging(self) -> bool:
        """Whether a gesture runs."""
        return self._gesture is not None

    def point_at(self, place: QPointF) -> int | None:
        """Return the point at a place in pixels."""
        chart = self._chart
        return point_at(chart.axes(), chart.schedule, chart.chosen, place.x(), place.y())

    def press(self, event: QMouseEvent) -> None:
        """Take a handle, a place on the line, or begin to choose."""
        chart, place, keys = self._chart, event.position(), _modifiers(event)
        axes, schedule = chart.axes(), chart.schedule
        self._press, self._dropped = place, None
        self._title = chart.tr("move point")
        index = self.point_at(place)
        if index is not None:
            self._press_handle(index, place, keys)
        elif not is_in_plot(axes, place.x(), place.y()):
            return
        elif keys.ctrl:
            self._title = chart.tr("scale curve")
            self._gesture = CurveScale(schedule, chart.chosen, _xy(place), axes, chart.run)
        elif not keys.shift and is_on_line(axes, schedule, place.x(), place.y()):
            self._press_line(place)
        else:
            before = chart.chosen if keys.shift else ()
            self._gesture = RubberBand(schedule, before, _xy(place), axes)

    def _press_handle(self, index: int, place: QPointF, keys: Modifiers) -> None:
        chart = self._chart
        if keys.shift and not keys.ctrl:
            # A chosen point is dropped on release, unless Shift was held to drag it straight.
            self._dropped = index if index in chart.chosen else None
            chart.choose({*chart.chosen, index})
        elif index not in chart.chosen:
            chart.choose((index,))
        if chart.run.is_locked(chart.schedule.points[index].x):
            chart.noticed.emit(chart.tr("This part of the run is trained already."))
            return
        self._gesture = PointDrag(
            chart.schedule, chart.chosen, index, _xy(place), chart.axes(), chart.run
        )

    def _press_line(self, place: QPointF) -> None:
        chart = self._chart
        axes, run = chart.axes(), chart.run
        added = inserted(chart.schedule, round(axes.to_x(place.x()), 4), None, run)
        if added is None:
            return
        schedule, index = added
        self._title = chart.tr("add point")
        self._gesture = PointDrag(schedule, (index,), index, _xy(place), axes, run)
        self._show(Shown(schedule, (index,)))

    def _show(self, shown: Shown) -> None:
        self.shown = shown
        self._chart.previewed.emit(shown.schedule)
        self._chart.update()

    def move(self, event: QMouseEvent) -> None:
        """Carry on with the gesture, or show what is under the mouse."""
        place = event.position()
        if self._gesture is None:
            self._hover(place)
            return
        if self._press is not None and (place - self._press).manhattanLength() <= _DRAG_PX:
            return
        self._press = None
        self._show(self._gesture.at(place.x(), place.y(), _modifiers(event)))

    def _hover(self, place: QPointF) -> None:
        chart = self._chart
        hovered = self.point_at(place)
        if hovered is not None:
            chart.setCursor(Qt.CursorShape.PointingHandCursor)
        elif is_on_line(chart.axes(), chart.schedule, place.x(), place.y()):
            chart.setCursor(Qt.CursorShape.CrossCursor)
        else:
            chart.unsetCursor()
        if hovered != self.hovered:
            self.hovered = hovered
            chart.update()

    def leave(self) -> None:
        """Forget what was under the mouse."""
        self.hovered = None
        self._chart.update()

    def finish(self) -> None:
        """End the gesture with what it shows."""
        chart, gesture, shown = self._chart, self._gesture, self.shown
        was_click, dropped = self._press is not None, self._dropped
        self.forget()
        if isinstance(gesture, PointDrag) and was_click and dropped is not None:
            chart.choose(set(chart.chosen) - {dropped})
        elif isinstance(gesture, RubberBand):
            chart.choose(gesture.before if was_click or shown is None else shown.chosen)
        elif shown is not None:
            title = chart.tr("remove point") if shown.removing else self._title
            chart.commit(shown.schedule, title, chosen=shown.chosen)

    def cancel(self) -> None:
        """End a running gesture as if it had not been."""
        if self.is_dragging:
            self.forget()
            self._chart.previewed.emit(self._chart.schedule)
            self._chart.update()

    def forget(self) -> None:
        """Forget the gesture."""
        self._gesture = self.shown = self._press = self._dropped = None


def _xy(place: QPointF) -> tuple[float, float]:
    return place.x(), place.y()


def _modifiers(event: QMouseEvent) -> Modifiers:
    held = event.modifiers()
    return Modifiers(
        shift=bool(held & Qt.KeyboardModifier.ShiftModifier),
        alt=bool(held & Qt.KeyboardModifier.AltModifier),
        ctrl=bool(held & Qt.KeyboardModifier.ControlModifier),
    )
