"""The pictures as a list for a view: read in a thread, thumbnails made when they are seen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QRunnable,
    QSize,
    Qt,
    QThread,
    QThreadPool,
    Signal,
    Slot,
)
from PySide6.QtGui import QImage, QImageReader, QPixmap

from gui.pages.data_facts import DataFacts, fact_lines
from gui.pages.picture_files import Filter, PictureItem, list_pictures, passes, read_text
from gui.words import tr

THUMBNAIL = 132
_BATCH = 200
_KEPT = 800

FACTS = Qt.ItemDataRole.UserRole + 1
"""What the engine says of all pictures, for a view that knows the picture."""

ENGINE_FILTERS: frozenset[Filter] = frozenset({"left_out", "cut", "repeated", "new"})
"""Filters that only the engine's answer fills."""

Index = QModelIndex | QPersistentModelIndex


class PictureScan(QThread):
    """Lists the pictures of folders.

    Signals:
        found: The number of the scan and some pictures.
        done: The number of the scan; all pictures that could be found were told.
    """

    found = Signal(int, object)
    done = Signal(int)

    def __init__(
        self, number: int, folders: Sequence[Path | None], recursive: bool, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._number = number
        self._folders = list(folders)
        self._recursive = recursive

    def run(self) -> None:
        """List them."""
        batch: list[PictureItem] = []
        stop = self.isInterruptionRequested
        try:
            for item in list_pictures(self._folders, recursive=self._recursive, should_stop=stop):
                batch.append(item)
                if len(batch) >= _BATCH:
                    self.found.emit(self._number, batch)
                    batch = []
        finally:
            # Also after a fault, which goes on to whoever shows faults: the page must not say
            # for ever that folders are being read.
            if not self.isInterruptionRequested():
                self.found.emit(self._number, batch)
                self.done.emit(self._number)


class _Thumbnail(QRunnable):
    """Reads one picture small."""

    def __init__(self, path: Path, side: int, told: _Told) -> None:
        super().__init__()
        self._path = path
        self._side = side
        self._told = told

    def run(self) -> None:
        """Read it; an unreadable one becomes an empty picture."""
        reader = QImageReader(str(self._path))
        reader.setAutoTransform(True)
        size = reader.size()
        if size.isValid():
            square = QSize(self._side, self._side)
            reader.setScaledSize(size.scaled(square, Qt.AspectRatioMode.KeepAspectRatio))
        self._told.made.emit(str(self._path), reader.read())


class _Told(QObject):
    """Carries thumbnails from their threads to the window's."""

    made = Signal(str, QImage)


class PictureModel(QAbstractListModel):
    """The pictures that pass the filter.

    Signals:
        scanned: What `items` holds changed: pictures were found, or the scan ended.
        informed: What the engine says of the pictures changed.
        edited: The path of a picture whose caption was changed.
    """

    scanned = Signal()
    informed = Signal()
    edited = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.items: list[PictureItem] = []
        self.facts: DataFacts | None = None
        self.is_scanning = False
        self._shown: list[int] = []
        self._filter: Filter = "all"
        self._words = ""
        self._resolution = 1024
        self._number = 0
        self._scan: PictureScan | None = None
        self._thumbnails: OrderedDict[str, QPixmap] = OrderedDict()
        self._wanted: set[str] = set()
        self._ratio = 1.0
        self._told = _Told(self)
        self._told.made.connect(self._take_thumbnail)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(2)

    # The scan

    def scan(self, folders: Sequence[Path | None], recursive: bool) -> None:
        """Read ``folders`` anew; None stands for one without a place, to keep the numbers."""
        self.stop()
        self._number += 1
        self.beginResetModel()
        self.items, self._shown = [], []
        self.endResetModel()
        self.is_scanning = True
        self._scan = PictureScan(self._number, folders, recursive, self)
        self._scan.found.connect(self._take)
        self._scan.done.connect(self._finish)
        self._scan.start(QThread.Priority.LowPriority)
        self.scanned.emit()

    def stop(self) -> None:
        """End the scan, and forget thumbnails that are still to come."""
        self._pool.clear()
        self._wanted.clear()
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.requestInterruption()
            scan.wait()
            scan.deleteLater()
        self.is_scanning = False

    @Slot(int, object)
    def _take(self, number: int, batch: list[PictureItem]) -> None:
        if number != self._number:
            return
        first = len(self.items)
        self.items += batch
        rows = [first + n for n, item in enumerate(batch) if self._passes(item)]
        if rows:
            self.beginInsertRows(QModelIndex(), len(self._shown), len(self._shown) + len(rows) - 1)
            self._shown += rows
            self.endInsertRows()
        self.scanned.emit()

    @Slot(int)
    def _finish(self, number: int) -> None:
        if number == self._number:
            self.is_scanning = False
            self.scanned.emit()

    # The filter

    def show_only(self, wanted: Filter, words: str, resolution: int) -> None:
        """Show what passes the filter."""
        self._filter, self._words, self._resolution = wanted, words, resolution
        self._show(self._passing())

    def show_facts(self, facts: DataFacts | None) -> None:
        """Take what the engine says of the pictures."""
        self.facts = facts
        shown = self._passing()
        if shown != self._shown:
            self._show(shown)
        elif shown:
            self.dataChanged.emit(self.index(0), self.index(len(shown) - 1), [FACTS])
        self.informed.emit()

    def _passing(self) -> list[int]:
        return [n for n, item in enumerate(self.items) if self._passes(item)]

    def _show(self, numbers: list[int]) -> None:
        self.beginResetModel()
        self._shown = numbers
        self.endResetModel()

    def count(self, wanted: Filter) -> int:
        """Return how many pictures pass ``wanted``, whatever the words."""
        facts = self.facts
        return sum(passes(item, wanted, "", self._resolution, facts) for item in self.items)

    def _passes(self, item: PictureItem) -> bool:
        return passes(item, self._filter, self._words, self._resolution, self.facts)

    # What views ask

    def rowCount(self, parent: Index | None = None) -> int:
        """Return how many pictures pass."""
        return 0 if parent is not None and parent.isValid() else len(self._shown)

    def item(self, row: int) -> PictureItem:
        """Return the picture in ``row``."""
        return self.items[self._shown[row]]

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows; asking for a thumbnail has it made."""
        if not index.isValid() or index.row() >= len(self._shown):
            return None
        item = self.item(index.row())
        if role == Qt.ItemDataRole.DisplayRole:
            return item.path.name
        if role == Qt.ItemDataRole.UserRole:
            return item
        if role == FACTS:
            return self.facts
        if role == Qt.ItemDataRole.DecorationRole:
            return self._thumbnail(item)
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleDescriptionRole):
            return self._tip(item)
        return None

    def _tip(self, item: PictureItem) -> str:
        size = tr("cannot be read") if item.is_broken else f"{item.width} x {item.height}"
        return "\n".join([item.path.name, size, *fact_lines(item.path, self.facts)])

    def set_pixel_ratio(self, ratio: float) -> None:
        """Make thumbnails for a screen of this many pixels a unit."""
        if ratio != self._ratio:
            self._ratio = ratio
            self._thumbnails.clear()

    def _thumbnail(self, item: PictureItem) -> QPixmap | None:
        key = str(item.path)
        if key in self._thumbnails:
            self._thumbnails.move_to_end(key)
            return self._thumbnails[key]
        if not item.is_broken and key not in self._wanted:
            self._wanted.add(key)
            side = round(THUMBNAIL * self._ratio)
            self._pool.start(_Thumbnail(item.path, side, self._told))
        return None

    @Slot(str, QImage)
    def _take_thumbnail(self, key: str, picture: QImage) -> None:
        if key not in self._wanted:
            return
        self._wanted.discard(key)
        pixmap = QPixmap.fromImage(picture)
        pixmap.setDevicePixelRatio(self._ratio)
        self._thumbnails[key] = pixmap
        while len(self._thumbnails) > _KEPT:
            self._thumbnails.popitem(last=False)
        for row, number in enumerate(self._shown):
            if str(self.items[number].path) == key:
                where = self.index(row)
                self.dataChanged.emit(where, where, [Qt.ItemDataRole.DecorationRole])
                return

    def caption_changed(self, item: PictureItem, caption_path: Path) -> PictureItem:
        """Read the caption of ``item`` again from its file; return the new item.

        An item that is not in the list any more, as when the folders are read anew, is only read.
        """
        new = replace(item, caption=read_text(caption_path), caption_path=caption_path)
        if item in self.items:
            number = self.items.index(item)
            self.items[number] = new
            if number in self._shown:
                where = self.index(self._shown.index(number))
                self.dataChanged.emit(where, where)
            self.scanned.emit()
        self.edited.emit(item.path)
        return new
