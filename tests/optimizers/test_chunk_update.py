from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import nn

from optimizers.adafactor import AdafactorRule
from optimizers.chunk import QUANT_BLOCK, Chunk, StatePlane, StepScalars
from optimizers.chunk_update import EagerUpdate
from optimizers.lion import LionRule
from optimizers.precision import BLOCK_FORMATS, STORAGE_DTYPES, join_fp32, noise_key, split_fp32
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.velo_rms import VeloRMSRule

CPU = torch.device("cpu")
UNIT = 40 * QUANT_BLOCK


class Unit:
    """Flat weights with all that their update needs, cut anew at every step."""

    def __init__(self, rule, weights, dtype, moments, scratch_elements=7 * QUANT_BLOCK):
        self.rule = rule
        self.update = EagerUpdate(rule, CPU, scratch_elements)
        self.magnitude = torch.zeros(())
        self.t = 0
        self.master = None
        self.weight = weights.clone()
        if dtype == torch.bfloat16:
            self.weight, self.master = split_fp32(weights)
        elif dtype == torch.float16:
            self.weight, self.master = weights.to(dtype), weights.clone()
        num = weights.numel()
        self.planes = {}
        for name, spec in rule.states(torch.Size([num])).items():
            chosen = rule.formats(moments)[name]
            assert chosen in spec.formats
            values = torch.zeros(num, dtype=STORAGE_DTYPES[chosen])
            scales = torch.zeros(num // QUANT_BLOCK) if chosen in BLOCK_FORMATS else None
            self.planes[name] = StatePlane(values, scales, chosen)

    def exact(self):
        if self.master is None:
            return self.weight.clone()
        if self.master.dtype == torch.int16:
            return join_fp32(self.weight, self.master)
        return self.master.clone()

    def step(self, gradient, lr, bounds, scale=1.0):
        self.t += 1
        scalars = StepScalars(
            lr=lr,
            t=self.t,
            gradient_scale=torch.tensor(scale),
            noise_keys={name: noise_key(3, self.t, name, "unit") for name in self.planes},
        )
        for first, last in bounds:
            self.update(self.chunk(first, last, gradient), scalars, self.magnitude)

    def chunk(self, first, last, gradient):
        planes = {
            name: StatePlane(
                plane.values[first:last],
                None
                if plane.scales is None
                else plane.scales[first // QUANT_BLOCK : last // QUANT_BLOCK],
                plane.state_format,
            )
            for name, plane in self.planes.items()
        }
        return Chunk(
            weight=self.weight[first:last],
            master=None if self.master is None else self.master[first:last],
            gradient=gradient[first:last],
            states=planes,
            start=first,
        )


def _weights(num=UNIT):
    return 0.02 * torch.randn(num, generator=torch.Generator().manual_seed(1))


def _gradient(step, num=UNIT):
    generator = torch.Generator().manual_seed(1000 + step)
    scale = torch.exp(2 * torch.randn(num, generator=generator))
    return 1e-3 * scale * torch.randn(num, generator=generator)


def _random_cut(chooser, num=UNIT):
    blocks = num // QUANT_BLOCK
    marks = sorted({0, blocks, *(chooser.randrange(blocks) for _ in range(chooser.randrange(6)))})
    bounds = [(a * QUANT_BLOCK, b * QUANT_BLOCK) for a, b in itertools.pairwise(marks)]
    chooser.shuffle(bounds)
    return bounds


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_exact_states_give_the_bits_of_torch_adamw_however_chunks_are_cut(dtype):
    chooser = random.Random(5)
    unit = Unit(RavenAdamWRule(), _weights(), dtype, "float32")
    reference = nn.Parameter(_weights())
    adamw = torch.optim.AdamW([reference], lr=1e-3, weight_decay=0.01, foreach=False)
    for step in range(200):
        gradient, lr, scale = _gradient(step), 1e-4 * (1 + step % 3), (1.0, 0.37)[step % 2]
        for group in adamw.param_groups:
            group["lr"] = lr
        reference.grad = gradient.clone().mul_(scale)
        adamw.step()
        unit.step(gradient, lr, _random_cut(chooser), scale)
    assert torch.equal(unit.exact(), reference.detach())
    assert not torch.equal(unit.exact(), _weights())
    if dtype != torch.float32:
        rounding = (unit.weight.float() - unit.exact()).abs()
        assert (rounding <= 2**-8 * unit.exact().abs() + 2**-25).all()


@pytest.mark.parametrize(
    "rule", [RavenAdamWRule(), VeloRMSRule(), LionRule()], ids=lambda rule: rule.kind
)
@pytest.mark.parametrize("moments", ["8bit", "16bit", "float32"])
def test_results_do_not_depend_on_chunks_slices_or_order(rule, moments):
    chooser = random.Random(6)
    whole = Unit(rule, _weights(), torch.bfloat16, moments, scratch_elements=UNIT)
    cut = Unit(rule, _weights(), torch.bfloat16, moments, scratch_elements=3 * QUANT_BLOCK + 5)
    for step in range(20):
        whole.step(_gradient(step), 1e-4, [(0, UNIT)])
        cut.step(_gradient(step), 1e-4, _random_cut(chooser))
    assert torch.equal(whole.exact(), cut.exact())
    for name, plane in whole.planes.items():
        assert torch.equal(plane.values, cut.planes[name].values)
        if plane.scales is not None:
            assert torch.equal(plane.scales, cut.planes[name].scales)
    assert whole.magnitude == cut.magnitude >= whole.exact().abs().max()


def test_a_bfloat16_gradient_is_read_as_it_is_and_left_alone():
    units = [Unit(RavenAdamWRule(), _weights(), torch.bfloat16, "float32") for _ in range(2)]
    narrow = _gradient(0).bfloat16()
    kept = narrow.clone()
    units[0].step(narrow, 1e-4, [(0, UNIT)], scale=0.5)
    units[1].step(narrow.float(), 1e-4, [(0, UNIT)], scale=0.5)
    assert torch.equal(units[0].exact(), units[1].exact())
    assert torch.equal(narrow, kept)


def test_magnitude_is_the_largest_so_far_and_stays_nan():
    unit = Unit(RavenAdamWRule(), _weights(), torch.float32, "float32")
    unit.magnitude.fill_(7.0)
    unit.step(_gradient(0), 1e-4, [(0, UNIT)])
    assert unit.magnitude == 7
    unit.weight[4321] = -9.0
    unit.step(_gradient(1), 0.0, [(0, UNIT)])
    assert unit.magnitude == 9
    unit.weight[100] = math.nan
    unit.step(_gradient(2), 0.0, [(0, UNIT)])
    assert unit.magnitude.isnan()
    unit.weight[100] = 0.0
    unit.step(_gradient(2), 0.0, [(0, UNIT)])
    assert unit.magnitude.isnan()


def _chunk_of_tensor(rule, weight):
    padded = -(-weight.numel() // QUANT_BLOCK) * QUANT_BLOCK
    flat = torch.zeros(padded)
    flat[: weight.numel()] = weight.flatten()
    hi, lo = split_fp32(flat)
    planes = {}
    for name, spec in rule.states(weight.shape).items():
        num = padded if spec.shape == weight.shape else spec.shape.numel()
        planes[name] = StatePlane(torch.zeros(num), None, "float32")
    return Chunk(weight=hi, master=lo, gradient=torch.zeros(padded), states=planes, start=0)


@pytest.mark.parametrize(
    "rule",
    [AdafactorRule(weight_decay=0.1), RavenAdamWRule(centralization=0.7)],
    ids=lambda rule: rule.kind,
)
@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (30, 7), (17,)], ids=str)
def test_rules_that_need_shapes_see_whole_tensors(rule, shape):
    weight = _weights(math.prod(shape)).view(shape)
    chunk = _chunk_of_tensor(rule, weight)
    update = EagerUpdate(rule, CPU, QUANT_BLOCK)
    states = {name: torch.zeros(spec.shape) for name, spec in rule.states(weight.shape).items()}
    magnitude = torch.zeros(1)
    for t in range(1, 11):
        gradient = _gradient(t, weight.numel()).view(shape)
        chunk.gradient[: weight.numel()] = gradient.flatten()
        scalars = StepScalars(lr=1e-3, t=t, gradient_scale=torch.tensor(1.0), noise_keys={})
        update(chunk, scalars, magnitude, weight.shape)
        rule.update(weight, gradient.clone(), states, torch.empty(shape), lr=1e-3, t=t)
    exact = join_fp32(chunk.weight, chunk.master)
    assert torch.equal(exact[: weight.numel()].view(shape), weight)
    assert (exact[weight.numel() :] == 0).all()
    assert magnitude.item() >= weight.abs().max().item()
    with pytest.raises(ValueError, match="shape"):
        update(chunk, scalars, magnitude)


def test_nothing_is_allocated_for_slices():
    unit = Unit(RavenAdamWRule(), _weights(), torch.bfloat16, "16bit")
    before = unit.update.scratch_bytes
    assert before == 5 * 7 * QUANT_BLOCK * 4
    unit.step(_gradient(0), 1e-4, [(0, UNIT)])
    assert unit.update.scratch_bytes == before
