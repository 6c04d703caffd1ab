"""A step that runs out of memory is undone and repeated with less, without changing a bit."""

from __future__ import annotations

import pytest
import torch

from aozora.config.lr_schedule import LrSchedule
from aozora.errors import OutOfMemory
from aozora.events import StepCompleted, Warned
from aozora.memory.arrangement import Arrangement, Layout, units_of
from aozora.memory.recompute import RecomputePlan, recomputable
from aozora.model.synthetic import ModelSizes
from aozora.training.control import RunControl
from aozora.training.loss_scaler import LossScaler
from aozora.training.step import PreparedBatch, StepRecipe
from aozora.training.trainer import LoopSettings, Position, Trainer
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule

CPU = torch.device("cpu")
STEPS, MICRO_STEPS = 4, 2
SIZES = ModelSizes()
TEXT_WIDTH, POOLED_WIDTH = SIZES.te1_width + SIZES.te2_width, SIZES.te2_width


class _Plain:
    """An objective of which nothing matters but that it is always the same."""

    def noise_latents(self, latents, noise, timesteps):
        return latents + 0.3 * noise

    def target(self, latents, noise, timesteps):
        return noise


def _batches():
    generator = torch.Generator().manual_seed(1)
    while True:
        yield PreparedBatch(
            latents=torch.randn(1, 4, 8, 8, generator=generator),
            noise=torch.randn(1, 4, 8, 8, generator=generator),
            timesteps=torch.tensor([300]),
            tickets=(300,),
            prompt_embeds=torch.randn(1, 7, TEXT_WIDTH, generator=generator),
            pooled_prompt_embeds=torch.randn(1, POOLED_WIDTH, generator=generator),
            add_time_ids=torch.full((1, 6), 64.0),
            items=(0,),
            share=1 / MICRO_STEPS,
        )


class _Failing:
    """Calls a UNet; some of the calls run out of memory, in forward or in backward."""

    def __init__(self, unet, fails_at):
        self.unet = unet
        self.calls = 0
        self.fails_at = fails_at

    def __call__(self, *args, **kwargs):
        self.calls += 1
        where = self.fails_at.get(self.calls)
        if where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 26 MiB")
        (prediction,) = self.unet(*args, **kwargs)
        if where == "backward":
            # Later parts of the model have their gradients by then, earlier ones have not.
            middle = self.unet.mid_block.resnets[0].conv1.weight
            handle = middle.register_hook(self._fail)
            self.handle = handle
        return (prediction,)

    def _fail(self, gradient):
        self.handle.remove()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 26 MiB")


def _arranged(unet):
    unet.bfloat16().requires_grad_(False)
    names = [name for name, _ in unet.named_parameters()]
    layout = Layout(
        placement=Placement(
            units=units_of(names),
            gradients="device",
            device_record_bytes=200_000,
            chunk_elements=5000,
            bucket_elements=20_000,
            small_tensor=100,
        ),
        slots=0,
        recompute=RecomputePlan(dict.fromkeys(recomputable(unet), "store")),
    )
    return Arrangement(
        unet,
        names,
        RavenAdamWRule(),
        "16bit",
        layout=layout,
        device=CPU,
        micro_steps=MICRO_STEPS,
        seed=3,
    )


def _train(unet, fails_at):
    memory = _arranged(unet)
    batches, events = _batches(), []
    trainer = Trainer(
        unet=_Failing(unet, fails_at),
        memory=memory,
        recipe=StepRecipe(
            objective=_Plain(),
            loss=lambda prediction, target: (prediction - target).square().mean(dim=(1, 2, 3)),
            weighting=None,
            dtype=torch.bfloat16,
        ),
        schedule=LrSchedule(),
        scaler=LossScaler(enabled=False),
        settings=LoopSettings(
            total_steps=STEPS,
            accumulation_steps=MICRO_STEPS,
            samples_per_epoch=10,
            clip_norm=1.0,
            max_skipped_steps=1,
            diagnostics_every=0,
        ),
        position=Position(),
        device=CPU,
        emit=events.append,
        control=RunControl(),
        next_batch=lambda: (next(batches), 0.0),
        after_step=lambda: None,
    )
    assert trainer.run() == "completed"
    weights = {name: memory.optimizer.master_weight(name) for name in memory.parameters}
    steps = [(e.step, e.loss, e.grad_norm, e.lr) for e in events if isinstance(e, StepCompleted)]
    memory.close()
    return weights, steps, [event.text for event in events if isinstance(event, Warned)]


def test_steps_that_run_out_of_memory_are_repeated_and_change_nothing(make_unet):
    expected, expected_steps, warnings = _train(make_unet(), {})
    assert warnings == []
    # Once in the second micro-step's forward, once in the midst of a backward, once in the first.
    fails_at = {2: "forward", 5: "backward", 9: "forward"}
    weights, steps, warnings = _train(make_unet(), fails_at)
    assert steps == expected_steps
    for name, weight in expected.items():
        assert torch.equal(weights[name].view(torch.int32), weight.view(torch.int32)), name
    assert len(warnings) == 3
    assert "computed twice" in warnings[0]
    assert "wait in main memory" in warnings[1]
    assert "streamed" in warnings[2]
    assert all("is run again" in text for text in warnings)


def test_when_nothing_is_left_to_save_the_run_ends_with_words(make_unet):
    always = dict.fromkeys(range(1, 20), "forward")
    with pytest.raises(OutOfMemory, match="Tried to allocate 26 MiB") as caught:
        _train(make_unet(), always)
    assert "batch_size" in caught.value.hint


def test_what_is_not_yet_saved_of_the_device_is_waited_for(make_unet):
    memory = _arranged(make_unet())
    asked = []

    class Saving:
        def before_weights(self, unit):
            asked.append(unit)

    memory.optimizer.saving = Saving()
    assert memory.relieve() is not None
    assert asked == [unit.name for unit in memory.engine.units]
