"""The clock of rectified flow: from tickets to the timesteps the UNet is given.

A ticket ``n`` (0 to 999) stands for the noise share ``u = (n + 0.5) / 1000``. The shift moves it
towards noise, ``u' = k u / (1 + (k - 1) u)``, and the timestep is ``1000 u'``. ``k`` grows with the
side of the picture, since more pixels need more noise to hide the same picture. Everything reported
and charted is the timestep after the shift; the limits of a ticket pool count before it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from aozora.config.ticket_pool import TIMESTEPS, TicketPool

REFERENCE_SIDE_PX = 1024


def resolution_factor(height: int, width: int) -> float:
    """Return by how much a picture of these pixels shifts more than one of 1024 x 1024."""
    return math.sqrt(height * width) / REFERENCE_SIDE_PX


def shifted(u: float, shift: float) -> float:
    """Return the noise share ``u`` after the shift; ``shifted(u, 1 / shift)`` undoes it."""
    return shift * u / (1.0 + (shift - 1.0) * u)


def flow_timestep(ticket: int, shift: float) -> float:
    """Return the timestep in (0, 1000) that the UNet is given for ``ticket``."""
    return TIMESTEPS * shifted((ticket + 0.5) / TIMESTEPS, shift)


def shifted_shares(pool: TicketPool, shifts: Mapping[float, float]) -> tuple[float, ...]:
    """Return what share of the samples has its timestep, after the shift, in each bin.

    Args:
        pool: The tickets before the shift.
        shifts: The shifts that occur (one for each size of pictures) and how often each does,
            relative to the others.

    Raises:
        ValueError: if the pool has a fault, or ``shifts`` is empty or not positive.
    """
    below = [shifted_share_below(pool, shifts, index / pool.bins) for index in range(pool.bins + 1)]
    return tuple(high - low for low, high in itertools.pairwise(below))


def shifted_share_below(pool: TicketPool, shifts: Mapping[float, float], u: float) -> float:
    """Return what share of the samples has a noise share below ``u`` after the shift.

    Arguments and errors are those of `shifted_shares`.
    """
    whole = math.fsum(shifts.values())
    if not whole > 0.0 or min(shifts) <= 0.0 or min(shifts.values()) < 0.0:
        raise ValueError("flow shifts and how often they occur must be above 0")
    parts = (part * pool.share_below(TIMESTEPS * shifted(u, 1.0 / k)) for k, part in shifts.items())
    return math.fsum(parts) / whole


def shifted_density(pool: TicketPool, shifts: Mapping[float, float]) -> tuple[float, ...]:
    """Return `shifted_shares` as densities, 1.0 being that of a uniform pool."""
    return tuple(share * pool.bins for share in shifted_shares(pool, shifts))


def shifted_counts(pool: TicketPool, total: int, shifts: Mapping[float, float]) -> tuple[int, ...]:
    """Return how many of ``total`` samples are expected in each bin after the shift.

    Whole numbers that add up to ``total``, by largest remainder; ties go to the lower bin.
    """
    wanted = [share * total for share in shifted_shares(pool, shifts)]
    counts = [math.floor(value) for value in wanted]
    rest = sorted(range(pool.bins), key=lambda i: (counts[i] - wanted[i], i))
    for index in rest[: total - sum(counts)]:
        counts[index] += 1
    return tuple(counts)
