"""The curve as a table: every point with its exact numbers, each of which can be typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import (
    QAbstractItemModel,
    QAbstractTableModel,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
    Signal,
)
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from aozora.config.lr_schedule import SHAPES, LrSchedule
from gui.editors.lr_edit import Run
from gui.editors.lr_menu import shape_label
from gui.editors.lr_value_dialog import checked_place
from gui.editors.numbers import format_count, format_rate, parse_number, parse_rate
from gui.forms.controls import DropDown

_Index = QModelIndex | QPersistentModelIndex
NUMBER, STEP, SHARE, RATE, SHAPE, REMARK = range(6)
_SCROLL_BAR_PX = 12


class LrTableModel(QAbstractTableModel):
    """The points of a curve as rows.

    Signals:
        edited: The curve with one value changed, an LrSchedule.
        refused: Why a typed value was not taken.
    """

    edited = Signal(object)
    refused = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._schedule = LrSchedule()
        self._run = Run()
        self._remarks: Mapping[int, str] = {}

    def show_curve(self, schedule: LrSchedule, run: Run, remarks: Mapping[int, str]) -> None:
        """Show ``schedule`` with remarks on its points."""
        same_rows = len(schedule.points) == len(self._schedule.points)
        if not same_rows:
            self.beginResetModel()
        self._schedule, self._run, self._remarks = schedule, run, dict(remarks)
        if not same_rows:
            self.endResetModel()
        else:
            last = self.index(len(schedule.points) - 1, REMARK)
            self.dataChanged.emit(self.index(0, 0), last)

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        """Return the number of points."""
        return 0 if parent.isValid() else len(self._schedule.points)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else 6

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the title of a column."""
        if role == Qt.ItemDataRole.TextAlignmentRole and orientation == Qt.Orientation.Horizontal:
            return _alignment(section)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if orientation == Qt.Orientation.Vertical:
            return str(section + 1)
        titles = ("#", "Step", "Place", "Learning rate", "Shape", "Remark")
        return self.tr(titles[section])

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        row, column = index.row(), index.column()
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return self._text(row, column, for_edit=role == Qt.ItemDataRole.EditRole)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(column)
        if role == Qt.ItemDataRole.ToolTipRole and column == REMARK:
            return self._remarks.get(row, "")
        return None

    def _text(self, row: int, column: int, *, for_edit: bool) -> str:
        point = self._schedule.points[row]
        is_last = row == len(self._schedule.points) - 1
        if column == NUMBER:
            return str(row + 1)
        if column == STEP:
            if self._run.steps < 2:
                return "\u2013"
            step = self._run.step_of(point.x) + 1
            return str(round(step)) if for_edit else format_count(step)
        if column == SHARE:
            return f"{point.x * 100:.6g}" if for_edit else f"{point.x * 100:.2f} %"
        if column == RATE:
            return f"{point.lr:.6g}" if for_edit else format_rate(point.lr)
        if column == SHAPE:
            return point.shape if for_edit else ("" if is_last else shape_label(point.shape))
        remark = self._remarks.get(row, "")
        return f"\u26a0 {remark[:1].upper()}{remark[1:]}" if remark else ""

    def flags(self, index: _Index) -> Qt.ItemFlag:
        """Return what can be done with a cell: ends keep their place, the trained part its all."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        row, column = index.row(), index.column()
        last = len(self._schedule.points) - 1
        if not 0 <= row <= last:
            return flags
        can_edit = {
            STEP: 0 < row < last and self._run.steps > 1,
            SHARE: 0 < row < last,
            RATE: True,
            SHAPE: row < last,
        }.get(column, False)
        if can_edit and not self._run.is_locked(self._schedule.points[row].x):
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def setData(self, index: _Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Take a typed value, or say why not."""
        if role != Qt.ItemDataRole.EditRole:
            return False
        row, column = index.row(), index.column()
        if str(value) == self._text(row, column, for_edit=True):
            return False
        try:
            changed = self._with_value(row, column, str(value))
        except ValueError as error:
            text = str(error)
            self.refused.emit(text[:1].upper() + text[1:] + ".")
            return False
        self.edited.emit(changed)
        return True

    def _with_value(self, row: int, column: int, text: str) -> LrSchedule:
        point = self._schedule.points[row]
        if column == RATE:
            changed = dataclasses.replace(point, lr=parse_rate(text))
        elif column == SHAPE:
            shape = next((s for s in SHAPES if s == text), None)
            if shape is None:
                raise ValueError(f"there is no shape {text!r}")
            changed = dataclasses.replace(point, shape=shape)
        else:
            number = parse_number(text.replace("%", ""))
            x = self._run.x_of(number - 1) if column == STEP else number / 100.0
            checked_place(self._schedule, row, x, self._run.gap)
            changed = dataclasses.replace(point, x=x)
        points = self._schedule.points
        return LrSchedule((*points[:row], changed, *points[row + 1 :]))


