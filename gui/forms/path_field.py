"""The field for a file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QToolButton, QWidget

from gui import theme
from gui.forms.controls import tool_button
from gui.forms.line_field import LineField
from gui.forms.shapes import Shape


def plain_path(text: str) -> str:
    """Return the path in ``text`` without blanks around it and the quotes that Explorer copies."""
    text = text.strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if is_quoted else text


class _PathLine(LineField):
    def value_of(self, text: str) -> str:
        return plain_path(text)


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
        self.line = _PathLine()
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
            return self.tr("drop a file or folder here")
        if self._takes_file:
            return self.tr("drop a file here")
        return self.tr("drop a folder here")

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
