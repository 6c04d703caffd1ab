"""A row of joined buttons of which exactly one is down."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QButtonGroup, QFrame, QHBoxLayout, QToolButton, QWidget

from gui.theme import CONTROL_HEIGHT


class Segments(QFrame):
    """Chooses one of a few values.

    Signals:
        chosen: The value the user chose, a str.
    """

    chosen = Signal(str)

    def __init__(
        self, name: str, values: Sequence[tuple[str, str]], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._values = [value for value, _ in values]
        self._group = QButtonGroup(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self.setAccessibleName(name)
        for number, (_, label) in enumerate(values):
            button = QToolButton()
            button.setText(label)
            button.setCheckable(True)
            width = button.fontMetrics().horizontalAdvance(label) + 20
            button.setMinimumSize(max(width, 36), CONTROL_HEIGHT)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setAccessibleName(f"{name}: {label}")
            button.setToolTip(f"{name}: {label}")
            self._group.addButton(button, number)
            layout.addWidget(button)
        self._group.button(0).setChecked(True)
        self._group.idClicked.connect(self._clicked)

    @property
    def value(self) -> str:
        """The value that is down."""
        return self._values[self._group.checkedId()]

    def set_value(self, value: str) -> None:
        """Put ``value`` down without saying so."""
        self._group.button(self._values.index(value)).setChecked(True)

    def button(self, value: str) -> QToolButton:
        """Return the button of ``value``."""
        button = self._group.button(self._values.index(value))
        assert isinstance(button, QToolButton)
        return button

    def _clicked(self, number: int) -> None:
        self.chosen.emit(self._values[number])
