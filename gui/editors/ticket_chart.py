"""The ticket chart: one paints how often each noise level is trained."""

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
)
from PySide6.QtWidgets import QSizePolicy, QWidget

from aozora.config.schema import TrainConfig
from gui.editors.inks import inks
from gui.editors.spoken import SpokenWidget, announce
from gui.editors.ticket_axes import TicketAxes
from gui.editors.ticket_edit import axis_top
from gui.editors.ticket_gestures import Scaling
from gui.editors.ticket_keys import TicketKeys
from gui.editors.ticket_menu import TicketMenu
from gui.editors.ticket_mouse import TicketMouse, is_near
from gui.editors.ticket_paint import TicketScene, paint_tickets
from gui.editors.ticket_view import TicketView, drawn_weights, spoken_bar
from gui.theme import notifier

_COMPACT_PX = 300


class TicketChart(SpokenWidget):
    """A chart of a ticket pool that can be painted.

    It holds a snapshot; whoever owns the pool gives it anew after `committed`.

    Signals:
        previewed: The bars in the middle of a gesture.
        committed: The new bars, what was done, and whether it may join the step before.
        selected: The chosen bars, a tuple of int.
        noticed: A sentence worth showing.
    """

    previewed = Signal(object)
    committed = Signal(object, str, bool)
    selected = Signal(object)
    noticed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        config = TrainConfig()
        self._view = TicketView(config, 0, drawn_weights(config))
        self._chosen: frozenset[int] = frozenset()
        self._current = 0
        self._locked: frozenset[int] = frozenset()
        self._ghost: tuple[float, ...] | None = None
        self._planned: tuple[int, ...] = ()
        self._drawn: tuple[int, ...] = ()
        self._losses: tuple[float, ...] = ()
        self._highest = axis_top(self._view.weights)
        self._mouse = TicketMouse(self)
        self._keys = TicketKeys(self)
        self._menu = TicketMenu(self)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumSize(200, 180)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName(self.tr("Timestep tickets"))
        notifier().changed.connect(self.update)
        self._announce()

    # What is shown

    @property
    def view(self) -> TicketView:
        """The pool, as it was given or last committed."""
        return self._view

    @property
    def weights(self) -> tuple[float, ...]:
        """The bars, as they were given or last committed."""
        return self._view.weights

    @property
    def chosen(self) -> frozenset[int]:
        """The chosen bars."""
        return self._chosen

    @property
    def current(self) -> int:
        """The bar the keys act on."""
        return self._current

    @property
    def locked(self) -> frozenset[int]:
        """Bars that stay as they are."""
        return self._locked

    @property
    def is_dragging(self) -> bool:
        """Whether a gesture runs."""
        return self._mouse.gesture is not None

    def set_view(self, view: TicketView) -> None:
        """Show ``view``; if its bars are others, a running gesture ends without a change.

        The same bars come again whenever the owner learns more of the run, also in a drag.
        """
        if view == self._view:
            return
        if view.weights != self._view.weights:
            self._mouse.forget()
        if view.bins != self._view.bins:
            self._locked = frozenset()
            self._ghost = None
            self._chosen = frozenset()
            self._current = min(self._current, view.bins - 1)
        self._view = view
        self.fit()
        self._announce()
        self.update()

    def set_ghost(self, weights: tuple[float, ...] | None) -> None:
        """Show other bars as a dashed outline."""
        self._ghost = weights
        self.fit()
        self.update()

    def set_progress(
        self, planned: Sequence[int], drawn: Sequence[int], losses: Sequence[float]
    ) -> None:
        """Show what a run has drawn of its tickets so far by bar, and the mean loss there.

        It is shown while the bars are as many as the run's.

        Args:
            planned: Tickets of the whole run.
            drawn: Those drawn so far.
            losses: NaN where nothing was drawn.
        """
        self._planned, self._drawn, self._losses = tuple(planned), tuple(drawn), tuple(losses)
        self.update()

    @property
    def planned(self) -> tuple[int, ...]:
        """The tickets of the run whose progress is shown, by its own bars; empty without one."""
        return self._planned if any(self._drawn) else ()

    def choose(self, bars: Iterable[int], current: int | None = None) -> None:
        """Choose ``bars``; keys act on ``current``, or on the first of them."""
        chosen = frozenset(bars)
        if current is not None:
            self._current = current
        elif chosen and self._current not in chosen:
            self._current = min(chosen)
        if chosen != self._chosen:
            self._chosen = chosen
            self.selected.emit(tuple(sorted(chosen)))
        self._announce()
        self.update()

    def lock(self, bars: Iterable[int], *, on: bool) -> None:
        """Lock bars, so that painting passes over them, or unlock them."""
        self._locked = self._locked | set(bars) if on else self._locked - set(bars)
        self._announce()
        self.update()

    def commit(self, weights: tuple[float, ...], title: str, *, may_merge: bool = False) -> None:
        """Make ``weights`` the bars and say so, unless they are the same."""
        if weights == self._view.weights:
            self.update()
            return
        self._view = self._view.with_weights(weights)
        self.fit()
        self.committed.emit(weights, title, may_merge)
        self._announce()
        self.update()

    def spoken_value(self) -> str:
        """Return the bar the keys act on, in words."""
        text = spoken_bar(self._view, self._current)
        if self._current in self._locked:
            text += self.tr(", locked")
        if len(self._chosen) > 1:
            text = self.tr("{} bars chosen, ").format(len(self._chosen)) + text
        return text

    def _announce(self) -> None:
        announce(self, self.spoken_value())

    # Geometry

    def axes(self) -> TicketAxes:
        """Return where everything lies at the present size."""
        metrics = QFontMetricsF(self.font())
        compact = self._is_compact()
        left = 10.0 if compact else metrics.horizontalAdvance("0.00\u00d7") + 14.0
        bottom = 10.0 if compact else 2 * metrics.height() + 16.0
        right, top = (10.0, 10.0) if compact else (24.0, 12.0)
        width = max(self.width() - left - right, 20.0)
        height = max(self.height() - top - bottom, 40.0)
        return TicketAxes(left, top, width, height, self._view.bins, self._highest)

    def bar_position(self, index: int, weight: float) -> QPointF:
        """Return the middle of bar ``index`` at the height of ``weight``."""
        axes = self.axes()
        return QPointF(axes.bar_left(index) + axes.bar_width / 2, axes.to_py(weight))

    def _is_compact(self) -> bool:
        return self.width() < _COMPACT_PX

    def fit(self) -> None:
        """Fit the axis; not in a gesture, or bars would run away from the mouse."""
        if not self.is_dragging:
            self._highest = axis_top((*self._view.weights, *(self._ghost or ())))
            self.update()

    # Mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to paint, rule, smooth or scale."""
        self._mouse.settle()
        is_left = event.button() == Qt.MouseButton.LeftButton
        if is_left and is_near(event.position(), self.axes()):
            self.setFocus(Qt.FocusReason.MouseFocusReason)
            self._mouse.press(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Carry on with the gesture, or show what is under the mouse."""
        self._mouse.move(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End the gesture with what it shows."""
        if event.button() == Qt.MouseButton.LeftButton and self.is_dragging:
            self._mouse.release()

    def settle(self) -> None:
        """Take a click that waits to be a double click for what it is."""
        self._mouse.settle()

    def cancel_gesture(self) -> None:
        """End a running gesture as if it had not been."""
        self._mouse.cancel()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Edit the number of a bar in place."""
        axes, place = self.axes(), event.position()
        if event.button() == Qt.MouseButton.LeftButton and is_near(place, axes):
            self.cancel_gesture()
            self.edit_number(axes.bar_at(place.x()))

    def edit_number(self, bar: int, typed: str = "") -> None:
        """Open a field over a bar for its number, beginning with ``typed``."""
        self.choose(self._chosen if bar in self._chosen else (bar,), current=bar)
        self._menu.edit_number(bar, typed)

    def leaveEvent(self, event: QEvent) -> None:
        """Forget what was under the mouse."""
        self._mouse.leave()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Open the menu of a bar."""
        self.settle()
        self.cancel_gesture()
        axes, place = self.axes(), QPointF(event.pos())
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            bar = self._current
            place = self.bar_position(bar, self._view.weights[bar])
        else:
            bar = axes.bar_at(place.x())
        if bar not in self._chosen:
            self.choose((bar,), current=bar)
        self._menu.build().popup(self.mapToGlobal(place.toPoint()))

    # Keyboard and the rest

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Let the keys edit; what is no key of the chart goes to the page."""
        if event.key() != Qt.Key.Key_Escape:
            self.settle()
        if event.key() == Qt.Key.Key_Escape and self.is_dragging:
            self.cancel_gesture()
        elif self.is_dragging or not self._keys.pressed(event):
            event.ignore()

    def event(self, event: QEvent) -> bool:
        """Treat losing the mouse as letting go of it."""
        kind = event.type()
        if kind == QEvent.Type.UngrabMouse and self.is_dragging and not self._mouse.is_waiting:
            self._mouse.finish()
        elif kind in (QEvent.Type.ShortcutOverride, QEvent.Type.FocusOut):
            # Saving or starting a run in the moment after a click must not miss the click.
            self._mouse.settle()
        return super().event(event)

    def hideEvent(self, event: QHideEvent) -> None:
        """End a gesture that can no longer be seen."""
        self.settle()
        self.cancel_gesture()
        super().hideEvent(event)

    def sizeHint(self) -> QSize:
        """Return a size that shows the bars well."""
        return QSize(880, 320)

    def menu(self) -> TicketMenu:
        """Return what the context menu does."""
        return self._menu

    def scene(self) -> TicketScene:
        """Return what is painted now."""
        gesture, mouse = self._mouse.gesture, self._mouse
        has_its_bars = len(self._planned) == self._view.bins
        return TicketScene(
            axes=self.axes(),
            view=mouse.shown or self._view,
            chosen=self._chosen,
            locked=self._locked,
            hovered=mouse.hovered if gesture is None else self._current,
            current=self._current,
            ghost=self._ghost,
            planned=self._planned if has_its_bars else (),
            drawn=self._drawn if has_its_bars else (),
            losses=self._losses if has_its_bars else (),
            factor=gesture.factor if isinstance(gesture, Scaling) else None,
            focused=self.hasFocus(),
            enabled=self.isEnabled(),
            compact=self._is_compact(),
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the chart."""
        painter = QPainter(self)
        paint_tickets(painter, self.scene(), inks())
        painter.end()
