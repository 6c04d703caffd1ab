"""A small UNet of the true architecture, its inputs, and weights moved to host memory."""

from __future__ import annotations

import copy

import pytest
import torch

from aozora.memory.weight_streaming import HostUnit
from aozora.model.building import build_model
from aozora.model.synthetic import ModelSizes, configs_of, random_parameter

SIZES = ModelSizes(unet_channels=(32, 64, 64))
ALIGNMENT = 64


def _move_to_host(model, unit_names, *, is_moved=lambda name: True):
    """Return a host unit for each module; streams all their parameters that ``is_moved`` takes."""
    units = []
    for unit_name in unit_names:
        module = model.get_submodule(unit_name)
        views, parts, used = {}, [], 0
        for own_name, parameter in module.named_parameters():
            name = f"{unit_name}.{own_name}"
            if not is_moved(name):
                continue
            views[name] = (used, parameter.shape)
            padding = -parameter.numel() % ALIGNMENT
            parts += [parameter.detach().flatten().clone(), torch.full((padding,), 7.0)]
            used += parameter.numel() + padding
        units.append(HostUnit(unit_name, torch.cat(parts).to(parameter.dtype), views))
    return units


@pytest.fixture(scope="session")
def move_to_host():
    return _move_to_host


@pytest.fixture(scope="session")
def _built_unet():
    unet = build_model("unet", configs_of(SIZES)["unet"])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            parameter.copy_(random_parameter(name, tuple(parameter.shape), generator))
    return unet.train()


@pytest.fixture
def make_unet(_built_unet):
    """Return a function that makes equal small UNets."""
    return lambda: copy.deepcopy(_built_unet)


@pytest.fixture(scope="session")
def run_unet():
    """Return a function that gives the loss of the k-th batch."""

    def run(unet, k=0, batch=1, side=16):
        generator = torch.Generator().manual_seed(100 + k)
        latents = torch.randn(batch, 4, side, side, generator=generator)
        width = SIZES.te1_width + SIZES.te2_width
        dtype = unet.conv_in.weight.dtype
        (prediction,) = unet(
            latents.to(dtype),
            torch.full((batch,), 500),
            encoder_hidden_states=torch.randn(batch, 7, width, generator=generator).to(dtype),
            added_cond_kwargs={
                "text_embeds": torch.randn(batch, SIZES.te2_width, generator=generator).to(dtype),
                "time_ids": torch.full((batch, 6), 128.0),
            },
            return_dict=False,
        )
        return (prediction.float() - latents.flip(0).roll(1, 3)).square().mean()

    return run
