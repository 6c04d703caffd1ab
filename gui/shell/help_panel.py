"""The help panel: what the field with the focus means."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from aozora.config.fields import range_text
from gui import theme
from gui.document import Document
from gui.forms.controls import TonedLabel, rule
from gui.forms.shapes import Shape, options_of, shape_of, value_text
from gui.words import tr

WIDTH = 260


class HelpPanel(QScrollArea):
    """Shows name, meaning, default and range of one setting at a time."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._shape: Shape | None = None
        self.setFixedWidth(WIDTH)
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(self.tr("Help"))
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(theme.GAP_4, theme.GAP_4, theme.GAP_4, theme.GAP_4)
        column.setSpacing(theme.GAP_2)
        self._title = QLabel()
        self._title.setFont(theme.group_font())
        self._title.setWordWrap(True)
        self._key = TonedLabel()
        self._key.setFont(theme.mono_font())
        self._key.setWordWrap(True)
        self._key.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._key.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._text = QLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setWordWrap(True)
        self._facts = QGridLayout()
        self._facts.setHorizontalSpacing(theme.GAP_3)
        self._facts.setVerticalSpacing(theme.GAP_1)
        self._facts.setColumnStretch(1, 1)
        self._rule = rule()
        for widget in (self._title, self._key, self._text, self._rule):
            column.addWidget(widget)
        column.addLayout(self._facts)
        column.addStretch(1)
        self.setWidget(inner)
        document.history_changed.connect(self._refresh)
        self.show_welcome()

    def show_welcome(self) -> None:
        """Explain how help is got."""
        self.show_words(
            self.tr("Help"),
            self.tr(
                "Go to any field and its meaning stands here.\n\nCtrl+K finds every setting by its"
                " name or by what it does. F1 hides and shows this panel.\n\nA blue dot marks what"
                " differs from the preset or file you opened; the arrow at the end of a line brings"
                " the default back."
            ),
        )

    @property
    def path(self) -> str:
        """The setting that is explained, if one is."""
        return self._shape.path if self._shape else ""

    def show_words(self, title: str, text: str) -> None:
        """Explain something that is no setting."""
        self._shape = None
        self._title.setText(title)
        self._key.setVisible(False)
        self._text.setText(text)
        self._show_facts([])

    def show_setting(self, path: str, kind: str = "") -> None:
        """Explain the setting at ``path``."""
        try:
            self._shape = shape_of(path, kind)
        except KeyError:
            return
        self._refresh()

    def _refresh(self) -> None:
        shape = self._shape
        if shape is None:
            return
        self._title.setText(tr(shape.info.label))
        self._key.setVisible(True)
        # A key may be broken at its dots.
        self._key.setText(shape.path.replace(".", ".\u200b"))
        self._text.setText(self._words(shape))
        facts = []
        allowed = range_text(shape.info)
        if allowed:
            facts.append((self.tr("Range"), f"{allowed} {shape.info.unit}".strip()))
        try:
            default = self._document.default(shape.path)
            now = self._document.value(shape.path)
        except KeyError:
            self._show_facts(facts)
            return
        facts.insert(0, (self.tr("Default"), value_text(shape, default)))
        facts.insert(0, (self.tr("Now"), value_text(shape, now)))
        try:
            before = self._document.reference_value(shape.path)
            name = self._document.origin.name
            if before != now:
                facts.append((self.tr("In {0}").format(name), value_text(shape, before)))
        except KeyError:
            pass
        self._show_facts(facts)

    def _words(self, shape: Shape) -> str:
        texts = [tr(shape.info.help)]
        if shape.kind == "choice":
            kind = self._document.value(shape.path)["kind"]
            label = dict(shape.values)[kind]
            texts += [
                f"{label} · {tr(option.info.label)}: {tr(option.info.help)}"
                for option in options_of(shape.path, kind)
            ]
        return "\n\n".join(texts)

    def _show_facts(self, facts: list[tuple[str, str]]) -> None:
        while (item := self._facts.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        self._rule.setVisible(bool(facts))
        for row, (name, value) in enumerate(facts):
            label = TonedLabel(name)
            text = QLabel(value)
            text.setTextFormat(Qt.TextFormat.PlainText)
            text.setWordWrap(True)
            top = Qt.AlignmentFlag.AlignTop
            self._facts.addWidget(label, row, 0, top)
            self._facts.addWidget(text, row, 1, top)
