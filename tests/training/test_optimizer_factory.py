from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch
from torch import nn

from aozora.config.choices.optimizers import OPTIMIZERS, Adafactor, Moments
from aozora.registry import kind_of
from aozora.training.optimizer_factory import RULES, build_rule
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.placement import Placement
from optimizers.streamed import StreamedOptimizer


def test_every_optimizer_that_can_be_chosen_has_a_rule():
    assert set(RULES) == set(OPTIMIZERS.classes())


@pytest.mark.parametrize("options", OPTIMIZERS.classes())
def test_every_option_reaches_the_rule(options):
    changed = {}
    for field in dataclasses.fields(options):
        if isinstance(field.default, bool):
            changed[field.name] = not field.default
        elif isinstance(field.default, float):
            changed[field.name] = field.default / 2 + 0.01
    rule, _ = build_rule(options(**changed))
    assert changed
    assert {name: getattr(rule, name) for name in changed} == changed
    assert rule.kind == kind_of(options)


@pytest.mark.parametrize("options", [c for c in OPTIMIZERS.classes() if c is not Adafactor])
@pytest.mark.parametrize("moments", get_args(Moments))
def test_moments_are_kept_as_they_were_chosen(options, moments):
    assert build_rule(options(moments=moments))[1] == moments


def test_an_optimizer_without_a_choice_of_moments_keeps_float32():
    rule, moments = build_rule(Adafactor())
    assert moments == "float32"
    assert set(rule.formats(moments).values()) == {"float32"}


@pytest.mark.parametrize("options", OPTIMIZERS.classes())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_optimizer_moves_weights_of_every_precision_downhill(options, dtype):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(16, 8).to(dtype))
    rule, moments = build_rule(options())
    engine = Engine(
        {"w": parameter},
        rule,
        moments=moments,
        placement=Placement(small_tensor=0, ring_bytes=1),
        device=torch.device("cpu"),
    )
    sums, optimizer = GradientSums(engine), StreamedOptimizer(engine)
    before = parameter.detach().float().square().sum()
    for _ in range(20):
        sums.put({"w": parameter.detach().clone()})
        optimizer.step(sums, 1e-2, torch.ones(()))
    assert parameter.detach().float().square().sum() < 0.95 * before
    assert parameter.dtype == dtype
    assert optimizer.state_dict()["kind"] == kind_of(options())
