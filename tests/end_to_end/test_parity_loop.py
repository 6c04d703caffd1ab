"""The engine against the plainest loop that could be written: same draws, same bits.

The loop knows diffusers' UNet, diffusers' DDPMScheduler and torch's AdamW. From the engine it takes
only what was drawn: which picture, which noise, which timestep.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aozora.api import RunControl, train
from aozora.data.batch_plan import PlannedBatch
from aozora.diffusion.noise import sample_noise
from aozora.diffusion.schedule import sdxl_schedule
from aozora.events import CheckpointSaved, StepCompleted
from aozora.model.loading import load_unet
from aozora.model.opening import open_model
from aozora.training.checkpointing import read_state
from aozora.training.device import choose_device
from aozora.training.inputs import Encoders, find_pictures

ACCUMULATION, CLIP = 2, 0.05


def engine_run(config):
    events = []
    train(config, events.append, RunControl())
    steps = [event for event in events if isinstance(event, StepCompleted)]
    saved = [event for event in events if isinstance(event, CheckpointSaved)][-1]
    return steps, read_state(Path(saved.state))


def samples_of(config, steps):
    """Yield latents, text, time ids, noise and timestep of each sample, in the order drawn."""
    device = choose_device("cpu")
    with open_model(config.model.base) as source:
        encoders = Encoders(config, source, device, lambda event: None, RunControl())
        loader = encoders.loader(find_pictures(config).trained)
    number = 0
    for step in steps:
        for item, timestep in zip(step.items, step.timesteps, strict=True):
            batch = loader.load(PlannedBatch(0, (item,), number))
            noise = sample_noise(config.training.seed, number, batch.latents.shape[1:])
            yield batch, noise[None], timestep
            number += 1


def plain_loop(config, steps, make_example):
    """Train with nothing but diffusers and torch; return the weights."""
    with open_model(config.model.base) as source:
        unet = load_unet(source, torch.float32)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01
    )
    samples = samples_of(config, steps)
    for k in range(len(steps)):
        for _ in range(ACCUMULATION):
            batch, noise, timestep = next(samples)
            noisy, target, t = make_example(batch.latents, noise, timestep)
            pred = unet(
                noisy,
                t,
                encoder_hidden_states=batch.prompt_embeds,
                added_cond_kwargs={
                    "text_embeds": batch.pooled_prompt_embeds,
                    "time_ids": batch.add_time_ids,
                },
            ).sample
            loss = torch.nn.functional.mse_loss(pred, target) / ACCUMULATION
            loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = config.schedule.learning_rate.at(k / (len(steps) - 1))
        optimizer.step()
        optimizer.zero_grad()
    return dict(unet.named_parameters())


def ddpm_scheduler(prediction):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
    )
    # diffusers multiplies a thousand factors up in float32; the engine rounds once, at the end.
    exact = sdxl_schedule(zero_terminal_snr=False).alphas_cumprod
    torch.testing.assert_close(scheduler.alphas_cumprod, exact, rtol=1e-4, atol=0)
    scheduler.alphas_cumprod = exact
    return scheduler


def epsilon_example(latents, noise, timestep):
    t = torch.tensor([int(timestep)])
    return ddpm_scheduler("epsilon").add_noise(latents, noise, t), noise, t


def v_example(latents, noise, timestep):
    scheduler = ddpm_scheduler("v_prediction")
    t = torch.tensor([int(timestep)])
    return scheduler.add_noise(latents, noise, t), scheduler.get_velocity(latents, noise, t), t


def flow_example(latents, noise, timestep):
    t = torch.tensor([timestep], dtype=torch.float32)
    u = t / 1000
    return (1.0 - u) * latents + u * noise, noise - latents, t


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prediction", "make_example", "num_steps"),
    [
        ("epsilon", epsilon_example, 50),
        ("v_prediction", v_example, 12),
        ("flow", flow_example, 12),
    ],
)
def test_the_engine_and_the_plain_loop_agree_in_every_bit(
    make_config, prediction, make_example, num_steps
):
    config = make_config(
        f"objective.prediction={prediction}",
        f"training.steps={num_steps}",
        f"training.accumulation_steps={ACCUMULATION}",
        f"training.clip_norm={CLIP}",
        "training.batch_size=1",
        "captions.dropout=0",
        "optimizer.moments=float32",
        "checkpoints.every_steps=0",
    )
    steps, state = engine_run(config)
    assert len(steps) == num_steps
    assert max(step.grad_norm for step in steps) > CLIP, "clipping was never needed"
    weights = plain_loop(config, steps, make_example)
    assert set(weights) == set(state["weights"])
    different = [
        name
        for name, value in weights.items()
        if not torch.equal(value, state["weights"][name].read())
    ]
    assert different == []
