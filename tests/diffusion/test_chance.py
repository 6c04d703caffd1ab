from __future__ import annotations

import math

import pytest
import torch

from aozora.config.choices.distributions import LogitNormal
from aozora.config.ticket_pool import TicketPool
from aozora.config.ticket_segments import SegmentedPool
from aozora.diffusion.conditioning import drop_conditioning, dropped_mask, is_dropped
from aozora.diffusion.noise import batch_noise, sample_noise
from aozora.diffusion.timesteps import draw_tickets, validation_grid

SHAPE = (4, 8, 8)


def test_noise_of_a_sample_is_the_same_whatever_the_batch():
    batch = batch_noise(42, [5, 6, 7], SHAPE)
    assert batch.shape == (3, *SHAPE)
    assert batch.dtype == torch.float32
    torch.manual_seed(99)
    torch.randn(17)
    assert torch.equal(batch[1], sample_noise(42, 6, SHAPE))
    assert torch.equal(batch_noise(42, [7, 5], SHAPE), batch[[2, 0]])


def test_noise_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    sample_noise(42, 0, SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


def test_neighbouring_seeds_and_samples_share_no_noise():
    one = sample_noise(42, 7, (4, 64, 64)).flatten()
    for other in (sample_noise(43, 6, (4, 64, 64)), sample_noise(42, 8, (4, 64, 64))):
        both = torch.stack([one, other.flatten()])
        assert abs(torch.corrcoef(both)[0, 1].item()) < 5 / math.sqrt(one.numel())


def test_noise_is_standard_normal():
    noise = batch_noise(0, range(100), (4, 32, 32)).double()
    count = noise.numel()
    assert abs(noise.mean().item()) < 4 / math.sqrt(count)
    assert abs(noise.var().item() - 1) < 4 * math.sqrt(2 / count)


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5])
def test_rate_of_dropped_captions_is_within_three_sigma(probability):
    count = 100_000
    dropped = sum(is_dropped(42, sample, probability) for sample in range(count))
    sigma = math.sqrt(count * probability * (1 - probability))
    assert abs(dropped - count * probability) < 3 * sigma


def test_nothing_is_dropped_at_zero_and_everything_at_one():
    assert not dropped_mask(42, range(1000), 0.0).any()
    assert dropped_mask(42, range(1000), 1.0).all()


def test_dropping_depends_on_the_sample_alone():
    mask = dropped_mask(42, range(200), 0.5)
    assert mask.dtype == torch.bool
    assert torch.equal(dropped_mask(42, range(100, 200), 0.5), mask[100:])
    assert not torch.equal(dropped_mask(43, range(200), 0.5), mask)
    assert dropped_mask(42, [], 0.5).shape == (0,)


def embeddings():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in ((3, 5, 7), (3, 6)))


def test_both_embeddings_of_a_dropped_sample_become_those_of_the_empty_caption():
    prompt, pooled = embeddings()
    null_prompt, null_pooled = torch.full((5, 7), 2.0), torch.full((6,), 3.0)
    mask = torch.tensor([False, True, False])
    new_prompt, new_pooled = drop_conditioning(
        prompt,
        pooled,
        mask,
        kind="empty",
        null_prompt_embeds=null_prompt,
        null_pooled_prompt_embeds=null_pooled,
    )
    assert torch.equal(new_prompt[1], null_prompt)
    assert torch.equal(new_pooled[1], null_pooled)
    assert torch.equal(new_prompt[[0, 2]], prompt[[0, 2]])
    assert torch.equal(new_pooled[[0, 2]], pooled[[0, 2]])


def test_zeros_need_no_empty_caption_and_keep_the_type():
    prompt, pooled = (tensor.half() for tensor in embeddings())
    mask = torch.tensor([True, False, True])
    new_prompt, new_pooled = drop_conditioning(prompt, pooled, mask, kind="zeros")
    assert new_prompt.dtype == new_pooled.dtype == torch.float16
    assert not new_prompt[[0, 2]].any()
    assert not new_pooled[[0, 2]].any()
    assert torch.equal(new_prompt[1], prompt[1])


def test_dropping_no_sample_changes_no_bit():
    prompt, pooled = embeddings()
    new_prompt, new_pooled = drop_conditioning(
        prompt, pooled, torch.zeros(3, dtype=torch.bool), kind="zeros"
    )
    assert torch.equal(new_prompt, prompt)
    assert torch.equal(new_pooled, pooled)


def test_conditioning_that_does_not_fit_is_refused():
    prompt, pooled = embeddings()
    mask = torch.zeros(3, dtype=torch.bool)
    with pytest.raises(ValueError, match="needed"):
        drop_conditioning(prompt, pooled, mask, kind="empty")
    with pytest.raises(ValueError, match="empty caption has shape"):
        drop_conditioning(
            prompt,
            pooled,
            mask,
            kind="empty",
            null_prompt_embeds=torch.zeros(4, 7),
            null_pooled_prompt_embeds=torch.zeros(6),
        )
    with pytest.raises(ValueError, match="marks for 3 samples"):
        drop_conditioning(prompt, pooled, mask[:2], kind="zeros")


def test_tickets_of_a_batch_are_those_of_its_samples():
    pool = TicketPool(LogitNormal().bin_weights(20), 42)
    run = SegmentedPool.of(pool, 100)
    tickets = draw_tickets(run, [3, 4, 99])
    assert tickets.dtype == torch.int64
    assert tickets.tolist() == pool.draw_all(100)[[3, 4, 99]].tolist()


def test_whole_run_in_batches_uses_every_ticket_once():
    pool = TicketPool((1.0,) * 20, 42, minimum=200)
    run = SegmentedPool.of(pool, 403)
    batches = [draw_tickets(run, range(k, min(k + 4, 403))) for k in range(0, 403, 4)]
    bins = torch.bincount(torch.cat(batches) // 50, minlength=20)
    assert tuple(bins.tolist()) == pool.counts(403)


def test_validation_grid_is_the_middles_of_equal_parts():
    assert validation_grid(10) == (50, 150, 250, 350, 450, 550, 650, 750, 850, 950)
    assert validation_grid(1) == (500,)
    assert validation_grid(1000) == tuple(range(1000))
    for count in (0, 1001):
        with pytest.raises(ValueError, match="validation grid"):
            validation_grid(count)
