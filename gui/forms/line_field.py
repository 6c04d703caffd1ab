"""The line of text under most fields: commits on Enter or focus-out, reverts on Escape."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence
from PySide6.QtWidgets import QLineEdit, QWidget

from gui import theme


class LineField(QLineEdit):
    """A line of text that commits on Enter or focus-out and reverts on Escape."""

    committed = Signal(object)
    refused = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumHeight(theme.CONTROL_HEIGHT)
        self._shown: Any = ""
        self.editingFinished.connect(self._commit)

    def show_value(self, value: Any) -> None:
        """Show ``value`` and forget what was typed."""
        self._shown = value
        self._mark("")
        text = self.text_of(value)
        if text != self.text():
            self.setText(text)
            self.setCursorPosition(0)

    def text_of(self, value: Any) -> str:
        """Return ``value`` as it stands in the field."""
        return str(value)

    def value_of(self, text: str) -> Any:
        """Return the value typed as ``text``.

        Raises:
            ValueError: saying what is wrong with it.
        """
        return text

    def keeps_undo(self) -> bool:
        """Return whether undo is for what is being typed here, not for the document."""
        return self.text() != self.text_of(self._shown)

    def event(self, event: QEvent) -> bool:
        """Leave undo and redo to the window unless something is being typed."""
        if event.type() == QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            undo, redo = QKeySequence.StandardKey.Undo, QKeySequence.StandardKey.Redo
            if (event.matches(undo) or event.matches(redo)) and not self.keeps_undo():
                event.ignore()
                return False
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle a key."""
        if event.key() == Qt.Key.Key_Escape and self.text() != self.text_of(self._shown):
            self.show_value(self._shown)
            return
        super().keyPressEvent(event)

    def _commit(self) -> None:
        if self.text() == self.text_of(self._shown):
            self._mark("")
            return
        try:
            value = self.value_of(self.text())
        except ValueError as error:
            self._mark(str(error))
            return
        self._mark("")
        if value == self._shown and type(value) is type(self._shown):
            self.show_value(value)
        else:
            self._shown = value
            self.committed.emit(value)

    def _mark(self, fault: str) -> None:
        is_marked = self.property("invalid") == "true"
        if is_marked != bool(fault):
            self.setProperty("invalid", "true" if fault else "false")
            self.style().unpolish(self)
            self.style().polish(self)
        if is_marked or fault:
            self.refused.emit(fault)
