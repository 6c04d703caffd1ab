"""The search field of the top bar and the list of what it found."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QFrame,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.icons import icon
from gui.shell.search import Entry, find

_ROW_HEIGHT = 42


class _TwoLines(QStyledItemDelegate):
    """Paints what was found: its name, and under it where it is."""

    def sizeHint(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QSize:
        return QSize(200, _ROW_HEIGHT)

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        entry: Entry = index.data(Qt.ItemDataRole.UserRole)
        is_selected = bool(option.state & QStyle.StateFlag.State_Selected)
        rect: QRect = option.rect.adjusted(4, 1, -4, -1)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if is_selected:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.colour("accent"))
            painter.drawRoundedRect(rect, theme.RADIUS, theme.RADIUS)
        text = rect.adjusted(10, 4, -10, -4)
        painter.setPen(theme.colour("on_accent" if is_selected else "text"))
        left = Qt.AlignmentFlag.AlignLeft
        painter.drawText(text, left | Qt.AlignmentFlag.AlignTop, entry.title)
        painter.setFont(theme.small_font())
        painter.setPen(theme.colour("on_accent" if is_selected else "muted"))
        where = painter.fontMetrics().elidedText(
            entry.where, Qt.TextElideMode.ElideRight, text.width()
        )
        painter.drawText(text, left | Qt.AlignmentFlag.AlignBottom, where)
        painter.restore()


# Tab is no wish to search, nor is focus that Qt moves on because a page with it was left.
_WISHES = (Qt.FocusReason.MouseFocusReason, Qt.FocusReason.ShortcutFocusReason)


class SearchBox(QLineEdit):
    """Type to find a setting or page; Enter goes there.

    Signals:
        chosen: What the user wants, an `Entry`.
    """

    chosen = Signal(object)

    def __init__(self, entries: Sequence[Entry], parent: QWidget) -> None:
        super().__init__(parent)
        self._entries = tuple(entries)
        self.setPlaceholderText(self.tr("Search settings    Ctrl+K"))
        self.setAccessibleName(self.tr("Search settings"))
        self.setMinimumHeight(30)
        self.setMinimumWidth(150)
        self.setMaximumWidth(360)
        self.addAction(icon("search", "muted"), QLineEdit.ActionPosition.LeadingPosition)
        self._panel: QFrame | None = None
        self._list = QListWidget()
        self.textEdited.connect(self._look)

    def _made_panel(self) -> QFrame:
        if self._panel is None:
            panel = QFrame(self.window())
            panel.setProperty("card", "true")
            panel.setAutoFillBackground(True)
            column = QVBoxLayout(panel)
            column.setContentsMargins(4, 4, 4, 4)
            self._list.setItemDelegate(_TwoLines(self._list))
            self._list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            self._list.setAccessibleName(self.tr("Found settings"))
            self._list.itemClicked.connect(self._take)
            column.addWidget(self._list)
            self._panel = panel
        return self._panel

    def found(self) -> list[Entry]:
        """Return what is listed now."""
        rows = range(self._list.count())
        return [self._list.item(row).data(Qt.ItemDataRole.UserRole) for row in rows]

    def _look(self) -> None:
        panel = self._made_panel()
        self._list.clear()
        for entry in find(self.text(), self._entries):
            item = QListWidgetItem(entry.title)
            item.setData(Qt.ItemDataRole.UserRole, entry)
            self._list.addItem(item)
        self._list.setCurrentRow(0)
        rows = self._list.count()
        panel.setVisible(bool(rows))
        if rows:
            place = self.mapTo(self.window(), QPoint(0, self.height() + 4))
            panel.setGeometry(place.x(), place.y(), max(self.width(), 360), rows * _ROW_HEIGHT + 12)
            panel.raise_()

    def _close(self) -> None:
        self._list.clear()
        if self._panel is not None:
            self._panel.hide()

    def _take(self, item: QListWidgetItem) -> None:
        entry = item.data(Qt.ItemDataRole.UserRole)
        self._close()
        self.clear()
        self.clearFocus()
        self.chosen.emit(entry)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Follow the focus."""
        super().focusInEvent(event)
        self.selectAll()
        if event.reason() in _WISHES:
            self._look()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Commit."""
        super().focusOutEvent(event)
        self._close()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle a key."""
        key = event.key()
        rows = self._list.count()
        if key in (Qt.Key.Key_Up, Qt.Key.Key_Down) and rows:
            move = 1 if key == Qt.Key.Key_Down else -1
            self._list.setCurrentRow((self._list.currentRow() + move) % rows)
        elif key == Qt.Key.Key_Down:
            self._look()
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and rows:
            self._take(self._list.currentItem())
        elif key == Qt.Key.Key_Escape:
            self.clear()
            self._close()
            self.clearFocus()
        else:
            super().keyPressEvent(event)
