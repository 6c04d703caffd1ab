"""The parts of a UNet whose activations can be recomputed, told from names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from aozora.memory.activation_bytes import Part
from aozora.memory.recompute import Kind

Shapes = Mapping[str, tuple[int, ...]]

_STAGE = re.compile(r"^(down_blocks|mid_block|up_blocks)\.(\d+)?")
# What stands at the end of a parameter that every part of a kind has, exactly once.
_SIGNS: Mapping[str, Kind] = {
    ".attn1.to_q.weight": "transformer block",
    ".conv1.weight": "resnet",
    ".upsamplers.0.conv.weight": "upsampler",
    ".norm.weight": "transformer input",
}


def parts_from_shapes(shapes: Shapes) -> tuple[Part, ...]:
    """Return what `activation_bytes.parts_of` returns of a UNet with parameters of these shapes.

    Args:
        shapes: Shape of every parameter by diffusers' name.
    """
    return tuple(_parts(shapes))


def _parts(shapes: Shapes) -> Iterator[Part]:
    depth = len({name.split(".")[1] for name in shapes if name.startswith("down_blocks.")})
    for name in shapes:
        stage = _STAGE.match(name)
        sign = next((sign for sign in _SIGNS if name.endswith(sign)), None)
        if stage is None or sign is None:
            continue
        kind = _SIGNS[sign]
        # An upsampler's parameters are its convolution's.
        path = name.removesuffix(".conv.weight" if kind == "upsampler" else sign)
        number = int(stage[2] or 0)
        level = {"down_blocks": number, "up_blocks": depth - 1 - number}.get(stage[1], depth - 1)
        yield _MAKERS[kind](path, shapes, 4**level)


def _transformer_block(path: str, shapes: Shapes, shrink: int) -> Part:
    width = shapes[f"{path}.attn1.to_q.weight"][1]
    text = shapes[f"{path}.attn2.to_k.weight"][1]
    return Part(
        path=path,
        kind="transformer block",
        shrink=shrink,
        in_channels=width,
        channels=width,
        condition_width=text,
    )


def _resnet(path: str, shapes: Shapes, shrink: int) -> Part:
    out, into = shapes[f"{path}.conv1.weight"][:2]
    return Part(
        path=path,
        kind="resnet",
        shrink=shrink,
        in_channels=into,
        channels=out,
        condition_width=shapes[f"{path}.time_emb_proj.weight"][1],
        has_shortcut=f"{path}.conv_shortcut.weight" in shapes,
    )


def _upsampler(path: str, shapes: Shapes, shrink: int) -> Part:
    width = shapes[f"{path}.conv.weight"][1]
    return Part(path=path, kind="upsampler", shrink=shrink, in_channels=width, channels=width)


def _transformer_input(path: str, shapes: Shapes, shrink: int) -> Part:
    width = shapes[f"{path}.norm.weight"][0]
    return Part(
        path=path, kind="transformer input", shrink=shrink, in_channels=width, channels=width
    )


_MAKERS: Mapping[Kind, Callable[[str, Shapes, int], Part]] = {
    "transformer block": _transformer_block,
    "resnet": _resnet,
    "upsampler": _upsampler,
    "transformer input": _transformer_input,
}
