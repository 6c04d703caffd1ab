"""The grid of sample pictures: thumbnails are read in a thread, only those that were seen."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from pathlib import Path

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QPersistentModelIndex,
    QSize,
    Qt,
    Signal,
    Slot,
)
from PySide6.QtGui import QImage, QImageReader, QPainter, QPixmap
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from gui import theme
from gui.pages.sample_files import SampleGrid, SamplePicture, grid_of
from gui.words import tr, whole

SIDE = 168
_MOST_THUMBNAILS = 600
_Index = QModelIndex | QPersistentModelIndex


def read_scaled(path: Path, side: int) -> QImage:
    """Return the picture in ``path`` with its longer side at most ``side``; null if unreadable."""
    reader = QImageReader(str(path))
    reader.setAutoTransform(True)
    size = reader.size()
    if size.isValid():
        reader.setScaledSize(size.scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio))
    return reader.read()


class SamplesModel(QAbstractTableModel):
    """The grid for Qt, with its thumbnails."""

    _read = Signal(object, QImage)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = grid_of(())
        self._thumbnails: OrderedDict[Path, QPixmap] = OrderedDict()
        self._asked: set[Path] = set()
        self._wanted: queue.LifoQueue[Path] = queue.LifoQueue()
        self._reader: threading.Thread | None = None
        self._ratio = 1.0
        self._read.connect(self._take)

    @property
    def grid(self) -> SampleGrid:
        """What is shown."""
        return self._grid

    def show_grid(self, grid: SampleGrid, ratio: float) -> None:
        """Show ``grid`` on a screen of ``ratio`` pixels a unit."""
        if grid == self._grid and ratio == self._ratio:
            return
        self.beginResetModel()
        self._grid, self._ratio = grid, ratio
        self._asked.clear()
        self._thumbnails.clear()
        self.endResetModel()

    def picture(self, index: _Index) -> SamplePicture | None:
        """Return the picture in a cell."""
        return self._grid.at(index.row(), index.column()) if index.isValid() else None

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Return the number of prompts."""
        return 0 if parent.isValid() else len(self._grid.prompts)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Return the number of steps."""
        return 0 if parent.isValid() else len(self._grid.steps)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        """Return thumbnail, tooltip or accessible text of a cell."""
        picture = self.picture(index)
        if picture is None:
            return None
        if role == Qt.ItemDataRole.DecorationRole:
            return self._thumbnail(picture.path)
        if role == Qt.ItemDataRole.ToolTipRole:
            return str(picture.path)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return tr("{0}, step {1}").format(picture.prompt, whole(picture.step))
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> object:
        """Return steps above and prompts at the left."""
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return tr("step {0}").format(whole(self._grid.steps[section]))
            return None
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return self._grid.prompts[section] or tr("no prompt in the name")
        return None

    def _thumbnail(self, path: Path) -> QPixmap | None:
        known = self._thumbnails.get(path)
        if known is not None:
            self._thumbnails.move_to_end(path)
            return known
        if path not in self._asked:
            self._asked.add(path)
            self._wanted.put(path)
            if self._reader is None or not self._reader.is_alive():
                self._reader = threading.Thread(target=self._work, name="samples", daemon=True)
                self._reader.start()
        return None

    def _work(self) -> None:
        while True:
            try:
                path = self._wanted.get(timeout=0.5)
                self._read.emit(path, read_scaled(path, round(SIDE * self._ratio)))
            except (queue.Empty, RuntimeError):
                # Nothing is wanted any more, or the window is gone.
                return

    @Slot(object, QImage)
    def _take(self, path: Path, image: QImage) -> None:
        pixmap = QPixmap.fromImage(image)
        pixmap.setDevicePixelRatio(self._ratio)
        self._thumbnails[path] = pixmap
        while len(self._thumbnails) > _MOST_THUMBNAILS:
            old, _ = self._thumbnails.popitem(last=False)
            self._asked.discard(old)
        for (prompt, step), picture in self._grid.pictures.items():
            if picture.path == path:
                row, column = self._grid.prompts.index(prompt), self._grid.steps.index(step)
                index = self.index(row, column)
                self.dataChanged.emit(index, index)
                return


class _Cell(QStyledItemDelegate):
    """Paints a thumbnail in the middle of its cell."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        """Paint it."""
        painter.save()
        rect = option.rect.adjusted(3, 3, -3, -3)
        model = index.model()
        pixmap = index.data(Qt.ItemDataRole.DecorationRole)
        exists = isinstance(model, SamplesModel) and model.picture(index) is not None
        if exists:
            painter.fillRect(rect, theme.colour("raised"))
        if isinstance(pixmap, QPixmap) and not pixmap.isNull():
            size = pixmap.deviceIndependentSize()
            left = rect.center().x() - size.width() / 2
            painter.drawPixmap(round(left), round(rect.center().y() - size.height() / 2), pixmap)
        elif exists:
            text = tr("cannot be read") if pixmap is not None else tr("reading …")
            painter.setPen(theme.colour("muted"))
            painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, text)
        view = self.parent()
        assert isinstance(view, QTableView)
        if exists and view.selectionModel().isSelected(index):
            painter.setPen(theme.colour("accent"))
            for inset in range(3):
                painter.drawRect(rect.adjusted(inset, inset, -inset - 1, -inset - 1))
        painter.restore()


class SamplesView(QTableView):
    """The grid; Ctrl+click chooses a second picture to compare."""

    picked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(SamplesModel(self))
        self.setItemDelegate(_Cell(self))
        self.setShowGrid(False)
        self.setAccessibleName(tr("Sample pictures"))
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setIconSize(QSize(SIDE, SIDE))
        self.setStyleSheet(
            "QTableCornerButton::section { background: palette(base); border: none;"
            " border-bottom: 1px solid palette(mid); }"
        )
        for header in (self.horizontalHeader(), self.verticalHeader()):
            header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
            header.setDefaultSectionSize(SIDE + 8)
            header.setHighlightSections(False)
        self.verticalHeader().setFixedWidth(150)
        self.verticalHeader().setDefaultAlignment(
            Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop
        )
        self.selectionModel().selectionChanged.connect(self._tell)

    def grid_model(self) -> SamplesModel:
        """Return its model."""
        model = self.model()
        assert isinstance(model, SamplesModel)
        return model

    def chosen(self) -> list[SamplePicture]:
        """Return the selected pictures, by prompt and step."""
        model = self.grid_model()
        found = [model.picture(index) for index in self.selectionModel().selectedIndexes()]
        return sorted((p for p in found if p is not None), key=lambda p: (p.prompt, p.step))

    @Slot()
    def _tell(self) -> None:
        self.viewport().update()
        self.picked.emit()
