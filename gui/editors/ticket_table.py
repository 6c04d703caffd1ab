"""The ticket pool as a table: every bar with its exact weight, share and tickets."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
    Signal,
)
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from aozora.config.schema import TrainConfig
from gui.editors.numbers import parse_number
from gui.editors.ticket_edit import HIGHEST_PAINTED
from gui.editors.ticket_view import TicketView, drawn_weights

_Index = QModelIndex | QPersistentModelIndex
RANGE, WEIGHT, SHARE, TICKETS = range(4)


class TicketTableModel(QAbstractTableModel):
    """The bars of a pool as rows.

    Signals:
        typed: The row and the weight typed there.
        refused: Why a typed weight was not taken.
    """

    typed = Signal(int, float)
    refused = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        config = TrainConfig()
        self._view = TicketView(config, 0, drawn_weights(config))
        self._counts: tuple[int, ...] = self._view.counts()
        self._shares: tuple[float, ...] = self._view.shares()

    def show_view(self, view: TicketView) -> None:
        """Show ``view``."""
        same_rows = view.bins == self._view.bins
        if not same_rows:
            self.beginResetModel()
        self._view, self._counts, self._shares = view, view.counts(), view.shares()
        if not same_rows:
            self.endResetModel()
        else:
            self.dataChanged.emit(self.index(0, 0), self.index(view.bins - 1, TICKETS))

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        """Return the number of bars."""
        return 0 if parent.isValid() else self._view.bins

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else 4

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the title of a column."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(section)
        if role == Qt.ItemDataRole.DisplayRole:
            return self.tr(("Timesteps", "Weight", "Share", "Tickets")[section])
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        row, column = index.row(), index.column()
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(column)
        if role == Qt.ItemDataRole.EditRole and column == WEIGHT:
            return f"{self._view.weights[row]:.6g}"
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if column == RANGE:
            return self._view.bar_name(row)
        if column == WEIGHT:
            return f"{self._view.weights[row]:.2f}\u00d7"
        if column == SHARE:
            return f"{self._shares[row] * 100:.2f} %"
        return f"{self._counts[row]:,}" if self._view.total else "\u2013"

    def flags(self, index: _Index) -> Qt.ItemFlag:
        """Return what can be done with a cell: weights can be typed."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsEditable if index.column() == WEIGHT else flags

    def setData(self, index: _Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Take a typed weight, or say why not."""
        if role != Qt.ItemDataRole.EditRole or index.column() != WEIGHT:
            return False
        if str(value) == self.data(index, role):
            return False
        try:
            weight = parse_number(str(value).strip().rstrip("xX\u00d7"))
        except ValueError as error:
            self.refused.emit(f"{str(error)[:1].upper()}{str(error)[1:]}.")
            return False
        highest = max(HIGHEST_PAINTED, *self._view.weights)
        if not 0.0 <= weight <= highest:
            text = self.tr("A bar is 0 to {:g} times uniform.").format(highest)
            self.refused.emit(text)
            return False
        self.typed.emit(index.row(), weight)
        return True


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignLeft if column == RANGE else Qt.AlignmentFlag.AlignRight
    return side | Qt.AlignmentFlag.AlignVCenter


class TicketTable(QTableView):
    """The table of a pool; a weight typed with several rows chosen is given to all of them.

    Signals:
        chosen: The rows chosen by the user, a tuple of int.
        edited: Rows and the weight for them.
    """

    chosen = Signal(object)
    edited = Signal(object, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bars = TicketTableModel(self)
        self.setModel(self.bars)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
            | QAbstractItemView.EditTrigger.AnyKeyPressed
        )
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.setTabKeyNavigation(False)
        self.setAccessibleName(self.tr("Bars of the timestep tickets"))
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        rows = self.verticalHeader()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(28)
        rows.hide()
        self._is_following = False
        self.bars.typed.connect(self._typed)
        self.selectionModel().selectionChanged.connect(self._selection_changed)

    def show_view(self, view: TicketView) -> None:
        """Show ``view``."""
        self._is_following = True
        self.bars.show_view(view)
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
            model.select(self.bars.index(row, 0), flags)
        if rows:
            model.setCurrentIndex(self.bars.index(rows[0], WEIGHT), model.SelectionFlag.NoUpdate)
            self.scrollTo(self.bars.index(rows[0], 0))
        self._is_following = False

    def chosen_rows(self) -> tuple[int, ...]:
        """Return the chosen rows."""
        return tuple(sorted({index.row() for index in self.selectionModel().selectedIndexes()}))

    def _typed(self, row: int, weight: float) -> None:
        rows = self.chosen_rows()
        self.edited.emit(rows if row in rows else (row,), weight)

    def _selection_changed(self) -> None:
        if not self._is_following:
            self.chosen.emit(self.chosen_rows())
