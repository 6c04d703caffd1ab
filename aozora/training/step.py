"""One forward pass: what is fed to the UNet, and how its answer is scored.

Dimensions: B samples, C latent channels, H W latent sides, T tokens, D width of the text states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from aozora.diffusion.objectives import Objective


class NoisePredictor(Protocol):
    """The part of diffusers' UNet2DConditionModel that is used."""

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        *,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor],
        return_dict: bool,
    ) -> Any:
        """Return a tuple with the prediction, of the shape of ``sample``."""
        ...


@dataclass(frozen=True, kw_only=True)
class PreparedBatch:
    """Everything one micro-step needs, on the host or on the device.

    Attributes:
        latents: Clean scaled latents, (B, C, H, W), float32.
        noise: Of the same shape, float32.
        timesteps: As the UNet gets them, (B,): whole numbers, or floats for rectified flow.
        tickets: The timestep each sample drew, which rectified flow shifts.
        prompt_embeds: (B, T, D), captions or their stand-in.
        pooled_prompt_embeds: (B, P).
        add_time_ids: (B, 6), float32: sizes above 256 px do not survive bf16.
        items: Number of the picture of each sample.
        share: Part of the optimizer step's samples that this batch is.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    tickets: tuple[int, ...]
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    add_time_ids: Tensor
    items: tuple[int, ...]
    share: float

    def map(self, change: Callable[[Tensor], Tensor]) -> PreparedBatch:
        """Return the batch with ``change`` applied to every tensor."""
        return PreparedBatch(
            latents=change(self.latents),
            noise=change(self.noise),
            timesteps=change(self.timesteps),
            tickets=self.tickets,
            prompt_embeds=change(self.prompt_embeds),
            pooled_prompt_embeds=change(self.pooled_prompt_embeds),
            add_time_ids=change(self.add_time_ids),
            items=self.items,
            share=self.share,
        )

    def pinned(self) -> PreparedBatch:
        """Return the batch in page-locked memory, from where it is copied without waiting."""
        return self.map(Tensor.pin_memory)

    def to(self, device: torch.device) -> PreparedBatch:
        """Return the batch on ``device``."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True, kw_only=True)
class StepRecipe:
    """How noise is mixed in and errors are scored.

    Attributes:
        objective: What the model predicts.
        loss: Per-sample loss in float32, (B,), from prediction and target.
        weighting: Weight per sample, (B,), from objective and timesteps; None for 1.
        dtype: Format the UNet computes in.
    """

    objective: Objective
    loss: Callable[[Tensor, Tensor], Tensor]
    weighting: Callable[[Objective, Tensor], Tensor] | None
    dtype: torch.dtype


def predict(
    unet: NoisePredictor, batch: PreparedBatch, objective: Objective, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the UNet's prediction and the target, both (B, C, H, W), float32."""
    noisy_latents = objective.noise_latents(batch.latents, batch.noise, batch.timesteps)
    target = objective.target(batch.latents, batch.noise, batch.timesteps)
    (model_pred,) = unet(
        noisy_latents.to(dtype),
        batch.timesteps,
        encoder_hidden_states=batch.prompt_embeds.to(dtype),
        added_cond_kwargs={
            "text_embeds": batch.pooled_prompt_embeds.to(dtype),
            "time_ids": batch.add_time_ids,
        },
        return_dict=False,
    )
    return model_pred.float(), target


def score(unet: NoisePredictor, batch: PreparedBatch, recipe: StepRecipe) -> tuple[Tensor, Tensor]:
    """Return the mean weighted loss of the batch (0-dim) and each sample's own loss (B,)."""
    model_pred, target = predict(unet, batch, recipe.objective, recipe.dtype)
    sample_losses = recipe.loss(model_pred, target)
    if recipe.weighting is None:
        return sample_losses.mean(), sample_losses.detach()
    weights = recipe.weighting(recipe.objective, batch.timesteps)
    return (weights * sample_losses).mean(), sample_losses.detach()
