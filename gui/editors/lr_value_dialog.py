"""The dialog for the exact values of one point of the curve."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLineEdit,
    QVBoxLayout,
)

from aozora.config.lr_schedule import SHAPES, LrSchedule
from gui.editors.numbers import format_rate, parse_number, parse_rate
from gui.forms.controls import DropDown, TonedLabel
from gui.theme import CONTROL_HEIGHT, GAP_2, GAP_3, GAP_4

if TYPE_CHECKING:
    from gui.editors.lr_chart import LrChart


class LrValueDialog(QDialog):
    """Asks for place, rate and shape of a point; what is wrong is said under the fields."""

    def __init__(self, chart: LrChart, index: int) -> None:
        super().__init__(chart)
        self._chart = chart
        self._index = index
        point = chart.schedule.points[index]
        last = len(chart.schedule.points) - 1
        self.setWindowTitle(self.tr("Point {} of {}").format(index + 1, last + 1))
        self._in_steps = chart.run.steps > 1
        place = chart.run.step_of(point.x) + 1 if self._in_steps else point.x * 100
        self.place = QLineEdit(f"{place:.6g}" if not self._in_steps else f"{round(place)}")
        self.place.setEnabled(0 < index < last)
        self._place_text = self.place.text()
        self.rate = QLineEdit(format_rate(point.lr))
        self._rate_text = self.rate.text()
        self.shape_box = DropDown()
        self.shape_box.addItems([shape.capitalize() for shape in SHAPES])
        self.shape_box.setCurrentIndex(SHAPES.index(point.shape))
        self.shape_box.setEnabled(index < last)
        self.fault = TonedLabel("", "error")
        self.fault.setWordWrap(True)
        self.fault.hide()
        form = QFormLayout()
        form.setHorizontalSpacing(GAP_4)
        form.setVerticalSpacing(GAP_2)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for field in (self.place, self.rate):
            field.setMinimumSize(160, CONTROL_HEIGHT)
        form.addRow(self.tr("&Step") if self._in_steps else self.tr("&Place in %"), self.place)
        form.addRow(self.tr("&Learning rate"), self.rate)
        form.addRow(self.tr("S&hape to the next point"), self.shape_box)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        buttons.button(QDialogButtonBox.StandardButton.Ok).setProperty("primary", "true")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP_4, GAP_4, GAP_4, GAP_4)
        layout.setSpacing(GAP_3)
        layout.addLayout(form)
        layout.addWidget(self.fault)
        layout.addWidget(buttons)
        self.rate.setFocus()
        self.rate.selectAll()
        self.finished.connect(self.deleteLater)

    def accept(self) -> None:
        """Commit the values, or say what is wrong with them."""
        try:
            changed = self._changed()
        except ValueError as error:
            text = str(error)
            self.fault.setText(text[:1].upper() + text[1:] + ".")
            self.fault.show()
            return
        self._chart.commit(changed, self._chart.tr("set point"))
        super().accept()

    def _changed(self) -> LrSchedule:
        schedule, run = self._chart.schedule, self._chart.run
        point = schedule.points[self._index]
        x, lr = point.x, point.lr
        # What was not touched keeps all its digits.
        if self.rate.text() != self._rate_text:
            lr = parse_rate(self.rate.text())
        if self.place.text() != self._place_text:
            number = parse_number(self.place.text())
            x = run.x_of(number - 1) if self._in_steps else number / 100.0
            checked_place(schedule, self._index, x, run.gap)
        shape = SHAPES[self.shape_box.currentIndex()]
        changed = dataclasses.replace(point, x=x, lr=lr, shape=shape)
        points = schedule.points
        return LrSchedule((*points[: self._index], changed, *points[self._index + 1 :]))


def checked_place(schedule: LrSchedule, index: int, x: float, gap: float) -> None:
    """Check that point ``index`` can lie at ``x``.

    Raises:
        ValueError: if it would not lie between its neighbours, at least ``gap`` away.
    """
    points = schedule.points
    if index in (0, len(points) - 1):
        if x != points[index].x:
            raise ValueError("the first and the last point keep their place")
        return
    slack = gap * 1e-6
    if not points[index - 1].x + gap - slack <= x <= points[index + 1].x - gap + slack:
        raise ValueError("the point must lie between its neighbours, at least a step away")
