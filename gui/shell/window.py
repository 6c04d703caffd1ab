"""The main window: rail, bars, page and help, and what connects them."""

from __future__ import annotations

from collections import Counter

from PySide6.QtCore import QByteArray, Qt, Slot
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDropEvent,
    QKeySequence,
    QResizeEvent,
    QShortcut,
    QShowEvent,
)
from PySide6.QtWidgets import QApplication, QHBoxLayout, QMainWindow, QVBoxLayout, QWidget

from gui import theme
from gui.document import Document
from gui.engine.desktop import DesktopLink
from gui.engine.host import EngineHost
from gui.forms.controls import upright_rule
from gui.forms.settling import settle
from gui.preferences import PreferenceKeeper, Preferences
from gui.shell.checker import RunChecker
from gui.shell.compare import differences
from gui.shell.compare_dialog import CompareDialog
from gui.shell.dialogs import Dialogs, QtDialogs
from gui.shell.files import FileKeeper
from gui.shell.help_panel import HelpPanel
from gui.shell.intake import Intake
from gui.shell.notices import Notices
from gui.shell.page_links import PageLinks
from gui.shell.page_list import entries, page_of, page_specs
from gui.shell.page_stack import PageStack
from gui.shell.preflight import Preflight
from gui.shell.rail import Rail
from gui.shell.run_bar import RunBar
from gui.shell.run_desk import RunDesk
from gui.shell.search import Entry
from gui.shell.top_bar import TopBar

_NARROW_BELOW = 1100
_HELP_FROM = 1240
_THEMES: tuple[theme.ThemeSetting, ...] = ("dark", "light", "contrast")


