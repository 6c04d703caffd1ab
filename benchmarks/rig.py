"""The full UNet with random weights, arranged in memory as a run would, without its data."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.memory.accounting import UNetFacts
from aozora.memory.arrangement import Arrangement, Layout, units_of
from aozora.memory.machine import measure
from aozora.memory.memory_plan import plan_memory
from aozora.memory.recompute import RecomputePlan
from aozora.memory.units import is_transformer_block, unit_of
from aozora.model.attention import use_attention
from benchmarks.common import fill_randomly, full_shapes, zero_unet
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.rule import Moments, UpdateRule

DEVICE = torch.device("cuda")


def blocks() -> frozenset[str]:
    return frozenset(unit for unit in map(unit_of, full_shapes()) if is_transformer_block(unit))


def layout(
    *,
    streamed: bool = False,
    recompute: RecomputePlan | None = None,
    pin_bytes: int = 60 * 2**30,
    slots: int = 2,
    **changes: Any,
) -> Layout:
    placement = Placement(
        units=units_of(full_shapes()),
        streamed=blocks() if streamed else frozenset(),
        pin_bytes=pin_bytes,
        **changes,
    )
    return Layout(placement=placement, slots=slots, recompute=recompute or RecomputePlan())


def some_layers(share: float) -> list[str]:
    """Every so many modules of the UNet, in whole transformer blocks and resnets."""
    units = list(dict.fromkeys(map(unit_of, full_shapes())))
    chosen = {unit for n, unit in enumerate(units) if int((n + 1) * share) > int(n * share)}
    return [name for name in full_shapes() if unit_of(name) in chosen]


def recompute_within(gib: float, batch: int) -> RecomputePlan:
    """What is recomputed when all of the card's memory is ``gib``; everything if that is 0."""
    if not gib:
        return RecomputePlan()
    config = apply_settings(
        TrainConfig(),
        [
            f"training.batch_size={batch}",
            f"memory.vram_limit={gib}",
            "memory.weights=resident",
            "memory.gradients=host",
            "memory.states=host",
            "memory.pinned_limit=40",
        ],
    )
    shapes = {name: tuple(shape) for name, shape in full_shapes().items()}
    facts = UNetFacts(shapes=shapes, trained=list(shapes), rule=RavenAdamWRule())
    return plan_memory(config, facts, measure(DEVICE)).recompute


class Rig:
    """A model that trains on noise."""

    def __init__(
        self,
        how: Layout,
        *,
        micro_steps: int = 1,
        rule: UpdateRule | None = None,
        moments: Moments = "16bit",
        names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.unet: Any = zero_unet(torch.bfloat16)
        use_attention(self.unet, "auto")
        wanted = list(full_shapes()) if names is None else list(names)
        self.memory = Arrangement(
            self.unet,
            wanted,
            rule or RavenAdamWRule(),
            moments,
            layout=how,
            device=DEVICE,
            micro_steps=micro_steps,
            seed=0,
        )
        frozen = {}
        for name, parameter in self.unet.named_parameters():
            if not parameter.requires_grad:
                if parameter.device.type != "cuda":
                    parameter.data = parameter.data.to(DEVICE)
                frozen[name] = parameter.data
        fill_randomly(self.memory.optimizer.weights(), seed)
        fill_randomly({n: w for n, w in frozen.items() if w.untyped_storage().nbytes() > 2}, seed)
        self.memory.after_step()
        self.micro_steps = micro_steps
        self._generator = torch.Generator("cuda").manual_seed(seed + 1)
        gc.collect()
        gc.freeze()  # as a run does
        torch.cuda.empty_cache()
        torch.cuda.synchronize()

    def use(self, plan: RecomputePlan) -> None:
        """Recompute as ``plan`` says from now on."""
        self.memory._recomputation.remove()
        self.memory._recomputation = self.memory._recompute(plan)

    def inputs(self, batch: int, height: int, width: int) -> dict[str, Tensor]:
        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, device=DEVICE, generator=self._generator)

        return {
            "latents": noise(batch, 4, height // 8, width // 8).bfloat16(),
            "target": noise(batch, 4, height // 8, width // 8),
            "timesteps": torch.randint(0, 1000, (batch,), device=DEVICE, generator=self._generator),
            "prompt": noise(batch, 77, 2048).bfloat16(),
            "pooled": noise(batch, 1280).bfloat16(),
            "ids": torch.tensor([[height, width, 0, 0, height, width]] * batch, device=DEVICE),
        }

    def loss(self, inputs: dict[str, Tensor]) -> Tensor:
        (predicted,) = self.unet(
            inputs["latents"],
            inputs["timesteps"],
            encoder_hidden_states=inputs["prompt"],
            added_cond_kwargs={"text_embeds": inputs["pooled"], "time_ids": inputs["ids"].float()},
            return_dict=False,
        )
        return torch.nn.functional.mse_loss(predicted.float(), inputs["target"])

    def micro_step(self, inputs: dict[str, Tensor], number: int) -> None:
        is_last = number == self.micro_steps - 1
        if number > 0:
            self.memory.gradients.begin(number, is_last=is_last)
        loss = self.loss(inputs) / self.micro_steps
        if number == 0:
            self.memory.optimizer.wait_until_issued()
            self.memory.gradients.begin(number, is_last=is_last)
        loss.backward()
        self.memory.gradients.end()

    def step(self, norm: Tensor, lr: float = 1e-6, clip: float = 1.0) -> None:
        scale = torch.clamp(clip / (norm + 1e-6), max=1.0)
        self.memory.optimizer.step(self.memory.gradients, lr, scale)
        self.memory.after_step()

    def train_step(self, inputs: Sequence[dict[str, Tensor]]) -> None:
        for number, one in enumerate(inputs):
            self.micro_step(one, number)
        norm = self.memory.gradients.norm()
        # The one wait of the host, as in a run: for the norm, and the largest weight so far.
        torch.stack([norm, self.memory.optimizer.largest_weight().reshape(())]).tolist()
        self.step(norm)

    @contextmanager
    def bare(self) -> Iterator[Callable[[dict[str, Tensor]], None]]:
        """Forward and backward alone, gradients dropped as they appear."""
        sums = self.memory.gradients
        sums.detach()

        def drop(parameter: nn.Parameter) -> None:
            parameter.grad = None

        parameters = self.memory.parameters.values()
        handles = [p.register_post_accumulate_grad_hook(drop) for p in parameters]

        def run(inputs: dict[str, Tensor]) -> None:
            (self.loss(inputs) / self.micro_steps).backward()

        yield run
        for handle in handles:
            handle.remove()
        sums.attach()

    def close(self) -> None:
        self.memory.optimizer.finish()
        self.memory.close()
        self.__dict__.clear()
        gc.unfreeze()
        gc.collect()
        torch.cuda.empty_cache()
