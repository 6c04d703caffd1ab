"""How often each noise level is trained: densities over the timesteps, as weights of bins.

Weights are relative to a uniform pool (their mean is 1). They are rounded to nine decimals, so that
the last bits of a machine's mathematics library do not decide which tickets a run gets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from aozora.config.fields import setting
from aozora.config.ticket_pool import TIMESTEPS, rebin
from aozora.registry import Family

DISTRIBUTIONS = Family("timestep distribution")


@DISTRIBUTIONS.register("uniform", "Uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every noise level equally often."""

    def bin_weights(self, bins: int) -> tuple[float, ...]:
        """Return the relative density of each of ``bins`` equal bins."""
        return (1.0,) * bins


@DISTRIBUTIONS.register("logit_normal", "Logit-normal")
@dataclass(frozen=True, kw_only=True)
class LogitNormal:
    """The sigmoid of a normal variable: the middle more often than both ends."""

    mean: float = setting(
        0.0,
        label="Mean",
        help="Below 0 trains fine detail more, above 0 composition.",
        minimum=-3.0,
        maximum=3.0,
    )
    sd: float = setting(
        1.0,
        label="Spread",
        help="Standard deviation; small values keep to the middle.",
        minimum=0.1,
        maximum=3.0,
    )

    def bin_weights(self, bins: int) -> tuple[float, ...]:
        """Return the relative density of each of ``bins`` equal bins."""
        below = [self._share_below(index / bins) for index in range(bins + 1)]
        return _normalised(high - low for low, high in itertools.pairwise(below))

    def _share_below(self, u: float) -> float:
        if u <= 0.0 or u >= 1.0:
            return 0.0 if u <= 0.0 else 1.0
        z = (math.log(u / (1.0 - u)) - self.mean) / self.sd
        return 0.5 * math.erfc(-z / math.sqrt(2.0))


@DISTRIBUTIONS.register("beta", "Beta")
@dataclass(frozen=True, kw_only=True)
class Beta:
    """The beta distribution: a hill, a slope, or both ends, by its two shape numbers."""

    a: float = setting(
        2.0,
        label="a",
        help="Large values train fine detail less; below 1 trains it more.",
        minimum=0.1,
        maximum=10.0,
    )
    b: float = setting(
        2.0,
        label="b",
        help="Large values train composition less; below 1 trains it more.",
        minimum=0.1,
        maximum=10.0,
    )

    def bin_weights(self, bins: int) -> tuple[float, ...]:
        """Return the relative density of each of ``bins`` equal bins."""
        below = [_beta_share_below(index / bins, self.a, self.b) for index in range(bins + 1)]
        return _normalised(high - low for low, high in itertools.pairwise(below))


@DISTRIBUTIONS.register("wave", "Cosine wave")
@dataclass(frozen=True, kw_only=True)
class Wave:
    """A cosine wave over the noise levels."""

    frequency: float = setting(
        1.0, label="Frequency", help="Waves over the whole range.", minimum=0.0, maximum=5.0
    )
    phase: float = setting(
        0.0,
        label="Phase",
        help="Where the wave starts; 3.14 starts in a valley.",
        unit="rad",
        minimum=0.0,
        maximum=6.29,
    )
    amplitude: float = setting(
        0.5,
        label="Amplitude",
        help="Height of the wave; above 1 its valleys are cut off at 0.",
        minimum=0.0,
        maximum=2.0,
    )

    def bin_weights(self, bins: int) -> tuple[float, ...]:
        """Return the relative density of each of ``bins`` equal bins."""
        places = (index / (bins - 1) for index in range(bins))
        return _normalised(
            max(0.0, 1.0 + self.amplitude * math.cos(math.tau * self.frequency * t + self.phase))
            for t in places
        )


@DISTRIBUTIONS.register("high_noise", "High noise only")
@dataclass(frozen=True, kw_only=True)
class HighNoise:
    """Only noise levels from a start on. Fine detail is not trained and may drift."""

    start: int = setting(
        500,
        label="First timestep",
        help="Below it nothing is trained, so fine detail and texture get no gradient and may"
        " drift.",
        minimum=0,
        maximum=999,
    )

    def bin_weights(self, bins: int) -> tuple[float, ...]:
        """Return the relative density of each of ``bins`` equal bins.

        A bin that the start cuts has the full density; the pool draws from its upper part only.
        """
        edge = self.start * bins
        return _normalised(float((index + 1) * TIMESTEPS > edge) for index in range(bins))


@DISTRIBUTIONS.register("custom", "Custom")
@dataclass(frozen=True, kw_only=True)
class Custom:
    """Bars set by hand."""

    weights: tuple[float, ...] = setting(
        (1.0,) * 20,
        label="Bars",
        help="Relative density of each bar from fine detail to pure noise: 10, 20, 25, 40, 50 or"
        " 100 of them.",
        minimum=0.0,
        maximum=1_000_000.0,
    )

    def bin_weights(self, bins: int) -> tuple[float, ...]:
        """Return the relative density of each of ``bins`` equal bins.

        Raises:
            ValueError: if the bars are of an impossible number, negative, not finite or all 0.
        """
        if not all(math.isfinite(weight) and weight >= 0.0 for weight in self.weights):
            raise ValueError("bars must be finite numbers, 0 or more")
        return _normalised(rebin(self.weights, bins))


def _normalised(weights: Iterable[float]) -> tuple[float, ...]:
    values = tuple(weights)
    mean = math.fsum(values) / len(values)
    if not mean > 0.0:
        raise ValueError("every bar of the timestep distribution is 0")
    return tuple(round(value / mean, 9) for value in values)


def _beta_share_below(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    # The fraction converges fast on this side of the mean; the other side follows by symmetry.
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_share_below(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction 1 + d1/(1 + d2/(1 + ...)) of the incomplete beta function.

    Evaluated backwards from a depth at which double precision has long converged for 0.1 to 10.
    """
    value = 1.0
    for m in range(100, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m - 1.0) * (a + b + m - 1.0) * x / ((a + 2 * m - 2.0) * (a + 2 * m - 1.0))
        value = 1.0 + odd / (1.0 + even / value)
    return value
