from __future__ import annotations

import pytest
import torch

from aozora.config.choices.predictions import Epsilon
from aozora.config.ticket_pool import TicketPool
from aozora.config.ticket_segments import SegmentedPool
from aozora.data.batch_plan import BatchPlan
from aozora.data.loader import Batch
from aozora.diffusion.objectives import make_objective
from aozora.training.batches import BatchPreparer, Dropout, validation_batch

STATES = torch.randn((2, 3, 5), generator=torch.Generator().manual_seed(1))
POOLED = torch.randn((2, 4), generator=torch.Generator().manual_seed(2))
UNCAPTIONED = 1


def load(planned):
    """Return a batch of two pictures, the second without a caption."""
    items = list(planned.items)
    return Batch(
        latents=torch.zeros((len(items), 4, 2, 2)),
        prompt_embeds=STATES[items],
        pooled_prompt_embeds=POOLED[items],
        add_time_ids=torch.zeros((len(items), 6)),
        indices=planned.items,
        epoch=0,
        first_sample=planned.first_sample,
        height=64,
        width=64,
    )


def dropout(kind):
    return Dropout(
        probability=0.0,
        kind=kind,
        prompt_embeds=STATES[UNCAPTIONED],
        pooled_prompt_embeds=POOLED[UNCAPTIONED],
    )


def prepared(kind):
    plan = BatchPlan([(64, 64)] * 2, ["a", "b"], [1, 1], 2, 0)
    prepare = BatchPreparer(
        plan=plan,
        load=load,
        pool=SegmentedPool.of(TicketPool((1.0,) * 10, 0), 2),
        objective=make_objective(Epsilon(), zero_terminal_snr=False),
        dropout=dropout(kind),
        seed=0,
        accumulation_steps=1,
        pin=False,
    )
    return prepare(0)


@pytest.mark.parametrize("kind", ["zeros", "empty"])
def test_an_empty_caption_is_what_stands_in_for_a_dropped_one(kind):
    batch = prepared(kind)
    for row, item in enumerate(batch.items):
        is_zero = kind == "zeros" and item == UNCAPTIONED
        states = torch.zeros_like(STATES[item]) if is_zero else STATES[item]
        pooled = torch.zeros_like(POOLED[item]) if is_zero else POOLED[item]
        assert torch.equal(batch.prompt_embeds[row], states)
        assert torch.equal(batch.pooled_prompt_embeds[row], pooled)


@pytest.mark.parametrize("kind", ["zeros", "empty"])
def test_a_held_out_picture_without_a_caption_is_measured_as_it_would_be_trained(kind):
    objective = make_objective(Epsilon(), zero_terminal_snr=False)
    for item in range(2):
        batch = validation_batch(load, item, (100, 900), objective, dropout(kind), 0)
        is_zero = kind == "zeros" and item == UNCAPTIONED
        for found, state in ((batch.prompt_embeds, STATES), (batch.pooled_prompt_embeds, POOLED)):
            expected = torch.zeros_like(state[item]) if is_zero else state[item]
            assert torch.equal(found, expected.expand(2, *expected.shape))
