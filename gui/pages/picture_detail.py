"""The chosen picture with its facts, and its caption to be changed."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSize, Qt, Signal, Slot
from PySide6.QtGui import QFocusEvent, QImageReader, QKeyEvent, QPixmap
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QVBoxLayout, QWidget

from gui import theme
from gui.forms.controls import TonedLabel
from gui.pages.data_facts import fact_lines
from gui.pages.picture_files import PictureItem, write_caption
from gui.pages.picture_model import PictureModel
from gui.words import tr

_DETAIL_WIDTH = 296
_PREVIEW_HEIGHT = 200


class CaptionField(QPlainTextEdit):
    """A caption as plain text; written when the focus leaves it or with Ctrl+Enter.

    Signals:
        committed: The new text.
    """

    committed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTabChangesFocus(True)
        self.setAccessibleName(tr("Caption"))
        self._shown = ""

    def show_text(self, text: str) -> None:
        """Show ``text``; what was typed and not committed is gone."""
        self.setPlainText(text)
        # As the field gives it back: it makes other line ends and spaces of some, and a text
        # that was only looked at must not count as another.
        self._shown = self.toPlainText()

    def commit(self) -> None:
        """Commit what was typed, if it is new."""
        if not self.isEnabled() or not self.document().isModified():
            return
        text = self.toPlainText().strip()
        if text != self._shown.strip():
            self._shown = text
            # From here on an undo is a change again, one that is to be committed too.
            self.document().setModified(False)
            self.committed.emit(text)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Commit."""
        super().focusOutEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self.commit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle a key."""
        is_enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if is_enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.commit()
        elif event.key() == Qt.Key.Key_Escape:
            self.show_text(self._shown)
        else:
            super().keyPressEvent(event)


class PictureDetail(QWidget):
    """The chosen picture, larger, with its facts and its caption."""

    def __init__(self, model: PictureModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self._item: PictureItem | None = None
        self.setFixedWidth(_DETAIL_WIDTH)
        column = QVBoxLayout(self)
        column.setContentsMargins(theme.GAP_3, 0, 0, 0)
        column.setSpacing(theme.GAP_2)
        self._picture = QLabel()
        self._picture.setFixedHeight(_PREVIEW_HEIGHT)
        self._picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._name = TonedLabel(tone="text")
        self._name.setWordWrap(True)
        self._facts = TonedLabel()
        self._facts.setWordWrap(True)
        self._engine = TonedLabel()
        self._engine.setWordWrap(True)
        self.caption = CaptionField()
        self.caption.committed.connect(self._write)
        self._said = TonedLabel()
        self._said.setWordWrap(True)
        for widget in (self._picture, self._name, self._facts, self._engine):
            column.addWidget(widget)
        column.addWidget(TonedLabel(tr("Caption"), "text"))
        column.addWidget(self.caption, 1)
        column.addWidget(self._said)
        model.informed.connect(self._show_facts)
        self.show_item(None)

    def show_item(self, item: PictureItem | None) -> None:
        """Show ``item``, after committing what was typed for the one before."""
        if self._item is not None and item != self._item:
            self.caption.commit()
        self._item = item
        self.caption.setEnabled(item is not None)
        self.caption.show_text(item.caption if item else "")
        self._said.setText(self._source(item))
        self._said.set_tone("muted")
        self._picture.setVisible(item is not None)
        self._show_facts()
        if item is None:
            self._picture.clear()
            self._name.setText(tr("No picture is chosen"))
            self._facts.setText(tr("Choose one to see it and to change its caption."))
            return
        self._name.setText(item.path.name)
        if item.is_broken:
            self._facts.setText(tr("Cannot be read as a picture; training leaves it out."))
        else:
            share = item.width * item.height / 1e6
            self._facts.setText(f"{item.width} x {item.height}  ·  {share:.1f} MP")
        self._picture.setPixmap(self._preview(item.path))

    @Slot()
    def _show_facts(self) -> None:
        lines = fact_lines(self._item.path, self._model.facts) if self._item else []
        self._engine.setText("\n".join(lines))
        self._engine.setVisible(bool(lines))

    def _source(self, item: PictureItem | None) -> str:
        if item is None:
            return ""
        if item.caption_path is None:
            return tr("No caption file: the name of the picture is used. Typing makes one.")
        text = tr("In {0}; its first line is trained.").format(item.caption_path.name)
        return (
            text
            if item.has_caption
            else tr("{0} is empty: trained without a caption.").format(item.caption_path.name)
        )

    def _preview(self, path: Path) -> QPixmap:
        ratio = self.devicePixelRatioF()
        reader = QImageReader(str(path))
        reader.setAutoTransform(True)
        size = reader.size()
        room = QSize(round((_DETAIL_WIDTH - theme.GAP_3) * ratio), round(_PREVIEW_HEIGHT * ratio))
        if size.isValid():
            # The size before the turn that the camera asks for; a square bound fits both ways.
            side = min(room.width(), room.height())
            square = QSize(side, side)
            reader.setScaledSize(size.scaled(square, Qt.AspectRatioMode.KeepAspectRatio))
        pixmap = QPixmap.fromImage(reader.read())
        pixmap.setDevicePixelRatio(ratio)
        return pixmap

    @Slot(str)
    def _write(self, text: str) -> None:
        item = self._item
        if item is None:
            return
        try:
            target = write_caption(item, text)
        except OSError as error:
            reason = error.strerror or str(error)
            self._said.setText(tr("The caption cannot be written: {0}").format(reason))
            self._said.set_tone("error")
            return
        self._item = self._model.caption_changed(item, target)
        self._said.setText(tr("Written to {0}.").format(target.name))
        self._said.set_tone("ok")