class MainWindow(QMainWindow):
    """The window.

    Args:
        preferences: What is remembered of the user.
        document: The configuration; a new one if left out.
        host: The engine's host; one in the preferred mode if left out.
        dialogs: Who asks the questions; real dialogs if left out.
    """

    def __init__(
        self,
        preferences: PreferenceKeeper,
        *,
        document: Document | None = None,
        host: EngineHost | None = None,
        dialogs: Dialogs | None = None,
    ) -> None:
        super().__init__()
        self.preferences = preferences
        self.document = Document(self) if document is None else document
        mode = preferences.now.engine_host
        self.host = EngineHost(self, mode=mode) if host is None else host
        self.dialogs: Dialogs = QtDialogs(self) if dialogs is None else dialogs
        self.files = FileKeeper(self.document, preferences, self.dialogs, self, settle=self.settle)
        self.checker = RunChecker(self.document, self)
        self.desk = RunDesk(
            self.document,
            self.host,
            self.checker,
            preferences,
            self.dialogs,
            self,
            settle=self.settle,
        )
        self.top = TopBar(self.document, preferences, entries(), self)
        self.rail = Rail(page_specs())
        self.pages = PageStack(self.document, self.host, preferences)
        self.links = PageLinks(self)
        self.intake = Intake(self)
        self.notices = Notices(self)
        self.help = HelpPanel(self.document)
        self.bar = RunBar(self.host, self.checker)
        self.preflight = Preflight(self, self.desk, self.checker, self.host)
        self.desktop = DesktopLink(self.host, self)
        self._may_close = False
        self._wants_help = preferences.now.is_help_open
        self._lay_out()
        banners = (self.notices.about_session, self.notices.about_run)
        for part in (self.top, self.rail, *banners, self.help, self.bar, self.preflight):
            theme.follow(part)
        self._wire()
        self._add_shortcuts()
        self.setAcceptDrops(True)
        self.setMinimumSize(1024, 640)
        self.resize(1280, 800)
        geometry = QByteArray.fromHex(preferences.now.geometry.encode("ascii", "ignore"))
        self.restoreGeometry(geometry)
        self._show_title()
        self._show_problems()
        self._take_preferences(preferences.now)

    def _lay_out(self) -> None:
        middle = QVBoxLayout()
        middle.setSpacing(0)
        middle.addWidget(self.notices.about_session)
        middle.addWidget(self.notices.about_run)
        middle.addWidget(self.pages, 1)
        row = QHBoxLayout()
        row.setSpacing(0)
        row.addWidget(self.rail)
        row.addWidget(upright_rule())
        row.addLayout(middle, 1)
        self._help_rule = upright_rule()
        row.addWidget(self._help_rule)
        row.addWidget(self.help)
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.top)
        column.addLayout(row, 1)
        column.addWidget(self.bar)
        self.setCentralWidget(whole)

    def _wire(self) -> None:
        top, files, desk, bar = self.top, self.files, self.desk, self.bar
        top.new_asked.connect(files.new)
        top.open_asked.connect(files.ask_open)
        top.save_asked.connect(files.save)
        top.save_as_asked.connect(files.save_as)
        top.preset_asked.connect(self._show_start)
        top.compare_asked.connect(self.compare)
        top.theme_asked.connect(self.next_theme)
        top.help_asked.connect(self.toggle_help)
        top.search.chosen.connect(self._found)
        top.recent_chosen.connect(files.open)
        self.rail.chosen.connect(self.show_page)
        self.pages.shown.connect(self._page_shown)
        self.document.history_changed.connect(self._show_title)
        desk.problems_changed.connect(self._show_problems)
        desk.page_asked.connect(self.show_page)
        desk.over.connect(self._close_after_run)
        self.notices.title_changed.connect(self._show_title)
        self.preferences.changed.connect(self._take_preferences)
        bar.train_asked.connect(desk.train)
        bar.stop_asked.connect(desk.save_and_stop)
        bar.stop_now_asked.connect(desk.stop_now)
        bar.force_quit_asked.connect(desk.force_quit)
        bar.resume_last_asked.connect(desk.resume_last)
        bar.resume_file_asked.connect(self.ask_resume)
        bar.problems_asked.connect(self.preflight.toggle)
        self.preflight.go_asked.connect(self.go_to)
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.focusChanged.connect(self._focus_changed)
        app.styleHints().colorSchemeChanged.connect(self._follow_system)

    def _add_shortcuts(self) -> None:
        standard = QKeySequence.StandardKey
        for keys, slot in (
            (standard.Open, self.files.ask_open),
            (standard.Save, self.files.save),
            ("Ctrl+Shift+S", self.files.save_as),
            ("Ctrl+Z", self.document.undo),
            ("Ctrl+Y", self.document.redo),
            ("Ctrl+Shift+Z", self.document.redo),
            ("Ctrl+K", self._focus_search),
            ("F1", self.toggle_help),
            ("F5", self.desk.train),
            ("Shift+F5", self.desk.stop),
        ):
            QShortcut(QKeySequence(keys), self).activated.connect(slot)
        for number, spec in enumerate(page_specs()[:9], 1):
            shortcut = QShortcut(QKeySequence(f"Ctrl+{number}"), self)
            shortcut.setObjectName(spec.key)
            shortcut.activated.connect(self._page_shortcut)

    # Pages

    @Slot(str)
    def show_page(self, key: str) -> None:
        """Show the page called ``key``."""
        self.pages.show_page(key)

    @Slot(str)
    def go_to(self, path: str) -> bool:
        """Show the setting at ``path``; return whether it was found."""
        return self.pages.go_to(path)

    @Slot(str)
    def _page_shown(self, key: str) -> None:
        self.rail.show_page(key)
        self.preflight.hide()
        self.help.show_welcome()
        if self.preferences.now.page != key:
            self.preferences.change(page=key)

    @Slot()
    def _page_shortcut(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.show_page(sender.objectName())

    @Slot()
    def _show_start(self) -> None:
        self.show_page("start")

    @Slot(object)
    def _found(self, entry: Entry) -> None:
        if not entry.path:
            self.show_page(entry.page)
            return
        self.pages.go_to(entry.path)
        self.help.show_setting(entry.path, entry.kind)

    @Slot()
    def _focus_search(self) -> None:
        self.top.search.setFocus(Qt.FocusReason.ShortcutFocusReason)

    # Help, theme, size

    @Slot(QWidget, QWidget)
    def _focus_changed(self, old: QWidget | None, new: QWidget | None) -> None:
        widget = new
        while widget is not None and widget is not self:
            path = widget.property("setting_path")
            kind = widget.property("setting_kind")
            if path and kind is not None:
                self.help.show_setting(str(path), str(kind))
                return
            if path and not isinstance(widget.parent(), QWidget):
                return
            widget = widget.parentWidget()

    @Slot()
    def toggle_help(self) -> None:
        """Show or hide the help panel."""
        self._wants_help = not self.help.isVisible()
        self._show_help(self._wants_help)
        self.preferences.change(is_help_open=self._wants_help)

    def _show_help(self, is_shown: bool) -> None:
        self.help.setVisible(is_shown)
        self._help_rule.setVisible(is_shown)

    @Slot()
    def next_theme(self) -> None:
        """Show the next of the themes."""
        now = _THEMES.index(theme.tokens().name)
        self.preferences.change(theme=_THEMES[(now + 1) % len(_THEMES)])

    @Slot(object)
    def _take_preferences(self, preferences: Preferences) -> None:
        self.desktop.set_wishes(keeps_awake=preferences.keeps_awake, notifies=preferences.notifies)
        wanted = theme.resolved(preferences.theme)
        if wanted != theme.tokens().name:
            app = QApplication.instance()
            assert isinstance(app, QApplication)
            theme.apply(app, wanted)

    @Slot()
    def _follow_system(self) -> None:
        self._take_preferences(self.preferences.now)

    def showEvent(self, event: QShowEvent) -> None:
        """Put the focus where it does nothing until Tab is pressed."""
        super().showEvent(event)
        if self.focusWidget() is None or self.focusWidget() is self.top.search:
            self.pages.setFocus()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fit the new size."""
        super().resizeEvent(event)
        self.rail.show_narrow(self.width() < _NARROW_BELOW)
        self._show_help(self._wants_help and self.width() >= _HELP_FROM)
        self.preflight.place()

    # Document and run

    def settle(self) -> None:
        """Let the document hold what is being typed, for keys and buttons that take no focus."""
        settle(self)

    @Slot()
    def _show_title(self) -> None:
        mark = "*" if self.document.is_dirty else ""
        run = f"{self.notices.run_words} - " if self.notices.run_words else ""
        self.setWindowTitle(f"{run}{self.document.origin.name}{mark} - Aozora")

    @Slot()
    def compare(self) -> None:
        """Show what differs from the preset or file."""
        rows = differences(self.document.reference(), self.document.overlay())
        dialog = CompareDialog(rows, self.document.origin.name, self)
        dialog.exec()
        if dialog.wanted:
            self.go_to(dialog.wanted)

    @Slot()
    def _show_problems(self) -> None:
        self.rail.show_problems(Counter(page_of(p.path) for p in self.desk.problems() if p.path))

    @Slot()
    def ask_resume(self) -> None:
        """Ask for a state file and resume from it."""
        start = str(self.document.value("output.folder"))
        path = self.dialogs.state_path(start)
        if path is not None:
            self.links.resume_from(path)

    # Files from outside, and the end

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take what fits."""
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Take what was dropped."""
        event.acceptProposedAction()
        self.intake.take_urls(event.mimeData())

    def closeEvent(self, event: QCloseEvent) -> None:
        """Ask before anything is lost."""
        if not self._may_close:
            self.settle()
            if not (self.desk.closes() and self.files.may_leave()):
                event.ignore()
                return
        geometry = bytes(self.saveGeometry().toHex().data()).decode("ascii")
        self.preferences.change(geometry=geometry)
        self.files.close()
        self.checker.stop()
        self.pages.close_down()
        super().closeEvent(event)

    @Slot()
    def _close_after_run(self) -> None:
        if self.files.may_leave():
            self.close_unasked()

    def close_unasked(self) -> None:
        """Close, whatever is not saved."""
        self._may_close = True
        self.close()
