"""The first page: choose a preset, a model and pictures, or go on with something."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from aozora.config.presets import Preset, load_preset, shipped_presets, user_preset_files
from aozora.errors import AozoraError
from gui import theme
from gui.document import Document
from gui.forms.controls import Card, TonedLabel, picture_button
from gui.forms.path_field import PathField
from gui.forms.setting_row import LABEL_WIDTH, sentence
from gui.forms.settings_card import SettingsCard
from gui.forms.shapes import Shape, shape_of
from gui.icons import paint_icon
from gui.pages.preset_cards import PresetGrid
from gui.preferences import PreferenceKeeper, Preferences
from gui.shell.form_page import FormPage
from gui.words import tr


@dataclass(frozen=True)
class FoundPresets:
    """The presets there are, and those that cannot be used.

    Attributes:
        faults: One sentence about each file that is no good preset.
    """

    presets: tuple[Preset, ...]
    faults: tuple[str, ...]


def all_presets() -> FoundPresets:
    """Return the user's presets and those that come along; a broken one spoils no other."""
    presets, faults = [], []
    for path in user_preset_files():
        try:
            presets.append(load_preset(path))
        except AozoraError as error:
            faults.append(f"{path.name}: {error.message}")
    return FoundPresets((*presets, *shipped_presets().values()), tuple(faults))


class _PicturesRow(QWidget):
    """The first folder of pictures; more are on the Data page."""

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        shape = shape_of("data.folders")
        label = tr("Pictures")
        self._field = PathField(
            Shape(
                shape.path,
                "path",
                replace(shape.info, path="folder", label=label),
            )
        )
        self._field.setProperty("setting_path", "data.folders")
        self._field.line.setAccessibleName(tr("Folder with pictures"))
        self._message = TonedLabel(tone="error")
        self._message.setWordWrap(True)
        self._more = TonedLabel()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        row = QHBoxLayout()
        row.setSpacing(theme.GAP_2)
        row.addSpacing(10 + theme.GAP_2)
        name = TonedLabel(label, "text")
        name.setFixedWidth(LABEL_WIDTH)
        name.setMinimumHeight(theme.CONTROL_HEIGHT)
        row.addWidget(name)
        row.addWidget(self._field, 1)
        row.addSpacing(28 + theme.GAP_2)
        column.addLayout(row)
        column.addWidget(self._message)
        column.addWidget(self._more)
        for label_under in (self._message, self._more):
            label_under.setContentsMargins(10 + LABEL_WIDTH + 2 * theme.GAP_2, 0, 36, 0)
        self._field.committed.connect(self._commit)
        document.changed.connect(self._follow)
        document.problems_changed.connect(self._show)
        self._show()

    def _follow(self, paths: frozenset[str]) -> None:
        if "data.folders" in paths:
            self._show()

    def _folders(self) -> list[dict[str, object]]:
        folders = self._document.value("data.folders")
        return [f for f in folders if isinstance(f, dict)] if isinstance(folders, list) else []

    def _show(self) -> None:
        folders = self._folders()
        self._field.show_value(str(folders[0].get("path", "")) if folders else "")
        more = len(folders) - 1
        self._more.setText(tr("and {0} more on the Data page").format(more))
        self._more.setVisible(more > 0)
        own = [p for p in self._document.problems() if p.path.startswith("data.folders")]
        self._message.setText("\n".join(map(sentence, own)))
        self._message.setVisible(bool(own))

    def _commit(self, path: str) -> None:
        folders = self._folders()
        if not path:
            folders = folders[1:]
        elif folders:
            folders[0]["path"] = path
        else:
            folders = [{"path": path}]
        self._document.set_values({"data.folders": folders}, tr("pictures"))


