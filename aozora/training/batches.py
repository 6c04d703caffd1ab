"""From what the caches hold to what the UNet is fed: chance, tickets and dropped captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aozora.config.sections import CaptionsSection
from aozora.config.ticket_segments import SegmentedPool
from aozora.data.batch_plan import BatchPlan, PlannedBatch
from aozora.data.loader import Batch, BatchLoader
from aozora.diffusion.conditioning import NullKind, drop_conditioning, dropped_mask
from aozora.diffusion.noise import batch_noise
from aozora.diffusion.objectives import Objective
from aozora.diffusion.timesteps import draw_tickets
from aozora.training.step import PreparedBatch


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """How captions are dropped; an empty one is unconditional, so it counts as dropped.

    Attributes:
        probability: Share of samples without their caption.
        kind: What stands in for a dropped caption.
        prompt_embeds: States of the empty caption, (T, D).
        pooled_prompt_embeds: Pooled state of the empty caption, (P,).
    """

    probability: float
    kind: NullKind
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    @classmethod
    def of(cls, captions: CaptionsSection, loader: BatchLoader) -> Dropout:
        """Return what the settings ask for, with the empty caption as ``loader`` has it."""
        return cls(
            probability=captions.dropout,
            kind=captions.null,
            prompt_embeds=loader.null_prompt_embeds,
            pooled_prompt_embeds=loader.null_pooled_prompt_embeds,
        )

    def apply(self, batch: Batch, dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of ``batch``, replaced for empty captions and those ``dropped``.

        Args:
            batch: B samples.
            dropped: Which of them lose their caption, bool, shape (B,).
        """
        empty = (batch.prompt_embeds == self.prompt_embeds).flatten(1).all(1)
        return drop_conditioning(
            batch.prompt_embeds,
            batch.pooled_prompt_embeds,
            dropped | empty,
            kind=self.kind,
            null_prompt_embeds=self.prompt_embeds,
            null_pooled_prompt_embeds=self.pooled_prompt_embeds,
        )


class BatchPreparer:
    """Makes the batch of any micro-step: a pure function of its number.

    Args:
        plan: Which pictures make up which batch.
        load: Reads a planned batch from the caches.
        pool: The timesteps of the run.
        objective: Turns tickets into timesteps.
        dropout: How captions are dropped.
        seed: The run's seed.
        accumulation_steps: Batches in an optimizer step.
        pin: Whether to return page-locked memory.
    """

    def __init__(
        self,
        *,
        plan: BatchPlan,
        load: Callable[[PlannedBatch], Batch],
        pool: SegmentedPool,
        objective: Objective,
        dropout: Dropout,
        seed: int,
        accumulation_steps: int,
        pin: bool,
    ) -> None:
        self._plan = plan
        self._load = load
        self._pool = pool
        self._objective = objective
        self._dropout = dropout
        self._seed = seed
        self._accumulation_steps = accumulation_steps
        self._pin = pin

    def __call__(self, micro_step: int) -> PreparedBatch:
        """Return the batch of ``micro_step``, counted from the run's first."""
        planned = self._plan.batch(micro_step)
        batch = self._load(planned)
        numbers = range(planned.first_sample, planned.first_sample + len(planned.items))
        dropped = dropped_mask(self._seed, numbers, self._dropout.probability)
        prompt_embeds, pooled = self._dropout.apply(batch, dropped)
        tickets = draw_tickets(self._pool, numbers)
        prepared = PreparedBatch(
            latents=batch.latents,
            noise=batch_noise(self._seed, numbers, batch.latents.shape[1:]),
            timesteps=self._objective.model_timesteps(tickets, batch.height, batch.width),
            tickets=tuple(tickets.tolist()),
            prompt_embeds=prompt_embeds,
            pooled_prompt_embeds=pooled,
            add_time_ids=batch.add_time_ids,
            items=planned.items,
            share=len(numbers) / self._samples_in_window(micro_step),
        )
        return prepared.pinned() if self._pin else prepared

    def _samples_in_window(self, micro_step: int) -> int:
        first = micro_step - micro_step % self._accumulation_steps
        stop = first + self._accumulation_steps
        return self._plan.samples_before(stop) - self._plan.samples_before(first)


def validation_batch(
    load: Callable[[PlannedBatch], Batch],
    item: int,
    timesteps: tuple[int, ...],
    objective: Objective,
    dropout: Dropout,
    seed: int,
) -> PreparedBatch:
    """Return held-out picture ``item`` at every timestep of the grid, each with fixed noise.

    Its caption is dropped only if it is empty.

    For rectified flow the grid is of timesteps as the UNet gets them, so that it does not move with
    the shift.
    """
    batch = load(PlannedBatch(epoch=0, items=(item,), first_sample=0))
    count = len(timesteps)
    # A stream of its own keeps this noise apart from all that is trained on.
    numbers = range(item * count, (item + 1) * count)
    noise = batch_noise(seed, numbers, batch.latents.shape[1:], stream="validation")
    kind = torch.float32 if objective.prediction == "flow" else torch.int64

    prompt_embeds, pooled = dropout.apply(batch, torch.zeros(1, dtype=torch.bool))

    def repeated(tensor: Tensor) -> Tensor:
        return tensor.expand(count, *tensor.shape[1:]).contiguous()

    return PreparedBatch(
        latents=repeated(batch.latents),
        noise=noise,
        timesteps=torch.tensor(timesteps, dtype=kind),
        tickets=timesteps,
        prompt_embeds=repeated(prompt_embeds),
        pooled_prompt_embeds=repeated(pooled),
        add_time_ids=repeated(batch.add_time_ids),
        items=(item,) * count,
        share=1.0,
    )
