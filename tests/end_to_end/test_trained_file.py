"""What a run saves is what other programs expect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from aozora.api import RunControl, cache, train
from aozora.config.codec import replace_at
from aozora.events import (
    CheckpointSaved,
    OptimizerDiagnostics,
    PhaseFinished,
    RunPlanned,
    StepCompleted,
    StepSkipped,
    ValidationCompleted,
)
from aozora.memory import accounting
from aozora.model.config_folder import write_diffusers_config_folder
from aozora.model.loading import load_text_encoders
from aozora.model.opening import open_model
from aozora.model.text_encoding import encode_text
from aozora.model.tokenizers import load_tokenizer
from aozora.training.checkpointing import read_state
from optimizers import engine
from optimizers.layout import lay_out


def run(config, control=None):
    events = []
    train(config, events.append, control or RunControl())
    return events


def of_type(events, cls):
    return [event for event in events if isinstance(event, cls)]


def saved_model(events):
    return Path(of_type(events, CheckpointSaved)[-1].model)


def header_and_data(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def tensor_bytes(header, data, key):
    first, last = header[key]["data_offsets"]
    return data[first:last]


@pytest.mark.parametrize(
    ("prediction", "snr", "markers", "word"),
    [
        ("epsilon", "auto", set(), "epsilon"),
        ("v_prediction", "off", {"v_pred"}, "v"),
        ("v_prediction", "on", {"v_pred", "ztsnr"}, "v-zsnr"),
        ("flow", "auto", set(), None),
    ],
)
def test_only_what_was_trained_differs_from_the_base(
    make_config, base_model, prediction, snr, markers, word
):
    config = make_config(
        f"objective.prediction={prediction}",
        f"objective.zero_terminal_snr={snr}",
        "targets.layers=attention",
        "training.steps=2",
        "training.precision=bf16",
    )
    path = saved_model(run(config))
    base, base_data = header_and_data(base_model)
    new, new_data = header_and_data(path)
    metadata = new.pop("__metadata__")
    base.pop("__metadata__", None)
    assert set(new) == set(base) | markers
    assert metadata.get("modelspec.prediction_type") == word
    assert metadata["aozora.prediction"] == prediction
    changed = {
        key
        for key in base
        if tensor_bytes(base, base_data, key) != tensor_bytes(new, new_data, key)
    }
    assert changed
    assert all(".attn1." in key or ".attn2." in key for key in changed)
    assert all(new[key]["dtype"] == base[key]["dtype"] for key in base)


def test_the_saved_file_loads_in_diffusers_with_the_same_text_embedding(make_config, tmp_path):
    from diffusers import StableDiffusionXLPipeline

    path = saved_model(run(make_config("training.steps=1")))
    tokenizer = load_tokenizer()
    caption = "a red circle on a dark background"
    with open_model(path) as source:
        write_diffusers_config_folder(source, tmp_path / "pipeline", tokenizer)
        encoders = load_text_encoders(source, torch.float32)
        shapes = source.unet_shapes()
        trained = {name: source.read("unet", name).float() for name in shapes}
    pipeline = StableDiffusionXLPipeline.from_single_file(
        str(path), config=str(tmp_path / "pipeline"), torch_dtype=torch.float32
    )
    theirs = dict(pipeline.unet.named_parameters())
    assert set(theirs) == set(trained)
    assert all(torch.equal(theirs[name].detach(), trained[name]) for name in trained)
    chunks = tokenizer.encode_chunks(caption, 1)
    ids, ids_2 = torch.tensor([chunks.ids]), torch.tensor([chunks.ids_2])
    states, pooled = encode_text(*encoders, ids, ids_2)
    their_states, _, their_pooled, _ = pipeline.encode_prompt(
        caption, do_classifier_free_guidance=False
    )
    torch.testing.assert_close(pooled, their_pooled, rtol=0, atol=1e-4)
    torch.testing.assert_close(states, their_states, rtol=0, atol=1e-4)


def test_bf16_training_keeps_exact_weights_and_starts_from_the_files_own_bits(
    make_config, base_model
):
    config = make_config(
        "training.steps=3",
        "training.precision=bf16",
        "checkpoints.dtype=fp32",
        "schedule.learning_rate=[[0, 1e-7], [1, 1e-7]]",
        "optimizer.weight_decay=0",
    )
    path = saved_model(run(config))
    moved = 0
    with open_model(base_model) as old, open_model(path) as new:
        for name in list(old.unet_shapes())[:200]:
            before, after = old.read("unet", name).float(), new.read("unet", name).float()
            difference = (after - before).abs()
            # Adam moves a weight by about the learning rate a step; bf16 alone would not move it.
            assert difference.max() <= 3.5e-7 + 1e-6 * before.abs().max()
            moved += int((difference > 0).sum())
    assert moved > 0


def counts(config):
    events = []
    cache(config, events.append, RunControl())
    return {
        event.phase: event.summary
        for event in of_type(events, PhaseFinished)
        if event.phase.startswith("encode")
    }


def test_only_what_changed_is_encoded_again(make_config, pictures, tmp_path):
    from PIL import Image

    folder = tmp_path / "own pictures"
    shutil.copytree(pictures, folder)
    config = make_config(f"cache.folder={tmp_path / 'own cache'}")
    config = replace_at(config, "data.folders", [{"path": str(folder)}])
    first = counts(config)
    assert first["encode_text"].startswith("8 new")
    assert first["encode_pictures"].startswith("7 new")
    (folder / "picture 3.txt").write_text("something else", encoding="utf-8")
    second = counts(config)
    assert second["encode_text"].startswith("1 new, 7 from")
    assert second["encode_pictures"].startswith("0 new, 7 from")
    path = folder / "picture 4.png"
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    third = counts(config)
    assert third["encode_text"].startswith("0 new, 8 from")
    assert third["encode_pictures"].startswith("1 new, 6 from")


def test_validation_is_measured_on_the_same_noise_every_time(make_config):
    settings = ["validation.pictures=2", "validation.every_steps=2", "training.steps=4"]
    first = of_type(run(make_config(*settings)), ValidationCompleted)
    second = of_type(run(make_config(*settings)), ValidationCompleted)
    assert [event.step for event in first] == [0, 2, 4]
    assert [event.losses for event in first] == [event.losses for event in second]
    assert first[0].timesteps == [50, 150, 250, 350, 450, 550, 650, 750, 850, 950]


def test_validation_after_the_last_step_sees_streamed_weights(make_config, monkeypatch):
    # So that the blocks of this model are worth streaming.
    monkeypatch.setattr(engine, "SMALL_TENSOR", 256)
    monkeypatch.setattr(accounting, "SMALL_TENSOR", 256)
    monkeypatch.setitem(lay_out.__kwdefaults__, "small_tensor", 256)
    settings = ["validation.pictures=1", "validation.every_steps=100", "training.steps=2"]
    found = {
        place: of_type(
            run(make_config(*settings, f"memory.weights={place}", f"output.name={place}")),
            ValidationCompleted,
        )
        for place in ("resident", "streamed")
    }
    assert [event.step for event in found["streamed"]] == [0, 2]
    losses = {place: [event.losses for event in events] for place, events in found.items()}
    assert losses["streamed"] == losses["resident"]


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
def test_drawn_tickets_and_learning_rates_are_those_that_were_planned(make_config, prediction):
    config = make_config(
        "training.steps=10",
        "timesteps.distribution=logit_normal",
        "timesteps.bins=10",
        f"objective.prediction={prediction}",
    )
    events = run(config)
    plan = of_type(events, RunPlanned)[0]
    steps = of_type(events, StepCompleted)
    drawn = [0] * 10
    for step in steps:
        for ticket in step.tickets:
            drawn[ticket // 100] += 1
        is_shifted = step.tickets != step.timesteps
        assert is_shifted == (prediction == "flow")
    assert drawn == plan.ticket_counts
    schedule = config.schedule.learning_rate
    assert [step.lr for step in steps] == [schedule.at(k / 9) for k in range(10)]


def test_a_step_without_finite_numbers_is_skipped_before_weights_are_touched(
    make_config, monkeypatch
):
    from aozora.training import trainer

    real, calls = trainer.score, []

    def sometimes_nan(unet, batch, recipe):
        calls.append(1)
        loss, own = real(unet, batch, recipe)
        return (loss * float("nan"), own) if len(calls) in (3, 4) else (loss, own)

    monkeypatch.setattr(trainer, "score", sometimes_nan)
    events = run(make_config("training.steps=4"))
    assert [event.step for event in of_type(events, StepSkipped)] == [2]
    assert [event.step for event in of_type(events, StepCompleted)] == [1, 3, 4]
    state = read_state(Path(of_type(events, CheckpointSaved)[-1].state))
    assert state["skipped"] == 1
    assert state["optimizer"]["t"] == 3
    assert state["samples"] == 8
    assert all(bool(torch.isfinite(weight.read()).all()) for weight in state["weights"].values())


def test_too_many_bad_steps_in_a_row_end_the_run(make_config, monkeypatch):
    from aozora.errors import NumericsError
    from aozora.training import trainer

    real = trainer.score

    def always_nan(unet, batch, recipe):
        loss, own = real(unet, batch, recipe)
        return loss * float("nan"), own

    monkeypatch.setattr(trainer, "score", always_nan)
    with pytest.raises(NumericsError, match="3 steps in a row"):
        run(make_config("training.steps=9", "training.max_skipped_steps=3"))


@pytest.mark.parametrize("weighting", ["none", "min_snr"])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_every_loss_and_weighting_trains_in_fp16(make_config, loss, weighting):
    events = run(
        make_config(
            f"loss.function={loss}",
            f"loss.weighting={weighting}",
            "training.precision=fp16",
            "training.steps=2",
            "memory.recompute=all",
            "logging.diagnostics_every=1",
        )
    )
    done = of_type(events, StepCompleted) + of_type(events, StepSkipped)
    assert len(done) == 2
    for event in of_type(events, OptimizerDiagnostics):
        assert 0 < event.update_rms < 1
