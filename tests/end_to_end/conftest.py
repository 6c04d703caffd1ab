"""A small model of the true architecture, pictures, and settings that train it in seconds."""

from __future__ import annotations

import gc
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from aozora.__main__ import main
from aozora.config.codec import apply_settings, replace_at
from aozora.config.schema import TrainConfig
from aozora.memory import machine
from aozora.model.synthetic import ModelSizes, write_random_base
from aozora.runtime import garbage_collected_by

SIZES = [(128, 128), (192, 64), (64, 192)]


@pytest.fixture(autouse=True)
def quick_search_for_garbage():
    """Search new objects only: looking through all packages is half of such a short run."""
    with garbage_collected_by(lambda: gc.collect(1)):
        yield


@pytest.fixture(scope="session")
def rates():
    return machine._measure_rates(torch.device("cpu"))


@pytest.fixture(autouse=True)
def measured_once(rates, monkeypatch):
    """Measure the speed of this computer once; each test has a cache of its own."""
    monkeypatch.setattr(machine, "_measure_rates", lambda device: rates)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "base.safetensors"
    write_random_base(path, ModelSizes(unet_channels=(32, 64, 64)))
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(7):
        width, height = SIZES[number % 3]
        pixels = generator.integers(0, 255, (height // 32, width // 32, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((width, height))
        image.save(folder / f"picture {number}.png")
        (folder / f"picture {number}.txt").write_text(f"picture number {number}", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_config(base_model, pictures, shared_cache, tmp_path):
    """Return a function that makes a small configuration with changes."""

    def make(*assignments):
        config = replace_at(TrainConfig(), "data.folders", [{"path": str(pictures)}])
        return apply_settings(
            config,
            [
                f"model.base={base_model}",
                f"cache.folder={shared_cache}",
                f"output.folder={tmp_path / 'output'}",
                "output.name=small",
                "buckets.resolution=128",
                "buckets.min_side=64",
                "buckets.max_side=256",
                "training.precision=fp32",
                "memory.recompute=none",
                "training.device=cpu",
                "training.steps=4",
                "training.accumulation_steps=2",
                'schedule.learning_rate=[[0, 1e-4, "log"], [1, 1e-3]]',
                "logging.tensorboard=false",
                *assignments,
            ],
        )

    return make


@pytest.fixture
def here(capsys):
    """Return a function that does a verb in this process, which takes less time."""

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments)])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run
