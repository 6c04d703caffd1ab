"""The folders of the dataset: where each is, how often it is drawn, what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import Slot
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from aozora.config.fields import info_of
from aozora.config.sections import DataFolder
from aozora.errors import Problem
from gui import theme
from gui.document import Document
from gui.forms.controls import Card, TonedLabel, tool_button
from gui.forms.editors import NumberField
from gui.forms.path_field import PathField
from gui.forms.setting_row import sentence
from gui.forms.shapes import Shape, shape_of
from gui.icons import icon
from gui.pages.data_facts import CacheCounts, folder_words
from gui.words import counted, tr, whole

_PATH = "data.folders"
_REPEATS = Shape(f"{_PATH}.repeats", "int", info_of(DataFolder.__dataclass_fields__["repeats"]))


class FolderRow(QWidget):
    """One folder."""

    def __init__(self, owner: FolderList, number: int) -> None:
        super().__init__()
        self._owner = owner
        self._number = number
        info = replace(shape_of(_PATH).info, path="folder", label=tr("Folder with pictures"))
        self.path = PathField(Shape(_PATH, "path", info))
        self.path.line.setAccessibleName(tr("Folder {0}").format(number + 1))
        self.repeats = NumberField(_REPEATS)
        self.repeats.setFixedWidth(72)
        self.repeats.setAccessibleName(tr("Repeats of folder {0}").format(number + 1))
        for field in (self.path, self.repeats):
            field.setProperty("setting_path", _PATH)
            field.setProperty("setting_kind", "")
        remove = tool_button("trash", tr("Take this folder out"), token="muted")
        self._words = TonedLabel()
        self._words.setWordWrap(True)
        line = QHBoxLayout()
        line.setSpacing(theme.GAP_2)
        line.addWidget(self.path, 1)
        line.addWidget(self.repeats)
        line.addWidget(TonedLabel(tr("repeats")))
        line.addWidget(remove)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(line)
        column.addWidget(self._words)
        self.path.committed.connect(self._set_path)
        self.repeats.committed.connect(self._set_repeats)
        self.repeats.nudged.connect(self._set_repeats)
        self.repeats.refused.connect(self._refused)
        remove.clicked.connect(self._remove)

    def show_folder(self, folder: Any) -> None:
        """Show what the document holds."""
        values = folder if isinstance(folder, dict) else {}
        self.path.show_value(values.get("path", ""))
        self.repeats.show_value(values.get("repeats", 1))

    def show_words(self, text: str, problems: Sequence[Problem]) -> None:
        """Show what is in the folder, or what is wrong with it."""
        faults = "\n".join(map(sentence, problems))
        self._words.setText(faults or text)
        self._words.set_tone("error" if faults else "muted")
        self._words.setVisible(bool(faults or text))

    def _set_path(self, value: str) -> None:
        self._owner.change(self._number, "path", value)

    def _set_repeats(self, value: int) -> None:
        self._owner.change(self._number, "repeats", value)

    def _refused(self, fault: str) -> None:
        if fault:
            self._words.setText(fault[:1].upper() + fault[1:] + ".")
            self._words.set_tone("error")
            self._words.setVisible(True)

    def _remove(self) -> None:
        self._owner.remove(self._number)


class FolderList(Card):
    """All folders, and a button for another."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(tr("Folders"), parent=parent)
        self._document = document
        self.setProperty("setting_path", _PATH)
        self.rows: list[FolderRow] = []
        self._counts: list[tuple[int, int]] = []
        self._column = QVBoxLayout()
        self._column.setSpacing(theme.GAP_2)
        self.body.addLayout(self._column)
        self._empty = TonedLabel()
        self.body.addWidget(self._empty)
        self._cached: Sequence[CacheCounts] = ()
        self._whole = TonedLabel()
        self._whole.setWordWrap(True)
        self.body.addWidget(self._whole)
        self.show_cached((), "")
        buttons = QHBoxLayout()
        self.add_button = QPushButton(icon("plus"), " " + tr("Add folder…"))
        self.add_button.clicked.connect(self._ask)
        self.add_button.setProperty("setting_path", _PATH)
        self.add_button.setProperty("setting_kind", "")
        buttons.addWidget(self.add_button)
        buttons.addStretch(1)
        self.body.addLayout(buttons)
        document.changed.connect(self._follow)
        document.problems_changed.connect(self._tell)
        self._rebuild()

    def folders(self) -> list[Any]:
        """Return the folders in the document."""
        value = self._document.value(_PATH)
        return value if isinstance(value, list) else []

    def show_counts(self, counts: Sequence[tuple[int, int]]) -> None:
        """Show for each folder the number of pictures and of those without a caption."""
        self._counts = list(counts)
        self._tell()

    def show_cached(self, counts: Sequence[CacheCounts], words: str) -> None:
        """Show what of each folder is encoded, nothing while there are no counts, and of all."""
        self._cached = tuple(counts)
        self._whole.setText(words)
        self._whole.setVisible(bool(words))
        self._tell()

    def change(self, number: int, name: str, value: Any) -> None:
        """Change one value of one folder."""
        folders = self.folders()
        if number < len(folders) and isinstance(folders[number], dict):
            folders[number][name] = value
            self._document.set_values({_PATH: folders}, tr("folders"), may_merge=name == "repeats")

    def remove(self, number: int) -> None:
        """Take one folder out of the document; the folder itself is not touched."""
        folders = self.folders()
        del folders[number]
        self._document.set_values({_PATH: folders}, tr("remove folder"))

    def add_folder(self, path: Path) -> None:
        """Add a folder to the document."""
        folders = [*self.folders(), {"path": str(path)}]
        self._document.set_values({_PATH: folders}, tr("add folder"))

    @Slot()
    def _ask(self) -> None:
        name = QFileDialog.getExistingDirectory(self, tr("Add a folder with pictures"))
        if name:
            self.add_folder(Path(name))

    @Slot(object)
    def _follow(self, paths: frozenset[str]) -> None:
        if _PATH in paths:
            self._rebuild()

    def _rebuild(self) -> None:
        folders = self.folders()
        while len(self.rows) > len(folders):
            row = self.rows.pop()
            self._column.removeWidget(row)
            row.hide()
            row.deleteLater()
        while len(self.rows) < len(folders):
            row = FolderRow(self, len(self.rows))
            self.rows.append(row)
            self._column.addWidget(row)
        for row, folder in zip(self.rows, folders, strict=True):
            row.show_folder(folder)
        self._tell()

    @Slot()
    def _tell(self) -> None:
        problems = [p for p in self._document.problems() if p.path.startswith(_PATH)]
        own = [p for p in problems if p.path == _PATH]
        self._empty.setText("\n".join(map(sentence, own)))
        self._empty.set_tone("error")
        self._empty.setVisible(bool(own))
        for number, row in enumerate(self.rows):
            mine = [p for p in problems if p.path.startswith(f"{_PATH}[{number}]")]
            row.show_words(self._words(number), mine)

    def _words(self, number: int) -> str:
        folder = self.folders()[number]
        path = str(folder.get("path", "")) if isinstance(folder, dict) else ""
        if path and not Path(path).is_dir():
            return tr("There is no such folder now. It stays in the list.")
        if number >= len(self._counts):
            return ""
        count, without = self._counts[number]
        text = counted(count, tr("picture"), tr("pictures"))
        text += tr(", {0} without a caption").format(whole(without)) if without else ""
        if number < len(self._cached) and self._cached[number].pictures:
            text += "  ·  " + folder_words(self._cached[number])
        return text
