from __future__ import annotations

import json

import numpy as np
import pytest

from aozora.config import codec, presets
from aozora.config.checks import check_config, doubts, ticket_pool
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


@pytest.mark.parametrize("coverage", ["shuffled", "stratified"])
@pytest.mark.parametrize(("start", "bins"), [(510, 20), (990, 10), (0, 10), (500, 20), (999, 100)])
def test_high_noise_draws_nothing_below_its_start_and_the_rest_evenly(start, bins, coverage):
    config = ready_config(
        f'timesteps.distribution={{"kind": "high_noise", "start": {start}}}',
        f"timesteps.bins={bins}",
        f"timesteps.coverage={coverage}",
    )
    pool = ticket_pool(config)
    tickets = pool.draw_all(10 * (1000 - start))
    assert tickets.min() == start
    assert tickets.max() == 999
    spans = [len(pool.bin_range(index)) for index in range(bins)]
    inside = [(c, n) for c, n in zip(pool.counts(len(tickets)), spans, strict=True) if c]
    assert all(count == 10 * width for count, width in inside)


def test_a_start_above_the_highest_timestep_is_a_problem():
    config = ready_config(
        'timesteps.distribution={"kind": "high_noise", "start": 900}', "timesteps.maximum=800"
    )
    assert [problem.path for problem in check_config(config)] == ["timesteps.distribution"]


def doubts_of(*assignments, samples=10_000, zero_terminal_snr=False):
    return doubts(ready_config(*assignments), samples, zero_terminal_snr=zero_terminal_snr)


def test_doubtful_tickets_are_told_with_their_remedy():
    (text,) = doubts_of("timesteps.maximum=949")
    assert text == "timesteps.distribution: never trained: timesteps 950-999; raise the bins"
    texts = doubts_of("timesteps.maximum=998", zero_terminal_snr=True)
    assert any("timestep 999 is never trained" in text for text in texts)


@pytest.mark.parametrize("kind", ["raven_adamw", "velo_rms", "adamw", "lion", "adafactor"])
@pytest.mark.parametrize("decay", [0.0, 0.02, 0.0298, 0.0299, 0.5])
def test_weight_decay_is_called_idle_exactly_where_float32_loses_it(kind, decay):
    choice = f'optimizer={{"kind": "{kind}", "weight_decay": {decay}}}'
    texts = doubts_of(choice, "schedule.learning_rate=[[0, 1e-7], [0.5, 1e-6], [1, 0]]")
    is_idle = decay > 0 and np.float32(1 - 1e-6 * decay) == 1
    assert len(texts) == is_idle
    if is_idle:
        assert f"optimizer.weight_decay: {decay:g} does nothing" in texts[0]
        assert "above 0.03" in texts[0]


def test_a_decay_that_nobody_chose_is_not_spoken_of():
    assert doubts_of() == []


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
