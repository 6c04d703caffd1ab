"""The pages, each made when it is first wanted."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QStackedWidget, QWidget

from gui import theme
from gui.document import Document
from gui.engine.host import EngineHost
from gui.forms.editors import line_of
from gui.forms.setting_row import SettingRow
from gui.forms.settings_card import SettingsCard
from gui.preferences import PreferenceKeeper
from gui.shell.banner import Flash
from gui.shell.form_page import FormPage
from gui.shell.page_list import LENGTH_SETTINGS, PageSpec, page_of, spec_of


class PageStack(QStackedWidget):
    """Shows one page at a time.

    Signals:
        made: A page was made; carries its key and the widget.
        shown: Another page is shown; carries its key.
    """

    made = Signal(str, object)
    shown = Signal(str)

    def __init__(
        self,
        document: Document,
        host: EngineHost,
        preferences: PreferenceKeeper,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._document = document
        self._host = host
        self._preferences = preferences
        self._pages: dict[str, QWidget] = {}
        self.current = ""

    def page(self, key: str) -> QWidget:
        """Return the page called ``key``, made now if it was not before."""
        if key not in self._pages:
            self._make(spec_of(key))
        return self._pages[key]

    def has(self, key: str) -> bool:
        """Return whether the page called ``key`` is made already."""
        return key in self._pages

    def show_page(self, key: str) -> None:
        """Show the page called ``key``."""
        self.page(key)
        self.setCurrentWidget(self._pages[key])
        if key != self.current:
            self.current = key
            self.shown.emit(key)

    def go_to(self, path: str) -> bool:
        """Show the setting at ``path`` and put the focus there; return whether it was found."""
        key = page_of(path)
        self.show_page(key)
        target = self._target(key, path.split("[")[0])
        if target is None:
            return False
        row = target if not isinstance(target, SettingRow) else target.editor
        line_of(row).setFocus(Qt.FocusReason.ShortcutFocusReason)
        Flash(target)
        return True

    def close_down(self) -> None:
        """Let pages end what they do in the background; for the end of the window."""
        for page in self._pages.values():
            close = getattr(page, "close_down", None)
            if callable(close):
                close()

    def _target(self, key: str, path: str) -> QWidget | None:
        page = self._pages[key]
        reveal = getattr(self._pages[key], "reveal", None)
        found = reveal(path) if callable(reveal) else None
        while found is None and path:
            for card in page.findChildren(SettingsCard):
                found = found or card.reveal(path)
            if found is None:
                found = _marked(page, path)
            path = path.rpartition(".")[0]
        return found if isinstance(found, QWidget) else None

    def _make(self, spec: PageSpec) -> None:
        page = self._built(spec)
        if spec.key == "schedule" and isinstance(page, FormPage):
            # The length belongs to the run, yet nowhere it is thought of more than here.
            title = self.tr("Length of the run")
            page.column.insertWidget(1, SettingsCard(self._document, title, LENGTH_SETTINGS))
        self._pages[spec.key] = page
        self.addWidget(page)
        theme.follow(page)
        self.made.emit(spec.key, page)

    def _built(self, spec: PageSpec) -> QWidget:
        if spec.key == "preferences":
            return spec.make(self._preferences, self)
        if spec.group == "monitor":
            return spec.make(self._document, self._host, self)
        return spec.make(self._document, self)


def _marked(page: QWidget, path: str) -> QWidget | None:
    for widget in page.findChildren(QWidget):
        if widget.property("setting_path") == path:
            return widget
    return None
