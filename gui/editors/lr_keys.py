"""The keys of the learning-rate chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QKeyEvent, QKeySequence

from gui.editors.lr_edit import deleted, inserted_in_widest_gap, nudged
from gui.editors.lr_gestures import Modifiers

if TYPE_CHECKING:
    from gui.editors.lr_chart import LrChart

_PLACE_STEPS = {"plain": 0.005, "shift": 0.05}
_RATE_STEPS = {"plain": 0.02, "shift": 0.25, "ctrl": 0.001}
_ARROWS: dict[int, tuple[int, int]] = {
    Qt.Key.Key_Left: (-1, 0),
    Qt.Key.Key_Right: (1, 0),
    Qt.Key.Key_Up: (0, 1),
    Qt.Key.Key_Down: (0, -1),
}


class LrKeys(QObject):
    """Turns keys into edits of the chart it belongs to."""

    def __init__(self, chart: LrChart) -> None:
        super().__init__(chart)
        self._chart = chart

    def pressed(self, event: QKeyEvent) -> bool:
        """Do what the key asks for; return whether it is one of the chart's."""
        chart, key = self._chart, event.key()
        if event.matches(QKeySequence.StandardKey.Copy):
            chart.copy_curve()
        elif event.matches(QKeySequence.StandardKey.Paste):
            chart.paste_curve()
        elif event.matches(QKeySequence.StandardKey.SelectAll):
            chart.choose(range(len(chart.schedule.points)))
        elif key in _ARROWS:
            self._nudge(*_ARROWS[Qt.Key(key)], _held(event))
        else:
            return self._single(key, event)
        return True

    def _single(self, key: int, event: QKeyEvent) -> bool:
        chart = self._chart
        last = len(chart.schedule.points) - 1
        if key in (Qt.Key.Key_BracketLeft, Qt.Key.Key_Backtab):
            self._step(-1)
        elif key in (Qt.Key.Key_BracketRight, Qt.Key.Key_Tab):
            self._step(1)
        elif key == Qt.Key.Key_Home:
            chart.choose((0,))
        elif key == Qt.Key.Key_End:
            chart.choose((last,))
        elif key == Qt.Key.Key_Insert:
            self._insert()
        elif key in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self._delete()
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and chart.chosen:
            chart.ask_value()
        elif key == Qt.Key.Key_Escape and chart.chosen:
            chart.choose(())
        else:
            return False
        return True

    def _step(self, by: int) -> None:
        chart = self._chart
        count = len(chart.schedule.points)
        if not chart.chosen:
            chart.choose((0 if by > 0 else count - 1,))
            return
        now = chart.chosen[-1] if by > 0 else chart.chosen[0]
        chart.choose(((now + by) % count,))

    def _nudge(self, right: int, up: int, keys: Modifiers) -> None:
        chart, run = self._chart, self._chart.run
        if not chart.chosen:
            self._step(1)
            return
        speed = "ctrl" if keys.ctrl else "shift" if keys.shift else "plain"
        shift = right * (run.gap if keys.ctrl else _PLACE_STEPS.get(speed, 0.0))
        factor = (1.0 + _RATE_STEPS[speed]) ** up
        changed = nudged(chart.schedule, chart.chosen, shift, factor, run)
        if up > 0 and changed == chart.schedule:
            # Nothing times 0 is more than 0: a point leaves the lane of 0 for the lowest decade.
            lowest = 10.0 ** chart.axes().decades.low
            for index in chart.chosen:
                point = changed.points[index]
                if point.lr == 0.0 and not run.is_locked(point.x):
                    changed = changed.moved(index, point.x, lowest, run.gap)
        chart.commit(changed, chart.tr("nudge points"), may_merge=True)

    def _insert(self) -> None:
        chart = self._chart
        added = inserted_in_widest_gap(chart.schedule, chart.run)
        if added is not None:
            chart.commit(added[0], chart.tr("add point"))
            chart.choose((added[1],))

    def _delete(self) -> None:
        chart = self._chart
        changed = deleted(chart.schedule, chart.chosen, chart.run)
        if changed == chart.schedule:
            if chart.chosen:
                chart.noticed.emit(chart.tr("The first and the last point stay."))
            return
        neighbour = max(chart.chosen[0] - 1, 0)
        chart.choose(())
        chart.commit(changed, chart.tr("remove point"))
        chart.choose((neighbour,))


def _held(event: QKeyEvent) -> Modifiers:
    held = event.modifiers()
    return Modifiers(
        shift=bool(held & Qt.KeyboardModifier.ShiftModifier),
        ctrl=bool(held & Qt.KeyboardModifier.ControlModifier),
    )
