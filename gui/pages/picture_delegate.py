"""How one picture is painted in the grid."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPainterPath, QPen, QPixmap
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from gui import theme
from gui.icons import paint_icon
from gui.pages.data_facts import DataFacts
from gui.pages.picture_files import PictureItem, is_small, passes
from gui.pages.picture_model import FACTS, THUMBNAIL

_CELL = QSize(THUMBNAIL + 16, THUMBNAIL + 38)


def badges_of(item: PictureItem, resolution: int, facts: DataFacts | None) -> list[str]:
    """Return the icons of what is the matter with a picture."""
    found = {
        "file": not item.has_caption,
        "warning": is_small(item, resolution),
        "scissors": passes(item, "cut", "", resolution, facts),
        "copies": passes(item, "repeated", "", resolution, facts),
        "close": passes(item, "left_out", "", resolution, facts) and not item.is_broken,
    }
    return [name for name, is_so in found.items() if is_so]


class PictureDelegate(QStyledItemDelegate):
    """Paints one thumbnail with its name and what is the matter with it."""

    resolution = 1024

    def sizeHint(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QSize:
        """Return the size it would like."""
        return _CELL

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        """Paint an item."""
        item: PictureItem = index.data(Qt.ItemDataRole.UserRole)
        picture: QPixmap | None = index.data(Qt.ItemDataRole.DecorationRole)
        cell: QRect = option.rect.adjusted(4, 4, -4, -4)
        is_selected = bool(option.state & QStyle.StateFlag.State_Selected)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        frame = QRectF(cell.left(), cell.top(), cell.width(), THUMBNAIL + 8)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.colour("window"))
        painter.drawRoundedRect(frame, theme.RADIUS, theme.RADIUS)
        if picture is not None and not picture.isNull():
            self._paint_picture(painter, frame, picture)
        elif item.is_broken:
            middle = QRectF(frame.center().x() - 14, frame.center().y() - 14, 28, 28)
            paint_icon(painter, "error", middle, theme.tokens().error)
        if is_selected:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.colour("accent"), 2))
            painter.drawRoundedRect(frame.adjusted(1, 1, -1, -1), theme.RADIUS, theme.RADIUS)
        self._paint_badges(painter, frame, badges_of(item, self.resolution, index.data(FACTS)))
        painter.setPen(theme.colour("accent" if is_selected else "muted"))
        painter.setFont(theme.small_font())
        line = QRect(cell.left() + 2, cell.bottom() - 19, cell.width() - 4, 18)
        name = painter.fontMetrics().elidedText(
            item.path.name, Qt.TextElideMode.ElideMiddle, line.width()
        )
        painter.drawText(line, Qt.AlignmentFlag.AlignCenter, name)
        painter.restore()

    def _paint_picture(self, painter: QPainter, frame: QRectF, picture: QPixmap) -> None:
        size = picture.deviceIndependentSize()
        size.scale(THUMBNAIL, THUMBNAIL, Qt.AspectRatioMode.KeepAspectRatio)
        place = QRectF(0, 0, size.width(), size.height())
        place.moveCenter(frame.center())
        clip = QPainterPath()
        clip.addRoundedRect(place, 4, 4)
        painter.setClipPath(clip)
        painter.drawPixmap(place, picture, QRectF(picture.rect()))
        painter.setClipping(False)

    def _paint_badges(self, painter: QPainter, frame: QRectF, names: list[str]) -> None:
        for number, name in enumerate(names):
            place = QRectF(frame.right() - 26 - 24 * number, frame.top() + 5, 21, 21)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.colour("window", 0.85))
            painter.drawRoundedRect(place, 5, 5)
            inner = place.adjusted(3, 3, -3, -3)
            paint_icon(painter, name, inner, theme.tokens().warn)
