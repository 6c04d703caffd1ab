"""One line of a form: mark, label, field, unit, reset, and what is wrong under it."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QPointF, QSize, Qt
from PySide6.QtGui import QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from aozora.config.fields import range_text
from aozora.errors import Problem
from gui import theme
from gui.document import Document
from gui.forms.controls import TonedLabel, tool_button
from gui.forms.editors import LinesField, NumberField, editor_for, line_of
from gui.forms.path_field import PathField
from gui.forms.shapes import Shape, value_text
from gui.words import tr

LABEL_WIDTH = 196


def sentence(problem: Problem) -> str:
    """Return ``problem`` as one or two sentences, without the name of its setting."""
    parts = [problem.text, problem.remedy]
    return " ".join(part[0].upper() + part[1:].rstrip(".") + "." for part in parts if part)


class _Mark(QWidget):
    """A dot that says: this is not as it was in the preset or file."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedSize(10, theme.CONTROL_HEIGHT)
        self._is_on = False

    def show_mark(self, tip: str) -> None:
        self._is_on = bool(tip)
        self.setToolTip(tip)
        self.update()

    @property
    def is_on(self) -> bool:
        return self._is_on

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._is_on:
            painter = QPainter(self)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.colour("accent"))
            painter.drawEllipse(QPointF(4, self.height() / 2), 3, 3)


class _Label(QLabel):
    """The name of a setting; a click goes to its field."""

    def __init__(self, text: str, target: QWidget) -> None:
        super().__init__(text)
        self.setFixedWidth(LABEL_WIDTH)
        self.setMinimumHeight(theme.CONTROL_HEIGHT)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._target = target

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._target.setFocus(Qt.FocusReason.MouseFocusReason)


class SettingRow(QWidget):
    """The form line of one setting of a document."""

    def __init__(self, document: Document, shape: Shape, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.shape = shape
        self._document = document
        self._refusal = ""
        self._problems: tuple[Problem, ...] = ()
        self.editor = editor_for(shape)
        self.setProperty("setting_path", shape.path)
        self.setProperty("setting_kind", shape.of_kind)
        self.mark = _Mark()
        self.label = _Label(tr(shape.info.label), line_of(self.editor))
        self.label.setToolTip(self._tip())
        self.reset = tool_button("reset", self.tr("Back to the default"), token="muted")
        self.reset.setProperty("no_tab", "true")
        self.message = TonedLabel(tone="error")
        self._lay_out()
        self._name()
        self.editor.committed.connect(self._commit)
        self.editor.refused.connect(self._refuse)
        if isinstance(self.editor, NumberField):
            self.editor.nudged.connect(self._nudge)
        self.reset.clicked.connect(self._reset)
        self.refresh()

    def _lay_out(self) -> None:
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(theme.GAP_2)
        line.addWidget(self.mark)
        line.addWidget(self.label)
        grows = isinstance(self.editor, PathField | LinesField)
        line.addWidget(self.editor, 1 if grows else 0)
        if self.shape.info.unit:
            line.addWidget(TonedLabel(tr(self.shape.info.unit)))
        if not grows:
            line.addStretch(1)
        line.addWidget(self.reset)
        self.message.setWordWrap(True)
        self.message.setVisible(False)
        self.message.setContentsMargins(10 + LABEL_WIDTH + 2 * theme.GAP_2, 0, 36, 0)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(line)
        column.addWidget(self.message)
        policy = self.reset.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.reset.setSizePolicy(policy)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)

    def _name(self) -> None:
        target = line_of(self.editor)
        target.setAccessibleName(tr(self.shape.info.label))
        target.setAccessibleDescription(tr(self.shape.info.help))
        self.editor.setProperty("setting_path", self.shape.path)

    def _tip(self) -> str:
        info = self.shape.info
        allowed = range_text(info)
        extra = f"\n{tr('Allowed')}: {allowed} {info.unit}".rstrip() if allowed else ""
        return tr(info.help) + extra

    def minimumSizeHint(self) -> QSize:
        """Return the size below which it is no use."""
        return QSize(380, super().minimumSizeHint().height())

    def refresh(self) -> None:
        """Show what the document holds."""
        try:
            value = self._document.value(self.shape.path)
        except KeyError:
            return
        self.editor.show_value(value)
        self.refresh_marks()

    def refresh_marks(self) -> None:
        """Show whether the value is the default and whether it differs from the origin."""
        path = self.shape.path
        try:
            is_default = self._same(self._document.value(path), self._document.default(path))
        except KeyError:
            return
        self.reset.setVisible(not is_default)
        if not is_default:
            default = value_text(self.shape, self._document.default(path))
            self.reset.setToolTip(self.tr("Back to the default: {0}").format(default))
        self.mark.show_mark(self._mark_tip())

    def _same(self, left: Any, right: Any) -> bool:
        if self.shape.kind == "choice" and isinstance(left, dict) and isinstance(right, dict):
            return bool(left.get("kind") == right.get("kind"))
        return bool(left == right)

    def _mark_tip(self) -> str:
        path = self.shape.path
        try:
            before = self._document.reference_value(path)
        except KeyError:
            return ""
        if self._same(self._document.value(path), before):
            return ""
        name = self._document.origin.name
        return self.tr("Changed; in {0}: {1}").format(name, value_text(self.shape, before))

    def show_problems(self, problems: tuple[Problem, ...]) -> None:
        """Show what the engine's checks say about this setting."""
        if problems != self._problems:
            self._problems = problems
            self._show_message()

    def _show_message(self) -> None:
        text = self._refusal or "\n".join(map(sentence, self._problems))
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self.message.setProperty("shown", text)

    def _commit(self, value: Any) -> None:
        label = tr(self.shape.info.label)
        path = f"{self.shape.path}.kind" if self.shape.kind == "choice" else self.shape.path
        self._document.set_values({path: value}, label)
        # The document may hold the value already (a choice of the same kind): show what it holds.
        self.refresh()

    def _nudge(self, value: Any) -> None:
        label = tr(self.shape.info.label)
        self._document.set_values({self.shape.path: value}, label, may_merge=True)

    def _refuse(self, fault: str) -> None:
        self._refusal = fault[:1].upper() + fault[1:] + "." if fault else ""
        self._show_message()

    def _reset(self) -> None:
        title = self.tr("reset {0}").format(tr(self.shape.info.label))
        self._document.reset([self.shape.path], title)
        self.editor.setFocus()
