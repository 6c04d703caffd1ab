"""The pictures of the dataset: a grid of thumbnails, filters, and the chosen picture's caption."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import (
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QRectF,
    QSize,
    Qt,
    Signal,
    Slot,
)
from PySide6.QtGui import (
    QFocusEvent,
    QHideEvent,
    QImageReader,
    QKeyEvent,
    QPainter,
    QPainterPath,
    QPen,
    QPixmap,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListView,
    QPlainTextEdit,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.forms.controls import Card, DropDown, TonedLabel
from gui.icons import icon, paint_icon
from gui.pages.picture_files import Filter, PictureItem, is_small, write_caption
from gui.pages.picture_model import THUMBNAIL, PictureModel
from gui.words import counted, tr, whole

_CELL = QSize(THUMBNAIL + 16, THUMBNAIL + 38)
_DETAIL_WIDTH = 296
_PREVIEW_HEIGHT = 200
_FILTERS: tuple[tuple[Filter, str], ...] = (
    ("all", "All pictures"),
    ("no_caption", "Without a caption"),
    ("small", "Smaller than the resolution"),
    ("broken", "Cannot be read"),
)


class PictureDelegate(QStyledItemDelegate):
    """Paints one thumbnail with its name and what is the matter with it."""

    resolution = 1024

    def sizeHint(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QSize:
        """Return the size it would like."""
        return _CELL

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        """Paint an item."""
        item: PictureItem = index.data(Qt.ItemDataRole.UserRole)
        picture: QPixmap | None = index.data(Qt.ItemDataRole.DecorationRole)
        cell: QRect = option.rect.adjusted(4, 4, -4, -4)
        is_selected = bool(option.state & QStyle.StateFlag.State_Selected)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        frame = QRectF(cell.left(), cell.top(), cell.width(), THUMBNAIL + 8)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.colour("window"))
        painter.drawRoundedRect(frame, theme.RADIUS, theme.RADIUS)
        if picture is not None and not picture.isNull():
            self._paint_picture(painter, frame, picture)
        elif item.is_broken:
            middle = QRectF(frame.center().x() - 14, frame.center().y() - 14, 28, 28)
            paint_icon(painter, "error", middle, theme.tokens().error)
        if is_selected:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.colour("accent"), 2))
            painter.drawRoundedRect(frame.adjusted(1, 1, -1, -1), theme.RADIUS, theme.RADIUS)
        self._paint_badges(painter, frame, item)
        painter.setPen(theme.colour("accent" if is_selected else "muted"))
        painter.setFont(theme.small_font())
        line = QRect(cell.left() + 2, cell.bottom() - 19, cell.width() - 4, 18)
        name = painter.fontMetrics().elidedText(
            item.path.name, Qt.TextElideMode.ElideMiddle, line.width()
        )
        painter.drawText(line, Qt.AlignmentFlag.AlignCenter, name)
        painter.restore()

    def _paint_picture(self, painter: QPainter, frame: QRectF, picture: QPixmap) -> None:
        size = picture.deviceIndependentSize()
        size.scale(THUMBNAIL, THUMBNAIL, Qt.AspectRatioMode.KeepAspectRatio)
        place = QRectF(0, 0, size.width(), size.height())
        place.moveCenter(frame.center())
        clip = QPainterPath()
        clip.addRoundedRect(place, 4, 4)
        painter.setClipPath(clip)
        painter.drawPixmap(place, picture, QRectF(picture.rect()))
        painter.setClipping(False)

    def _paint_badges(self, painter: QPainter, frame: QRectF, item: PictureItem) -> None:
        badges = []
        if not item.has_caption:
            badges.append(("file", "warn"))
        if is_small(item, self.resolution):
            badges.append(("warning", "warn"))
        for number, (name, token) in enumerate(badges):
            place = QRectF(frame.right() - 26 - 24 * number, frame.top() + 5, 21, 21)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.colour("window", 0.85))
            painter.drawRoundedRect(place, 5, 5)
            inner = place.adjusted(3, 3, -3, -3)
            paint_icon(painter, name, inner, getattr(theme.tokens(), token))


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
        self._shown = text
        self.setPlainText(text)

    def commit(self) -> None:
        """Commit what was typed, if it is new."""
        text = self.toPlainText().strip()
        if text != self._shown and self.isEnabled():
            self._shown = text
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
        self.caption = CaptionField()
        self.caption.committed.connect(self._write)
        self._said = TonedLabel()
        self._said.setWordWrap(True)
        for widget in (self._picture, self._name, self._facts):
            column.addWidget(widget)
        column.addWidget(TonedLabel(tr("Caption"), "text"))
        column.addWidget(self.caption, 1)
        column.addWidget(self._said)
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


class Gallery(Card):
    """Filters, thumbnails, and the chosen picture."""

    def __init__(self, model: PictureModel, parent: QWidget | None = None) -> None:
        super().__init__(tr("Pictures"), parent=parent)
        self._model = model
        self._resolution = 1024
        self._counts = TonedLabel()
        self.head.addWidget(self._counts)
        bar = QHBoxLayout()
        bar.setSpacing(theme.GAP_2)
        self.filter = DropDown()
        self.filter.setAccessibleName(tr("Show"))
        self.filter.usual_width = 230
        for _, label in _FILTERS:
            self.filter.addItem(tr(label))
        self.words = QLineEdit()
        self.words.setMinimumHeight(theme.CONTROL_HEIGHT)
        self.words.setPlaceholderText(tr("Find in names and captions"))
        self.words.setAccessibleName(tr("Find in names and captions"))
        self.words.setClearButtonEnabled(True)
        self.words.addAction(icon("search", "muted"), QLineEdit.ActionPosition.LeadingPosition)
        bar.addWidget(self.filter)
        bar.addWidget(self.words, 1)
        self.body.addLayout(bar)
        row = QHBoxLayout()
        row.setSpacing(0)
        self.view = QListView()
        self.view.setModel(model)
        self.view.setAccessibleName(tr("Pictures"))
        self.view.setViewMode(QListView.ViewMode.IconMode)
        self.view.setResizeMode(QListView.ResizeMode.Adjust)
        self.view.setMovement(QListView.Movement.Static)
        self.view.setUniformItemSizes(True)
        self.view.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.view.verticalScrollBar().setSingleStep(40)
        self._delegate = PictureDelegate(self.view)
        self.view.setItemDelegate(self._delegate)
        self.view.setMinimumHeight(400)
        self._nothing = TonedLabel()
        self._nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._nothing.setWordWrap(True)
        self._nothing.setMinimumHeight(400)
        self.detail = PictureDetail(model)
        row.addWidget(self.view, 1)
        row.addWidget(self._nothing, 1)
        row.addWidget(self.detail)
        self.body.addLayout(row, 1)
        self.filter.activated.connect(self._refilter)
        self.words.textChanged.connect(self._refilter)
        self.view.selectionModel().currentChanged.connect(self._choose)
        model.scanned.connect(self._tell)
        model.modelReset.connect(self._forget)
        self._tell()

    def set_resolution(self, resolution: int) -> None:
        """Mark pictures smaller than this."""
        self._resolution = resolution
        self._delegate.resolution = resolution
        self._refilter()

    @Slot()
    def _refilter(self) -> None:
        wanted = _FILTERS[max(self.filter.currentIndex(), 0)][0]
        self._model.set_pixel_ratio(self.devicePixelRatioF())
        self._model.show_only(wanted, self.words.text(), self._resolution)
        self._tell()

    @Slot()
    def _forget(self) -> None:
        self.detail.show_item(None)

    @Slot(QModelIndex, QModelIndex)
    def _choose(self, now: QModelIndex, before: QModelIndex) -> None:
        self.detail.show_item(self._model.item(now.row()) if now.isValid() else None)

    @Slot()
    def _tell(self) -> None:
        model = self._model
        parts = [counted(len(model.items), tr("picture"), tr("pictures"))]
        for wanted, words in (
            ("no_caption", tr("without a caption")),
            ("small", tr("small")),
            ("broken", tr("broken")),
        ):
            count = model.count(wanted)  # type: ignore[arg-type]
            if count:
                parts.append(f"{whole(count)} {words}")
        if model.is_scanning:
            parts.append(tr("reading…"))
        self._counts.setText("  ·  ".join(parts))
        is_empty = model.rowCount() == 0
        self.view.setVisible(not is_empty)
        self._nothing.setVisible(is_empty)
        if model.is_scanning:
            self._nothing.setText(tr("Reading the folders…"))
        elif model.items:
            self._nothing.setText(tr("No picture is like that."))
        else:
            self._nothing.setText(tr("Add a folder with pictures above; they appear here."))

    def hideEvent(self, event: QHideEvent) -> None:
        """Rest while unseen."""
        self.detail.caption.commit()
        super().hideEvent(event)
