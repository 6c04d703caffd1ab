"""Pictures to latents.

Dimensions: B pictures, H W pixels, C latent channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@torch.no_grad()
def encode_images(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return the unscaled mean of the VAE's posterior, (B, C, H/8, W/8), float32.

    In float32 and in one piece: SDXL's VAE overflows in float16, and tiles blended together differ
    from a whole picture since every tile has its own normalisation statistics.

    Args:
        vae: On the device of ``pixels``, float32.
        pixels: (B, 3, H, W) in [-1, 1], float32.
    """
    mean: Tensor = vae.encode(pixels).latent_dist.mean
    return mean
