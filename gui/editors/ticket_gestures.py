"""What a running drag on the ticket chart comes to; free of Qt, one class a gesture.

A gesture is told where the mouse is, as a bar and a weight, and answers with itself carried on.
Escape forgets it; nothing else has to be undone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from gui.editors.ticket_edit import Weights, scaled, smoothed, stroked


class TicketGesture(Protocol):
    """A drag that runs."""

    @property
    def weights(self) -> Weights:
        """The bars as they would be after a release here."""

    def to(self, bar: int, weight: float) -> TicketGesture:
        """Return the gesture carried on to a place."""


@dataclass(frozen=True)
class Painting:
    """Bars go to the mouse; a fast sweep paints the bars it skipped.

    Attributes:
        weights: The bars so far.
        locked: Bars that stay.
        last: Where the mouse was, or None before the first place.
    """

    weights: Weights
    locked: frozenset[int]
    last: tuple[int, float] | None = None

    def to(self, bar: int, weight: float) -> Painting:
        """Return the painting carried on to a place."""
        start = self.last or (bar, weight)
        painted = stroked(self.weights, start, (bar, weight), self.locked)
        return replace(self, weights=painted, last=(bar, weight))


@dataclass(frozen=True)
class Ruling:
    """A straight line from the press to the mouse.

    Attributes:
        start: The bars at the press.
        locked: Bars that stay.
        press: Where the mouse was pressed.
        weights: The bars with the line.
    """

    start: Weights
    locked: frozenset[int]
    press: tuple[int, float]
    weights: Weights

    def to(self, bar: int, weight: float) -> Ruling:
        """Return the line carried on to a place."""
        ruled = stroked(self.start, self.press, (bar, weight), self.locked)
        return replace(self, weights=ruled)


@dataclass(frozen=True)
class Smoothing:
    """A brush that evens out the bars it passes.

    Attributes:
        weights: The bars so far.
        locked: Bars that stay.
        last: The bar the mouse was on, or None before the first.
    """

    weights: Weights
    locked: frozenset[int]
    last: int | None = None

    def to(self, bar: int, weight: float) -> Smoothing:
        """Return the brush moved to a bar."""
        if bar == self.last:
            return self
        first = bar if self.last is None else self.last + (1 if bar > self.last else -1)
        step = 1 if bar >= first else -1
        weights = self.weights
        for index in range(first, bar + step, step):
            weights = smoothed(weights, (index,), self.locked)
        return replace(self, weights=weights, last=bar)


@dataclass(frozen=True)
class Scaling:
    """All bars go up or down by one factor.

    Attributes:
        start: The bars at the press.
        locked: Bars that stay.
        press: The weight the mouse was pressed at.
        weights: The bars times the factor.
        factor: The factor.
    """

    start: Weights
    locked: frozenset[int]
    press: float
    weights: Weights
    factor: float = 1.0

    def to(self, bar: int, weight: float) -> Scaling:
        """Return the bars scaled by how far the mouse went up."""
        factor = round(max(weight, 0.0) / max(self.press, 0.05), 2)
        changed = scaled(self.start, factor, range(len(self.start)), self.locked)
        return replace(self, weights=changed, factor=factor)
