"""The learning-rate chart: one draws the curve with the mouse or the keyboard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PySide6.QtCore import QEvent, QPointF, QSize, Qt, Signal
from PySide6.QtGui import (
    QContextMenuEvent,
    QFontMetricsF,
    QHideEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QSizePolicy, QWidget

from aozora.config.lr_schedule import LrSchedule
from gui.editors.inks import inks
from gui.editors.lr_axes import Decades, LrAxes
from gui.editors.lr_edit import Run, inserted
from gui.editors.lr_hits import is_in_plot
from gui.editors.lr_keys import LrKeys
from gui.editors.lr_menu import LrMenu
from gui.editors.lr_mouse import LrMouse
from gui.editors.lr_paint import paint_lr
from gui.editors.lr_scene import LrScene, Units, spoken_point
from gui.editors.lr_snap import snapped
from gui.editors.spoken import SpokenWidget, announce
from gui.theme import notifier

_COMPACT_PX = 300


class LrChart(SpokenWidget):
    """A chart of a learning-rate curve that can be edited.

    It holds a snapshot; whoever owns the curve gives it anew after `committed`.

    Signals:
        previewed: The curve in the middle of a gesture, an LrSchedule.
        committed: The new curve, what was done, and whether it may join the step before.
        selected: The chosen points, a tuple of int.
        noticed: A sentence worth showing.
        kept: The curve is wanted as a preset of the user's.
        restored: The default curve is wanted.
    """

    previewed = Signal(object)
    committed = Signal(object, str, bool)
    selected = Signal(object)
    noticed = Signal(str)
    kept = Signal()
    restored = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._schedule = LrSchedule()
        self._run = Run()
        self._units: Units = "steps"
        self._chosen: tuple[int, ...] = ()
        self._faulty: frozenset[int] = frozenset()
        self._ghost: LrSchedule | None = None
        self._applied: tuple[tuple[float, float], ...] = ()
        self._decades = Decades.around(self._schedule)
        self._is_zoomed = False
        self._mouse = LrMouse(self)
        self._keys = LrKeys(self)
        self._menu = LrMenu(self)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumSize(200, 180)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName(self.tr("Learning-rate curve"))
        notifier().changed.connect(self.update)
        self._announce()

    # What is shown

    @property
    def schedule(self) -> LrSchedule:
        """The curve, as it was given or last committed."""
        return self._schedule

    @property
    def run(self) -> Run:
        """What is known of the run."""
        return self._run

    @property
    def chosen(self) -> tuple[int, ...]:
        """The chosen points."""
        return self._chosen

    @property
    def is_dragging(self) -> bool:
        """Whether a gesture runs."""
        return self._mouse.is_dragging

    def set_schedule(self, schedule: LrSchedule) -> None:
        """Show ``schedule``; if it is another, a running gesture ends without a change.

        The same curve comes again whenever the owner learns more of the run, also in a drag.
        """
        if schedule == self._schedule:
            return
        self._mouse.forget()
        self._schedule = schedule
        self._fit()
        self.choose(i for i in self._chosen if i < len(schedule.points))
        self._announce()

    def set_run(self, run: Run) -> None:
        """Show the curve for ``run``."""
        self._run = run
        self._announce()
        self.update()

    def set_units(self, units: Units) -> None:
        """Count the horizontal axis in ``units``."""
        self._units = units
        self.update()

    def set_ghost(self, schedule: LrSchedule | None) -> None:
        """Show ``schedule`` dashed beside the curve, to compare."""
        self._ghost = schedule
        self._fit()
        self.update()

    def set_applied(self, applied: Sequence[tuple[float, float]]) -> None:
        """Show what a run has applied so far: places and rates of its steps."""
        self._applied = tuple(applied)
        self.update()

    def set_faulty(self, points: Iterable[int]) -> None:
        """Mark points that something is wrong with."""
        self._faulty = frozenset(points)
        self.update()

    def choose(self, points: Iterable[int]) -> None:
        """Choose ``points``."""
        chosen = tuple(sorted(set(points)))
        if chosen != self._chosen:
            self._chosen = chosen
            self.selected.emit(chosen)
            self._announce()
        self.update()

    def commit(
        self,
        schedule: LrSchedule,
        title: str,
        *,
        may_merge: bool = False,
        chosen: tuple[int, ...] | None = None,
    ) -> None:
        """Make ``schedule`` the curve and say so, unless it is the same.

        Args:
            schedule: The new curve.
            title: What was done.
            may_merge: Whether it may join the step before.
            chosen: Points of the new curve to choose; None leaves the choice.
        """
        if chosen is not None:
            # Before the change is told: the table that hears of it shows the chosen rows.
            self._chosen = chosen
        if schedule != self._schedule:
            self._schedule = schedule
            self._fit()
            self.committed.emit(schedule, title, may_merge)
        if chosen is not None:
            self.selected.emit(chosen)
        self._announce()
        self.update()

    def spoken_value(self) -> str:
        """Return what is chosen, in words."""
        if len(self._chosen) == 1 and self._chosen[0] < len(self._schedule.points):
            return spoken_point(self._schedule, self._chosen[0], self._run)
        if self._chosen:
            return self.tr("{} points chosen").format(len(self._chosen))
        return self.tr("{} points, none chosen").format(len(self._schedule.points))

    def _announce(self) -> None:
        announce(self, self.spoken_value())

    # Geometry

    def axes(self) -> LrAxes:
        """Return where everything lies at the present size."""
        metrics = QFontMetricsF(self.font())
        compact = self._is_compact()
        left = 10.0 if compact else metrics.horizontalAdvance("1e-12") + 16.0
        bottom = 10.0 if compact else metrics.height() + 12.0
        right, top = (10.0, 10.0) if compact else (24.0, 14.0)
        width = max(self.width() - left - right, 20.0)
        height = max(self.height() - top - bottom, 60.0)
        return LrAxes(left, top, width, height, self._decades)

    def point_position(self, index: int) -> QPointF:
        """Return where point ``index`` is drawn."""
        point, axes = self._schedule.points[index], self.axes()
        return QPointF(axes.to_px_x(point.x), axes.to_px_y(point.lr))

    def _is_compact(self) -> bool:
        return self.width() < _COMPACT_PX

    def _fit(self) -> None:
        """Fit the vertical axis, unless the user has zoomed it or a drag runs."""
        if self._is_zoomed or self.is_dragging:
            return
        self._decades = Decades.around(self._schedule)
        if self._ghost is not None:
            other = Decades.around(self._ghost)
            low, high = min(self._decades.low, other.low), max(self._decades.high, other.high)
            self._decades = Decades(low, high)

    # Mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take a handle, a place on the line, or begin to choose."""
        if event.button() == Qt.MouseButton.LeftButton:
            self.setFocus(Qt.FocusReason.MouseFocusReason)
            self._mouse.press(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Carry on with the gesture, or show what is under the mouse."""
        self._mouse.move(event)

    def leaveEvent(self, event: QEvent) -> None:
        """Forget what was under the mouse."""
        self._mouse.leave()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End the gesture with what it shows."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._finish()

    def _finish(self) -> None:
        self._mouse.finish()
        self._fit()
        self.update()

    def cancel_gesture(self) -> None:
        """End a running gesture as if it had not been."""
        self._mouse.cancel()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Add a point where there is none, set the value of one, or reset the axis."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        self._mouse.forget()
        place, axes = event.position(), self.axes()
        index = self._mouse.point_at(place)
        if index is not None:
            self.choose((index,))
            self._menu.ask_value(index)
        elif place.x() < axes.left:
            self.reset_zoom()
        elif is_in_plot(axes, place.x(), place.y()):
            self.add_at(place)

    def add_at(self, place: QPointF) -> None:
        """Add a point at a place in pixels and choose it."""
        axes = self.axes()
        x, lr = axes.to_x(place.x()), axes.to_lr(place.y())
        rest = snapped(x, lr, axes, self._run, self._schedule, ())
        added = inserted(self._schedule, rest.x, rest.lr, self._run)
        if added is None:
            self.noticed.emit(self.tr("There is no room for a point here."))
            return
        self.commit(added[0], self.tr("add point"), chosen=(added[1],))

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom the vertical axis with Ctrl; else leave the wheel to the page."""
        if not event.modifiers() & Qt.KeyboardModifier.ControlModifier or self.is_dragging:
            event.ignore()
            return
        factor = 0.85 ** (event.angleDelta().y() / 120.0)
        centre = self.axes().to_exponent(event.position().y())
        self._decades = self._decades.zoomed(factor, centre)
        self._is_zoomed = True
        event.accept()
        self.update()

    def reset_zoom(self) -> None:
        """Fit the vertical axis to the curve again."""
        self._is_zoomed = False
        self._fit()
        self.update()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Open the menu of the place, or of the chosen point for the keyboard."""
        self.cancel_gesture()
        by_keyboard = event.reason() == QContextMenuEvent.Reason.Keyboard
        place = QPointF(event.pos())
        if by_keyboard and self._chosen:
            place = self.point_position(self._chosen[0])
        index = self._chosen[0] if by_keyboard and self._chosen else self._mouse.point_at(place)
        if index is not None and index not in self._chosen:
            self.choose((index,))
        self._menu.open(place, index)

    # Keyboard and the rest

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Let the keys edit; what is no key of the chart goes to the page."""
        if event.key() == Qt.Key.Key_Escape and self.is_dragging:
            self.cancel_gesture()
        elif self.is_dragging or not self._keys.pressed(event):
            event.ignore()

    def ask_value(self) -> None:
        """Ask for the values of the chosen point."""
        if self._chosen:
            self._menu.ask_value(self._chosen[0])

    def copy_curve(self) -> None:
        """Put the curve on the clipboard as text."""
        self._menu.copy()

    def paste_curve(self) -> None:
        """Take the curve from the clipboard."""
        self._menu.paste()

    def event(self, event: QEvent) -> bool:
        """Treat losing the mouse as letting go of it."""
        if event.type() == QEvent.Type.UngrabMouse and self.is_dragging:
            self._finish()
        return super().event(event)

    def hideEvent(self, event: QHideEvent) -> None:
        """End a gesture that can no longer be seen."""
        self.cancel_gesture()
        super().hideEvent(event)

    def sizeHint(self) -> QSize:
        """Return a size that shows a curve well."""
        return QSize(880, 310)

    def scene(self) -> LrScene:
        """Return what is painted now."""
        shown = self._mouse.shown
        return LrScene(
            axes=self.axes(),
            schedule=shown.schedule if shown else self._schedule,
            chosen=shown.chosen if shown else self._chosen,
            run=self._run,
            units=self._units,
            hovered=None if self.is_dragging else self._mouse.hovered,
            faulty=self._faulty,
            ghost=self._ghost,
            applied=self._applied,
            gesture=shown,
            focused=self.hasFocus(),
            enabled=self.isEnabled(),
            compact=self._is_compact(),
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the chart."""
        painter = QPainter(self)
        paint_lr(painter, self.scene(), inks())
        painter.end()
