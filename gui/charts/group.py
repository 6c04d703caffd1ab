"""All charts of a run: one x axis, one crosshair, one pace of drawing."""

from __future__ import annotations

import math
import time

from PySide6.QtCore import QObject, QTimer, Signal, Slot
from PySide6.QtWidgets import QWidget

from gui import theme
from gui.charts.lines import chart_specs
from gui.charts.overlay import Overlay
from gui.charts.pace import DrawPace
from gui.charts.planned import PlannedRates
from gui.charts.run_history import RunHistory
from gui.charts.table_chart import TableChart
from gui.charts.timestep_chart import TimestepChart
from gui.charts.view import ChartView


class ChartGroup(QObject):
    """Draws the charts of a `RunHistory` while they can be seen and something changed.

    Signals:
        view_changed(ChartView): by a zoom, a reset, or `set_view`.
        drawn(): the charts show the newest content.
    """

    view_changed = Signal(object)
    drawn = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._page = parent
        self._history = RunHistory()
        self._view = ChartView()
        self._overlay: Overlay | None = None
        self._is_paused = False
        self._pace = DrawPace()
        self._drawn_version: object = None
        self._waiting: list[TableChart] = []
        self._waiting_span = (0.0, 1.0)
        self._round_ms = 0.0
        self._pointed = math.nan
        self.timesteps = TimestepChart(parent)
        self.charts = [TableChart(spec, parent) for spec in chart_specs()]
        for chart in self.charts:
            chart.plot.zoomed.connect(self._zoomed)
            chart.plot.panned.connect(self._panned)
            chart.plot.reset.connect(self.show_all)
            chart.plot.pointed.connect(self._point)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._next = QTimer(self)
        self._next.setSingleShot(True)
        self._next.timeout.connect(self._go_on)
        theme.notifier().changed.connect(self._redraw)

    @property
    def view(self) -> ChartView:
        """What part is shown."""
        return self._view

    @property
    def history(self) -> RunHistory:
        """What is shown."""
        return self._history

    @property
    def overlay(self) -> Overlay | None:
        """The run that is shown beside it in the loss chart."""
        return self._overlay

    @property
    def is_zoomed(self) -> bool:
        """Whether a part was chosen, along x or in any chart along y."""
        return self._view.window is not None or any(c.has_y_window for c in self.charts)

    def chart(self, key: str) -> TableChart:
        """Return the chart called ``key``."""
        return next(chart for chart in self.charts if chart.spec.key == key)

    def set_history(self, history: RunHistory) -> None:
        """Show ``history`` from now on, whole."""
        if history is self._history:
            return
        self._history = history
        self._drawn_version = None
        self.show_all()

    def set_view(self, view: ChartView) -> None:
        """Show another part, or in another way."""
        if view != self._view:
            self._view = view
            self.view_changed.emit(view)
            self._redraw()

    def set_planned(self, planned: PlannedRates | None) -> None:
        """Show the curves that were drawn under the applied learning rates."""
        self.chart("learning_rate").set_planned(planned)
        self._redraw()

    def set_overlay(self, overlay: Overlay | None) -> None:
        """Show the loss of another run too, or of none."""
        self._overlay = overlay
        self.chart("loss").set_overlay(overlay)
        self._redraw()

    def set_paused(self, is_paused: bool) -> None:
        """Leave the charts as they are while the run goes on, until it is taken back."""
        self._is_paused = is_paused
        if not is_paused:
            self.refresh()

    def set_live(self, is_live: bool) -> None:
        """Draw at a steady pace, or only when asked to."""
        if not is_live:
            self._timer.stop()
        elif not self._timer.isActive():
            # Starting a timer that runs would put its next draw off, again and again.
            self._timer.start(self._pace.interval_ms)

    @Slot()
    def show_all(self) -> None:
        """Show everything again."""
        for chart in self.charts:
            chart.free_y()
        self._drawn_version = None
        self.set_view(self._view.whole())
        self.refresh()

    @Slot()
    def _tick(self) -> None:
        # One chart after the other: what the user does in between need not wait for all of them.
        if not (self._is_paused or self._is_dragged() or self._waiting) and self._begin_round():
            self._go_on()

    def _is_dragged(self) -> bool:
        return any(chart.plot.is_dragged for chart in self.charts)

    def draw_all(self) -> None:
        """Draw those outside the visible part too, as for a picture of all of them."""
        span = self._span()
        for chart in self.charts:
            if not chart.isHidden():
                chart.draw(self._history, self._view, span)

    @Slot()
    def refresh(self) -> None:
        """Draw what can be seen if it is not what was drawn."""
        if self._begin_round():
            while self._waiting:
                self._draw_next()
            self._end_round()

    def _begin_round(self) -> bool:
        """Note what is to be drawn; return whether anything is."""
        version = (id(self._history), self._history.version, self._view)
        if version == self._drawn_version or not self._can_be_seen():
            return False
        self._drawn_version = version
        self._round_ms = 0.0
        self._waiting_span = self._span()
        for chart in self.charts:
            if chart.spec.is_optional:
                chart.setVisible(chart.has_data(self._history))
        self._waiting = [
            chart
            for chart in self.charts
            if chart.isVisible() and not chart.visibleRegion().isEmpty()
        ]
        return True

    @Slot()
    def _go_on(self) -> None:
        if self._is_dragged():
            # What moves under the pointer cannot be caught; all is drawn when it is let go.
            self._waiting.clear()
            self._drawn_version = None
            return
        if self._waiting:
            self._draw_next()
        if self._waiting:
            self._next.start(0)
        else:
            self._end_round()

    def _draw_next(self) -> None:
        started = time.thread_time()
        self._waiting.pop(0).draw(self._history, self._view, self._waiting_span)
        self._round_ms += (time.thread_time() - started) * 1000

    def _end_round(self) -> None:
        self._next.stop()
        started = time.thread_time()
        self.timesteps.draw(self._history)
        self._round_ms += (time.thread_time() - started) * 1000
        # Painting comes after this; what it took the last time stands for it.
        painted = sum(chart.plot.take_paint_ms() for chart in self.charts)
        self._pace.drew(self._round_ms + painted)
        if self._timer.isActive() and self._timer.interval() != self._pace.interval_ms:
            self._timer.setInterval(self._pace.interval_ms)
        if math.isfinite(self._pointed):
            self._point(self._pointed)
        self.drawn.emit()

    @Slot()
    def redraw_seen(self) -> None:
        """Draw charts that were outside the visible part until now, as after scrolling."""
        self._redraw()

    def _redraw(self) -> None:
        self._drawn_version = None
        self.refresh()

    def _can_be_seen(self) -> bool:
        window = self._page.window()
        return self._page.isVisible() and not window.isMinimized()

    def _extent(self) -> tuple[float, float]:
        """Return from where to where on the x axis there is anything."""
        tables = [self._history.steps, self._history.memory]
        if self._overlay is not None:
            tables.append(self._overlay.history.steps)
        ends = [
            (float(places[0]), float(places[-1]))
            for table in tables
            if len(places := table.place(self._view.place))
        ]
        first = min((end[0] for end in ends), default=0.0)
        return first, max((end[1] for end in ends), default=1.0)

    def _span(self) -> tuple[float, float]:
        # A window that follows is at the end of the run itself, not of one beside it.
        places = self._history.steps.place(self._view.place)
        first, last = self._extent()
        is_moving = self._view.window is not None and self._view.follow
        return self._view.span(first, float(places[-1]) if is_moving and len(places) else last)

    @Slot(object)
    def _zoomed(self, part: tuple[float, float, float, float]) -> None:
        start, end, low, high = part
        plot = self.sender()
        for chart in self.charts:
            if chart.plot is plot:
                chart.set_y_window(low, high)
        first, last = self._extent()
        view = self._view.zoomed(start, end)
        if start <= first and end >= last:
            # Zooming out ends where there is no more to see.
            view = self._view.whole()
        self.set_view(view)
        if math.isfinite(low):
            self._redraw()

    @Slot(float, float)
    def _panned(self, x: float, y: float) -> None:
        plot = self.sender()
        for chart in self.charts:
            if chart.plot is plot:
                chart.pan_y(y)
        start, end = self._span()
        self.set_view(self._view.zoomed(start + x, end + x))

    @Slot(float)
    def _point(self, place: float) -> None:
        self._pointed = place
        for chart in self.charts:
            if chart.isVisible():
                chart.point_at(self._history, self._view, place)
