"""Two things side by side where there is room, else one under the other."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QWidget

from gui.theme import GAP_3


class FoldingRow(QWidget):
    """A row that becomes a column when it is narrow.

    Args:
        fold_at: Width in pixels below which it folds; it also does where its parts do not fit.
        parent: The owner.
    """

    def __init__(self, fold_at: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fold_at = fold_at
        self._parts: list[QWidget] = []
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight, self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(GAP_3)

    def add(self, widget: QWidget, stretch: int) -> None:
        """Put ``widget`` at the end, with a share of the width."""
        self._parts.append(widget)
        self._row.addWidget(widget, stretch)

    @property
    def is_folded(self) -> bool:
        """Whether things stand one under the other."""
        return self._row.direction() == QBoxLayout.Direction.TopToBottom

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use; it can always fold to be narrower."""
        hint = super().minimumSizeHint()
        return QSize(min(hint.width(), 320), hint.height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fold or unfold."""
        narrow = event.size().width() < max(self._fold_at, self._needed())
        direction = QBoxLayout.Direction
        self._row.setDirection(direction.TopToBottom if narrow else direction.LeftToRight)
        super().resizeEvent(event)

    def _needed(self) -> int:
        widths = [max(p.minimumWidth(), p.minimumSizeHint().width()) for p in self._parts]
        return sum(widths) + GAP_3 * (len(widths) - 1)
