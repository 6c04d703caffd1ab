"""The ticket pool as the editor shows it: bars as they were drawn, and what the trainer draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aozora.config.checks import ticket_pool
from aozora.config.choices.distributions import Custom
from aozora.config.choices.predictions import Prediction
from aozora.config.choices.weightings import MinSnr
from aozora.config.codec import decode_config
from aozora.config.flow_shift import shifted_density, shifted_share_below
from aozora.config.issue import Issue
from aozora.config.schema import TrainConfig
from aozora.config.ticket_pool import TIMESTEPS, TicketPool, rebin
from aozora.registry import kind_of
from gui.editors.checked_run import CheckedRun
from gui.words import tr

_SECTIONS = ("timesteps", "objective", "loss")


@dataclass(frozen=True)
class TicketView:
    """A pool to be looked at and edited.

    Attributes:
        config: The settings it comes from, those that matter here.
        total: Tickets of the run, or 0 when not known.
        weights: The bars as they were drawn; a pool gives the same tickets for all multiples.
        checked: What a check found out about the run.
    """

    config: TrainConfig
    total: int
    weights: tuple[float, ...] = field(default=())
    checked: CheckedRun = field(default=CheckedRun())

    @classmethod
    def of_settings(
        cls, value: Callable[[str], Any], total: int, checked: CheckedRun | None = None
    ) -> TicketView:
        """Return the pool that settings describe.

        Args:
            value: Gives the value of a setting by its dotted path.
            total: Tickets of the run, or 0.
            checked: What a check found out about the run, if there was one.

        Raises:
            AozoraError: if the settings cannot be read (`ConfigError`).
            ValueError: if the distribution has no weights at all.
        """
        seed = value("training.seed")
        data = {name: value(name) for name in _SECTIONS}
        side = value("buckets.resolution")
        config = decode_config(
            {**data, "training": {"seed": seed}, "buckets": {"resolution": side}}
        )
        return cls(config, total, drawn_weights(config), checked or CheckedRun())

    @property
    def bins(self) -> int:
        """The number of bars."""
        return len(self.weights)

    @property
    def kind(self) -> str:
        """The registered name of the distribution."""
        return kind_of(self.config.timesteps.distribution)

    def with_weights(self, weights: tuple[float, ...]) -> TicketView:
        """Return the pool with the bars ``weights``, painted by hand."""
        section = dataclasses.replace(
            self.config.timesteps, distribution=Custom(weights=tuple(weights))
        )
        config = dataclasses.replace(self.config, timesteps=section)
        return dataclasses.replace(self, config=config, weights=tuple(weights))

    @cached_property
    def _drawn_from(self) -> TicketPool | None:
        try:
            pool = ticket_pool(self.config)
            pool.shares()
        except ValueError:
            return None
        return pool

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        pool = self._drawn_from
        return pool.counts(self.total) if pool is not None else (0,) * self.bins

    @cached_property
    def _shares(self) -> tuple[float, ...]:
        pool = self._drawn_from
        return tuple(map(float, pool.shares())) if pool is not None else (0.0,) * self.bins

    @cached_property
    def _shifted(self) -> tuple[float, ...] | None:
        pool = self._drawn_from
        return shifted_density(pool, self.shifts) if pool is not None and self.shifts else None

    @cached_property
    def shifts(self) -> dict[float, float]:
        """The flow shifts that occur and how often each does; empty where nothing is shifted."""
        return self.checked.shifts(self.config.objective, self.config.buckets.resolution)

    @property
    def prediction(self) -> Prediction | None:
        """What is trained; None while the base model has not been asked."""
        return self.checked.prediction_of(self.config.objective)

    @property
    def has_zero_terminal_snr(self) -> bool:
        """Whether the noise schedule ends in pure noise, as far as is known."""
        return self.checked.has_zero_terminal_snr(self.config.objective)

    @property
    def is_min_snr_weighted(self) -> bool:
        """Whether the loss is weighted by min-SNR."""
        return isinstance(self.config.loss.weighting, MinSnr)

    def issues(self) -> list[Issue]:
        """Return what is to be said of the pool; empty when there is none."""
        pool = self._drawn_from
        if pool is None:
            return []
        low = shifted_share_below(pool, self.shifts, 0.5) if self.shifts else None
        found = pool.validate(
            self.total or TIMESTEPS,
            zero_terminal_snr=self.has_zero_terminal_snr,
            shifted_low=low,
        )
        # Without a known length there are no tickets to count, only shares.
        known = [issue for issue in found if self.total or "ticket" not in issue.text]
        if self.prediction is None:
            text = tr(
                "what the base model predicts is not known yet; rectified flow would shift all this"
            )
            known.append(Issue("info", text))
        return known

    def pool(self) -> TicketPool | None:
        """Return the pool the trainer makes of it; None when it cannot make one."""
        return self._drawn_from

    def counts(self) -> tuple[int, ...]:
        """Return how many tickets each bar gets, all 0 when there is no pool."""
        return self._counts

    def shares(self) -> tuple[float, ...]:
        """Return the share of each bar in all tickets."""
        return self._shares

    def is_like(self, counts: Sequence[int]) -> bool:
        """Return whether a run with these tickets by bar has about the shares of this pool.

        Each stretch of a resumed run rounds its tickets by itself, so that few more or less do not
        make another pool.
        """
        total = sum(counts)
        slack = max(3.0, total / 200)
        return all(
            abs(count - share * total) <= slack
            for count, share in zip(counts, self.shares(), strict=True)
        )

    def bar_range(self, index: int) -> tuple[int, int]:
        """Return the first and last timestep of bar ``index``."""
        width = TIMESTEPS // self.bins
        return index * width, (index + 1) * width - 1

    def bar_name(self, index: int) -> str:
        """Return the timesteps of bar ``index`` as ``450-499``."""
        low, high = self.bar_range(index)
        return f"{low}\u2013{high}"

    def shifted(self) -> tuple[float, ...] | None:
        """Return the density of the timesteps the UNet is given, where rectified flow shifts them.

        None when nothing is shifted. Before a check, pictures are taken as squares of the training
        resolution.
        """
        return self._shifted


def drawn_weights(config: TrainConfig) -> tuple[float, ...]:
    """Return the bars of ``config`` as they were drawn, those of a formula with a mean of 1.

    Raises:
        ValueError: if the number of bars is impossible or a formula gives nothing.
    """
    section = config.timesteps
    if isinstance(section.distribution, Custom):
        return rebin(section.distribution.weights, section.bins)
    return section.distribution.bin_weights(section.bins)


def spoken_bar(view: TicketView, index: int) -> str:
    """Return a bar in words: its timesteps, weight, tickets and share."""
    text = f"{view.bar_name(index)}: {view.weights[index]:.2f}\u00d7"
    if view.total:
        text += f", {view.counts()[index]:,} tickets"
    return f"{text}, {view.shares()[index]:.1%}"
