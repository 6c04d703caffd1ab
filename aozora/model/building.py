"""Models from configurations: the classes of diffusers and transformers, empty or fresh."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from aozora.model.kept_shapes import read_shapes, shapes_file, write_shapes
from aozora.model.key_map import Component
from aozora.model.sizes import Config

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def build_model(component: Component, config: Config) -> nn.Module:
    """Return a component with freshly initialised weights on the CPU, in float32."""
    # Their packages take seconds to import, so only those who build a model pay for it.
    if component == "unet":
        from diffusers import UNet2DConditionModel as Unet

        return cast(nn.Module, Unet.from_config(config))  # type: ignore[no-untyped-call]
    if component == "vae":
        from diffusers import AutoencoderKL

        return cast(nn.Module, AutoencoderKL.from_config(config))  # type: ignore[no-untyped-call]
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    text_config = CLIPTextConfig(**_without_dtype(config))
    if component == "te1":
        return CLIPTextModel(text_config)
    return CLIPTextModelWithProjection(text_config)


def _without_dtype(config: Config) -> dict[str, Any]:
    """Leave out the dtype of the published weights, which says nothing about the ones loaded."""
    return {k: v for k, v in config.items() if k not in ("torch_dtype", "transformers_version")}


def empty_model(component: Component, config: Config) -> nn.Module:
    """Return a component whose parameters are on the meta device and take no memory."""
    from accelerate import init_empty_weights

    # Buffers are kept real: they are computed, not loaded (position ids).
    with init_empty_weights(include_buffers=False):
        return build_model(component, config)


def empty_unet(config: Config) -> UNet2DConditionModel:
    """Return an empty UNet: `empty_model` with the type of the UNet."""
    return cast("UNet2DConditionModel", empty_model("unet", config))


def parameter_shapes(component: Component, config: Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter a component has, by model name, in the model's order."""
    return dict(_parameter_shapes(component, _frozen(config)))


def _frozen(config: Config) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (key, tuple(value) if isinstance(value, list) else value)
        for key, value in sorted(config.items())
    )


@cache
def _parameter_shapes(
    component: Component, config: tuple[tuple[str, Any], ...]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    path = shapes_file(component, config)
    kept = read_shapes(path)
    if kept is not None:
        return kept
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in config}
    model = empty_model(component, plain)
    shapes = tuple((name, tuple(p.shape)) for name, p in model.named_parameters())
    write_shapes(path, shapes)
    return shapes
