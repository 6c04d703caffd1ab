"""The Preferences page: what the program remembers of its user, not of a configuration."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from gui import theme
from gui.document import Document
from gui.forms.controls import Card, DropDown, Switch, TonedLabel
from gui.forms.setting_row import LABEL_WIDTH
from gui.preferences import PreferenceKeeper, Preferences
from gui.shell.form_page import FormPage
from gui.words import tr


class _Choice(DropDown):
    """A preference with a few possible values."""

    def __init__(self, keeper: PreferenceKeeper, name: str, values: list[tuple[Any, str]]) -> None:
        super().__init__()
        self._keeper = keeper
        self._name = name
        self._values = [value for value, _ in values]
        for _, label in values:
            self.addItem(label)
        self.usual_width = 280
        self.activated.connect(self._take)
        keeper.changed.connect(self._show)
        self._show(keeper.now)

    def _show(self, preferences: Preferences) -> None:
        value = getattr(preferences, self._name)
        index = self._values.index(value) if value in self._values else -1
        self.setCurrentIndex(index)

    def _take(self, index: int) -> None:
        self._keeper.change(**{self._name: self._values[index]})


class _Flag(Switch):
    """A preference that is on or off."""

    def __init__(self, keeper: PreferenceKeeper, name: str) -> None:
        super().__init__()
        self._keeper = keeper
        self._name = name
        self.clicked.connect(self._take)
        keeper.changed.connect(self._show)
        self._show(keeper.now)

    def _show(self, preferences: Preferences) -> None:
        self.setChecked(bool(getattr(preferences, self._name)))

    def _take(self, is_on: bool) -> None:
        self._keeper.change(**{self._name: is_on})


def _row(label: str, field: QWidget, remark: str) -> QWidget:
    row = QWidget()
    column = QVBoxLayout(row)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(2)
    line = QHBoxLayout()
    line.setSpacing(theme.GAP_2)
    name = TonedLabel(label, "text")
    name.setFixedWidth(LABEL_WIDTH)
    name.setMinimumHeight(theme.CONTROL_HEIGHT)
    field.setAccessibleName(label)
    line.addWidget(name)
    line.addWidget(field)
    line.addStretch(1)
    column.addLayout(line)
    words = TonedLabel(remark)
    words.setWordWrap(True)
    words.setContentsMargins(LABEL_WIDTH + theme.GAP_2, 0, 0, theme.GAP_1)
    words.setAlignment(Qt.AlignmentFlag.AlignTop)
    column.addWidget(words)
    return row


class Page(FormPage):
    """The Preferences page."""

    def __init__(self, keeper: PreferenceKeeper, parent: QWidget | None = None) -> None:
        purpose = tr("How the program looks and runs. They belong to you, not to a configuration.")
        super().__init__(Document(), tr("Preferences"), purpose, parent)
        looks = Card(tr("Looks"))
        themes = [
            ("system", tr("As the computer")),
            ("dark", tr("Dark")),
            ("light", tr("Light")),
            ("contrast", tr("High contrast")),
        ]
        looks.body.addWidget(
            _row(tr("Theme"), _Choice(keeper, "theme", themes), tr("Takes effect at once."))
        )
        zooms = [(percent, f"{percent} %") for percent in (75, 100, 110, 125, 150, 175, 200)]
        remark = tr("Size of everything, on top of the computer's own. Holds from the next start.")
        looks.body.addWidget(_row(tr("Size"), _Choice(keeper, "zoom_percent", zooms), remark))
        self.add(looks)
        runs = Card(tr("Runs"))
        hosts = [
            ("process", tr("A process of its own (recommended)")),
            ("thread", tr("A thread of the window")),
        ]
        remark = tr(
            "A process can be ended by force, and the window survives if it fails. A thread shares"
            " the window's memory. Both do the same. Holds from the next run; on Windows a thread"
            " from the next start."
        )
        runs.body.addWidget(_row(tr("Engine"), _Choice(keeper, "engine_host", hosts), remark))
        remark = tr("Says so when a run ends while you look at something else.")
        runs.body.addWidget(_row(tr("Tell the end"), _Flag(keeper, "notifies"), remark))
        remark = tr("The computer does not go to sleep while a run goes on.")
        runs.body.addWidget(_row(tr("Keep awake"), _Flag(keeper, "keeps_awake"), remark))
        self.add(runs)
        self.finish()
