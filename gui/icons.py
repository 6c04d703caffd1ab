"""Line icons, drawn in the colours of the theme that holds when they are painted."""

from __future__ import annotations

from functools import lru_cache

from PySide6.QtCore import QByteArray, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QIconEngine, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from gui.theme import tokens

# Paths on a 20 by 20 grid; everything is a stroke unless it is listed in _FILLED.
_PATHS = {
    "start": "M3 9.5 10 3l7 6.5 M5 8v9h10V8 M8.5 17v-5h3v5",
    "model": "M10 2.5 16.5 6v8L10 17.5 3.5 14V6Z M3.5 6 10 9.5 16.5 6 M10 9.5v8",
    "data": "M3 4h14v12H3Z M3 13.5l4-4 3.5 3.5 2.5-2.5 4 4 M13 7.5h.5",
    "schedule": "M3 3v14h14 M5.5 14C8 14 7.5 6 10.5 6s3 5.5 6 7.5",
    "timesteps": "M3 17h14 M5 17v-5 M8.3 17V8 M11.7 17V5 M15 17v-7",
    "layers": "M10 3 17 6.8 10 10.5 3 6.8Z M3 10.2l7 3.7 7-3.7 M3 13.5l7 3.7 7-3.7",
    "optimizer": "M6 6h8v8H6Z M8 3v3 M12 3v3 M8 14v3 M12 14v3 M3 8h3 M3 12h3 M14 8h3 M14 12h3",
    "output": "M3 6V4.5h5L9.5 6H17v10H3Z M10 8.5v5 M7.8 11.5 10 13.7l2.2-2.2",
    "run": "M2.5 10.5H6l2-6 4 11 2-5h3.5",
    "samples": "M3 3h6v6H3Z M11 3h6v6h-6Z M3 11h6v6H3Z M11 11h6v6h-6Z",
    "console": "M3 4h14v12H3Z M6 8l2.5 2L6 12 M10.5 12.5H14",
    "runs": "M3 10a7 7 0 1 0 2.2-5.1 M3 3v3.2h3.2 M10 6v4.3l3 1.7",
    "preferences": "M3 6h8 M15 6h2 M13 4v4 M3 14h2 M9 14h8 M7 12v4",
    "save": "M4 3h9.5L17 6.5V17H3V3Z M6 3v4.5h6V3 M6 17v-5.5h8V17",
    "open": "M3 16V4h5l1.5 2H16v2.5 M3 16l2.5-7.5H18L15.5 16Z",
    "undo": "M4 8h8a4.5 4.5 0 0 1 0 9H8 M7 4.5 3.5 8 7 11.5",
    "redo": "M16 8H8a4.5 4.5 0 0 0 0 9h4 M13 4.5 16.5 8 13 11.5",
    "search": "M8.7 3.5a5.2 5.2 0 1 0 0 10.4 5.2 5.2 0 0 0 0-10.4Z M12.5 12.5 17 17",
    "help": "M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4Z"
    " M7.8 8a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.6 M10 14h.1",
    "theme": "M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4Z M10 2.8v14.4 M10 6h4.6 M10 10h7.2"
    " M10 14h4.6",
    "play": "M6 3.5v13l10.5-6.5Z",
    "stop": "M4.5 4.5h11v11h-11Z",
    "resume": "M4 3.5v13 M7.5 3.5v13L17 10Z",
    "folder": "M3 5.5V4h5l1.5 1.5H17V16H3Z",
    "file": "M5 2.5h6.5L15 6v11.5H5Z M11.5 2.5V6H15",
    "reset": "M4 5v4h4 M4.6 9A6 6 0 1 1 4 12",
    "down": "M5.5 8 10 12.5 14.5 8",
    "right": "M8 5.5 12.5 10 8 14.5",
    "plus": "M10 4v12 M4 10h12",
    "minus": "M4 10h12",
    "trash": "M4 6h12 M8 6V4h4v2 M5.5 6l.7 11h7.6l.7-11 M8.5 9v5 M11.5 9v5",
    "warning": "M10 3 18 16.5H2Z M10 8v4 M10 14.2h.1",
    "error": "M7 3h6l4 4v6l-4 4H7l-4-4V7Z M10 6.5v4.5 M10 13.5h.1",
    "ok": "M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4Z M6.7 10.2l2.3 2.3 4.4-4.7",
    "scissors": "M5.2 3.2a2.2 2.2 0 1 0 0 4.4 2.2 2.2 0 0 0 0-4.4Z M7 6.8 17 15"
    " M5.2 12.4a2.2 2.2 0 1 0 0 4.4 2.2 2.2 0 0 0 0-4.4Z M7 13.2 17 5",
    "copies": "M3 3h9.5v9.5H3Z M15.5 7.5H17V17H7.5v-1.5",
    "close": "M5 5l10 10 M15 5 5 15",
    "more": "M4.5 10h.1 M10 10h.1 M15.5 10h.1",
    "external": "M9 4H4v12h12v-5 M11.5 3.5h5v5 M16.5 3.5 9.5 10.5",
    "wand": "M3.5 16.5 12 8 M14 3v3 M12.5 4.5h3 M16 9v2 M15 10h2 M7 3.5v2 M6 4.5h2",
    "compare": "M3 4h6v12H3Z M11 4h6v12h-6Z M10 2v16",
    "info": "M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4Z M10 9.3V14 M10 6.4h.1",
    "clock": "M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4Z M10 6v4.3l3 1.7",
    "memory": "M2.5 6h15v8h-15Z M5 14v2 M8.3 14v2 M11.7 14v2 M15 14v2 M6 8.5v3 M10 8.5v3 M14 8.5v3",
    "disk": "M3 11.5h14V16H3Z M3 11.5 5.5 4h9l2.5 7.5 M13.5 13.8h.5",
}
_FILLED = frozenset({"play", "stop"})


