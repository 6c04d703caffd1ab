"""Names and shapes of the parameters of SDXL's UNet, without torch.

Written out from the architecture, so that the window can show what a choice of layers comes to
before any model is read. A test compares them with the model that is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class UnetSizes:
    """The sizes that decide all shapes; the defaults are SDXL's.

    Attributes:
        channels: Channels of the levels, the finest first.
        depths: Transformer blocks of each attention on a level; the finest has no attention.
        context: Width of the text embedding.
        added: Width of the pooled text and size embedding.
        latents: Channels of the latents.
    """

    channels: tuple[int, int, int] = (320, 640, 1280)
    depths: tuple[int, int, int] = (1, 2, 10)
    context: int = 2048
    added: int = 2816
    latents: int = 4

    @property
    def time(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0]


@cache
def unet_shapes(sizes: UnetSizes | None = None) -> Shapes:
    """Return the shape of every parameter by its diffusers name, in the model's order."""
    return dict(_unet(sizes or UnetSizes()))


_Parameters = Iterator[tuple[str, tuple[int, ...]]]


def _unet(sizes: UnetSizes) -> _Parameters:
    first, middle, last = sizes.channels
    yield from _conv("conv_in", sizes.latents, first)
    for name, width in (("time_embedding", first), ("add_embedding", sizes.added)):
        yield from _linear(f"{name}.linear_1", width, sizes.time)
        yield from _linear(f"{name}.linear_2", sizes.time, sizes.time)
    for level, (before, width) in enumerate(((first, first), (first, middle), (middle, last))):
        block = f"down_blocks.{level}"
        if level:
            for number in range(2):
                yield from _attention(f"{block}.attentions.{number}", width, level, sizes)
        for number, inputs in enumerate((before, width)):
            yield from _resnet(f"{block}.resnets.{number}", inputs, width, sizes)
        if level < 2:
            yield from _conv(f"{block}.downsamplers.0.conv", width, width)
    yield from _up_blocks(sizes)
    yield from _attention("mid_block.attentions.0", last, 2, sizes)
    for number in range(2):
        yield from _resnet(f"mid_block.resnets.{number}", last, last, sizes)
    yield from _norm("conv_norm_out", first)
    yield from _conv("conv_out", first, sizes.latents)


def _up_blocks(sizes: UnetSizes) -> _Parameters:
    first, middle, last = sizes.channels
    # What the way down hands over, the coarsest first: three a level, each joined to a resnet.
    skips = ((last, last, middle), (middle, middle, first), (first, first, first))
    before = last
    for number, width in enumerate((last, middle, first)):
        block, level = f"up_blocks.{number}", 2 - number
        if level:
            for index in range(3):
                yield from _attention(f"{block}.attentions.{index}", width, level, sizes)
        for index, skip in enumerate(skips[number]):
            inputs = (before if index == 0 else width) + skip
            yield from _resnet(f"{block}.resnets.{index}", inputs, width, sizes)
        if level:
            yield from _conv(f"{block}.upsamplers.0.conv", width, width)
        before = width


def _resnet(name: str, inputs: int, width: int, sizes: UnetSizes) -> _Parameters:
    yield from _norm(f"{name}.norm1", inputs)
    yield from _conv(f"{name}.conv1", inputs, width)
    yield from _linear(f"{name}.time_emb_proj", sizes.time, width)
    yield from _norm(f"{name}.norm2", width)
    yield from _conv(f"{name}.conv2", width, width)
    if inputs != width:
        yield from _conv(f"{name}.conv_shortcut", inputs, width, side=1)


def _attention(name: str, width: int, level: int, sizes: UnetSizes) -> _Parameters:
    yield from _norm(f"{name}.norm", width)
    yield from _linear(f"{name}.proj_in", width, width)
    for number in range(sizes.depths[level]):
        block = f"{name}.transformer_blocks.{number}"
        for index, context in enumerate((width, sizes.context), start=1):
            yield from _norm(f"{block}.norm{index}", width)
            attention = f"{block}.attn{index}"
            yield f"{attention}.to_q.weight", (width, width)
            yield f"{attention}.to_k.weight", (width, context)
            yield f"{attention}.to_v.weight", (width, context)
            yield from _linear(f"{attention}.to_out.0", width, width)
        yield from _norm(f"{block}.norm3", width)
        # The gate doubles the first layer.
        yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
        yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    yield from _linear(f"{name}.proj_out", width, width)


def _conv(name: str, inputs: int, width: int, side: int = 3) -> _Parameters:
    yield f"{name}.weight", (width, inputs, side, side)
    yield f"{name}.bias", (width,)


def _linear(name: str, inputs: int, width: int) -> _Parameters:
    yield f"{name}.weight", (width, inputs)
    yield f"{name}.bias", (width,)


def _norm(name: str, width: int) -> _Parameters:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
