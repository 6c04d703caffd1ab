"""The colours the editors paint with: the theme's tokens by what they are for here."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtGui import QColor

from gui.theme import colour, tokens


@dataclass(frozen=True)
class Inks:
    """Colours by what they are for.

    Attributes:
        grid: Main lines of a grid.
        faint: Lines between the main lines.
        ghost: What is compared or previewed.
        live: What a run has done.
    """

    base: QColor
    raised: QColor
    faint: QColor
    grid: QColor
    border: QColor
    text: QColor
    muted: QColor
    accent: QColor
    warn: QColor
    error: QColor
    ghost: QColor
    live: QColor


def inks() -> Inks:
    """Return the colours of the theme that holds now."""
    base, border = colour("base"), colour("border")
    series = tokens().series
    # Where lines are as bright as text, a grid of them would drown the curve.
    strength = 0.4 if tokens().name == "contrast" else 1.0
    return Inks(
        base=base,
        raised=colour("raised"),
        faint=mixed(base, border, 0.35 * strength),
        grid=mixed(base, border, 0.85 * strength),
        border=border,
        text=colour("text"),
        muted=colour("muted"),
        accent=colour("accent"),
        warn=colour("warn"),
        error=colour("error"),
        ghost=QColor(series[1]),
        live=QColor(series[3]),
    )


def mixed(ground: QColor, ink: QColor, part: float) -> QColor:
    """Return ``ground`` with ``part`` of ``ink`` in it."""
    return QColor(
        round(ground.red() + (ink.red() - ground.red()) * part),
        round(ground.green() + (ink.green() - ground.green()) * part),
        round(ground.blue() + (ink.blue() - ground.blue()) * part),
    )


def faded(ink: QColor, alpha: float) -> QColor:
    """Return ``ink`` with the opacity ``alpha``."""
    result = QColor(ink)
    result.setAlphaF(alpha)
    return result
