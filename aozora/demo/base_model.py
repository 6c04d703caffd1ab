"""A small base model of SDXL's true structure, written with nothing downloaded.

The UNet and the text encoders are untrained. The VAE is not random but laid out by hand, since a
random one would lose the pictures: its encoder is the exact average of 8x8 pixels in three colour
channels and a vertical gradient, scaled to unit size, and its decoder shows their shapes.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aozora.model.building import build_model
from aozora.model.key_map import Component
from aozora.model.synthetic import ModelSizes, configs_of, write_models

# The deepest level is the narrow one: 60 of the 70 blocks are there, and 1:2:4 would not fit 80 MB;
# equal widths would leave out two tensors.
DEMO_SIZES = ModelSizes(
    unet_channels=(32, 128, 64),
    unet_depths=(1, 2, 10),
    vae_channels=(32, 64, 128, 128),
    te1_width=64,
    te1_layers=12,
    te2_width=128,
    te2_layers=32,
)
# What the encoder takes from the averages: brightness and two differences of colours.
_MIX = ((0.5, 0.5, 0.5), (0.7, -0.7, 0.0), (0.4, 0.4, -0.8))
_NUM_VALUES, _ONES = 4, 4
_REFERENCE = 16.0
_NEXT_TO_NOTHING = 1e-6
_VAE_SCALE = 0.13025
_METADATA = {"modelspec.title": "Aozora demo base", "modelspec.prediction_type": "epsilon"}


@dataclasses.dataclass(frozen=True)
class LatentStatistics:
    """How the encoder's four channels lie before they are brought to unit size."""

    mean: tuple[float, float, float, float]
    std: tuple[float, float, float, float]


DEMO_STATISTICS = LatentStatistics(
    mean=(-0.087, 0.0145, 0.023, 0.0), std=(0.932, 0.306, 0.410, 0.0613)
)


def write_demo_base(path: Path, seed: int = 0) -> None:
    """Write the demo's base model (float16, under 80 MB) to ``path``.

    Args:
        path: The file to write.
        seed: Decides the random weights of UNet and text encoders.
    """
    configs = configs_of(DEMO_SIZES)
    models: dict[Component, nn.Module] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for component in ("unet", "vae", "te1", "te2"):
            torch.manual_seed(seed)
            models[component] = build_model(component, configs[component])
        _prepare_unet(models["unet"])
        _prepare_text_encoder(models["te1"])
        _prepare_text_encoder(models["te2"])
        lay_out_vae(models["vae"], DEMO_STATISTICS)
    write_models(path, models, metadata=_METADATA)


def _prepare_unet(unet: nn.Module) -> None:
    """Start from predicting next to nothing, which is what an untrained denoiser knows."""
    unet.get_parameter("conv_out.weight").normal_(std=1e-4)
    unet.get_parameter("conv_out.bias").zero_()


def _prepare_text_encoder(encoder: nn.Module) -> None:
    """Give the tokens embeddings of unit size, so that captions differ in what comes out."""
    for name, parameter in encoder.named_parameters():
        if name.endswith("token_embedding.weight"):
            parameter.normal_(std=1.0)
        elif name.endswith("position_embedding.weight"):
            parameter.normal_(std=0.1)


def lay_out_vae(vae: nn.Module, statistics: LatentStatistics) -> None:
    """Make ``vae`` a fixed linear encoder and a decoder that undoes it.

    Every residual branch ends in zeros and so adds nothing. What is left are the convolutions
    between levels and a group normalisation before the last one. Each group holds a value, its
    negative and two large constants of both signs: that fixes the group's mean to 0 and its spread
    to the constants', so that the normalisation only divides by a known number; and
    silu(x) - silu(-x) = x undoes the activation.
    """
    for module in vae.modules():
        if module.__class__.__name__ == "ResnetBlock2D":
            _zero(module.get_submodule("conv2"))
            shortcut = getattr(module, "conv_shortcut", None)
            if shortcut is not None:
                _zero(shortcut)
                _identity(shortcut)
        elif module.__class__.__name__ == "Attention":
            _zero(module.get_submodule("to_out.0"))
    _lay_out_encoder(vae, statistics)
    _lay_out_decoder(vae, statistics)


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()
        # Nothing but zeros is what a damaged file looks like, and readers warn of it.
        parameter.view(-1)[0] = _NEXT_TO_NOTHING


