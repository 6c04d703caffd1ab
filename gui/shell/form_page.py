"""A page of cards: head, purpose, and everything scrolling under it."""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import QPoint, QSize, Qt
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.document import Document
from gui.forms.controls import TonedLabel
from gui.forms.setting_row import SettingRow
from gui.forms.settings_card import SettingsCard

FORM_WIDTH = 760


class PageHead(QWidget):
    """The title of a page, what it is for, and room for buttons at the right."""

    def __init__(self, title: str, purpose: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, theme.GAP_1)
        row.setSpacing(theme.GAP_2)
        column = QVBoxLayout()
        column.setSpacing(2)
        self.title = QLabel(title)
        self.title.setFont(theme.page_title_font())
        self.purpose = TonedLabel(purpose)
        self.purpose.setWordWrap(True)
        column.addWidget(self.title)
        column.addWidget(self.purpose)
        row.addLayout(column, 1)
        self.buttons = QHBoxLayout()
        self.buttons.setSpacing(theme.GAP_2)
        row.addLayout(self.buttons)
        row.setAlignment(self.buttons, Qt.AlignmentFlag.AlignTop)


class FormPage(QScrollArea):
    """A page that is a column of cards; `column` takes them.

    Args:
        is_wide: Use the whole width instead of that of a form.
    """

    def __init__(
        self,
        document: Document,
        title: str,
        purpose: str,
        parent: QWidget | None = None,
        *,
        is_wide: bool = False,
    ) -> None:
        super().__init__(parent)
        self.document = document
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        whole = QWidget()
        outer = QHBoxLayout(whole)
        outer.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_4, theme.GAP_5)
        inner = QWidget()
        inner.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        if not is_wide:
            inner.setMaximumWidth(FORM_WIDTH)
        self.column = QVBoxLayout(inner)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(theme.GAP_3)
        self.head = PageHead(title, purpose)
        self.column.addWidget(self.head)
        outer.addWidget(inner, 1000)
        outer.addStretch(1)
        self._whole = whole
        self.setWidget(whole)

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(400, 300)

    def add(self, widget: QWidget) -> None:
        """Put ``widget`` under what is there."""
        self.column.addWidget(widget)

    def finish(self) -> None:
        """Keep all cards at the top."""
        self.column.addStretch(1)

    def cards(self) -> Iterator[SettingsCard]:
        """Yield the cards of settings."""
        yield from self.findChildren(SettingsCard)

    def reveal(self, path: str) -> SettingRow | None:
        """Bring the line of the setting at ``path`` into view; None if it is not here."""
        for card in self.cards():
            row = card.reveal(path)
            if row is not None:
                self._whole.adjustSize()
                top = row.mapTo(self._whole, QPoint(0, 0)).y()
                self.verticalScrollBar().setValue(max(0, top - 120))
                return row
        return None
