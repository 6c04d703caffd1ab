"""Ready-made learning-rate curves, each a function of its peak and a few proportions of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aozora.config.lr_schedule import LrPoint, LrSchedule, Shape

# A rise from exactly 0 would spend the first step on nothing; this is close to it and still learns.
_FIRST_STEP_SHARE = 0.01
_INVERSE_SQRT_POINTS = 24


def constant(peak: float, floor: float = 0.0, warm_up: float = 0.05) -> LrSchedule:
    """Return a rise over the share ``warm_up`` of the run, then ``peak`` to the end."""
    return LrSchedule((*_rise(peak, floor, warm_up, "hold"), LrPoint(1.0, peak)))


def linear(peak: float, floor: float = 0.0, warm_up: float = 0.05) -> LrSchedule:
    """Return a rise, then a straight fall to ``floor``."""
    return LrSchedule((*_rise(peak, floor, warm_up, "linear"), LrPoint(1.0, floor)))


def cosine(peak: float, floor: float = 0.0, warm_up: float = 0.05) -> LrSchedule:
    """Return a rise, then half a cosine wave down to ``floor``."""
    return LrSchedule((*_rise(peak, floor, warm_up, "cosine"), LrPoint(1.0, floor)))


def cosine_restarts(
    peak: float,
    floor: float = 0.0,
    warm_up: float = 0.05,
    cycles: int = 3,
    ramp: float = 0.01,
) -> LrSchedule:
    """Return ``cycles`` equal cosine falls; each restart climbs back over the share ``ramp``.

    Raises:
        ValueError: if there is no cycle, or the ramps leave no room for the falls.
    """
    length = (1.0 - warm_up) / cycles if cycles >= 1 else 0.0
    if length <= ramp:
        raise ValueError("the curve needs at least one cycle, longer than its ramp")
    points = _rise(peak, floor, warm_up, "cosine")
    for cycle in range(1, cycles):
        restart = warm_up + cycle * length
        points += (LrPoint(restart - ramp, floor, "linear"), LrPoint(restart, peak, "cosine"))
    return LrSchedule((*points, LrPoint(1.0, floor)))


def warm_up_stable_decay(
    peak: float, floor: float = 0.0, warm_up: float = 0.05, decay: float = 0.2
) -> LrSchedule:
    """Return a rise, a long plateau, and a cosine fall over the last share ``decay``.

    Raises:
        ValueError: if rise and fall leave no plateau.
    """
    if decay <= 0.0 or warm_up + decay >= 1.0:
        raise ValueError("warm-up and decay together must leave a part of the run between them")
    points = _rise(peak, floor, warm_up, "hold")
    return LrSchedule((*points, LrPoint(1.0 - decay, peak, "cosine"), LrPoint(1.0, floor)))


def one_cycle(peak: float, floor: float | None = None, warm_up: float = 0.3) -> LrSchedule:
    """Return a cosine rise from a 25th of ``peak``, then a cosine fall to ``floor``.

    Args:
        peak: Highest rate.
        floor: Last rate; None is a 10,000th of the first.
        warm_up: Share of the run that rises.
    """
    _check_warm_up(warm_up, least=0.001)
    last = peak / 250_000.0 if floor is None else floor
    start = LrPoint(0.0, peak / 25.0, "cosine")
    return LrSchedule((start, LrPoint(warm_up, peak, "cosine"), LrPoint(1.0, last)))


def inverse_sqrt(peak: float, floor: float = 0.0, warm_up: float = 0.05) -> LrSchedule:
    """Return a rise, then a fall with the square root of the place in the run.

    Points are denser where the curve bends; between them it deviates by less than 1 %.
    """
    _check_warm_up(warm_up, least=0.001)
    points = list(_rise(peak, floor, warm_up, "log"))
    for number in range(1, _INVERSE_SQRT_POINTS + 1):
        part = number / _INVERSE_SQRT_POINTS
        x = 1.0 if number == _INVERSE_SQRT_POINTS else warm_up ** (1.0 - part)
        points.append(LrPoint(x, max(peak * (warm_up / x) ** 0.5, floor)))
    return LrSchedule(tuple(points))


LR_PRESETS: Mapping[str, Callable[..., LrSchedule]] = {
    "Constant with warm-up": constant,
    "Linear": linear,
    "Cosine": cosine,
    "Cosine with restarts": cosine_restarts,
    "Warm-up, stable, decay": warm_up_stable_decay,
    "One cycle": one_cycle,
    "Inverse square root": inverse_sqrt,
}
"""Every preset by the name shown to users; the first argument is always the peak."""


def _rise(peak: float, floor: float, warm_up: float, after: Shape) -> tuple[LrPoint, ...]:
    _check_warm_up(warm_up)
    top = LrPoint(warm_up, peak, after)
    if warm_up == 0.0:
        return (top,)
    return (LrPoint(0.0, max(floor, peak * _FIRST_STEP_SHARE), "linear"), top)


def _check_warm_up(warm_up: float, least: float = 0.0) -> None:
    if not least <= warm_up < 1.0:
        raise ValueError(f"the warm-up is a share of the run from {least:g} to below 1")
