"""The bars of the timesteps a run draws: what it will draw, has drawn, and the loss there."""

from __future__ import annotations

from dataclasses import dataclass

from gui.charts.run_history import RunHistory

_DEFAULT_BARS = 20


@dataclass(frozen=True)
class TimestepBars:
    """The whole run's timesteps, from its first start on.

    Attributes:
        planned: Samples of the whole run by bar; empty when unknown.
        drawn: Samples drawn so far by bar.
        losses: Mean loss by bar; NaN where nothing was drawn.
    """

    planned: tuple[int, ...] = ()
    drawn: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()


def bars_of(history: RunHistory) -> TimestepBars:
    """Return the bars of ``history``, as many as its ticket pool has."""
    planned = tuple(history.plan.ticket_counts) if history.plan is not None else ()
    bars = len(planned) or _DEFAULT_BARS
    drawn = tuple(int(count) for count in history.tally.counts(bars))
    losses = tuple(float(loss) for loss in history.tally.mean_losses(bars))
    return TimestepBars(planned, drawn, losses)
