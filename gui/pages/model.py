"""The Model page: what is trained, and towards what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QTimer, Slot
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from gui import theme
from gui.document import Document
from gui.forms.controls import Card, TonedLabel
from gui.forms.settings_card import SettingsCard
from gui.forms.shapes import paths_in
from gui.shell.checker import EngineQuestion, plain_failure
from gui.shell.form_page import FormPage
from gui.words import size_text, tr, whole

_SETTLE_MS = 400
# What an inspection tells, as far as the window has its own words for it or leaves it out.
_LABELS = {
    "zero_terminal_snr": "Zero terminal SNR",
    "unet": "UNet",
    "vae": "VAE",
    "num_bytes": "Size",
    "modelspec.title": "Title in the file",
    "modelspec.prediction_type": "Prediction in the file",
}
_VALUES = {
    "single_file": "one file",
    "diffusers": "a diffusers folder",
    "modelspec": "what the file says of itself",
}
_LEFT_OUT = frozenset({"path", "file", "notes"})


def fact_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what an inspection told as names and words."""
    rows = []
    for key, value in facts.items():
        name = key.lower().replace(" ", "_")
        if name in _LEFT_OUT or value in (None, "", [], {}):
            continue
        label = key.replace("_", " ").replace("clip-", "CLIP-")
        label = _LABELS.get(name, label[:1].upper() + label[1:])
        rows.append((tr(label), _words(key, value)))
    return rows


def _words(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if key.endswith("bytes") and isinstance(value, int | float):
        return size_text(value)
    if isinstance(value, int):
        return whole(value)
    if isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(name, item)}" for name, item in value.items())
    return tr(_VALUES.get(str(value), str(value)))


class ModelFacts(Card):
    """What the chosen base model is, asked of the engine in a child process."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(tr("This model"), parent=parent)
        self._document = document
        self._asked = ""
        self._words = TonedLabel()
        self._words.setWordWrap(True)
        self.body.addWidget(self._words)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(theme.GAP_5)
        self._grid.setVerticalSpacing(theme.GAP_1)
        self._grid.setColumnStretch(1, 1)
        self.body.addLayout(self._grid)
        self._question = EngineQuestion(self)
        self._question.answered.connect(self._show)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._ask)
        document.changed.connect(self._follow)
        self._wait()

    @property
    def is_busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._timer.isActive() or self._question.is_asking

    def close_down(self) -> None:
        """Ask no more."""
        self._timer.stop()
        self._question.drop()

    @Slot(object)
    def _follow(self, paths: frozenset[str]) -> None:
        if "model.base" in paths:
            self._wait()

    def _wait(self) -> None:
        self._clear()
        self._question.drop()
        self._asked = str(self._document.value("model.base"))
        if not self._asked:
            self._words.setText(tr("Choose a base model and what it is will stand here."))
        elif not Path(self._asked).exists():
            self._words.setText(tr("There is no such file or folder."))
        else:
            self._words.setText(tr("Reading…"))
            self._timer.start()
            return
        self._timer.stop()

    @Slot()
    def _ask(self) -> None:
        self._question.ask(["inspect", self._asked, "--json"])

    @Slot(object, str)
    def _show(self, facts: Any, failure: str) -> None:
        if not isinstance(facts, dict):
            self._words.setText(plain_failure(failure))
            self._words.set_tone("warn")
            return
        self._words.set_tone("muted")
        self._words.setText("")
        for row, (name, value) in enumerate(fact_rows(facts)):
            words = QLabel(value)
            words.setWordWrap(True)
            words.setFont(theme.number_font())
            self._grid.addWidget(TonedLabel(name), row, 0)
            self._grid.addWidget(words, row, 1)
        self._words.setVisible(False)

    def _clear(self) -> None:
        self._words.setVisible(True)
        self._words.set_tone("muted")
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()


class Page(FormPage):
    """The Model page."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        purpose = tr("What is trained, and what it learns to predict.")
        super().__init__(document, tr("Model"), purpose, parent)
        self.add(SettingsCard(document, tr("Files"), paths_in("model")))
        self.facts = ModelFacts(document)
        self.add(self.facts)
        self.add(SettingsCard(document, tr("Objective"), paths_in("objective", "loss")))
        self.finish()

    @property
    def is_busy(self) -> bool:
        """Whether the model is still being read."""
        return self.facts.is_busy

    def close_down(self) -> None:
        """End what runs in the background."""
        self.facts.close_down()