def _alignment(column: int) -> Qt.AlignmentFlag:
    if column in (NUMBER, STEP, SHARE, RATE):
        return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter


class _ShapeDelegate(QStyledItemDelegate):
    """Offers the shapes in a list."""

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: _Index) -> QWidget:
        box = DropDown(parent)
        for shape in SHAPES:
            box.addItem(shape_label(shape), shape)
        box.activated.connect(self._close)
        return box

    def setEditorData(self, editor: QWidget, index: _Index) -> None:
        assert isinstance(editor, QComboBox)
        editor.setCurrentIndex(editor.findData(index.data(Qt.ItemDataRole.EditRole)))

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: _Index) -> None:
        assert isinstance(editor, QComboBox)
        model.setData(index, editor.currentData(), Qt.ItemDataRole.EditRole)

    def _close(self) -> None:
        editor = self.sender()
        if isinstance(editor, QComboBox):
            self.commitData.emit(editor)
            self.closeEditor.emit(editor)


class LrTable(QTableView):
    """The table of a curve; rows follow the points chosen in the chart and lead them.

    Signals:
        chosen: The rows chosen by the user, a tuple of int.
        inserted: Another point is wanted.
        removed: The chosen points are to go.
    """

    chosen = Signal(object)
    inserted = Signal()
    removed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.points = LrTableModel(self)
        self.setModel(self.points)
        self.setItemDelegateForColumn(SHAPE, _ShapeDelegate(self))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
            | QAbstractItemView.EditTrigger.AnyKeyPressed
        )
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setAlternatingRowColors(True)
        self.setAccessibleName(self.tr("Points of the learning-rate curve"))
        self.setTabKeyNavigation(False)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        for column, width in ((NUMBER, 38), (STEP, 78), (SHARE, 86), (RATE, 112), (SHAPE, 100)):
            self.setColumnWidth(column, max(width, header.sectionSizeHint(column)))
        header.setMinimumSectionSize(36)
        header.setSectionResizeMode(REMARK, QHeaderView.ResizeMode.Stretch)
        titles = sum(header.sectionSize(column) for column in range(REMARK))
        self.setMinimumWidth(titles + header.sectionSizeHint(REMARK) + _SCROLL_BAR_PX)
        rows = self.verticalHeader()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(28)
        rows.hide()
        self._is_following = False
        self.selectionModel().selectionChanged.connect(self._selection_changed)

    def show_curve(self, schedule: LrSchedule, run: Run, remarks: Mapping[int, str]) -> None:
        """Show ``schedule`` with remarks on its points."""
        self._is_following = True
        self.points.show_curve(schedule, run, remarks)
        self._is_following = False

    def choose(self, rows: tuple[int, ...]) -> None:
        """Choose ``rows`` without saying so."""
        if rows == self.chosen_rows():
            return
        self._is_following = True
        model = self.selectionModel()
        model.clearSelection()
        flags = model.SelectionFlag.Select | model.SelectionFlag.Rows
        for row in rows:
            model.select(self.points.index(row, 0), flags)
        if rows:
            model.setCurrentIndex(self.points.index(rows[0], RATE), model.SelectionFlag.NoUpdate)
            self.scrollTo(self.points.index(rows[0], 0))
        self._is_following = False

    def chosen_rows(self) -> tuple[int, ...]:
        """Return the chosen rows."""
        return tuple(sorted({index.row() for index in self.selectionModel().selectedIndexes()}))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Add and remove points with the keys of the chart."""
        if event.key() == Qt.Key.Key_Insert:
            self.inserted.emit()
        elif event.key() == Qt.Key.Key_Delete:
            self.removed.emit()
        else:
            super().keyPressEvent(event)

    def _selection_changed(self) -> None:
        if not self._is_following:
            self.chosen.emit(self.chosen_rows())
