"""Two pictures side by side, under one wipe or next to each other."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QImage, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from gui import theme
from gui.forms.controls import Switch, TonedLabel
from gui.pages.sample_files import SamplePicture
from gui.pages.samples_grid import read_scaled
from gui.words import tr, whole

_LARGEST = 2048


class PairView(QWidget):
    """Paints two pictures beside each other, or over each other with a line to drag."""

    def __init__(self, left: QImage, right: QImage, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._images = (left, right)
        self._share = 0.5
        self._is_wipe = False
        self.setMinimumSize(QSize(480, 320))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(tr("Two pictures"))

    def set_wipe(self, is_wipe: bool) -> None:
        """Lay them over each other, or beside each other."""
        self._is_wipe = is_wipe
        self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the line."""
        self._move_to(event.position().x())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Put the line here."""
        self._move_to(event.position().x())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move the line with the arrows."""
        moves = {Qt.Key.Key_Left: -0.02, Qt.Key.Key_Right: 0.02}
        move = moves.get(Qt.Key(event.key()))
        if move is None:
            super().keyPressEvent(event)
            return
        self._share = min(1.0, max(0.0, self._share + move))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint them."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        if not self._is_wipe:
            half = self.width() / 2
            for number, image in enumerate(self._images):
                room = QRectF(number * half + 2, 0, half - 4, self.height())
                self._draw(painter, image, room)
            return
        room = QRectF(self.rect())
        self._draw(painter, self._images[0], room)
        line = self._share * self.width()
        painter.save()
        painter.setClipRect(QRectF(line, 0, self.width() - line, self.height()))
        painter.fillRect(self.rect(), theme.colour("window"))
        self._draw(painter, self._images[1], room)
        painter.restore()
        painter.setPen(QPen(theme.colour("accent"), 2))
        painter.drawLine(QPointF(line, 0), QPointF(line, self.height()))

    def _draw(self, painter: QPainter, image: QImage, room: QRectF) -> None:
        if image.isNull():
            painter.setPen(theme.colour("muted"))
            painter.drawText(room, Qt.AlignmentFlag.AlignCenter, tr("cannot be read"))
            return
        size = image.size().scaled(room.size().toSize(), Qt.AspectRatioMode.KeepAspectRatio)
        target = QRectF(0, 0, size.width(), size.height())
        target.moveCenter(room.center())
        painter.drawImage(target, image)

    def _move_to(self, x: float) -> None:
        if self._is_wipe:
            self._share = min(1.0, max(0.0, x / max(1, self.width())))
            self.update()


class CompareSamples(QDialog):
    """Shows two sample pictures."""

    def __init__(
        self, left: SamplePicture, right: SamplePicture, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("Compare pictures"))
        self.resize(1100, 680)
        images = [read_scaled(picture.path, _LARGEST) for picture in (left, right)]
        self.view = PairView(images[0], images[1])
        self.wipe = Switch()
        self.wipe.setAccessibleName(tr("Over each other"))
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_4, theme.GAP_4, theme.GAP_4, theme.GAP_4)
        column.setSpacing(theme.GAP_3)
        names = QHBoxLayout()
        for picture, side in (
            (left, Qt.AlignmentFlag.AlignLeft),
            (right, Qt.AlignmentFlag.AlignRight),
        ):
            text = tr("{0}, step {1}").format(picture.prompt, whole(picture.step))
            label = TonedLabel(text, tone="text")
            label.setAlignment(side)
            names.addWidget(label)
        column.addLayout(names)
        column.addWidget(self.view, 1)
        row = QHBoxLayout()
        row.addWidget(TonedLabel(tr("Over each other, with a line to drag"), tone="text"))
        row.addWidget(self.wipe)
        row.addStretch(1)
        close = QPushButton(tr("Close"))
        close.setProperty("primary", "true")
        close.setDefault(True)
        close.clicked.connect(self.accept)
        row.addWidget(close)
        column.addLayout(row)
        self.wipe.toggled.connect(self.view.set_wipe)
