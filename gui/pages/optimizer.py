"""The Optimizer and memory page: how weights move, and where everything lives meanwhile."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from gui.document import Document
from gui.forms.settings_card import SettingsCard
from gui.forms.shapes import paths_in
from gui.pages.memory_card import MemoryCard
from gui.shell.estimate import Estimate
from gui.shell.form_page import FormPage
from gui.shell.page_list import LENGTH_SETTINGS
from gui.words import tr


class Page(FormPage):
    """The Optimizer and memory page."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        purpose = tr("How gradients move the weights, in which batches, and what memory it takes.")
        super().__init__(document, tr("Optimizer and memory"), purpose, parent)
        batches = [path for path in paths_in("training") if path not in LENGTH_SETTINGS]
        self.add(SettingsCard(document, tr("Optimizer"), paths_in("optimizer")))
        self.add(SettingsCard(document, tr("Batches and numbers"), batches))
        self.add(
            SettingsCard(
                document,
                tr("Memory"),
                paths_in("memory"),
                remark=tr(
                    "What fits is found out by itself; a limit is only needed to leave room."
                ),
            )
        )
        self._takes = MemoryCard()
        self.add(self._takes)
        self.finish()

    def show_estimate(self, estimate: Estimate | None) -> None:
        """Show what memory the run would take."""
        self._takes.show_estimate(estimate)
