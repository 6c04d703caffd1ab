from __future__ import annotations

import pytest
import torch
from torch import nn

from aozora.config.choices.optimizers import OPTIMIZERS
from aozora.registry import kind_of
from aozora.training.optimizer_factory import BUILDERS, build_optimizer


def test_every_optimizer_that_can_be_chosen_is_built():
    assert set(BUILDERS) == set(OPTIMIZERS.classes())


@pytest.mark.parametrize("options", OPTIMIZERS.classes())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_optimizer_moves_weights_of_every_precision_downhill(options, dtype):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(16, 8).to(dtype))
    optimizer = build_optimizer(options(), {"w": parameter}, seed=0)
    before = parameter.detach().float().square().sum()
    for _ in range(20):
        optimizer.step({"w": parameter.detach().float()}, lr=1e-2)
    assert parameter.detach().float().square().sum() < 0.95 * before
    assert parameter.dtype == dtype
    assert optimizer.state_dict()["kind"] == kind_of(options())
