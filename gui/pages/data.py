"""The Data page (folders and bucket settings)."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from gui.document import Document
from gui.forms.settings_card import SettingsCard
from gui.forms.shapes import paths_in
from gui.shell.form_page import FormPage
from gui.words import tr


class Page(FormPage):
    """The Data page."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(document, tr("Data"), tr("Pictures and captions."), parent)
        paths = [p for p in paths_in("data", "buckets", "captions", "cache") if p != "data.folders"]
        self.add(SettingsCard(document, tr("Pictures"), paths))
        self.finish()
