"""What is wrong with a curve or a pool, and what is worth knowing about it, as lines of text."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QVBoxLayout, QWidget

from aozora.config.issue import Issue, Severity
from gui.forms.controls import Tone, TonedLabel
from gui.theme import GAP_1

_MARKS: dict[Severity, str] = {"error": "\u2716", "warning": "\u26a0", "info": "\u2022"}
_TONES: dict[Severity, Tone] = {"error": "error", "warning": "warn", "info": "muted"}
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


class IssueList(QWidget):
    """Shows issues, the worst first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[TonedLabel] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(GAP_1)
        self._layout.setAlignment(Qt.AlignmentFlag.AlignTop)

    def show_issues(self, issues: Iterable[Issue]) -> None:
        """Show ``issues``."""
        found = sorted(issues, key=lambda issue: _ORDER[issue.severity])
        while len(self._rows) < len(found):
            row = TonedLabel()
            row.setWordWrap(True)
            self._layout.addWidget(row)
            self._rows.append(row)
        for number, row in enumerate(self._rows):
            row.setVisible(number < len(found))
            row.setText(issue_text(found[number]) if number < len(found) else "")
            if number < len(found):
                row.set_tone(_TONES[found[number].severity])

    def texts(self) -> list[str]:
        """Return the lines shown."""
        return [row.text() for row in self._rows if not row.isHidden()]


def issue_text(issue: Issue) -> str:
    """Return ``issue`` as a line: its mark, what is the matter, what to do."""
    end = f" \u2013 {issue.fix}" if issue.fix else ""
    return f"{_MARKS[issue.severity]} {issue.text[:1].upper()}{issue.text[1:]}{end}"
