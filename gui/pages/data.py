"""The Data page: folders, pictures with their captions, sizes, and how both are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from PySide6.QtCore import QTimer, Slot
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QWidget

from gui.document import Document
from gui.forms.controls import Card, TonedLabel
from gui.forms.settings_card import SettingsCard
from gui.forms.shapes import paths_in
from gui.pages.bucket_chart import BucketChart, buckets_of
from gui.pages.data_counter import DataCounter
from gui.pages.data_facts import counting_words, encoded_words
from gui.pages.folder_list import FolderList
from gui.pages.gallery import Gallery
from gui.pages.picture_model import PictureModel
from gui.pages.token_chart import TokenChart
from gui.shell.estimate import Estimate
from gui.shell.form_page import FORM_WIDTH, FormPage
from gui.words import tr

_SETTLE_MS = 250
_SCANNED = frozenset({"data.folders", "data.recursive"})


class Page(FormPage):
    """The Data page."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        purpose = tr("What the model learns from: pictures, their captions, and their sizes.")
        super().__init__(document, tr("Data"), purpose, parent, is_wide=True)
        self.model = PictureModel(self)
        self.folders = FolderList(document)
        self.gallery = Gallery(self.model)
        self.add(self.folders)
        self.add(self.gallery)
        self.add(self._bucket_card())
        self.add(self._length_card())
        for title, paths in (
            (tr("Reading pictures"), [p for p in paths_in("data") if p != "data.folders"]),
            (tr("Sizes"), paths_in("buckets")),
            (tr("Captions"), paths_in("captions")),
            (tr("Cache"), paths_in("cache")),
        ):
            card = SettingsCard(document, title, paths)
            card.setMaximumWidth(FORM_WIDTH)
            self.add(card)
        self.finish()
        self._is_stale = True
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._scan)
        self.counter = DataCounter(document, self)
        self.counter.changed.connect(self._show_facts)
        self.model.edited.connect(self.counter.forget)
        self.model.scanned.connect(self._count)
        document.changed.connect(self._follow)
        self._resize_marks()
        self._show_facts()

    def _bucket_card(self) -> Card:
        card = Card(tr("Training sizes"))
        self._bucket_words = TonedLabel()
        self._bucket_words.setWordWrap(True)
        self.buckets = BucketChart()
        card.body.addWidget(self._bucket_words)
        card.body.addWidget(self.buckets)
        self.show_estimate(None)
        return card

    def _length_card(self) -> Card:
        card = Card(tr("Caption lengths"))
        self._length_words = TonedLabel()
        self._length_words.setWordWrap(True)
        self.lengths = TokenChart()
        self.cut_button = QPushButton(tr("Show those that are cut"))
        self.cut_button.clicked.connect(self._show_cut)
        row = QHBoxLayout()
        row.addWidget(self.cut_button)
        row.addStretch(1)
        card.body.addWidget(self._length_words)
        card.body.addWidget(self.lengths)
        card.body.addLayout(row)
        return card

    @Slot()
    def _show_cut(self) -> None:
        self.gallery.show_only("cut")
        self.ensureWidgetVisible(self.gallery.filter, 0, 120)

    @Slot()
    def _show_facts(self) -> None:
        counter = self.counter
        facts = counter.facts
        self.model.show_facts(facts)
        words, tone = counting_words(facts, counter.counting, counter.failure)
        self._length_words.setText(words)
        self._length_words.set_tone(tone)
        lengths = facts.lengths() if facts is not None else []
        self.lengths.setVisible(bool(lengths))
        if facts is not None and lengths:
            self.lengths.show_lengths(lengths, facts.token_limit, facts.tokens_per_chunk)
        self.cut_button.setVisible(facts is not None and lengths[-1:] > [facts.token_limit])
        encoded = encoded_words(facts, counter.counting)
        self.folders.show_cached(facts.folders if facts is not None else (), encoded)

    def set_engine(self, *, is_checking: bool, is_running: bool) -> None:
        """Count only while the engine is free; see `DataCounter.set_engine`."""
        self.counter.set_engine(is_checking=is_checking, is_running=is_running)

    def show_estimate(self, estimate: Estimate | None) -> None:
        """Show the sizes the engine's check found."""
        rows = buckets_of(estimate.summary) if estimate is not None else []
        self.buckets.show_buckets(rows)
        self.buckets.setVisible(bool(rows))
        if rows:
            words = tr("As the engine will train them; cutting more than a tenth is marked.")
        else:
            words = tr("Shown once model and pictures are chosen and have been checked.")
        self._bucket_words.setText(words)

    def close_down(self) -> None:
        """Write what was typed and end what runs in the background."""
        self.gallery.detail.caption.commit()
        self._timer.stop()
        self.counter.stop()
        self.model.stop()

    @property
    def is_busy(self) -> bool:
        """Whether folders are still being read or counted."""
        return self.model.is_scanning or self._timer.isActive() or self.counter.is_busy

    def showEvent(self, event: QShowEvent) -> None:
        """Begin to work when first seen."""
        super().showEvent(event)
        if self._is_stale:
            self._timer.start(0)
        self.counter.set_seen(True)

    def hideEvent(self, event: QHideEvent) -> None:
        """Begin nothing more while unseen."""
        super().hideEvent(event)
        self.counter.set_seen(False)

    @Slot(object)
    def _follow(self, paths: frozenset[str]) -> None:
        if paths & _SCANNED:
            self._is_stale = True
            if self.isVisible():
                self._timer.start(_SETTLE_MS)
        if "buckets.resolution" in paths:
            self._resize_marks()

    @Slot()
    def _scan(self) -> None:
        self._is_stale = False
        # While its picture is still in the list.
        self.gallery.detail.caption.commit()
        paths = [_place_of(folder) for folder in self.folders.folders()]
        self.model.scan(paths, self.document.value("data.recursive") is True)

    def _resize_marks(self) -> None:
        resolution = self.document.value("buckets.resolution")
        self.gallery.set_resolution(resolution if isinstance(resolution, int) else 1024)

    @Slot()
    def _count(self) -> None:
        every = Counter(item.folder for item in self.model.items)
        without = Counter(i.folder for i in self.model.items if not i.has_caption)
        count = len(self.folders.rows)
        if not self.model.is_scanning:
            self.folders.show_counts([(every[n], without[n]) for n in range(count)])


def _place_of(folder: Any) -> Path | None:
    """Return where a folder of the settings is; None where nothing says so, as in an empty row."""
    path = folder.get("path") if isinstance(folder, dict) else None
    return Path(path) if isinstance(path, str) and path else None
