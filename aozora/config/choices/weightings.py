"""How much each noise level counts in the loss."""

from __future__ import annotations

from dataclasses import dataclass

from aozora.config.fields import setting
from aozora.registry import Family

WEIGHTINGS = Family("loss weighting")


@WEIGHTINGS.register("none", "None")
@dataclass(frozen=True, kw_only=True)
class NoWeighting:
    """Every noise level counts the same."""


@WEIGHTINGS.register("min_snr", "Min-SNR")
@dataclass(frozen=True, kw_only=True)
class MinSnr:
    """Noise levels count by their signal-to-noise ratio up to a limit, as errors of the picture."""

    gamma: float = setting(
        5.0,
        label="Gamma",
        help="The limit; lower values let clean noise levels count less. 5 is usual.",
        minimum=0.0,
        maximum=1000.0,
        exclusive_minimum=True,
    )
    floor: float = setting(
        0.0,
        label="Least weight",
        help="No noise level counts less. With v-prediction and zero terminal SNR, 0.05 keeps the"
        " noisiest steps trained.",
        minimum=0.0,
        maximum=1.0,
    )
