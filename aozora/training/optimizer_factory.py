"""From the options a user chose to the optimizer that runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from aozora.config.choices.optimizers import Adafactor, AdamW, Lion, RavenAdamW, VeloRMS
from optimizers.adafactor import AdafactorRule
from optimizers.adamw import MasterAdamW
from optimizers.offload import OffloadedOptimizer
from optimizers.protocol import MasterOptimizer
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.rule import Moments, UpdateRule
from optimizers.velo_rms import VeloRMSRule

Parameters = Mapping[str, nn.Parameter]


def _offloaded(
    rule_class: Callable[..., UpdateRule],
) -> Callable[[Any, Parameters, int], MasterOptimizer]:
    def build(options: Any, parameters: Parameters, seed: int) -> MasterOptimizer:
        values = dataclasses.asdict(options)
        moments: Moments = values.pop("moments", "float32")
        rule = rule_class(**values)
        return OffloadedOptimizer(parameters, rule, formats=rule.formats(moments), seed=seed)

    return build


def _adamw(options: AdamW, parameters: Parameters, seed: int) -> MasterOptimizer:
    values = dataclasses.asdict(options)
    del values["moments"]  # float32, which is what MasterAdamW keeps
    return MasterAdamW(parameters, **values)


def _lion(options: Lion, parameters: Parameters, seed: int) -> MasterOptimizer:
    from optimizers.lion import LionRule

    return _offloaded(LionRule)(options, parameters, seed)


BUILDERS: dict[type[Any], Callable[[Any, Parameters, int], MasterOptimizer]] = {
    RavenAdamW: _offloaded(RavenAdamWRule),
    VeloRMS: _offloaded(VeloRMSRule),
    AdamW: _adamw,
    Lion: _lion,
    Adafactor: _offloaded(AdafactorRule),
}


def build_optimizer(
    options: RavenAdamW | VeloRMS | AdamW | Lion | Adafactor, parameters: Parameters, seed: int
) -> MasterOptimizer:
    """Return the optimizer for ``options`` over ``parameters``.

    Args:
        options: What was chosen.
        parameters: Trained parameters by name, where they will stay.
        seed: Decides the random rounding of 16-bit states.
    """
    return BUILDERS[type(options)](options, parameters, seed)
