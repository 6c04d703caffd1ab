"""Small pictures and datasets for the tests of the data room."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from aozora.data.dataset import build_dataset
from aozora.data.latent_cache import LatentSpec
from aozora.data.scan import scan_folders
from aozora.data.text_cache import TextSpec


def _photo(width: int = 96, height: int = 64, tint: int = 0) -> Image.Image:
    """Draw a gradient with a red block at the top left, which shows any wrong turn."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y + tint) & 127], -1)
    pixels[: height // 4, : width // 4] = (255, 0, 0)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def photo():
    return _photo


@pytest.fixture
def pictures(tmp_path):
    """Seven captioned pictures in two shapes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(7):
        size = (128, 64) if number % 2 else (64, 64)
        _photo(*size, tint=10 * number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    return folder


class CountingVae:
    """Averages 8 x 8 blocks, like an encoder would; counts the pictures it gets."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.dtype == torch.float32
        self.batch_sizes.append(len(pixels))
        means = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([means, means[:, :1]], 1)


class CountingEncoder:
    """Makes embeddings out of the letters; counts the captions it gets."""

    def __init__(self, width: int = 6, chunks: int = 1) -> None:
        self.captions: list[str] = []
        self.width = width
        self.chunks = chunks

    def __call__(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        self.captions += captions
        values = torch.tensor([float(sum(map(ord, c)) % 97) for c in captions])
        chunks = 1 + len(captions[0]) // 75 if self.chunks == 0 else self.chunks
        hidden = values[:, None, None].expand(-1, 77 * chunks, self.width)
        return hidden, values[:, None].expand(-1, 4)


@pytest.fixture
def vae():
    return CountingVae()


@pytest.fixture
def text_encoder():
    return CountingEncoder


@pytest.fixture
def latent_spec():
    return LatentSpec(vae_hash="vae-1")


@pytest.fixture
def text_spec():
    return TextSpec(encoder_hash="a", encoder_2_hash="b", tokenizer_hash="c")


@pytest.fixture
def items_of():
    """Scan a folder and give every picture its bucket, in buckets of at most 64 x 128."""

    def items(folder, **options):
        records = scan_folders([(folder, 1)], workers=2, **options).records
        return build_dataset(
            records, area=64 * 128, min_side=64, max_side=128, step=64, upscale=False
        ).items

    return items
