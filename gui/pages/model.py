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
from gui.shell.checker import EngineQuestion
from gui.shell.form_page import FormPage
from gui.words import size_text, tr, whole

_SETTLE_MS = 400
# Names of what `aozora inspect` tells, in the order they are shown in.
_FACTS = (
    ("kind", "Kind"),
    ("architecture", "Architecture"),
    ("prediction", "Prediction"),
    ("zero_terminal_snr", "Zero terminal SNR"),
    ("dtype", "Number format"),
    ("num_parameters", "Parameters"),
    ("num_tensors", "Tensors"),
    ("num_bytes", "Size"),
    ("title", "Title"),
    ("notes", "Notes"),
)


def fact_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what an inspection told as names and words."""
    rows = [(tr(label), _words(key, facts[key])) for key, label in _FACTS if _has(facts, key)]
    known = {key for key, _ in _FACTS}
    rows += [
        (key.replace("_", " ").capitalize(), _words(key, value))
        for key, value in facts.items()
        if key not in known and isinstance(value, str | int | float) and _has(facts, key)
    ]
    return [row for row in rows if len(row[1]) < 300]


def _has(facts: dict[str, Any], key: str) -> bool:
    return facts.get(key) not in (None, "", [], {}) and key != "path"


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
    return str(value)


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
            text = failure.replace("Error: ", "").replace("What to do: ", "")
            self._words.setText(text)
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
