"""The parameters of the chosen base model, asked of the engine in a child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal, Slot

from gui.document import Document
from gui.editors.unet_shapes import Shapes, unet_shapes
from gui.shell.checker import EngineQuestion, plain_failure
from gui.words import tr

_SETTLE_MS = 300


def parse_shapes(data: Any) -> Shapes:
    """Return the shapes in the answer of ``aozora inspect --layers``.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(data, dict) or not data:
        raise ValueError("this is no list of layers")
    for name, shape in data.items():
        if not isinstance(shape, list) or not all(type(side) is int for side in shape):
            raise ValueError(f"{name} has no shape")
    return {str(name): tuple(shape) for name, shape in data.items()}


class ModelShapes(QObject):
    """Keeps the shapes of the document's base model; those of full-size SDXL while unknown.

    Attributes:
        shapes: By the diffusers name of the parameter, in the model's order.
        note: Of what model they are.
        is_known: Whether they are the chosen model's.

    Signals:
        changed: Any of these changed.
    """

    changed = Signal()

    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.shapes = unet_shapes()
        self.note = ""
        self.is_known = False
        self._document = document
        self._seen: tuple[str, int, int] | None = None
        self._question = EngineQuestion(self)
        self._question.answered.connect(self._take)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._ask)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._timer.isActive() or self._question.is_asking

    def close_down(self) -> None:
        """Ask no more."""
        self._timer.stop()
        self._question.drop()

    @Slot()
    def look(self) -> None:
        """Ask, if the chosen file is not the one that was asked about last."""
        base = str(self._document.value("model.base"))
        seen = _stamp(base)
        if seen == self._seen:
            return
        self._seen = seen
        self.close_down()
        if not base:
            self._fall_back(tr("no base model is chosen"))
        elif seen[1] < 0:
            self._fall_back(tr("there is no such base model"))
        else:
            self._timer.start()
            self.note = tr("{0} is being read…").format(Path(base).name)
            self.changed.emit()

    @Slot()
    def _ask(self) -> None:
        assert self._seen is not None
        self._question.ask(["inspect", self._seen[0], "--layers", "--json"])

    @Slot(object, str)
    def _take(self, data: Any, failure: str) -> None:
        assert self._seen is not None
        try:
            shapes = parse_shapes(data)
        except ValueError as error:
            self._fall_back(plain_failure(failure) or str(error))
            return
        self.shapes, self.is_known = shapes, True
        self.note = tr("Counted for {0}.").format(Path(self._seen[0]).name)
        self.changed.emit()

    def _fall_back(self, reason: str) -> None:
        self.shapes, self.is_known = unet_shapes(), False
        self.note = tr("Counted for SDXL at full size: {0}").format(reason.rstrip(".") + ".")
        self.changed.emit()


def _stamp(base: str) -> tuple[str, int, int]:
    """Return what tells the file, and that it changed; negative numbers if there is none."""
    try:
        found = Path(base).stat() if base else None
    except (OSError, ValueError):
        found = None
    return (base, found.st_size, found.st_mtime_ns) if found else (base, -1, -1)
