from __future__ import annotations

import json

import pytest
from PIL import Image

from aozora.config.choices.predictions import Flow
from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.model.synthetic import ModelSizes, write_random_base
from aozora.training.check import check


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    write_random_base(folder / "base.safetensors", ModelSizes(unet_channels=(32, 64, 64)))
    Image.new("RGB", (128, 128)).save(folder / "picture.png")
    return folder


def checked(folder, *assignments):
    return check(
        apply_settings(
            TrainConfig(),
            [
                f"model.base={folder / 'base.safetensors'}",
                f"data.folders={json.dumps([{'path': str(folder)}])}",
                f"cache.folder={folder / 'cache'}",
                f"output.folder={folder / 'output'}",
                "buckets.resolution=128",
                "buckets.min_side=64",
                "buckets.max_side=256",
                "training.device=cpu",
                "training.precision=fp32",
                "training.steps=20",
                *assignments,
            ],
        )
    )


def test_a_check_tells_the_window_all_that_decides_the_timesteps(folder):
    report = checked(folder, 'objective.prediction={"kind": "flow", "shift": 2.5}')
    summary = json.loads(json.dumps(report.to_plain()))["summary"]
    assert summary["prediction"] == "flow"
    assert Flow(**summary["prediction_options"]) == Flow(shift=2.5)
    (bucket,) = summary["buckets"]
    assert (bucket["height"], bucket["width"], bucket["num_samples"]) == (128, 128, 1)


def test_a_check_tells_what_is_doubtful_about_tickets_and_decay(folder):
    report = checked(
        folder,
        "objective.prediction=v_prediction",
        "objective.zero_terminal_snr=on",
        "loss.weighting=min_snr",
        "timesteps.maximum=998",
        "schedule.learning_rate=[[0, 1e-6], [1, 1e-6]]",
        "optimizer.weight_decay=0.02",
    )
    notes = "\n".join(report.notes)
    assert "timesteps.distribution: timestep 999 is never trained" in notes
    assert "optimizer.weight_decay: 0.02 does nothing" in notes
    assert "min-SNR gives the last timestep no weight" in notes
