"""A card with the form lines of some settings; rare ones wait behind a line that opens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PySide6.QtWidgets import QVBoxLayout, QWidget

from aozora.errors import Problem
from gui import theme
from gui.document import Document
from gui.forms.controls import Card, Disclosure
from gui.forms.setting_row import SettingRow
from gui.forms.shapes import options_of, shape_of


def concerns(problem_path: str, setting_path: str) -> bool:
    """Return whether a problem at ``problem_path`` is about ``setting_path`` or a part of it."""
    rest = problem_path.removeprefix(setting_path)
    return problem_path.startswith(setting_path) and (not rest or rest[0] in ".[")


class _Options(QWidget):
    """The lines of the options that a choice has with the kind chosen now."""

    def __init__(self, document: Document, path: str) -> None:
        super().__init__()
        self._document = document
        self._path = path
        self._kind = ""
        self.rows: list[SettingRow] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(theme.GAP_2)
        self.follow()

    def follow(self) -> bool:
        """Show the lines of another kind if another is chosen; return whether it was."""
        kind = self._document.value(self._path)["kind"]
        if kind == self._kind:
            return False
        self._kind = kind
        for row in self.rows:
            self._column.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.rows = [SettingRow(self._document, shape) for shape in options_of(self._path, kind)]
        for row in self.rows:
            self._column.addWidget(row)
        # A widget without a parent would become a window of its own when made visible.
        if not self.rows:
            self.hide()
        elif self.parentWidget() is not None:
            self.show()
        return True


class SettingsCard(Card):
    """Form lines of the settings at ``paths``, kept in step with the document."""

    def __init__(
        self,
        document: Document,
        title: str,
        paths: Sequence[str],
        *,
        remark: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(title, remark, parent)
        self._document = document
        self.paths = tuple(paths)
        self._rows: dict[str, SettingRow] = {}
        self._options: dict[str, _Options] = {}
        self._expert = QWidget()
        self._more: Disclosure | None = None
        self._expert_paths = [path for path in paths if shape_of(path).info.expert]
        self._lay_out()
        document.changed.connect(self._follow)
        document.history_changed.connect(self._refresh_marks)
        document.problems_changed.connect(self._show_problems)
        self._show_problems()

    def _lay_out(self) -> None:
        hidden = QVBoxLayout(self._expert)
        hidden.setContentsMargins(0, 0, 0, 0)
        hidden.setSpacing(theme.GAP_2)
        for path in self.paths:
            column = hidden if path in self._expert_paths else self.body
            row = SettingRow(self._document, shape_of(path))
            self._rows[path] = row
            column.addWidget(row)
            if row.shape.kind == "choice":
                self._options[path] = _Options(self._document, path)
                column.addWidget(self._options[path])
        if self._expert_paths:
            count = len(self._expert_paths)
            self._more = Disclosure(self.tr("More settings ({0})").format(count))
            self._more.toggled.connect(self._expert.setVisible)
            self.body.addWidget(self._more)
            self.body.addWidget(self._expert)
            self._expert.setVisible(False)
            if any(self._rows[path].mark.is_on for path in self._expert_paths):
                self._more.setChecked(True)

    def append(self, path: str) -> None:
        """Add the line of one more setting at the end."""
        self.paths = (*self.paths, path)
        self._rows[path] = SettingRow(self._document, shape_of(path))
        self.body.addWidget(self._rows[path])
        self._show_problems()

    def rows(self) -> list[SettingRow]:
        """Return all lines, those of options included."""
        options = [row for group in self._options.values() for row in group.rows]
        return [*self._rows.values(), *options]

    def row(self, path: str) -> SettingRow | None:
        """Return the line of ``path``, if it is here."""
        return next((row for row in self.rows() if row.shape.path == path), None)

    def reveal(self, path: str) -> SettingRow | None:
        """Open what hides the line of ``path`` and return it; None if it is not here."""
        row = self.row(path)
        if row is not None and self._more is not None and self._expert.isAncestorOf(row):
            self._more.setChecked(True)
        return row

    def _follow(self, paths: Iterable[str]) -> None:
        changed = frozenset(paths)
        for path, options in self._options.items():
            if path in changed and options.follow():
                self._show_problems()
        for row in self.rows():
            if row.shape.path in changed:
                row.refresh()

    def _refresh_marks(self) -> None:
        for row in self.rows():
            row.refresh_marks()

    def _show_problems(self) -> None:
        problems = self._document.problems()
        rows = self.rows()
        for row in rows:
            row.show_problems(tuple(p for p in problems if self._is_for(p, row, rows)))
            if row.message.isVisibleTo(row) and row.shape.path in self._expert_paths:
                self.reveal(row.shape.path)

    def _is_for(self, problem: Problem, row: SettingRow, rows: list[SettingRow]) -> bool:
        """Return whether ``row`` is the line that is most exactly about ``problem``."""
        if not concerns(problem.path, row.shape.path):
            return False
        longer = (other for other in rows if len(other.shape.path) > len(row.shape.path))
        return not any(concerns(problem.path, other.shape.path) for other in longer)
