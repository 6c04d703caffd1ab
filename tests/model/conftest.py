"""A small base model in the true layout, written once for all tests of the room."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from aozora.model.synthetic import ModelSizes, write_random_base
from aozora.model.tokenizers import load_tokenizer

DATA = Path(__file__).parent / "data"
# Channels that change between levels, so that shortcut convolutions exist as in the true model.
SIZES = ModelSizes(vae_channels=(32, 64, 64, 64))


@pytest.fixture(scope="session")
def published_shapes():
    """Every key of the published SDXL base model with its shape."""
    text = gzip.decompress((DATA / "sdxl_key_shapes.json.gz").read_bytes())
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "tiny.safetensors"
    write_random_base(path, SIZES, seed=3)
    return path


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer()
