"""The fused kernels against the eager ones, on a GPU."""

from __future__ import annotations

import math

import pytest
import torch

from optimizers.adafactor import AdafactorRule
from optimizers.chunk import QUANT_BLOCK, Chunk, StatePlane, StepScalars
from optimizers.chunk_update import EagerUpdate, update_for
from optimizers.lion import LionRule
from optimizers.precision import STORAGE_DTYPES, decode_state, join_fp32, noise_key, split_fp32
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.triton_update import TritonUpdate, available, supports
from optimizers.velo_rms import VeloRMSRule

DEVICE = torch.device("cuda")
SIZE = 301 * QUANT_BLOCK  # not a multiple of a program's elements
RULES = (
    RavenAdamWRule(debias_strength=0.5, weight_decay=0.1),
    VeloRMSRule(),
    LionRule(weight_decay=0.1),
)

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and available()), reason="needs a CUDA device and Triton"
    ),
]


def test_only_rules_without_shapes_are_fused():
    assert all(supports(rule) for rule in RULES)
    assert not supports(RavenAdamWRule(centralization=0.5))
    assert not supports(AdafactorRule())
    assert isinstance(update_for(RULES[0], torch.device("cpu")), EagerUpdate)


def _weights():
    return 0.02 * torch.randn(SIZE, generator=torch.Generator().manual_seed(1))


def _gradient(step, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1000 + step)
    scale = torch.exp(2 * torch.randn(SIZE, generator=generator))
    gradient = 1e-3 * scale * torch.randn(SIZE, generator=generator)
    gradient[::997] = 0.0
    return gradient.to(DEVICE, dtype)


class Unit:
    def __init__(self, rule, dtype, moments):
        weights = _weights().to(DEVICE)
        self.weight, self.master = weights.to(dtype), None
        if dtype == torch.bfloat16:
            self.weight, self.master = split_fp32(weights)
        elif dtype == torch.float16:
            self.master = weights.clone()
        self.planes = {}
        for name, state_format in rule.formats(moments).items():
            values = torch.zeros(SIZE, dtype=STORAGE_DTYPES[state_format], device=DEVICE)
            self.planes[name] = StatePlane(values, None, state_format)
        self.magnitude = torch.zeros(1, device=DEVICE)

    def exact(self):
        if self.master is None:
            return self.weight.clone()
        if self.master.dtype == torch.int16:
            return join_fp32(self.weight, self.master)
        return self.master.clone()

    def decoded(self):
        return {
            name: decode_state(plane.values, torch.empty(SIZE, device=DEVICE), plane.state_format)
            for name, plane in self.planes.items()
        }

    def copy_from(self, other):
        self.weight.copy_(other.weight)
        if self.master is not None:
            self.master.copy_(other.master)
        for name, plane in self.planes.items():
            plane.values.copy_(other.planes[name].values)

    def step(self, update, gradient, t, bounds=((0, SIZE),), start=0):
        scalars = StepScalars(
            lr=1e-4,
            t=t,
            gradient_scale=torch.tensor(0.37, device=DEVICE),
            noise_keys={name: noise_key(3, t, name, "unit") for name in self.planes},
        )
        for first, last in bounds:
            part = slice(first, last)
            chunk = Chunk(
                weight=self.weight[part],
                master=None if self.master is None else self.master[part],
                gradient=gradient[part],
                states={
                    name: StatePlane(plane.values[part], None, plane.state_format)
                    for name, plane in self.planes.items()
                },
                start=start + first,
            )
            update(chunk, scalars, self.magnitude)


def _steps_apart(a, b):
    """Return by how many float32 values a and b differ, per element; signs are ordered too."""
    a, b = (bits.view(torch.int32).long() for bits in (a, b))
    a, b = (torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits) for bits in (a, b))
    return (a - b).abs()


def _assert_close(ours, theirs, most_apart, size, codes=None):
    """Assert that they are few float32 values, or one code, apart.

    Where a sum nearly cancels, what counts is the precision of what was added, its ``size``.
    """
    near = codes <= 1 if most_apart is None else _steps_apart(ours, theirs) <= most_apart
    assert (near | ((ours - theirs).abs() <= 2**-21 * size)).all()