def _identity(conv: Any) -> None:
    """Pass channels on as they are, as many as both sides have."""
    centre = conv.weight.shape[-1] // 2
    for channel in range(min(conv.weight.shape[:2])):
        conv.weight[channel, channel, centre, centre] = 1.0


def _lay_out_encoder(vae: nn.Module, statistics: LatentStatistics) -> None:
    encoder: Any = vae.get_submodule("encoder")
    _zero(encoder.conv_in)
    # Channels 0 to 2 are mixes of colours, 3 a vertical gradient, 4 all ones.
    for row, mix in enumerate(_MIX):
        for colour, share in enumerate(mix):
            encoder.conv_in.weight[row, colour, 1, 1] = share
    encoder.conv_in.weight[3, :, 0, 1] = -0.5
    encoder.conv_in.weight[3, :, 2, 1] = 0.5
    encoder.conv_in.bias[_ONES] = 1.0
    downsamplers = [b.downsamplers[0].conv for b in encoder.down_blocks if b.downsamplers]
    for conv in downsamplers:
        _zero(conv)
    for conv in downsamplers[:-1]:
        for channel in range(_NUM_VALUES + 1):
            conv.weight[channel, channel, :2, :2] = 0.25
    # The last one spreads the values over the groups of the final normalisation.
    last = downsamplers[-1].weight
    for channel in range(_NUM_VALUES):
        value, negative, plus, minus = range(4 * channel, 4 * channel + 4)
        last[value, channel, :2, :2] = 0.25
        last[negative, channel, :2, :2] = -0.25
        last[plus, _ONES, :2, :2] = 0.25 * _REFERENCE
        last[minus, _ONES, :2, :2] = -0.25 * _REFERENCE
    _zero(encoder.conv_out)
    for channel in range(_NUM_VALUES):
        # The group's spread is that of two of its four members: the reference over root two.
        scale = _REFERENCE / math.sqrt(2.0) / (statistics.std[channel] * _VAE_SCALE)
        encoder.conv_out.weight[channel, 4 * channel, 1, 1] = scale
        encoder.conv_out.weight[channel, 4 * channel + 1, 1, 1] = -scale
        encoder.conv_out.bias[channel] = -statistics.mean[channel] / (
            statistics.std[channel] * _VAE_SCALE
        )
    # The posterior's log-variance: next to nothing.
    encoder.conv_out.bias[_NUM_VALUES:] = -20.0
    quant_conv = vae.get_submodule("quant_conv")
    _zero(quant_conv)
    _identity(quant_conv)


def _lay_out_decoder(vae: nn.Module, statistics: LatentStatistics) -> None:
    """Show the shapes the latents stand for, colour by colour.

    The decoder's last normalisation has one channel a group: it takes mean and contrast out of
    every colour of the whole picture, so the shapes come back but not their true colours.
    """
    decoder: Any = vae.get_submodule("decoder")
    post_quant_conv = vae.get_submodule("post_quant_conv")
    _zero(post_quant_conv)
    _identity(post_quant_conv)
    _zero(decoder.conv_in)
    colours = torch.linalg.inv(torch.tensor(_MIX, dtype=torch.float64)).float()
    for colour in range(3):
        for channel in range(3):
            share = colours[colour, channel] * statistics.std[channel] * _VAE_SCALE
            decoder.conv_in.weight[colour, channel, 1, 1] = share
            decoder.conv_in.weight[colour + 3, channel, 1, 1] = -share
    for block in decoder.up_blocks:
        if block.upsamplers is not None:
            _zero(block.upsamplers[0].conv)
            _identity(block.upsamplers[0].conv)
    _zero(decoder.conv_out)
    for colour in range(3):
        decoder.conv_out.weight[colour, colour, 1, 1] = 0.4
        decoder.conv_out.weight[colour, colour + 3, 1, 1] = -0.4
