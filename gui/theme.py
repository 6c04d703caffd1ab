"""Colours, spacing and type of the window, and switching between themes.

Everything painted takes its colours from `tokens`; everything made of Qt's own widgets takes them
from the palette, which is made of the same tokens. Style sheets hold shapes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QGuiApplication, QPalette, QStyleHints
from PySide6.QtWidgets import QApplication, QWidget

from gui.theme_sheet import STYLE_SHEET

ThemeName = Literal["dark", "light", "contrast"]
ThemeSetting = Literal["system", "dark", "light", "contrast"]


@dataclass(frozen=True)
class Tokens:
    """The colours of one theme, as #rrggbb.

    Attributes:
        base: Ground of cards.
        raised: Ground of buttons and of what the pointer is over.
        border: Lines that only divide.
        control: Outlines of controls.
        on_accent: Text on the accent.
        disabled: Text and icons of what cannot be used now.
        series: Colours of chart series; they differ by dash and marker too.
    """

    name: ThemeName
    window: str
    base: str
    raised: str
    border: str
    control: str
    text: str
    muted: str
    accent: str
    on_accent: str
    disabled: str
    ok: str
    warn: str
    error: str
    series: tuple[str, str, str, str]


DARK = Tokens(
    name="dark",
    window="#16181d",
    base="#1d2027",
    raised="#23272f",
    border="#3a404c",
    control="#6b7485",
    text="#e6e8ec",
    muted="#a3aab8",
    accent="#5aa9ff",
    on_accent="#0b0d11",
    disabled="#6b7485",
    ok="#5ccf8a",
    warn="#ffb454",
    error="#ff7b72",
    series=("#5aa9ff", "#ffb454", "#b48cff", "#4fd1c5"),
)
LIGHT = Tokens(
    name="light",
    window="#f5f6f8",
    base="#ffffff",
    raised="#eceef2",
    border="#d3d8e0",
    control="#7b8494",
    text="#1b1f27",
    muted="#565f70",
    accent="#1c64c4",
    on_accent="#ffffff",
    disabled="#7b8494",
    ok="#1c7a45",
    warn="#8a5200",
    error="#c0352b",
    series=("#1c64c4", "#8a5200", "#6f42c1", "#0a7069"),
)
CONTRAST = Tokens(
    name="contrast",
    window="#000000",
    base="#000000",
    raised="#1a1a1a",
    border="#ffffff",
    control="#ffffff",
    text="#ffffff",
    muted="#ffffff",
    accent="#ffff00",
    on_accent="#000000",
    disabled="#8c8c8c",
    ok="#00ff66",
    warn="#ffcc00",
    error="#ff8080",
    series=("#ffff00", "#00ffff", "#ff80ff", "#80ff80"),
)
THEMES: dict[ThemeName, Tokens] = {tokens.name: tokens for tokens in (DARK, LIGHT, CONTRAST)}

# Distances in device-independent pixels.
GAP_1, GAP_2, GAP_3, GAP_4, GAP_5 = 4, 8, 12, 16, 24
CONTROL_HEIGHT = 28
PRIMARY_HEIGHT = 36
RADIUS, CARD_RADIUS = 6, 8


class _Notifier(QObject):
    """Tells that another theme holds; for what paints itself from `tokens`."""

    changed = Signal()


_state: dict[str, Tokens] = {"tokens": DARK}
_notifiers: list[_Notifier] = []


def notifier() -> _Notifier:
    """Return the object whose ``changed`` signal follows the theme."""
    if not _notifiers:
        _notifiers.append(_Notifier())
    return _notifiers[0]


def tokens() -> Tokens:
    """Return the colours that hold now."""
    return _state["tokens"]


def colour(token: str, alpha: float = 1.0) -> QColor:
    """Return the colour of the token called ``token`` in the theme that holds now."""
    value = QColor(getattr(tokens(), token))
    value.setAlphaF(alpha)
    return value


def resolved(setting: ThemeSetting) -> ThemeName:
    """Return the theme ``setting`` means on this computer."""
    if setting != "system":
        return setting
    hints = QGuiApplication.styleHints()
    if _wants_contrast(hints):
        return "contrast"
    return "light" if hints.colorScheme() == Qt.ColorScheme.Light else "dark"


def _wants_contrast(hints: QStyleHints) -> bool:
    """Return whether the computer is set to high contrast; only Qt 6.10 and newer can tell."""
    ask = getattr(hints, "accessibility", None)
    if ask is None:
        return False
    # Held while it is asked: it belongs to the hints, and goes with a temporary one.
    accessibility = ask()
    return bool(accessibility.contrastPreference() == Qt.ContrastPreference.HighContrast)


def palette(theme: Tokens) -> QPalette:
    """Return ``theme`` as Qt's palette."""
    role = QPalette.ColorRole
    colours = {
        role.Window: theme.window,
        role.WindowText: theme.text,
        role.Base: theme.base,
        role.AlternateBase: theme.raised,
        role.Text: theme.text,
        role.PlaceholderText: theme.muted,
        role.Button: theme.raised,
        role.ButtonText: theme.text,
        role.Highlight: theme.accent,
        role.HighlightedText: theme.on_accent,
        role.Accent: theme.accent,
        role.Link: theme.accent,
        role.LinkVisited: theme.accent,
        role.BrightText: theme.error,
        role.ToolTipBase: theme.raised,
        role.ToolTipText: theme.text,
        role.Mid: theme.border,
        role.Midlight: theme.border,
        role.Dark: theme.control,
        role.Light: theme.raised,
        # Qt's style draws nothing here with it; style sheets have no name for a disabled colour.
        role.Shadow: theme.disabled,
    }
    result = QPalette()
    for where, value in colours.items():
        result.setColor(where, QColor(value))
    for where in (role.WindowText, role.Text, role.ButtonText):
        result.setColor(QPalette.ColorGroup.Disabled, where, QColor(theme.disabled))
    result.setColor(QPalette.ColorGroup.Disabled, role.Highlight, QColor(theme.border))
    result.setColor(QPalette.ColorGroup.Disabled, role.HighlightedText, QColor(theme.muted))
    return result


