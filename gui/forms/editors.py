"""One field for each kind of value.

Every editor has ``show_value(value)``, the signal ``committed(value)`` and the signal
``refused(text)``, which says what is wrong with what was typed ('' when all is well again). It
commits on Enter or when the focus leaves it, never while typing; Escape brings the value back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QEvent, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QDragEnterEvent,
    QDropEvent,
    QFocusEvent,
    QKeyEvent,
    QKeySequence,
    QPainter,
    QPaintEvent,
)
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QToolButton,
    QWidget,
)

from gui import theme
from gui.forms.controls import DropDown, Switch, tool_button
from gui.forms.numbers import NumberKind, format_number, nudged, parse_number
from gui.forms.shapes import Shape


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


class PathField(QWidget):
    """A file or folder: typed, chosen, or dropped."""

    committed = Signal(object)
    refused = Signal(str)

    def __init__(self, shape: Shape, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._kind = shape.info.path
        self._label = shape.info.label
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(theme.GAP_1)
        self.line = LineField()
        self.line.setPlaceholderText(self._placeholder())
        self.line.committed.connect(self.committed.emit)
        self.line.refused.connect(self.refused.emit)
        self.browse = tool_button("folder", self.tr("Choose…"))
        self.browse.clicked.connect(self._browse)
        if self._takes_file and self._takes_folder:
            menu = QMenu(self.browse)
            menu.addAction(self.tr("File…"), self._browse_file)
            menu.addAction(self.tr("Folder…"), self._browse_folder)
            self.browse.setMenu(menu)
            self.browse.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        row.addWidget(self.line, 1)
        row.addWidget(self.browse)
        self.setFocusProxy(self.line)
        self.line.setAcceptDrops(False)
        self.setAcceptDrops(True)

    @property
    def _takes_file(self) -> bool:
        return self._kind in ("file", "model", "file_or_folder")

    @property
    def _takes_folder(self) -> bool:
        return self._kind in ("folder", "model", "file_or_folder")

    def _placeholder(self) -> str:
        if self._takes_file and self._takes_folder:
            return self.tr("drop a file or folder here, or choose it")
        if self._takes_file:
            return self.tr("drop a file here, or choose it")
        return self.tr("drop a folder here, or choose it")

    def show_value(self, value: Any) -> None:
        """Show the path ``value``."""
        self.line.show_value(value)
        self.line.setToolTip(str(value))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take what fits."""
        if self._dropped(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Take what was dropped."""
        path = self._dropped(event)
        if path is not None:
            event.acceptProposedAction()
            self.committed.emit(str(path))

    def _dropped(self, event: QDropEvent) -> Path | None:
        urls = event.mimeData().urls()
        if len(urls) != 1 or not urls[0].isLocalFile():
            return None
        path = Path(urls[0].toLocalFile())
        fits = self._takes_folder if path.is_dir() else self._takes_file and path.is_file()
        return path if fits else None

    def _start(self) -> str:
        text = self.line.text()
        return str(Path(text).parent) if text else ""

    def _browse(self) -> None:
        if self._takes_file:
            self._browse_file()
        else:
            self._browse_folder()

    def _browse_file(self) -> None:
        pattern = self.tr("Models (*.safetensors);;All files (*)")
        title = self.tr("Choose: {0}").format(self._label)
        chosen, _ = QFileDialog.getOpenFileName(self, title, self._start(), pattern)
        self._take(chosen)

    def _browse_folder(self) -> None:
        title = self.tr("Choose: {0}").format(self._label)
        self._take(QFileDialog.getExistingDirectory(self, title, self.line.text()))

    def _take(self, chosen: str) -> None:
        if chosen and chosen != self.line.text():
            self.committed.emit(str(Path(chosen)))


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
            self.addItem(label)
        self.usual_width = 260
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
        texts = [line.strip() for line in self.toPlainText().splitlines() if line.strip()]
        if texts != self._shown:
            self._shown = texts
            self.committed.emit(texts)


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
            field = LineField()
            field.setMaximumWidth(300)
            return field
        case "own":
            raise ValueError(f"{shape.path} has an editor of its own")


def line_of(editor: QWidget) -> QWidget:
    """Return the part of ``editor`` that takes the focus."""
    proxy = editor.focusProxy()
    return editor if proxy is None else proxy
