"""From the options a user chose to the arithmetic of the optimizer that runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from aozora.config.choices.optimizers import Adafactor, AdamW, Lion, RavenAdamW, VeloRMS
from optimizers.adafactor import AdafactorRule
from optimizers.lion import LionRule
from optimizers.raven_adamw import AdamWRule, RavenAdamWRule
from optimizers.rule import Moments, UpdateRule
from optimizers.velo_rms import VeloRMSRule

RULES: dict[type[Any], Callable[..., UpdateRule]] = {
    RavenAdamW: RavenAdamWRule,
    VeloRMS: VeloRMSRule,
    AdamW: AdamWRule,
    Lion: LionRule,
    Adafactor: AdafactorRule,
}


def build_rule(
    options: RavenAdamW | VeloRMS | AdamW | Lion | Adafactor,
) -> tuple[UpdateRule, Moments]:
    """Return the rule for ``options``, and how its states are kept."""
    values = dataclasses.asdict(options)
    moments: Moments = values.pop("moments", "float32")
    return RULES[type(options)](**values), moments
