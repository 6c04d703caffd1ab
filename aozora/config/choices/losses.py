"""How the difference between prediction and target is measured."""

from __future__ import annotations

from dataclasses import dataclass

from aozora.config.fields import setting
from aozora.registry import Family

LOSSES = Family("loss")


@LOSSES.register("mse", "Mean squared error")
@dataclass(frozen=True, kw_only=True)
class Mse:
    """The mean of the squared differences."""


@LOSSES.register("huber", "Huber")
@dataclass(frozen=True, kw_only=True)
class Huber:
    """Squared for small differences, proportional for large ones, so outliers count less."""

    c: float = setting(
        0.1,
        label="Threshold",
        help="Differences well below it are squared, those well above count in proportion.",
        minimum=0.0,
        maximum=100.0,
        exclusive_minimum=True,
    )
