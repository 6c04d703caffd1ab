from __future__ import annotations

import json

import pytest

from aozora.config import codec, presets
from aozora.config.checks import check_config
from aozora.config.schema import TrainConfig
from aozora.errors import ConfigError

READY = ["model.base=base.safetensors", 'data.folders=[{"path": "pictures"}]']


def ready_config(*assignments):
    return codec.apply_settings(TrainConfig(), [*READY, *assignments])


def test_the_defaults_lack_only_model_and_pictures():
    assert {problem.path for problem in check_config(TrainConfig())} == {
        "model.base",
        "data.folders",
    }
    assert check_config(ready_config()) == []


@pytest.mark.parametrize("name", sorted(presets.shipped_presets()))
def test_every_shipped_preset_is_ready_to_train(name):
    preset = presets.find_preset(name)
    assert preset.title
    assert preset.description
    assert check_config(preset.applied_to(ready_config())) == []


def test_the_presets_that_were_promised_are_there():
    shipped = presets.shipped_presets()
    predictions = [p.applied_to(TrainConfig()).objective for p in shipped.values()]
    assert any(p.applied_to(TrainConfig()).training.steps == 20 for p in shipped.values())
    assert any(p.prediction.__class__.__name__ == "Flow" for p in predictions)
    assert any(p.zero_terminal_snr == "on" for p in predictions)


@pytest.mark.parametrize(
    ("assignments", "path"),
    [
        (["buckets.min_side=2048", "buckets.max_side=1024"], "buckets.min_side"),
        (["buckets.step=48"], "buckets.step"),
        (["buckets.resolution=1000"], "buckets.resolution"),
        (
            ["objective.prediction=epsilon", "objective.zero_terminal_snr=on"],
            "objective.zero_terminal_snr",
        ),
        (
            ["objective.prediction=flow", "objective.zero_terminal_snr=on"],
            "objective.zero_terminal_snr",
        ),
        (["timesteps.minimum=800", "timesteps.maximum=100"], "timesteps.minimum"),
        (["schedule.learning_rate=[[0, 1e-6], [0.5, 1e-6]]"], "schedule.learning_rate"),
        (["memory.clip_by_last_norm=true"], "memory.clip_by_last_norm"),
        (
            [
                "memory.clip_by_last_norm=true",
                "training.accumulation_steps=1",
                "training.precision=fp16",
            ],
            "memory.clip_by_last_norm",
        ),
        (["output.name=con"], "output.name"),
        (["output.name=a/b"], "output.name"),
        (["output.folder="], "output.folder"),
        (["data.background=white"], "data.background"),
        (['data.folders=[{"path": ""}]'], "data.folders[0].path"),
    ],
)
def test_contradictions_are_found_with_path_and_remedy(assignments, path):
    found = {problem.path: problem for problem in check_config(ready_config(*assignments))}
    assert path in found
    assert found[path].remedy


def test_clipping_by_the_last_norm_is_accepted_where_nothing_is_accumulated():
    config = ready_config("memory.clip_by_last_norm=true", "training.accumulation_steps=1")
    assert check_config(config) == []


@pytest.mark.parametrize("name", ["sdxl-8gb", "sdxl-12gb", "sdxl-fp16-rtx20"])
def test_presets_for_small_cards_train_the_whole_model(name):
    config = presets.find_preset(name).applied_to(TrainConfig())
    assert config.targets == TrainConfig().targets
    assert config.targets.layers == "all"


def test_the_users_own_preset_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "config_folder", lambda: tmp_path)
    folder = tmp_path / "presets"
    folder.mkdir()
    about = {"title": "Mine", "description": "My own."}
    text = json.dumps({"schema": 1, "about": about, "training": {"steps": 3}})
    (folder / "smoke-test.json").write_text(text, encoding="utf-8")
    assert presets.find_preset("smoke-test").applied_to(TrainConfig()).training.steps == 3


def test_an_unknown_preset_is_refused_with_a_guess():
    with pytest.raises(ConfigError, match="smoke-test"):
        presets.find_preset("smoke-tst")


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"training": {}},
        {"about": {"title": "t"}},
        {"about": {"title": "t", "description": "d"}, "x": 1},
    ],
)
def test_what_is_no_preset_is_refused(data):
    with pytest.raises(ConfigError):
        presets.parse_preset("x", data)