def _codes_apart(a, b):
    if a.dtype == torch.float32:
        return _steps_apart(a, b)
    if a.dtype == torch.bfloat16:
        a, b = (codes.view(torch.int16).int() for codes in (a, b))
        a, b = (torch.where(codes < 0, -(codes & 0x7FFF), codes) for codes in (a, b))
    return (a.int() - b.int()).abs()


def _variants(fused):
    return sum(len(caches[0]) for caches in fused._kernel.device_caches.values())


class TestOnGpu:
    pytestmark = on_gpu

    @pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
    @pytest.mark.parametrize("moments", ["16bit", "float32"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
    def test_every_step_lands_where_the_eager_one_does(self, rule, dtype, moments, narrow):
        fused, eager = TritonUpdate(rule, DEVICE), EagerUpdate(rule, DEVICE)
        ours, theirs = Unit(rule, dtype, moments), Unit(rule, dtype, moments)
        for t in range(1, 11):
            gradient = _gradient(t, torch.bfloat16 if narrow else torch.float32)
            before, old = theirs.exact(), theirs.decoded()
            ours.step(fused, gradient, t, start=7 * QUANT_BLOCK)
            theirs.step(eager, gradient, t, start=7 * QUANT_BLOCK)
            moved = (theirs.exact() - before).abs()
            _assert_close(ours.exact(), theirs.exact(), 2, torch.maximum(moved, before.abs()))
            for name, plane in theirs.planes.items():
                ulps = 4 if plane.state_format == "float32" else None
                codes = _codes_apart(ours.planes[name].values, plane.values)
                assert ulps or (codes > 0).float().mean() < 1e-3
                size = torch.maximum(old[name].abs(), gradient.float().abs())
                new = ours.decoded()[name], theirs.decoded()[name]
                _assert_close(*new, ulps, size, codes)
            assert ours.magnitude == ours.exact().abs().max()
            ours.copy_from(theirs)
            ours.magnitude.zero_()
        assert not torch.equal(theirs.exact(), _weights().to(DEVICE))

    @pytest.mark.parametrize("moments", ["16bit", "float32"])
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
    def test_bits_repeat_however_chunks_are_cut(self, rule, moments):
        fused = TritonUpdate(rule, DEVICE)
        units = [Unit(rule, torch.bfloat16, moments) for _ in range(3)]
        cut = [(40 * QUANT_BLOCK, SIZE), (0, 3 * QUANT_BLOCK), (3 * QUANT_BLOCK, 40 * QUANT_BLOCK)]
        for t in range(1, 21):
            for unit, bounds in zip(units, (((0, SIZE),), ((0, SIZE),), cut), strict=True):
                unit.step(fused, _gradient(t), t, bounds)
        for unit in units[1:]:
            assert torch.equal(unit.exact(), units[0].exact())
            assert torch.equal(unit.magnitude, units[0].magnitude)
            for name, plane in unit.planes.items():
                assert torch.equal(plane.values, units[0].planes[name].values)

    def test_magnitude_is_the_largest_so_far_and_stays_nan(self):
        rule = RULES[0]
        fused, unit = TritonUpdate(rule, DEVICE), Unit(rule, torch.float32, "float32")
        unit.magnitude.fill_(7.0)
        unit.step(fused, _gradient(0), 1)
        assert unit.magnitude == 7
        unit.weight[1321] = -9.0
        unit.step(fused, _gradient(1), 2)
        assert unit.magnitude == unit.weight[1321].abs()
        unit.weight[100] = math.nan
        unit.step(fused, _gradient(2), 3)
        assert unit.magnitude.isnan().all()
        unit.weight[100] = 0.0
        unit.step(fused, _gradient(3), 4)
        assert unit.magnitude.isnan().all()

    def test_a_new_step_compiles_nothing(self):
        rule = RULES[0]
        fused, unit = TritonUpdate(rule, DEVICE), Unit(rule, torch.bfloat16, "16bit")
        unit.step(fused, _gradient(0), 1)
        unit.step(fused, _gradient(0), 1, start=QUANT_BLOCK)
        before = _variants(fused)
        for t in range(1, 40):
            unit.step(fused, _gradient(t), t, ((0, SIZE - t * QUANT_BLOCK),), start=t)
        assert _variants(fused) == before

    def test_the_fused_kernel_is_chosen(self):
        for rule in RULES:
            assert isinstance(update_for(rule, DEVICE), TritonUpdate)
        assert isinstance(update_for(AdafactorRule(), DEVICE), EagerUpdate)
