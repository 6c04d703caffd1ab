"""From the options a user chose to the optimizer that runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import nn

from aozora.config.choices.optimizers import Adafactor, AdamW, RavenAdamW, VeloRMS
from optimizers.adafactor import AdafactorRule
from optimizers.adamw import MasterAdamW
from optimizers.offload import OffloadedOptimizer
from optimizers.protocol import MasterOptimizer
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.rule import UpdateRule
from optimizers.velo_rms import VeloRMSRule

Parameters = Mapping[str, nn.Parameter]


def _offloaded(
    rule_class: Callable[..., UpdateRule],
) -> Callable[[Any, Parameters, int], MasterOptimizer]:
    def build(options: Any, parameters: Parameters, seed: int) -> MasterOptimizer:
        values = dataclasses.asdict(options)
        moments: Literal["16bit", "float32"] = values.pop("moments", "float32")
        rule = rule_class(**values)
        return OffloadedOptimizer(parameters, rule, formats=rule.formats(moments), seed=seed)

    return build


def _adamw(options: AdamW, parameters: Parameters, seed: int) -> MasterOptimizer:
    return MasterAdamW(parameters, **dataclasses.asdict(options))


BUILDERS: dict[type[Any], Callable[[Any, Parameters, int], MasterOptimizer]] = {
    RavenAdamW: _offloaded(RavenAdamWRule),
    VeloRMS: _offloaded(VeloRMSRule),
    AdamW: _adamw,
    Adafactor: _offloaded(AdafactorRule),
}


def build_optimizer(
    options: RavenAdamW | VeloRMS | AdamW | Adafactor, parameters: Parameters, seed: int
) -> MasterOptimizer:
    """Return the optimizer for ``options`` over ``parameters``.

    Args:
        options: What was chosen.
        parameters: Trained parameters by name, where they will stay.
        seed: Decides the random rounding of 16-bit states.
    """
    return BUILDERS[type(options)](options, parameters, seed)
