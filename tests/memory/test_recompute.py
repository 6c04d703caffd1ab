"""Whatever is kept or computed again: the same bits, the bytes of the table, no product twice."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from aozora.memory.activation_bytes import ActivationShape, cost_of, parts_of, peak_bytes
from aozora.memory.recompute import LEVELS, Recomputation, RecomputePlan, recomputable
from aozora.memory.recompute_plan import plan_recompute, total_cost
from aozora.memory.saved_again import SavedAgain
from aozora.model.building import empty_unet
from aozora.model.synthetic import FULL_SIZES, configs_of
from tests.memory.live_bytes import FlashAttention, measure_backward_flops, measure_bytes

MIB = 2**20
KINDS_AND_LEVELS = [(kind, level) for kind, levels in LEVELS.items() for level in levels[1:]]
SHAPE = ActivationShape(pixels=128 * 128)


def _plan(unet, level, kinds=tuple(LEVELS)):
    found = recomputable(unet)
    paths = [p for p, kind in found.items() if kind in kinds and level in LEVELS[kind]]
    return RecomputePlan(dict.fromkeys(paths, level))


def _random_plan(unet, seed):
    chance = random.Random(seed)
    return RecomputePlan({p: chance.choice(LEVELS[k]) for p, k in recomputable(unet).items()})


def _results(unet, run_unet, frozen=()):
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    loss = run_unet(unet, batch=2, side=8)
    loss.backward()
    gradients = {n: p.grad for n, p in unet.named_parameters() if p.grad is not None}
    for parameter in unet.parameters():
        parameter.grad = None
    return {"loss": loss.detach(), **gradients}


def _assert_equal(found, expected):
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different, different


FROZEN = [(), ("down_blocks",), ("attn1", "ff.net.2", "norm1"), ("attn2.to_q", "conv1", "proj_in")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_every_plan_gives_the_same_bits(make_unet, run_unet, frozen, dtype):
    unet = make_unet().to(dtype)
    expected = _results(unet, run_unet, frozen)
    plans = [_plan(unet, level) for level in ("full", "pointwise", "store")]
    for plan in (*plans, *(_random_plan(unet, seed) for seed in range(2))):
        recomputation = Recomputation(unet, plan)
        _assert_equal(_results(unet, run_unet, frozen), expected)
        recomputation.remove()


def test_a_plan_that_was_removed_leaves_nothing(make_unet, run_unet):
    unet = make_unet()
    known = {"_gradient_checkpointing_func"}
    before = {path: vars(module).keys() | known for path, module in unet.named_modules()}
    Recomputation(unet, _random_plan(unet, 1)).remove()
    for path, module in unet.named_modules():
        assert vars(module).keys() | known == before[path], path
        assert not module._forward_hooks
        assert not getattr(module, "gradient_checkpointing", False)


def test_only_what_can_be_done_is_planned(make_unet):
    unet = make_unet()
    block = "mid_block.attentions.0.transformer_blocks.0"
    for levels in ({"conv_in": "store"}, {"up_blocks.0.upsamplers.0": "pointwise"}):
        with pytest.raises(ValueError, match="nothing there whose activations"):
            Recomputation(unet, RecomputePlan(levels))
    for level in ("store", "pointwise"):
        with pytest.raises(ValueError, match=f"{block} is streamed"):
            Recomputation(unet, RecomputePlan({block: level}), streamed=[block])
    assert not any("forward" in vars(module) for module in unet.modules())
    Recomputation(unet, RecomputePlan(), streamed=[block])


@pytest.fixture(scope="module")
def wide_unet():
    """A UNet of the true widths with fewer transformer blocks, without memory."""
    sizes = replace(FULL_SIZES, unet_depths=(1, 1, 2))
    unet = empty_unet(configs_of(sizes)["unet"]).to(torch.bfloat16).train()
    unet.set_attn_processor(FlashAttention())
    return unet


def _measured(measure, unet, plan, shape):
    recomputation = Recomputation(unet, plan)
    found = measure(unet, round(shape.pixels**0.5), shape.batch, shape.text_tokens)
    recomputation.remove()
    return found


TABLE_SHAPE = ActivationShape(pixels=16 * 16, batch=2, text_tokens=154)


@pytest.fixture(scope="module")
def measured_full(wide_unet):
    return [
        _measured(measure, wide_unet, RecomputePlan(), TABLE_SHAPE)
        for measure in (measure_bytes, measure_backward_flops)
    ]


@pytest.mark.parametrize(("kind", "level"), KINDS_AND_LEVELS)
def test_bytes_and_work_are_those_of_the_table(wide_unet, measured_full, kind, level):
    (full_kept, _), full_flops = measured_full
    plan, parts = _plan(wide_unet, level, [kind]), parts_of(wide_unet)
    cost = total_cost(plan, parts, TABLE_SHAPE)
    kept, _ = _measured(measure_bytes, wide_unet, plan, TABLE_SHAPE)
    assert kept - full_kept == cost.kept_bytes
    flops = _measured(measure_backward_flops, wide_unet, plan, TABLE_SHAPE)
    saved = total_cost(RecomputePlan(), parts, TABLE_SHAPE).repeated_flops - cost.repeated_flops
    assert full_flops - flops == saved


def test_pointwise_repeats_no_product(wide_unet):
    flops = [
        _measured(measure_backward_flops, wide_unet, _plan(wide_unet, level), TABLE_SHAPE)
        for level in ("pointwise", "store")
    ]
    assert flops[0] == flops[1]


@pytest.fixture(scope="module")
def full_unet():
    unet = empty_unet(configs_of(FULL_SIZES)["unet"]).to(torch.bfloat16).train()
    unet.set_attn_processor(FlashAttention())
    return unet


@pytest.mark.slow
@pytest.mark.parametrize(("side", "batch"), [(128, 1), (64, 3)])
def test_the_peak_is_what_a_true_unet_needs(full_unet, side, batch):
    shape = ActivationShape(pixels=side**2, batch=batch)
    kept, peak = _measured(measure_bytes, full_unet, RecomputePlan(), shape)
    assert peak == pytest.approx(peak_bytes(shape), rel=0.01)
    plan = plan_recompute(parts_of(full_unet), shape, 600 * MIB)
    more_kept, more_peak = _measured(measure_bytes, full_unet, plan, shape)
    assert more_peak <= peak_bytes(shape) + 600 * MIB
    assert 590 * MIB <= more_kept - kept <= 600 * MIB


def test_a_larger_budget_repeats_less_and_is_kept(full_unet):
    parts = parts_of(full_unet)
    assert plan_recompute(parts, SHAPE, 0) == RecomputePlan()
    costs = []
    for budget in range(0, 7000 * MIB, 100 * MIB):
        cost = total_cost(plan_recompute(parts, SHAPE, budget), parts, SHAPE)
        assert cost.kept_bytes <= budget
        costs.append(cost)
    work = [cost.repeated_flops for cost in costs]
    assert work == sorted(work, reverse=True)
    assert work[0] == pytest.approx(5.24e12, rel=0.002)
    assert work[1] == pytest.approx(4.13e12, rel=0.01), "93 MiB spare a fifth of the work"
    assert work[34] == 0, "3.3 GiB spare all of it"
    assert costs[-1].repeated_bytes == 0


def test_what_spares_most_for_its_bytes_is_kept_first(full_unet):
    parts = parts_of(full_unet)
    kinds = recomputable(full_unet)
    first = plan_recompute(parts, SHAPE, 93 * MIB).levels
    assert first == {path: "pointwise" for path, kind in kinds.items() if kind == "resnet"}
    second = plan_recompute(parts, SHAPE, 700 * MIB).levels
    assert [
        p for p, kind in kinds.items() if kind == "resnet" and second.get(p) != "pointwise"
    ] == []
    wide = {part.path for part in parts if part.kind != "resnet" and part.channels == 1280}
    assert {p for p in second if kinds[p] == "transformer block"} < wide


def test_streamed_blocks_stay_full(full_unet):
    streamed = [p for p, kind in recomputable(full_unet).items() if kind == "transformer block"]
    plan = plan_recompute(parts_of(full_unet), SHAPE, 8000 * MIB, streamed=streamed)
    assert not plan.levels.keys() & set(streamed)
    assert len(plan.levels) == len(recomputable(full_unet)) - len(streamed)


def test_parts_are_found_at_their_resolution(full_unet):
    parts = {part.path: part for part in parts_of(full_unet)}
    shrinks = {
        "down_blocks.0.resnets.1": (1, 320, 320),
        "down_blocks.2.attentions.1": (16, 1280, 1280),
        "mid_block.resnets.0": (16, 1280, 1280),
        "up_blocks.0.resnets.2": (16, 1920, 1280),
        "up_blocks.0.upsamplers.0": (16, 1280, 1280),
        "up_blocks.1.attentions.2.transformer_blocks.1": (4, 640, 640),
        "up_blocks.2.resnets.0": (1, 960, 320),
    }
    for path, expected in shrinks.items():
        part = parts[path]
        assert (part.shrink, part.in_channels, part.channels) == expected
    block = parts["mid_block.attentions.0.transformer_blocks.9"]
    cost = cost_of(block, "store", SHAPE)
    assert cost.kept_bytes / MIB == pytest.approx(68.1, abs=0.1)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.calls = nn.LayerNorm(8), 0

    def forward(self, x):
        self.calls += 1
        return self.norm(x)


def _three_readers(saved, norm, linears, x):
    with saved.watching():
        normed = norm(x)
        saved.mark(normed, norm.forward, x)
        return sum(linear(normed).square().sum() for linear in linears)


def test_a_tensor_is_made_again_once_for_all_who_saved_it():
    torch.manual_seed(0)
    norm, linears = Counting(), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
    x = torch.randn(2, 5, 8, requires_grad=True)
    loss = _three_readers(SavedAgain(), norm, linears, x)
    assert norm.calls == 1
    loss.backward(retain_graph=True)
    assert norm.calls == 2
    found = [x.grad.clone(), *(linear.weight.grad.clone() for linear in linears)]
    for tensor in (x, *linears.parameters(), *norm.parameters()):
        tensor.grad = None
    loss.backward()
    again = [x.grad, *(linear.weight.grad for linear in linears)]
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    normed = norm.norm(x)
    expected = torch.autograd.grad(
        sum(linear(normed).square().sum() for linear in linears),
        [x, *(linear.weight for linear in linears)],
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_is_marked_is_not_kept():
    made = []

    def double(x):
        made.append(torch.empty(0))
        return 2 * x

    saved = SavedAgain()
    x = torch.randn(100, requires_grad=True)
    with saved.watching():
        doubled = double(x)
        saved.mark(doubled, double, x)
        product = doubled.sin()
    memory = doubled.untyped_storage()._weak_ref()
    del doubled
    assert torch.UntypedStorage._expired(memory)
    torch.UntypedStorage._free_weak_ref(memory)
    product.sum().backward()
    assert torch.equal(x.grad, 2 * torch.cos(2 * x.detach()))
    assert len(made) == 2


def test_marks_outside_of_a_watched_part_do_nothing():
    saved = SavedAgain()
    x = torch.randn(3, requires_grad=True)
    doubled = 2 * x
    saved.mark(doubled, lambda _: pytest.fail("made again"), x)
    doubled.sin().sum().backward()
    assert torch.equal(x.grad, 2 * torch.cos(2 * x.detach()))


def test_a_saved_view_of_a_marked_tensor_is_made_again_as_that_view():
    saved = SavedAgain()
    x = torch.randn(4, 5, requires_grad=True)
    with saved.watching():
        doubled = 2 * x
        saved.mark(doubled, lambda source: 2 * source, x)
        part = doubled[1:, 2:].t().sin()
    part.sum().backward()
    expected = torch.zeros(4, 5)
    expected[1:, 2:] = 2 * torch.cos(2 * x.detach()[1:, 2:])
    assert torch.equal(x.grad, expected)


def test_a_part_is_not_stored_in_full_where_less_did_not_fit(full_unet):
    blocks = [part for part in parts_of(full_unet) if part.kind == "transformer block"][-1:]
    costs = [cost_of(blocks[0], level, SHAPE).kept_bytes for level in ("pointwise", "store")]
    assert costs[1] - costs[0] < costs[0]
    assert plan_recompute(blocks, SHAPE, costs[1] - costs[0]) == RecomputePlan()
    assert [*plan_recompute(blocks, SHAPE, costs[0]).levels.values()] == ["pointwise"]
