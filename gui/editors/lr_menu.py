"""The context menu of the learning-rate chart, its clipboard, and the dialog for exact values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QPointF
from PySide6.QtGui import QAction, QActionGroup, QGuiApplication
from PySide6.QtWidgets import QMenu

from aozora.config.lr_schedule import SHAPES
from gui.editors.lr_edit import deleted, from_text, to_text, with_shape
from gui.editors.lr_value_dialog import LrValueDialog

if TYPE_CHECKING:
    from gui.editors.lr_chart import LrChart


class LrMenu(QObject):
    """What can be done to a place or a point of the chart."""

    def __init__(self, chart: LrChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._place = QPointF()
        self._index: int | None = None

    def open(self, place: QPointF, index: int | None) -> None:
        """Open the menu at ``place``, for point ``index`` if there is one."""
        self._place, self._index = place, index
        menu = self.build(index)
        menu.popup(self._chart.mapToGlobal(place.toPoint()))

    def build(self, index: int | None) -> QMenu:
        """Return the menu for point ``index``, or for an empty place."""
        self._index = index
        chart = self._chart
        menu = QMenu(chart)
        menu.aboutToHide.connect(menu.deleteLater)
        points = chart.schedule.points
        can_change = index is not None and not chart.run.is_locked(points[index].x)
        can_remove = can_change and index not in (0, len(points) - 1)
        self._add(menu, chart.tr("Add here"), self._add_point, enabled=index is None)
        self._add(menu, chart.tr("Delete"), self._delete, enabled=can_remove)
        self._add(menu, chart.tr("Set value…"), chart.ask_value, enabled=can_change)
        shapes = menu.addMenu(chart.tr("Segment shape"))
        shapes.setEnabled(can_change and index != len(points) - 1)
        group = QActionGroup(shapes)
        for shape in SHAPES:
            action = shapes.addAction(shape_label(shape))
            action.setCheckable(True)
            action.setData(shape)
            action.setChecked(index is not None and points[index].shape == shape)
            group.addAction(action)
        group.triggered.connect(self._set_shape)
        menu.addSeparator()
        self._add(menu, chart.tr("Copy curve"), self.copy)
        self._add(menu, chart.tr("Paste curve"), self.paste)
        menu.addSeparator()
        self._add(menu, chart.tr("Save as preset…"), chart.kept.emit)
        self._add(menu, chart.tr("Reset to the default curve"), chart.restored.emit)
        return menu

    def _add(self, menu: QMenu, text: str, slot: object, *, enabled: bool = True) -> QAction:
        action = menu.addAction(text)
        action.setEnabled(enabled)
        action.triggered.connect(slot)
        return action

    def _add_point(self) -> None:
        self._chart.add_at(self._place)

    def _delete(self) -> None:
        chart = self._chart
        changed = deleted(chart.schedule, chart.chosen, chart.run)
        chart.choose(())
        chart.commit(changed, chart.tr("remove point"))

    def _set_shape(self, action: QAction) -> None:
        chart = self._chart
        changed = with_shape(chart.schedule, chart.chosen, action.data(), chart.run)
        chart.commit(changed, chart.tr("segment shape"))

    def copy(self) -> None:
        """Put the curve on the clipboard as text."""
        QGuiApplication.clipboard().setText(to_text(self._chart.schedule))
        self._chart.noticed.emit(self._chart.tr("The curve is on the clipboard."))

    def paste(self) -> None:
        """Take the curve from the clipboard."""
        chart = self._chart
        try:
            schedule, count = from_text(QGuiApplication.clipboard().text())
        except ValueError as error:
            chart.noticed.emit(str(error)[:1].upper() + str(error)[1:] + ".")
            return
        chart.choose(())
        chart.commit(schedule, chart.tr("paste curve"))
        if count > len(schedule.points):
            text = chart.tr("The pasted curve had {} points; it was thinned out to {}.")
            chart.noticed.emit(text.format(count, len(schedule.points)))

    def ask_value(self, index: int) -> None:
        """Ask for the values of point ``index``."""
        chart = self._chart
        if not chart.run.is_locked(chart.schedule.points[index].x):
            LrValueDialog(chart, index).open()


def shape_label(shape: str) -> str:
    """Return what a shape is called."""
    return {"log": "Log", "linear": "Linear", "cosine": "Cosine", "hold": "Hold"}[shape]
