"""A list of ready-made shapes and their numbers: preview while choosing, one step on Apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QPushButton, QWidget

from gui.editors.numbers import parse_number
from gui.forms.controls import DropDown, TonedLabel
from gui.theme import CONTROL_HEIGHT


@dataclass(frozen=True)
class PresetNumber:
    """One number of a shape.

    Attributes:
        key: Its name for the caller.
        label: Its name for the user.
        text: What the field begins with.
        low: Smallest value.
        high: Largest value.
        unit: Shown after the field.
        whole: Whether only whole numbers make sense.
        help: What it does.
    """

    key: str
    label: str
    text: str
    low: float
    high: float
    unit: str = ""
    whole: bool = False
    help: str = ""


@dataclass(frozen=True)
class PresetEntry:
    """One shape of the strip, by key and label, with its numbers."""

    key: str
    label: str
    numbers: tuple[PresetNumber, ...] = ()


class PresetStrip(QWidget):
    """The numbers of the shape chosen in `box`, hidden while none is chosen.

    The box is no part of the strip, so that it can stand in a bar of its own.

    Signals:
        previewed: Key and numbers of what is chosen but not applied; an empty key ends it.
        applied: Key and numbers to take.
    """

    previewed = Signal(str, object)
    applied = Signal(str, object)

    def __init__(self, prompt: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: tuple[PresetEntry, ...] = ()
        self._typed: dict[str, str] = {}
        self._fields: dict[str, QLineEdit] = {}
        self._prompt = prompt
        self.box = DropDown()
        self.box.setAccessibleName(prompt)
        self.box.currentIndexChanged.connect(self._chosen)
        self._numbers = QHBoxLayout()
        self._numbers.setSpacing(8)
        self.apply_button = QPushButton(self.tr("Apply"))
        self.apply_button.clicked.connect(self._apply)
        self.cancel_button = QPushButton(self.tr("Cancel"))
        self.cancel_button.clicked.connect(self.end_preview)
        self.fault = TonedLabel("", "error")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addLayout(self._numbers)
        layout.addWidget(self.apply_button)
        layout.addWidget(self.cancel_button)
        layout.addWidget(self.fault)
        layout.addStretch(1)
        self._set_active(active=False)

    def set_entries(self, entries: Sequence[PresetEntry]) -> None:
        """Offer ``entries``."""
        self._entries = tuple(entries)
        self.box.blockSignals(True)
        self.box.clear()
        self.box.addItem(self._prompt)
        self.box.addItems([entry.label for entry in entries])
        self.box.blockSignals(False)
        self._chosen(0)

    def set_number(self, key: str, text: str) -> None:
        """Let the number ``key`` begin with ``text`` from now on."""
        self._typed[key] = text

    def choose(self, key: str) -> None:
        """Choose the shape ``key`` for a preview."""
        keys = [entry.key for entry in self._entries]
        self.box.setCurrentIndex(keys.index(key) + 1)

    def field(self, key: str) -> QLineEdit:
        """Return the field of the number ``key`` of the chosen shape."""
        return self._fields[key]

    def end_preview(self) -> None:
        """Go back to offering shapes."""
        self.box.setCurrentIndex(0)

    def _entry(self) -> PresetEntry | None:
        index = self.box.currentIndex()
        return self._entries[index - 1] if index > 0 else None

    def _chosen(self, index: int) -> None:
        self._clear_numbers()
        entry = self._entry()
        self._set_active(active=entry is not None)
        if entry is None:
            self.previewed.emit("", {})
            return
        for number in entry.numbers:
            self._add_number(number)
        self._preview()

    def _clear_numbers(self) -> None:
        self._fields = {}
        while self._numbers.count():
            item = self._numbers.takeAt(0)
            widget = item.widget() if item else None
            if widget is not None:
                widget.hide()
                widget.deleteLater()

    def _add_number(self, number: PresetNumber) -> None:
        title = QLabel(number.label)
        field = QLineEdit(self._typed.get(number.key, number.text))
        field.setFixedSize(74, CONTROL_HEIGHT)
        field.setToolTip(number.help)
        field.setAccessibleName(number.label)
        field.editingFinished.connect(self._preview)
        title.setBuddy(field)
        self._numbers.addWidget(title)
        self._numbers.addWidget(field)
        if number.unit:
            self._numbers.addWidget(QLabel(number.unit))
        self._fields[number.key] = field

    def _set_active(self, *, active: bool) -> None:
        self.setVisible(active)
        self.fault.clear()

    def _values(self) -> dict[str, float] | None:
        entry = self._entry()
        if entry is None:
            return None
        values = {}
        for number in entry.numbers:
            try:
                value = parse_number(self._fields[number.key].text())
            except ValueError as error:
                self.say(f"{number.label}: {error}")
                return None
            if not number.low <= value <= number.high:
                self.say(f"{number.label}: {number.low:g} \u2013 {number.high:g}")
                return None
            if number.whole and value != round(value):
                self.say(self.tr("{}: a whole number").format(number.label))
                return None
            values[number.key] = value
            self._typed[number.key] = self._fields[number.key].text()
        self.say("")
        return values

    def say(self, fault: str) -> None:
        """Show what is wrong with the numbers; nothing can be applied meanwhile."""
        self.fault.setText(fault)
        self.apply_button.setEnabled(not fault)

    def _preview(self) -> None:
        entry, values = self._entry(), self._values()
        if entry is not None and values is not None:
            self.previewed.emit(entry.key, values)

    def _apply(self) -> None:
        entry, values = self._entry(), self._values()
        if entry is None or values is None:
            return
        self.applied.emit(entry.key, values)
        self.end_preview()
