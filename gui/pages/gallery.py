"""The pictures of the dataset: a grid of thumbnails, filters, and the chosen picture's caption."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, Qt, Slot
from PySide6.QtGui import QHideEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QListView, QWidget

from gui import theme
from gui.forms.controls import Card, DropDown, TonedLabel
from gui.icons import icon
from gui.pages.picture_delegate import PictureDelegate
from gui.pages.picture_detail import PictureDetail
from gui.pages.picture_files import Filter
from gui.pages.picture_model import ENGINE_FILTERS, PictureModel
from gui.words import counted, tr, whole

_FILTERS: tuple[tuple[Filter, str], ...] = (
    ("all", "All pictures"),
    ("no_caption", "Without a caption"),
    ("small", "Smaller than the resolution"),
    ("broken", "Cannot be read"),
    ("left_out", "Left out of training"),
    ("cut", "Caption is cut"),
    ("repeated", "The same file as another"),
    ("new", "Not encoded yet"),
)


class Gallery(Card):
    """Filters, thumbnails, and the chosen picture."""

    def __init__(self, model: PictureModel, parent: QWidget | None = None) -> None:
        super().__init__(tr("Pictures"), parent=parent)
        self._model = model
        self._resolution = 1024
        self._counts = TonedLabel()
        self._counts.setWordWrap(True)
        self._counts.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.head.addWidget(self._counts, 1000)
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
        model.informed.connect(self._tell)
        model.modelReset.connect(self._forget)
        self._tell()

    def set_resolution(self, resolution: int) -> None:
        """Mark pictures smaller than this."""
        self._resolution = resolution
        self._delegate.resolution = resolution
        self._refilter()

    def show_only(self, wanted: Filter) -> None:
        """Show the pictures that are like that."""
        self.filter.setCurrentIndex([name for name, _ in _FILTERS].index(wanted))
        self._refilter()

    def _wanted(self) -> Filter:
        return _FILTERS[max(self.filter.currentIndex(), 0)][0]

    @Slot()
    def _refilter(self) -> None:
        self._model.set_pixel_ratio(self.devicePixelRatioF())
        self._model.show_only(self._wanted(), self.words.text(), self._resolution)
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
        named: tuple[tuple[Filter, str], ...] = (
            ("no_caption", tr("without a caption")),
            ("small", tr("small")),
            ("broken", tr("broken")),
            ("cut", tr("cut")),
            ("repeated", tr("repeated")),
        )
        for wanted, words in named:
            count = model.count(wanted)
            if count:
                parts.append(f"{whole(count)} {words}")
        if model.is_scanning:
            parts.append(tr("reading…"))
        # A line breaks between the counts, not inside of one.
        self._counts.setText("  ·  ".join(part.replace(" ", "\u00a0") for part in parts))
        is_empty = model.rowCount() == 0
        self.view.setVisible(not is_empty)
        self._nothing.setVisible(is_empty)
        if model.is_scanning:
            self._nothing.setText(tr("Reading the folders…"))
        elif model.items and model.facts is None and self._wanted() in ENGINE_FILTERS:
            self._nothing.setText(tr("The engine has not counted these yet."))
        elif model.items:
            self._nothing.setText(tr("No picture is like that."))
        else:
            self._nothing.setText(tr("Add a folder with pictures above; they appear here."))

    def hideEvent(self, event: QHideEvent) -> None:
        """Rest while unseen."""
        self.detail.caption.commit()
        super().hideEvent(event)
