"""The fused kernels against the eager ones, on a GPU."""

from __future__ import annotations

import math

import pytest
import torch

from optimizers.adafactor import AdafactorRule
from optimizers.chunk import QUANT_BLOCK, Chunk, StatePlane, StepScalars
from optimizers.chunk_update import EagerUpdate, update_for
from optimizers.lion import LionRule
from optimizers.precision import BLOCK_FORMATS, STORAGE_DTYPES, join_fp32, noise_key, split_fp32
from optimizers.raven_adamw import AdamWRule, RavenAdamWRule
from optimizers.state_codec import decode_states
from optimizers.triton_update import TritonUpdate, available, supports
from optimizers.velo_rms import VeloRMSRule

DEVICE = torch.device("cuda")
SIZE = 301 * QUANT_BLOCK  # not a multiple of a program's elements
RULES = (
    RavenAdamWRule(debias_strength=0.5, weight_decay=0.1),
    VeloRMSRule(),
    LionRule(weight_decay=0.1),
    AdamWRule(),
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


def _part(plane, first, last):
    scales = plane.scales
    if scales is not None:
        scales = scales[first // QUANT_BLOCK : last // QUANT_BLOCK]
    return StatePlane(plane.values[first:last], scales, plane.state_format)


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
            scales = None
            if state_format in BLOCK_FORMATS:
                scales = torch.zeros(SIZE // QUANT_BLOCK, device=DEVICE)
            self.planes[name] = StatePlane(values, scales, state_format)
        self.magnitude = torch.zeros(1, device=DEVICE)

    def exact(self):
        if self.master is None:
            return self.weight.clone()
        if self.master.dtype == torch.int16:
            return join_fp32(self.weight, self.master)
        return self.master.clone()

    def decoded(self):
        out = {name: torch.empty(SIZE, device=DEVICE) for name in self.planes}
        scratch = [torch.empty(SIZE, dtype=torch.int32, device=DEVICE) for _ in range(2)]
        decode_states(self.planes, out, tuple(scratch))
        return out

    def copy_from(self, other):
        self.weight.copy_(other.weight)
        if self.master is not None:
            self.master.copy_(other.master)
        for name, plane in self.planes.items():
            plane.values.copy_(other.planes[name].values)
            if plane.scales is not None:
                plane.scales.copy_(other.planes[name].scales)

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
                states={name: _part(plane, first, last) for name, plane in self.planes.items()},
                start=start + first,
            )
            update(chunk, scalars, self.magnitude)


def _ordered(values):
    """Return integers that are as far apart as there are floats in between; signs are ordered."""
    if values.dtype == torch.bfloat16:
        bits, magnitude = values.view(torch.int16).long(), 0x7FFF
    else:
        bits, magnitude = values.view(torch.int32).long(), 0x7FFFFFFF
    return torch.where(bits < 0, -(bits & magnitude), bits)


def _codes(planes):
    codes = {}
    for name, plane in planes.items():
        is_float = plane.values.dtype.is_floating_point
        codes[name] = _ordered(plane.values) if is_float else plane.values.long()
        if plane.state_format == "int6":
            low = codes[name] & 3
            codes[name] >>= 2
        elif plane.state_format == "uint10":
            codes[name] = (codes[name] << 2) + low
    return codes


def _is_close(ours, theirs, size):
    """Say where they are two float32 values apart at most.

    Where a sum nearly cancels, what counts is the precision of what was added, its ``size``.
    """
    near = (_ordered(ours) - _ordered(theirs)).abs() <= 2
    return near | ((ours - theirs).abs() <= 2**-20 * size)


def _variants(fused):
    return sum(len(caches[0]) for caches in fused._kernel.device_caches.values())


class TestOnGpu:
    pytestmark = on_gpu

    @pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
    @pytest.mark.parametrize("moments", ["8bit", "16bit", "float32"])
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
            sizes = {name: torch.maximum(old[name].abs(), gradient.float().abs()) for name in old}
            same = torch.ones(SIZE, dtype=torch.bool, device=DEVICE)
            our_codes, their_codes = _codes(ours.planes), _codes(theirs.planes)
            for name, plane in theirs.planes.items():
                new = ours.decoded()[name], theirs.decoded()[name]
                if plane.state_format == "float32":
                    assert _is_close(*new, sizes[name]).all()
                    continue
                apart = (our_codes[name] - their_codes[name]).abs()
                # A number in the last place moves a code now and then, by one.
                assert (apart > 0).float().mean() < 1e-3
                assert ((apart <= 1) | _is_close(*new, sizes[name])).all()
                same &= apart == 0
            # The parts of an update may cancel each other: each is as large as the step size, and
            # what rounding took from 8-bit moments, which is a part more, some ten times that.
            size = torch.maximum(moved, before.abs()) + (1e-3 if moments == "8bit" else 1e-4)
            if moments != "8bit":
                same.fill_(True)
            assert (_is_close(ours.exact(), theirs.exact(), size) | ~same).all()
            assert (ours.exact() - theirs.exact()).abs().max() <= 1e-4
            assert ours.magnitude == ours.exact().abs().max()
            ours.copy_from(theirs)
            ours.magnitude.zero_()
        assert not torch.equal(theirs.exact(), _weights().to(DEVICE))

    @pytest.mark.parametrize("moments", ["8bit", "16bit", "float32"])
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