def icon(name: str, token: str = "text") -> QIcon:
    """Return the icon called ``name`` in the colour of ``token``.

    Raises:
        KeyError: if there is none of that name.
    """
    return QIcon(_LineIconEngine(_PATHS[name], name in _FILLED, token))


def paint_icon(painter: QPainter, name: str, rect: QRectF, colour: str) -> None:
    """Paint the icon called ``name`` into ``rect`` in the colour #rrggbb."""
    _renderer(_PATHS[name], name in _FILLED, colour).render(painter, rect)


def icon_names() -> tuple[str, ...]:
    """Return the names of all icons."""
    return tuple(_PATHS)


@lru_cache(maxsize=400)
def _renderer(path: str, is_filled: bool, colour: str) -> QSvgRenderer:
    fill = colour if is_filled else "none"
    text = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20">'
        f'<path d="{path}" fill="{fill}" stroke="{colour}" stroke-width="1.5"'
        ' stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )
    return QSvgRenderer(QByteArray(text.encode("ascii")))


class _LineIconEngine(QIconEngine):
    """Paints one icon; asks for the colour each time, so a new theme needs no new icons."""

    def __init__(self, path: str, is_filled: bool, token: str) -> None:
        super().__init__()
        self._path = path
        self._is_filled = is_filled
        self._token = token

    def clone(self) -> QIconEngine:
        return _LineIconEngine(self._path, self._is_filled, self._token)

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        token = self._token
        if mode == QIcon.Mode.Disabled:
            token = "disabled"
        elif mode == QIcon.Mode.Selected:
            # The ground is the accent then, on which no other colour can be told.
            token = "on_accent"
        renderer = _renderer(self._path, self._is_filled, getattr(tokens(), token))
        renderer.render(painter, QRectF(rect))

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        result = QPixmap(size)
        result.fill(Qt.GlobalColor.transparent)
        painter = QPainter(result)
        self.paint(painter, QRect(0, 0, size.width(), size.height()), mode, state)
        painter.end()
        return result
