"""Pictures to latents. Dimensions: B C H W."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@torch.no_grad()
def encode_images(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return the mean of the latents' distribution, neither shifted nor scaled.

    Whole pictures at once: encoding in tiles gives other latents near the seams.

    Args:
        vae: The VAE, in float32.
        pixels: Values in [-1, 1], shape (B, 3, H, W), sides multiples of 8.

    Returns:
        Latents (B, 4, H/8, W/8), float32.
    """
    model: Any = vae
    moments: Tensor = model.quant_conv(model.encoder(pixels.to(model.dtype)))
    mean, _ = moments.chunk(2, dim=1)
    return mean.float().contiguous()
