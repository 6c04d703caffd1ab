"""A chart of columns of the history."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from gui import theme
from gui.charts.card import ChartCard, LegendEntry
from gui.charts.decimate import band, clipped_range, in_view, nearest, peaks, smoothed, thinned
from gui.charts.lines import ChartSpec, Line
from gui.charts.numbers import span_text, whole_text
from gui.charts.overlay import Overlay
from gui.charts.planned import PlannedRates
from gui.charts.plot import Plot
from gui.charts.run_history import Mark, RunHistory
from gui.charts.table import Table
from gui.charts.view import ChartView
from gui.words import tr

Numbers = NDArray[np.float64]

_DOT_SPACING_PX = 7
_PLANNED_POINTS = 400


class TableChart(ChartCard):
    """Draws the lines of ``spec``; knows nothing of where the history comes from."""

    def __init__(self, spec: ChartSpec, parent: QWidget | None = None) -> None:
        self.spec = spec
        self.plot = Plot()
        legend = [LegendEntry(line.label, line.ink, line.style) for line in spec.lines]
        if spec.key == "learning_rate":
            legend.append(LegendEntry(tr("drawn curve"), 1, "peaks"))
        super().__init__(spec.title, spec.unit, tuple(legend), self.plot, parent, note=spec.note)
        self.setAccessibleName(spec.title)
        self.plot.setAccessibleName(spec.title)
        self._planned: PlannedRates | None = None
        self._y_window: tuple[float, float] | None = None
        self._cache: dict[tuple[str, bool], tuple[Table, tuple[float, float], Numbers]] = {}
        # Under everything else, so that applied dots stand on the curve that was drawn.
        self._planned_item = pg.PlotDataItem()
        self.plot.addItem(self._planned_item)
        self._overlay: Overlay | None = None
        self._overlay_item = pg.PlotDataItem()
        self.plot.addItem(self._overlay_item)
        self._items = [self._item_for(line) for line in spec.lines]
        for item in self._items:
            self.plot.addItem(item)

    def set_planned(self, planned: PlannedRates | None) -> None:
        """Show the rates that were drawn as a line from step 1 to the last one planned."""
        self._planned = planned

    def set_overlay(self, overlay: Overlay | None) -> None:
        """Show the smoothed line of another run under this one's, or none."""
        self._overlay = overlay
        entry = LegendEntry(overlay.name, None, "dashed") if overlay is not None else None
        self.set_guest(entry)

    def set_y_window(self, low: float, high: float) -> None:
        """Keep this part of the y axis until `free_y`; not numbers change nothing."""
        if math.isfinite(low) and math.isfinite(high) and low < high:
            self._y_window = (low, high)

    @property
    def has_y_window(self) -> bool:
        """Whether a part of the y axis was chosen."""
        return self._y_window is not None

    def pan_y(self, moved: float) -> None:
        """Move the part of the y axis that was chosen, if any was."""
        if self._y_window is not None:
            low, high = self._y_window
            self._y_window = (low + moved, high + moved)

    def free_y(self) -> None:
        """Let the y axis follow the data again."""
        self._y_window = None

    def has_data(self, history: RunHistory) -> bool:
        """Return whether there is anything to show."""
        return any(len(line.table_in(history)) for line in self.spec.lines)

    def draw(self, history: RunHistory, view: ChartView, span: tuple[float, float]) -> None:
        """Show the part ``span`` of ``history``."""
        is_log = self.spec.is_log or (self.spec.can_log and view.is_log)
        self.plot.set_place(view.place)
        self.plot.set_log(is_log)
        shown: list[Numbers] = []
        for line, item in zip(self.spec.lines, self._items, strict=True):
            x, y, is_band = self._points(history, line, view, span)
            y = _logarithms(y) if is_log else y
            self._style(item, line, is_band=is_band)
            all_known = bool(np.isfinite(y).all())
            item.setData(x, y, connect="all" if all_known else "finite")
            shown.append(y)
        planned = self._draw_planned(history, view, span, is_log)
        known = [bool(np.isfinite(y).any()) for y in shown]
        if self.spec.key == "learning_rate":
            known.append(len(planned) > 0)
        self.set_known(known)
        other = self._draw_overlay(view, span, is_log)
        low, high = self._y_range([*shown, planned, other], view)
        # Dots at the very edge must not be cut in half; a chosen part is shown as it was chosen.
        margin = 0.008 * (span[1] - span[0]) if view.follow or view.window is None else 0.0
        self.plot.show_range((span[0] - margin, span[1] + margin), (low, high))
        self.plot.show_marks(history.marks, view.place)

    def point_at(self, history: RunHistory, view: ChartView, place: float) -> None:
        """Show the crosshair at ``place`` and read the values there; NaN hides it."""
        self.plot.show_crosshair(place)
        if not math.isfinite(place):
            self.set_readout("")
            return
        parts = [_place_text(view, place), *self._marks_at(history, view, place)]
        for line in self.spec.lines:
            value = self._value_at(history, line, view, place)
            is_known = math.isfinite(value) and (value > 0 or not line.is_of_device)
            if is_known and line.style != "dashed":
                parts.append(f"{line.label} {self.spec.text(value)}")
        if self._planned is not None and view.place == "step":
            rate = float(self._planned.at(np.array([round(place)]))[0])
            if math.isfinite(rate):
                parts.append(tr("drawn {0}").format(self.spec.text(rate)))
        if self._overlay is not None:
            value = self._value_at(self._overlay.history, self._smooth_line, view, place)
            if math.isfinite(value):
                parts.append(f"{self._overlay.name} {self.spec.text(value)}")
        self.set_readout("   ".join(parts))

    @property
    def _smooth_line(self) -> Line:
        return next(line for line in self.spec.lines if line.style == "smooth")

    def _value_at(self, history: RunHistory, line: Line, view: ChartView, place: float) -> float:
        places = line.table_in(history).place(view.place)
        number = nearest(places, place)
        # Beyond its end a shorter run has nothing to read.
        if number is None or place > places[-1] + self.plot.near:
            return math.nan
        return float(self._values(history, line, view)[number]) / line.unit_size

    def _marks_at(self, history: RunHistory, view: ChartView, place: float) -> list[str]:
        """Return what happened under the pointer, in words, each kind once."""
        near = self.plot.near
        marks = [m for m in history.marks if abs(m.place(view.place) - place) <= near]
        return list(dict.fromkeys(_mark_words(mark) for mark in marks))

    def _item_for(self, line: Line) -> Any:
        item = pg.PlotDataItem()
        self._style(item, line)
        return item

    def _style(self, item: Any, line: Line, *, is_band: bool = False) -> None:
        look = (theme.tokens().name, is_band)
        if getattr(item, "aozora_look", None) == look:
            return
        item.aozora_look = look
        ink = QColor(theme.tokens().series[line.ink])
        # The outline of a band goes there and back; it is stroked too, for it may be flat.
        item.opts["fillLevel"] = "enclosed" if is_band else None
        if is_band:
            ink.setAlphaF(0.28 if line.style == "faint" else 0.6)
            item.setPen(pg.mkPen(ink, width=1))
            item.setFillBrush(ink)
            return
        item.setFillBrush(None)
        if line.style == "dots":
            item.setPen(None)
            item.setSymbol("o")
            item.setSymbolSize(5 if line.table == "steps" else 8)
            item.setSymbolBrush(ink)
            item.setSymbolPen(None)
            return
        if line.style == "smooth":
            item.setPen(pg.mkPen(ink, width=2))
            item.opts["antialias"] = True
            return
        if line.style == "faint":
            ink.setAlphaF(0.4)
        dash = Qt.PenStyle.DashLine if line.style == "dashed" else Qt.PenStyle.SolidLine
        # Thick antialiased lines through many points cost a hundred times more.
        item.setPen(pg.mkPen(ink, width=1, style=dash))

    def _values(self, history: RunHistory, line: Line, view: ChartView) -> Numbers:
        """Return the whole column, smoothed where asked for; made again only when it changed."""
        table = line.table_in(history)
        if line.style != "smooth":
            return table.mean(line.column)
        is_guest = self._overlay is not None and history is self._overlay.history
        key, mark = (line.column, is_guest), (table.version, view.smoothing)
        known = self._cache.get(key)
        if known is None or known[0] is not table or known[1] != mark:
            values = smoothed(table.mean(line.column), view.smoothing, table.stride)
            known = (table, mark, values)
            self._cache[key] = known
        return known[2]

    def _points(
        self, history: RunHistory, line: Line, view: ChartView, span: tuple[float, float]
    ) -> tuple[Numbers, Numbers, bool]:
        table = line.table_in(history)
        is_band = False
        places = table.place(view.place)
        part = in_view(places, *span)
        x = places[part]
        columns = self.plot.columns
        if line.style == "smooth":
            x, y = thinned(x, self._values(history, line, view)[part], columns // 2)
        elif line.style == "dots":
            spacing = _DOT_SPACING_PX if line.table == "steps" else 1
            x, y = thinned(x, table.mean(line.column)[part], columns // spacing)
        else:
            low, high = table.low(line.column)[part], table.high(line.column)[part]
            outline = band(x, low, high, columns)
            is_band = outline is not None
            x, y = outline if outline is not None else peaks(x, low, high, columns)
        if line.is_of_device:
            # A device without memory of its own has no line at the bottom.
            y = np.where(y > 0, y, np.nan)
        return x, y / line.unit_size, is_band

    def _draw_planned(
        self, history: RunHistory, view: ChartView, span: tuple[float, float], is_log: bool
    ) -> Numbers:
        if self._planned is None:
            self._planned_item.setData(np.empty(0), np.empty(0))
            return np.empty(0)
        first, last = _steps_in(history, view, span)
        first, last = max(1, first), min(self._planned.end, last)
        if last < first:
            self._planned_item.setData(np.empty(0), np.empty(0))
            return np.empty(0)
        steps = self._planned.steps(first, last, _PLANNED_POINTS)
        values = self._planned.at(steps)
        y = _logarithms(values) if is_log else values
        self._planned_item.setPen(pg.mkPen(QColor(theme.tokens().series[1]), width=1))
        self._planned_item.setData(_places_of(history, view, steps), y, connect="finite")
        return y

    def _draw_overlay(self, view: ChartView, span: tuple[float, float], is_log: bool) -> Numbers:
        if self._overlay is None:
            self._overlay_item.setData(np.empty(0), np.empty(0))
            return np.empty(0)
        x, y, _ = self._points(self._overlay.history, self._smooth_line, view, span)
        y = _logarithms(y) if is_log else y
        pen = pg.mkPen(QColor(theme.tokens().muted), width=1, style=Qt.PenStyle.DashLine)
        self._overlay_item.setPen(pen)
        self._overlay_item.setData(x, y, connect="finite")
        return y

    def _y_range(self, shown: list[Numbers], view: ChartView) -> tuple[float, float]:
        if self._y_window is not None:
            return self._y_window
        ranges: list[tuple[float, float]] = []
        for number, values in enumerate(shown):
            known = values[np.isfinite(values)]
            if not len(known):
                continue
            is_clipped = view.is_clipped and self.spec.can_log and number == 0
            clipped = clipped_range(known) if is_clipped else None
            ranges.append(clipped or (float(known.min()), float(known.max())))
        if not ranges:
            return (0.0, 1.0)
        low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
        if self.spec.from_zero and not self.plot.is_log:
            low = min(0.0, low)
        margin = 0.06 * (high - low) if high > low else max(abs(high) * 0.1, 0.05)
        return (low if self.spec.from_zero and low == 0.0 else low - margin), high + margin


def _logarithms(values: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Numbers = np.where(values > 0, np.log10(np.maximum(values, 1e-300)), np.nan)
    return result


def _steps_in(history: RunHistory, view: ChartView, span: tuple[float, float]) -> tuple[int, int]:
    """Return the first and the last step in a part of the x axis; none is (0, -1)."""
    if view.place == "step":
        return math.floor(span[0]), math.ceil(span[1])
    steps = history.steps.place("step")
    if view.place == "epoch" and len(steps):
        # Steps are evenly long in epochs, so that those to come have their places.
        per_step = float(history.steps.place("epoch")[-1]) / float(steps[-1])
        if per_step > 0:
            return math.floor(span[0] / per_step), math.ceil(span[1] / per_step)
    inside = steps[in_view(history.steps.place(view.place), *span)]
    return (int(inside[0]), int(inside[-1])) if len(inside) else (0, -1)


def _places_of(history: RunHistory, view: ChartView, steps: Numbers) -> Numbers:
    """Return where ``steps`` are on the x axis."""
    if view.place == "step":
        return steps
    known, places = history.steps.place("step"), history.steps.place(view.place)
    if view.place == "epoch":
        return steps * (float(places[-1]) / float(known[-1]))
    return np.interp(steps, known, places)


def _mark_words(mark: Mark) -> str:
    if mark.kind == "checkpoint":
        return tr("saved")
    if mark.kind == "resume":
        return tr("resumed")
    return tr("skipped: {0}").format(mark.text) if mark.text else tr("skipped")


def _place_text(view: ChartView, place: float) -> str:
    if view.place == "seconds":
        return span_text(place)
    if view.place == "epoch":
        return tr("epoch {0}").format(f"{place:.2f}")
    return tr("step {0}").format(whole_text(round(place)))
