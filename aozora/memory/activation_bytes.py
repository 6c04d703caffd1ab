"""What keeping activations costs in bytes and saves in work, for each part of a UNet.

The table is exact: it counts the tensors that diffusers' modules hand to autograd, under an
attention kernel that keeps queries, keys, values, result and one logarithm a row and head, and the
matrix products that a checkpoint repeats before it has what backward asks for. The tests hold it
against the true modules at the true widths.

C below are the channels of a part; "result" and "sum" are per pixel of its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aozora.memory.recompute import CheckpointingUNet, Kind, Level, recomputable

HEAD_CHANNELS = 64
_NORM_GROUPS = 32
_FLOAT32 = 4
_RANDOM_STATE = 24  # of an attention's dropout, kept even though there is none


PEAK_PER_PIXEL = 20_200
"""Activations of the SDXL UNet for each latent pixel at the peak of backward, when every part is
"full" and gradients leave as they appear: 631 MiB in bfloat16 for one sample of 128 x 128. The peak
is in the last transformer block of ``up_blocks.1``; it is linear in pixels and batch to 1%."""


@dataclass(frozen=True, kw_only=True)
class ActivationShape:
    """What a forward pass is done on.

    Attributes:
        pixels: Height times width of the latents.
        batch: Samples.
        text_tokens: Tokens of a caption.
        itemsize: Bytes of an activation: 2 for bfloat16 and float16, 4 for float32.
    """

    pixels: int
    batch: int = 1
    text_tokens: int = 77
    itemsize: int = 2


@dataclass(frozen=True, kw_only=True)
class Part:
    """A module whose activations are kept or not.

    Attributes:
        path: Where it is in the UNet.
        kind: What it is.
        shrink: Latent pixels for each pixel of its input.
        in_channels: Channels of its input.
        channels: Channels of its output.
        condition_width: Width of the text a transformer block attends to, or of the embedding of
            the timestep that a resnet adds; 0 for other kinds.
        has_shortcut: Whether a resnet projects its input.
    """

    path: str
    kind: Kind
    shrink: int
    in_channels: int
    channels: int
    condition_width: int = 0
    has_shortcut: bool = False


@dataclass(frozen=True)
class Cost:
    """What a level of a part takes.

    Attributes:
        kept_bytes: Kept from forward to backward beyond what "full" keeps, which is its input.
        repeated_flops: Of matrix products, convolutions and attention, done a second time.
        repeated_bytes: Read and written by all else that is done a second time.
    """

    kept_bytes: int
    repeated_flops: int
    repeated_bytes: int


def parts_of(unet: CheckpointingUNet) -> list[Part]:
    """Return the parts of a UNet of diffusers; its weights may be missing."""
    modules: dict[str, Any] = dict(unet.named_modules())
    depth = sum(path.startswith("down_blocks.") and path.count(".") == 1 for path in modules)
    parts = []
    for path, kind in recomputable(unet).items():
        stage, number = path.split(".")[:2]
        level = depth - 1
        if stage == "down_blocks":
            level = int(number)
        elif stage == "up_blocks":
            level -= int(number)
        shrink = 4**level
        parts.append(_part(path, kind, modules[path], shrink))
    return parts


def peak_bytes(shape: ActivationShape) -> int:
    """Return the device memory of the SDXL UNet's activations when every part is "full".

    Weights, gradients, work spaces of kernels and what the allocator wastes come on top. Parts that
    keep more raise it by no more than they keep.
    """
    return shape.pixels * shape.batch * PEAK_PER_PIXEL * shape.itemsize


def cost_of(part: Part, level: Level, shape: ActivationShape) -> Cost:
    """Return what ``level`` takes for one part."""
    return _COSTS[part.kind](part, level, shape, shape.pixels * shape.batch // part.shrink)


def _transformer_block(part: Part, level: Level, shape: ActivationShape, pixels: int) -> Cost:
    width, text = part.channels, shape.text_tokens * shape.batch
    tokens, heads = pixels // shape.batch, width // HEAD_CHANNELS
    # Three norms read and write C; the gate reads 4 C and 8 C and writes 4 C twice.
    pointwise = _sized(shape, pixels * 26 * width)
    if level == "full":
        # 14 C^2 of 18: the product from 4 C to C is the last and is not repeated.
        products = 2 * pixels * 14 * width**2 + 2 * text * 2 * width * part.condition_width
        attention = 4 * pixels * width * (tokens + shape.text_tokens)
        # Two sums with the input, and two results that are divided by 1.
        return Cost(0, products + attention, pointwise + _sized(shape, pixels * 10 * width))
    # Inputs of norms 2 C; 4 C and 2 C of two attentions; 8 C of the gate; keys and values of text.
    kept = _sized(shape, pixels * 16 * width + text * 2 * width)
    # Logarithms of two attentions; mean and deviation of three norms.
    kept += pixels * (2 * heads + 6) * _FLOAT32 + 2 * _RANDOM_STATE
    if level == "pointwise":
        return Cost(kept, 0, pointwise)
    return Cost(kept + _sized(shape, pixels * 11 * width), 0, 0)


def _resnet(part: Part, level: Level, shape: ActivationShape, pixels: int) -> Cost:
    into, out = part.in_channels, part.channels
    pointwise = _sized(shape, pixels * 4 * (into + out))
    if level == "full":
        flops = 2 * 9 * pixels * into * out + 2 * shape.batch * part.condition_width * out
        if part.has_shortcut:
            # It comes after the second convolution, so that one is repeated and it is not.
            flops += 2 * 9 * pixels * out**2
        return Cost(0, flops, pointwise + _sized(shape, pixels * 2 * out))
    means = shape.batch * 2 * _NORM_GROUPS * 2  # and deviations, of two norms
    if level == "pointwise":
        return Cost(_sized(shape, pixels * out + means), 0, pointwise)
    means += shape.batch * part.condition_width
    return Cost(_sized(shape, pixels * (2 * into + 3 * out) + means), 0, 0)


def _upsampler(part: Part, level: Level, shape: ActivationShape, pixels: int) -> Cost:
    # Its one convolution keeps what is four times its input, or has it made from its input.
    if level == "full":
        return Cost(0, 0, _sized(shape, pixels * 5 * part.channels))
    return Cost(_sized(shape, pixels * 3 * part.channels), 0, 0)


def _transformer_input(part: Part, level: Level, shape: ActivationShape, pixels: int) -> Cost:
    if level == "full":
        return Cost(0, 0, _sized(shape, pixels * 4 * part.channels))
    means = shape.batch * _NORM_GROUPS * 2
    return Cost(_sized(shape, pixels * part.channels + means), 0, 0)


_COSTS: Mapping[Kind, Callable[[Part, Level, ActivationShape, int], Cost]] = {
    "transformer block": _transformer_block,
    "resnet": _resnet,
    "upsampler": _upsampler,
    "transformer input": _transformer_input,
}


def _sized(shape: ActivationShape, elements: int) -> int:
    return elements * shape.itemsize


def _part(path: str, kind: Kind, module: Any, shrink: int) -> Part:
    condition = 0
    match kind:
        case "transformer block":
            channels = into = module.attn1.to_q.in_features
            condition = module.attn2.to_k.in_features
        case "transformer input":
            channels = into = module.norm.num_channels
        case "upsampler":
            channels = into = module.channels
        case "resnet":
            into, channels = module.in_channels, module.out_channels
            condition = module.time_emb_proj.in_features
    return Part(
        path=path,
        kind=kind,
        shrink=shrink,
        in_channels=into,
        channels=channels,
        condition_width=condition,
        has_shortcut=kind == "resnet" and module.conv_shortcut is not None,
    )