def apply(app: QApplication, name: ThemeName) -> None:
    """Show ``app`` in the theme called ``name``."""
    _state["tokens"] = THEMES[name]
    app.setPalette(palette(THEMES[name]))
    if app.styleSheet() != STYLE_SHEET:
        # Without it a widget gets back the palette it had before the sheet whenever it is polished.
        app.setAttribute(Qt.ApplicationAttribute.AA_UseStyleSheetPropagationInWidgetStyles)
        app.setStyleSheet(STYLE_SHEET)
    notifier().changed.emit()


def follow(part: QWidget) -> None:
    """Let ``part`` of the window and what is in it take the colours of every later theme.

    What is hidden takes them when it is shown.
    """
    _Follower(part)


class _Follower(QObject):
    """Polishes a part of the window anew after a change of theme, for this is what Qt leaves out.

    What the sheet has polished keeps the colours of the palette that held then. Setting the sheet
    of the application again would polish each widget once for every widget above it, hidden pages
    too; going through all widgets here meets some that Python has let go of already, and touching
    those ends the program.
    """

    def __init__(self, part: QWidget) -> None:
        super().__init__(part)
        self._part = part
        self._is_behind = False
        if not part.styleSheet():
            # Qt polishes a part by itself only if it has a sheet, be it one that says nothing.
            part.setStyleSheet(" ")
        part.installEventFilter(self)
        notifier().changed.connect(self._catch_up)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Catch up before the part is shown."""
        if event.type() == QEvent.Type.Show and self._is_behind:
            self._polish()
        return False

    def _catch_up(self) -> None:
        self._is_behind = True
        if self._part.isVisible():
            self._polish()

    def _polish(self) -> None:
        self._is_behind = False
        self._part.setStyleSheet(self._part.styleSheet())


def page_title_font() -> QFont:
    """Return the type of a page's title."""
    return _font(16.0, QFont.Weight.DemiBold)


def group_font() -> QFont:
    """Return the type of a card's title."""
    return _font(10.5, QFont.Weight.DemiBold)


def small_font() -> QFont:
    """Return the type of remarks."""
    return _font(8.5, QFont.Weight.Normal)


def number_font() -> QFont:
    """Return the type of figures that stand under each other or change in place."""
    font = QApplication.font()
    font.setFeature(QFont.Tag("tnum"), 1)
    return font


def mono_font() -> QFont:
    """Return the type of file names, keys and logs."""
    font = QFont()
    font.setFamilies(["Cascadia Mono", "Consolas", "DejaVu Sans Mono", "Menlo", "monospace"])
    font.setStyleHint(QFont.StyleHint.Monospace)
    font.setPointSizeF(9.0)
    return font


def _font(points: float, weight: QFont.Weight) -> QFont:
    font = QApplication.font()
    font.setPointSizeF(points * max(QApplication.font().pointSizeF(), 1.0) / 9.0)
    font.setWeight(weight)
    return font
