"""One field for each kind of value.

Every editor has ``show_value(value)``, the signal ``committed(value)`` and the signal
``refused(text)``, which says what is wrong with what was typed ('' when all is well again). It
commits on Enter or when the focus leaves it, never while typing; Escape brings the value back.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFocusEvent, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from gui import theme
from gui.forms.controls import DropDown, Switch
from gui.forms.line_field import LineField
from gui.forms.numbers import NumberKind, format_number, nudged, parse_number
from gui.forms.path_field import PathField
from gui.forms.shapes import Shape
from gui.words import tr

# Fields under each other are even where there is room.
_USUAL_WIDTH = 280


class TextField(LineField):
    """A text on one line."""

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        return QSize(_USUAL_WIDTH, theme.CONTROL_HEIGHT)


class NumberField(LineField):
    """A number; the arrow keys nudge it."""

    nudged = Signal(object)

    def __init__(self, shape: Shape, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shape = shape
        self._kind: NumberKind = "int" if shape.kind == "int" else "float"
        self.setFont(theme.number_font())
        self.setFixedWidth(140)

    def text_of(self, value: Any) -> str:
        """Return ``value`` as it stands in the field."""
        return format_number(value)

    def value_of(self, text: str) -> Any:
        """Return the value typed as ``text``."""
        return parse_number(text, self._kind, self._shape.info)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle a key."""
        ups = {Qt.Key.Key_Up.value: 1, Qt.Key.Key_Down.value: -1}.get(event.key())
        if ups is None:
            super().keyPressEvent(event)
            return
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            ups *= 10
        try:
            value = nudged(self.value_of(self.text()), self._kind, ups, self._shape.info)
        except ValueError as error:
            self._mark(str(error))
            return
        self.show_value(value)
        self.nudged.emit(value)


class SwitchField(Switch):
    """On or off."""

    committed = Signal(object)
    refused = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.clicked.connect(self._commit)

    def show_value(self, value: Any) -> None:
        """Show ``value``; what is neither counts as off."""
        self.setChecked(value is True)

    def _commit(self, is_on: bool) -> None:
        self.committed.emit(is_on)


class SetField(DropDown):
    """One of a closed set of values."""

    committed = Signal(object)
    refused = Signal(str)

    def __init__(self, shape: Shape, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._values = [value for value, _ in shape.values]
        for _, label in shape.values:
            self.addItem(tr(label))
        self.usual_width = _USUAL_WIDTH
        self.activated.connect(self._commit)

    def show_value(self, value: Any) -> None:
        """Show ``value``, also one that is not possible (until another is chosen)."""
        if isinstance(value, dict):
            value = value.get("kind")
        for index, candidate in enumerate(self._values):
            if candidate == value and type(candidate) is type(value):
                self.setCurrentIndex(index)
                return
        self.setCurrentIndex(-1)

    def _commit(self, index: int) -> None:
        self.committed.emit(self._values[index])


class ColourField(LineField):
    """A colour as #rrggbb with a patch of it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedWidth(140)
        self.setTextMargins(24, 0, 0, 0)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        super().paintEvent(event)
        colour = QColor(self.text())
        if not colour.isValid():
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(theme.colour("control"))
        painter.setBrush(colour)
        painter.drawRoundedRect(QRectF(8.5, (self.height() - 15) / 2, 15, 15), 3, 3)


class LinesField(QPlainTextEdit):
    """Several texts, one a line."""

    committed = Signal(object)
    refused = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(84)
        self.setTabChangesFocus(True)
        self.setFont(theme.mono_font())
        self.setPlaceholderText(self.tr("one a line"))
        self._shown: list[str] = []

    def show_value(self, value: Any) -> None:
        """Show the texts in ``value``."""
        self._shown = [str(item) for item in value] if isinstance(value, list) else []
        # What says the same stays: its cursor, and the empty line that the next text begins on.
        if self._texts() != self._shown:
            self.setPlainText("\n".join(self._shown))

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Commit."""
        super().focusOutEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self._commit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle a key."""
        if event.key() == Qt.Key.Key_Escape:
            self.show_value(self._shown)
            return
        is_enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if is_enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._commit()
            return
        super().keyPressEvent(event)

    def _commit(self) -> None:
        texts = self._texts()
        if texts != self._shown:
            self._shown = texts
            self.committed.emit(texts)

    def _texts(self) -> list[str]:
        return [line.strip() for line in self.toPlainText().splitlines() if line.strip()]


Editor = NumberField | PathField | SwitchField | SetField | ColourField | LinesField | LineField


def editor_for(shape: Shape) -> Editor:
    """Return a field for ``shape``.

    Raises:
        ValueError: if the setting has an editor of its own.
    """
    if shape.path == "data.background":
        return ColourField()
    match shape.kind:
        case "int" | "float":
            return NumberField(shape)
        case "path":
            return PathField(shape)
        case "switch":
            return SwitchField()
        case "set" | "choice":
            return SetField(shape)
        case "texts":
            return LinesField()
        case "text":
            return TextField()
        case "own":
            raise ValueError(f"{shape.path} has an editor of its own")


def line_of(editor: QWidget) -> QWidget:
    """Return the part of ``editor`` that takes the focus."""
    proxy = editor.focusProxy()
    return editor if proxy is None else proxy
