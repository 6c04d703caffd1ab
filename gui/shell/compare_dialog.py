"""The dialog that lists what differs from the preset or file the document came from."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.forms.controls import TonedLabel
from gui.shell.compare import Difference, as_text
from gui.shell.form_page import PageHead


class CompareDialog(QDialog):
    """Shows differences; copies them as text; a double click goes to the setting.

    Attributes:
        wanted: Path of the setting the user wants to see; empty when none.
    """

    def __init__(self, rows: list[Difference], name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.wanted = ""
        self._rows = rows
        theme.follow(self)
        self.setWindowTitle(self.tr("Differences"))
        self.resize(760, 460)
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_5, theme.GAP_4, theme.GAP_5, theme.GAP_4)
        column.setSpacing(theme.GAP_3)
        purpose = self.tr("What is not as in {0}. A double click goes to the setting.").format(name)
        column.addWidget(PageHead(self.tr("Differences"), purpose))
        if rows:
            column.addWidget(self._table(name), 1)
        else:
            nothing = TonedLabel(self.tr("Nothing differs."))
            nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
            column.addWidget(nothing, 1)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        copy = QPushButton(self.tr("Copy as text"))
        copy.setEnabled(bool(rows))
        copy.clicked.connect(self._copy)
        close = QPushButton(self.tr("Close"))
        close.setProperty("primary", "true")
        close.setDefault(True)
        close.clicked.connect(self.accept)
        buttons.addWidget(copy)
        buttons.addWidget(close)
        column.addLayout(buttons)

    def _table(self, name: str) -> QTableWidget:
        table = QTableWidget(len(self._rows), 3)
        table.setHorizontalHeaderLabels([self.tr("Setting"), name, self.tr("Now")])
        table.setAccessibleName(self.tr("Differences"))
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(30)
        table.setShowGrid(False)
        table.setAlternatingRowColors(True)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        head = table.horizontalHeader()
        head.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        head.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for number, row in enumerate(self._rows):
            for column, text in enumerate((row.label, row.old or "-", row.new or "-")):
                item = QTableWidgetItem(text)
                item.setToolTip(row.path if column == 0 else text)
                table.setItem(number, column, item)
        table.cellDoubleClicked.connect(self._go)
        return table

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(as_text(self._rows))

    def _go(self, number: int, column: int) -> None:
        self.wanted = self._rows[number].path
        self.accept()
