"""The presets as cards to choose from."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QFontMetrics, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QAbstractButton, QGridLayout, QSizePolicy, QWidget

from aozora.config.presets import Preset
from gui import theme
from gui.icons import paint_icon
from gui.words import tr

_SMALLEST_WIDTH = 250
_PAD = 14
_MARK = 20


class PresetCard(QAbstractButton):
    """One preset: what it is called and what it is for."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setText(tr(preset.title))
        self.setAccessibleName(tr(preset.title))
        self.setAccessibleDescription(tr(preset.description))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        policy = self.sizePolicy()
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        return QSize(_SMALLEST_WIDTH, self.heightForWidth(_SMALLEST_WIDTH))

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(200, 96)

    def hasHeightForWidth(self) -> bool:
        """Say that the height depends on the width."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return the height it needs at a width."""
        room = QRect(0, 0, width - 2 * _PAD, 2000)
        words = self.fontMetrics().boundingRect(room, _WRAPPED, tr(self.preset.description))
        return self._title_height(width) + words.height() + 2 * _PAD + 6

    def _title_height(self, width: int) -> int:
        room = QRect(0, 0, width - 2 * _PAD - _MARK, 2000)
        metrics = QFontMetrics(theme.group_font())
        return metrics.boundingRect(room, _WRAPPED, self.text()).height()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        is_marked = self.isChecked() or self.hasFocus()
        half = 1.0 if is_marked else 0.5
        edge = "accent" if is_marked else "control" if self.underMouse() else "border"
        painter.setPen(QPen(theme.colour(edge), 2 * half))
        painter.setBrush(theme.colour("base"))
        rect = QRectF(self.rect()).adjusted(half, half, -half, -half)
        painter.drawRoundedRect(rect, theme.CARD_RADIUS, theme.CARD_RADIUS)
        if self.isChecked():
            painter.setBrush(theme.colour("accent", 0.08))
            painter.drawRoundedRect(rect, theme.CARD_RADIUS, theme.CARD_RADIUS)
            mark = QRectF(self.width() - _PAD - 18, _PAD - 1, 18, 18)
            paint_icon(painter, "ok", mark, theme.tokens().accent)
        room = self.rect().adjusted(_PAD, _PAD, -_PAD, -_PAD)
        painter.setPen(theme.colour("text"))
        painter.setFont(theme.group_font())
        painter.drawText(room.adjusted(0, 0, -_MARK, 0), _WRAPPED, self.text())
        room.setTop(room.top() + self._title_height(self.width()) + 6)
        painter.setFont(self.font())
        painter.setPen(theme.colour("muted"))
        painter.drawText(room, _WRAPPED, tr(self.preset.description))


_WRAPPED = int(Qt.TextFlag.TextWordWrap) | int(Qt.AlignmentFlag.AlignTop.value)


class PresetGrid(QWidget):
    """All presets, in as many columns as there is room for.

    Signals:
        chosen: The preset the user wants.
    """

    chosen = Signal(object)

    def __init__(self, presets: Sequence[Preset], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(theme.GAP_3)
        self.cards = [PresetCard(preset) for preset in presets]
        # In no button group: of a group Tab visits one card only. `show_chosen` keeps one mark.
        for card in self.cards:
            card.clicked.connect(self._clicked)
        self._arrange(2)

    def show_chosen(self, name: str) -> None:
        """Mark the preset called ``name``, or none."""
        for card in self.cards:
            card.setChecked(card.preset.name == name)

    def _clicked(self) -> None:
        card = self.sender()
        assert isinstance(card, PresetCard)
        self.chosen.emit(card.preset)

    def _arrange(self, columns: int) -> None:
        if columns == self._columns:
            return
        self._columns = columns
        for number, card in enumerate(self.cards):
            self._grid.addWidget(card, number // columns, number % columns)
        for column in range(4):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fit the new size."""
        super().resizeEvent(event)
        self._arrange(min(3, max(1, self.width() // _SMALLEST_WIDTH)))
