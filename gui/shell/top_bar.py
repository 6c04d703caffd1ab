"""The bar at the top: which document, saving, undo, search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtGui import QAction, QPalette
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.document import Document
from gui.forms.controls import rule, tool_button
from gui.icons import icon
from gui.preferences import PreferenceKeeper
from gui.shell.search import Entry
from gui.shell.search_box import SearchBox


def _divider() -> QFrame:
    line = QFrame()
    line.setFixedSize(1, 20)
    line.setAutoFillBackground(True)
    line.setBackgroundRole(QPalette.ColorRole.Mid)
    return line


class TopBar(QWidget):
    """Buttons for the document.

    Signals:
        new_asked, open_asked, save_asked, save_as_asked, preset_asked, compare_asked: The user
            wants it.
        recent_chosen: The path of a recent file.
        theme_asked: The next theme is wanted.
        help_asked: The help panel is to be shown or hidden.
    """

    new_asked = Signal()
    open_asked = Signal()
    save_asked = Signal()
    save_as_asked = Signal()
    preset_asked = Signal()
    compare_asked = Signal()
    recent_chosen = Signal(object)
    theme_asked = Signal()
    help_asked = Signal()

    def __init__(
        self,
        document: Document,
        preferences: PreferenceKeeper,
        entries: Sequence[Entry],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._preferences = preferences
        self._document = document
        self.setFixedHeight(49)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        # In a widget of its own: a layout of low controls would not fill the height of the bar.
        line = QWidget()
        bar = QHBoxLayout(line)
        bar.setContentsMargins(theme.GAP_3, 0, theme.GAP_3, 0)
        bar.setSpacing(theme.GAP_1)
        whole.addWidget(line, 1)
        whole.addWidget(rule())
        self.name = QPushButton()
        self.name.setIcon(icon("down", "muted"))
        self.name.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
        self.name.setAccessibleName(self.tr("Configuration"))
        self.name.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.name.setMaximumWidth(260)
        self.menu = QMenu(self)
        self.menu.setLayoutDirection(Qt.LayoutDirection.LeftToRight)
        self.name.setMenu(self.menu)
        self.recent = QMenu(self.tr("Recent files"), self)
        self.recent.setToolTipsVisible(True)
        self.recent.aboutToShow.connect(self._fill_recent)
        self._fill_menu()
        self.save = self._button("save", self.tr("Save (Ctrl+S)"))
        self.undo = self._button("undo", self.tr("Undo"))
        self.redo = self._button("redo", self.tr("Redo"))
        self.search = SearchBox(entries, self)
        self.compare = self._button("compare", self.tr("Compare with the preset or file"))
        self.theme = self._button("theme", self.tr("Dark, light or high contrast"))
        self.help = self._button("help", self.tr("Help panel (F1)"))
        for widget in (self.name, self.save, _divider(), self.undo, self.redo, _divider()):
            bar.addWidget(widget)
            bar.addSpacing(2)
        bar.addWidget(self.search, 1)
        bar.addStretch(1)
        for button in (self.compare, self.theme, self.help):
            bar.addWidget(button)
        self.save.clicked.connect(self.save_asked)
        self.undo.clicked.connect(document.undo)
        self.redo.clicked.connect(document.redo)
        self.compare.clicked.connect(self.compare_asked)
        self.theme.clicked.connect(self.theme_asked)
        self.help.clicked.connect(self.help_asked)
        document.history_changed.connect(self.refresh)
        self.refresh()

    def _button(self, name: str, text: str) -> QToolButton:
        button = tool_button(name, text)
        button.setFixedSize(32, 32)
        return button

    def _fill_menu(self) -> None:
        self.menu.addAction(icon("file"), self.tr("New"), self.new_asked.emit)
        self.menu.addAction(icon("open"), self.tr("Open…\tCtrl+O"), self.open_asked.emit)
        self.menu.addMenu(self.recent)
        self.menu.addAction(icon("wand"), self.tr("Presets…"), self.preset_asked.emit)
        self.menu.addSeparator()
        self.menu.addAction(icon("save"), self.tr("Save\tCtrl+S"), self.save_asked.emit)
        save_as = self.tr("Save as…\tCtrl+Shift+S")
        self.menu.addAction(icon("save"), save_as, self.save_as_asked.emit)

    @Slot()
    def _fill_recent(self) -> None:
        self.recent.clear()
        for name in self._preferences.now.recent:
            action = self.recent.addAction(Path(name).stem)
            action.setToolTip(name)
            action.setData(name)
            action.triggered.connect(self._choose_recent)
        if not self._preferences.now.recent:
            self.recent.addAction(self.tr("none yet")).setEnabled(False)

    @Slot()
    def _choose_recent(self) -> None:
        action = self.sender()
        assert isinstance(action, QAction)
        self.recent_chosen.emit(Path(str(action.data())))

    def refresh(self) -> None:
        """Show name, unsaved mark and what can be undone."""
        document = self._document
        mark = "*" if document.is_dirty else ""
        name = self.name.fontMetrics().elidedText(
            document.origin.name, Qt.TextElideMode.ElideMiddle, 190
        )
        self.name.setText(f"{name}{mark}")
        origin = document.origin
        self.name.setToolTip(str(origin.path) if origin.path else self.tr("not saved yet"))
        self.undo.setEnabled(bool(document.undo_title))
        self.redo.setEnabled(bool(document.redo_title))
        undo = self.tr("Undo {0} (Ctrl+Z)").format(document.undo_title)
        redo = self.tr("Redo {0} (Ctrl+Y)").format(document.redo_title)
        self.undo.setToolTip(undo if document.undo_title else self.tr("Nothing to undo"))
        self.redo.setToolTip(redo if document.redo_title else self.tr("Nothing to redo"))
