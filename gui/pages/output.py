"""The Output and samples page: what is written, when, and what is measured on the way."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from gui.document import Document
from gui.forms.settings_card import SettingsCard
from gui.forms.shapes import shapes
from gui.shell.form_page import FormPage
from gui.shell.page_list import page_of
from gui.words import tr

_TITLES = {
    "output": "Where results go",
    "checkpoints": "Saving",
    "preview": "Sample pictures",
    "validation": "Validation loss",
    "ema": "Averaged weights",
    "logging": "Records",
}


class Page(FormPage):
    """The Output and samples page; sections that no other page has are here too."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        purpose = tr("Where results go, when they are saved, and what is measured on the way.")
        super().__init__(document, tr("Output and samples"), purpose, parent)
        here = [s for s in shapes() if page_of(s.path) == "output" and not s.of_kind]
        editable = [shape for shape in here if shape.kind != "own"]
        known = {shape.path.split(".")[0] for shape in editable}
        sections = [name for name in _TITLES if name in known]
        sections += sorted(known - set(sections))
        for section in sections:
            title = tr(_TITLES.get(section, section.replace("_", " ").capitalize()))
            paths = [s.path for s in editable if s.path.split(".")[0] == section]
            self.add(SettingsCard(document, title, paths))
        self.finish()