class DropZone(QWidget):
    """A field to drop things on.

    Signals:
        dropped: A path.
    """

    dropped = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setAcceptDrops(True)
        self.setMinimumHeight(72)
        self._is_over = False

    def sizeHint(self) -> QSize:
        """Return the size it would like."""
        return QSize(300, 72)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take what fits."""
        if event.mimeData().hasUrls():
            self._is_over = True
            self.update()
            event.acceptProposedAction()

    def dragLeaveEvent(self, event: object) -> None:
        """Take the mark away again."""
        self._is_over = False
        self.update()

    def dropEvent(self, event: QDropEvent) -> None:
        """Take what was dropped."""
        self._is_over = False
        self.update()
        event.acceptProposedAction()
        for url in event.mimeData().urls():
            if url.isLocalFile():
                self.dropped.emit(Path(url.toLocalFile()))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        pen = QPen(theme.colour("accent" if self._is_over else "control"), 1.2)
        pen.setStyle(Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.setBrush(theme.colour("accent", 0.08 if self._is_over else 0.0))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 8, 8)
        paint_icon(
            painter, "open", QRectF(20, self.height() / 2 - 11, 22, 22), theme.tokens().muted
        )
        painter.setPen(theme.colour("muted"))
        text = tr("Drop a model, a folder of pictures, a configuration or a .pt state here")
        flags = int(Qt.AlignmentFlag.AlignVCenter.value) | int(Qt.TextFlag.TextWordWrap)
        painter.drawText(self.rect().adjusted(56, 4, -14, -4), flags, text)


class Page(FormPage):
    """The Start page.

    Signals:
        preset_chosen: A preset to apply.
        file_chosen: A path to open, or whatever it is good for.
        open_asked: The user wants to choose a configuration.
        setting_asked, page_asked: A setting or page the user wants to see.
        demo_asked: The folder to try the program in.
    """

    preset_chosen = Signal(object)
    file_chosen = Signal(object)
    open_asked = Signal()
    setting_asked = Signal(str)
    page_asked = Signal(str)
    demo_asked = Signal(object)

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(
            document,
            tr("Start"),
            tr("A preset, a base model and a folder of pictures are all it takes."),
            parent,
            is_wide=True,
        )
        found = all_presets()
        self.presets = PresetGrid(found.presets)
        self.presets.chosen.connect(self.preset_chosen.emit)
        self.add(self.presets)
        for fault in found.faults:
            label = TonedLabel(fault, "warn")
            label.setWordWrap(True)
            self.add(label)
        inputs = SettingsCard(document, tr("Model and pictures"), ["model.base"])
        # In this order, because Tab follows the order in which things are put in.
        inputs.body.addWidget(_PicturesRow(document))
        inputs.append("output.folder")
        self.add(inputs)
        row = QHBoxLayout()
        row.setSpacing(theme.GAP_3)
        row.addWidget(self._recent_card(), 1)
        row.addWidget(self._try_card(), 1)
        self.column.addLayout(row)
        self.finish()
        document.history_changed.connect(self._mark_preset)
        self._mark_preset()

    def _recent_card(self) -> Card:
        card = Card(tr("Go on with"))
        self._recent = QVBoxLayout()
        self._recent.setSpacing(theme.GAP_1)
        card.body.addLayout(self._recent)
        card.body.addStretch(1)
        zone = DropZone()
        zone.dropped.connect(self.file_chosen.emit)
        card.body.addWidget(zone)
        buttons = QHBoxLayout()
        open_button = picture_button("open", tr("Open…"))
        open_button.setToolTip(tr("Open a configuration (Ctrl+O)"))
        open_button.clicked.connect(self.open_asked)
        runs = picture_button("runs", tr("Past runs"))
        runs.clicked.connect(self._ask_runs)
        buttons.addWidget(open_button)
        buttons.addWidget(runs)
        buttons.addStretch(1)
        card.body.addLayout(buttons)
        return card

    def _try_card(self) -> Card:
        words = tr(
            "Makes a tiny model and pictures in a folder you choose, trains them, stops, resumes"
            " and measures: everything the program does, in about two minutes, without a graphics"
            " card and without a download."
        )
        card = Card(tr("Try it"), words)
        card.body.addStretch(1)
        row = QHBoxLayout()
        self.try_button = picture_button("wand", tr("Try it in a folder…"))
        self.try_button.clicked.connect(self._ask_demo)
        row.addWidget(self.try_button)
        row.addStretch(1)
        card.body.addLayout(row)
        return card

    def set_preferences(self, keeper: PreferenceKeeper) -> None:
        """Follow the recent files in ``keeper``."""
        keeper.changed.connect(self._show_recent)
        self._show_recent(keeper.now)

    def _show_recent(self, preferences: Preferences) -> None:
        while (item := self._recent.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for name in preferences.recent[:4]:
            path = Path(name)
            button = picture_button("file", path.stem, token="muted")
            button.setStyleSheet("text-align: left;")
            button.setToolTip(name)
            button.setProperty("path", name)
            button.clicked.connect(self._open_recent)
            self._recent.addWidget(button)
        if not preferences.recent:
            self._recent.addWidget(TonedLabel(tr("Configurations you save are listed here.")))

    def _open_recent(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.file_chosen.emit(Path(str(sender.property("path"))))

    def _ask_runs(self) -> None:
        self.page_asked.emit("runs")

    def _ask_demo(self) -> None:
        title = tr("An empty folder for the trial")
        name = QFileDialog.getExistingDirectory(self, title)
        if name:
            self.demo_asked.emit(Path(name))

    def _mark_preset(self) -> None:
        reference = self.document.reference()
        name = ""
        for card in self.presets.cards:
            settings = {k: v for k, v in card.preset.settings.items() if k != "schema"}
            if settings == reference:
                name = card.preset.name
        self.presets.show_chosen(name)
