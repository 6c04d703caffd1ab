"""The formats of one byte a value, and what they promise together."""

from __future__ import annotations

import math

import pytest
import torch

from optimizers.block_formats import dither_offset
from optimizers.chunk import QUANT_BLOCK, Chunk, StatePlane, StepScalars
from optimizers.chunk_update import EagerUpdate
from optimizers.lion import LionRule
from optimizers.precision import BLOCK_FORMATS, STORAGE_DTYPES, noise_key
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.state_codec import decode_states, encode_states
from optimizers.velo_rms import VeloRMSRule

CPU = torch.device("cpu")
GRIDS = ("uint8", "uint10")
NUM = 1024 * QUANT_BLOCK


def _plane(state_format, num):
    values = torch.zeros(num, dtype=STORAGE_DTYPES[state_format])
    scales = torch.zeros(num // QUANT_BLOCK) if state_format in BLOCK_FORMATS else None
    return StatePlane(values, scales, state_format)


class Kept:
    """Second moments on a grid, or first moments; with the partner that their format needs."""

    def __init__(self, state_format, num):
        self.num = num
        self.planes = {"state": _plane(state_format, num)}
        if state_format == "uint10":
            self.planes = {"partner": _plane("int6", num), **self.planes}
        self.values = {name: torch.zeros(num) for name in self.planes}
        self.scratch = tuple(torch.empty(num, dtype=torch.int32) for _ in range(2))

    def keep(self, values, t=1, start=0):
        self.values["state"].copy_(values)
        scalars = StepScalars(lr=0.0, t=t, gradient_scale=torch.ones(()), noise_keys={})
        encode_states(
            self.planes,
            self.values,
            scalars,
            start=start,
            scratch=self.scratch,
            spare=torch.empty(self.num),
        )
        return self.read()

    def read(self):
        decode_states(self.planes, self.values, self.scratch)
        return self.values["state"].clone()


def _spread(num, octaves, seed=0):
    """Return positive values whose blocks span ``octaves``."""
    generator = torch.Generator().manual_seed(seed)
    exponents = octaves * torch.rand(num, generator=generator)
    return torch.exp2(exponents - 60 * torch.rand((), generator=generator))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("octaves", [0.5, 3, 14, 30])
def test_a_grid_is_as_fine_as_its_block_allows(grid, octaves):
    values = _spread(NUM, octaves)
    error = (Kept(grid, NUM).keep(values) / values - 1).abs().max()
    codes = {"uint8": 254, "uint10": 1022}[grid]
    # A step is a power of two of the smallest float in its octave: at most four times the mean.
    assert error <= max(4 * math.log(2) * octaves / codes, 2**-11)


@pytest.mark.parametrize("grid", GRIDS)
def test_what_a_grid_holds_stays_whatever_the_step(grid):
    kept = Kept(grid, NUM)
    first = kept.keep(_spread(NUM, 12))
    for t in range(2, 30):
        assert torch.equal(kept.keep(first, t), first)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_holds_zero_and_never_makes_one(grid):
    values = torch.tensor([0.0, 2.0**-149, 2.0**-140, 1e-40, 1e-30, 1.0, 1e30, 0.0]).repeat(16)
    for t in range(1, 100):
        decoded = Kept(grid, QUANT_BLOCK).keep(values, t)
        assert ((decoded == 0) == (values == 0)).all()
        assert decoded[6] == pytest.approx(1e30, rel=0.13)
    assert not Kept(grid, QUANT_BLOCK).keep(torch.zeros(QUANT_BLOCK)).any()
    # Smaller values than the block can tell apart are raised, so that no update explodes.
    assert (decoded.view(-1, 8)[:, 1:5] >= values.view(-1, 8)[:, 1:5]).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_dithering_is_unbiased_and_as_noisy_as_it_must_be(grid):
    # The ends of each block's span fix its step: one 8th of an octave apart, or a 32nd.
    step = {"uint8": 2**-3, "uint10": 2**-5}[grid]
    values = torch.full((NUM // QUANT_BLOCK, QUANT_BLOCK), 1 + 0.3 * step)
    values[:, 0], values[:, 1] = 2.0**15, 2.0**-15
    decoded = Kept(grid, NUM).keep(values.view(-1)).view(-1, QUANT_BLOCK)[:, 2:]
    assert set(decoded.unique().tolist()) == {1.0, 1 + step}
    up = (decoded > 1).double().mean().item()
    assert abs(up - 0.3) < 5 * math.sqrt(0.3 * 0.7 / decoded.numel())


@pytest.mark.parametrize("state_format", ["int8", *GRIDS])
def test_thresholds_of_an_element_fill_the_range_evenly_in_time(state_format):
    """Over n steps an element is rounded up as often as it should be, within a few times."""
    values = torch.rand(64 * QUANT_BLOCK, generator=torch.Generator().manual_seed(2)) + 0.5
    kept = Kept(state_format, values.numel())
    num_steps = 233
    decoded = torch.stack([kept.keep(values, t) for t in range(1, num_steps + 1)]).double()
    error = decoded.mean(dim=0) - values
    step = decoded.amax(dim=0) - decoded.amin(dim=0)
    random_noise = step * math.sqrt(0.5 * 0.5 / num_steps)
    between = step > 0
    assert between.float().mean() > 0.9
    assert (error.abs() <= 4 * step / num_steps + 1e-5)[between].all()
    assert error.abs()[between].mean() < 0.3 * random_noise[between].mean()


def test_thresholds_move_by_the_golden_ratio():
    ratio = (math.sqrt(5) - 1) / 2
    for t in (1, 2, 1000, 123456):
        moved = dither_offset(t)
        assert -(2**31) <= moved < 2**31
        assert moved % 2**32 / 2**32 == pytest.approx(t * ratio % 1, abs=1e-4)


@pytest.mark.parametrize("state_format", ["int8", *GRIDS])
def test_codes_do_not_depend_on_how_a_unit_is_cut(state_format):
    values = _spread(8 * QUANT_BLOCK, 5)
    whole = Kept(state_format, values.numel()).keep(values, t=7, start=3 * QUANT_BLOCK)
    parts = [
        Kept(state_format, QUANT_BLOCK).keep(part, t=7, start=(3 + k) * QUANT_BLOCK)
        for k, part in enumerate(values.split(QUANT_BLOCK))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_int8_keeps_sign_the_largest_and_small_ones():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(NUM, generator=generator) * torch.exp(
        torch.randn(NUM, generator=generator)
    )
    decoded = Kept("int8", NUM).keep(values)
    rows, ours = values.view(-1, QUANT_BLOCK), decoded.view(-1, QUANT_BLOCK)
    largest = rows.abs().amax(dim=1, keepdim=True)
    places = rows.abs().argmax(dim=1, keepdim=True)
    torch.testing.assert_close(ours.gather(1, places), rows.gather(1, places), rtol=1e-6, atol=0)
    # One code is (1 + a x)**2 / ((1 + a) 127) of the largest wide, at x with a = 8.
    width = (1 + 8 * rows.abs() / largest) ** 2 / (9 * 127) * largest
    assert ((ours - rows).abs() <= 1.15 * width).all()
    assert not ((ours * rows < 0) & (rows.abs() > width)).any()
    error = (decoded - values).double()
    assert abs(error.mean()) < 5 * error.std() / math.sqrt(NUM)
    assert not Kept("int8", QUANT_BLOCK).keep(torch.zeros(QUANT_BLOCK)).any()


class Unit:
    """float32 weights and their states, updated through the eager path."""

    def __init__(self, rule, moments, num):
        self.update = EagerUpdate(rule, CPU, num)
        self.weight = torch.zeros(num)
        self.planes = {name: _plane(kept, num) for name, kept in rule.formats(moments).items()}

    def step(self, gradient, t, lr):
        keys = {name: noise_key(0, t, name, "unit") for name in self.planes}
        scalars = StepScalars(lr=lr, t=t, gradient_scale=torch.ones(()), noise_keys=keys)
        chunk = Chunk(
            weight=self.weight, master=None, gradient=gradient, states=self.planes, start=0
        )
        self.update(chunk, scalars, torch.zeros(()))

    def states(self):
        out = {name: torch.empty(self.weight.numel()) for name in self.planes}
        scratch = tuple(torch.empty(self.weight.numel(), dtype=torch.int32) for _ in range(2))
        decode_states(self.planes, out, scratch)
        return out


@pytest.mark.parametrize("size", [1.0, 1e-5])
def test_a_second_moment_in_ten_bits_decays_as_it_should(size):
    # Neighbours of all sizes: a block is not the easy one in which all values are the same.
    unit = Unit(RavenAdamWRule(), "8bit", NUM)
    gradient = size * torch.exp(torch.randn(NUM, generator=torch.Generator().manual_seed(1)))
    for t in range(1, 4):
        unit.step(gradient, t, 0.0)
    before = unit.states()["exp_avg_sq"].double()
    for t in range(4, 1004):
        unit.step(torch.zeros(NUM), t, 0.0)
    after = unit.states()["exp_avg_sq"].double()
    assert (after / before).mean().item() == pytest.approx(0.999**1000, rel=0.02)


def test_a_second_moment_in_ten_bits_grows_as_it_should():
    unit = Unit(RavenAdamWRule(), "8bit", 64 * QUANT_BLOCK)
    gradient = torch.exp(torch.randn(64 * QUANT_BLOCK, generator=torch.Generator().manual_seed(1)))
    for t in range(1, 601):
        unit.step(gradient if t <= 300 else 2 * gradient, t, 0.0)
    kept = 0.999**300
    mean = (unit.states()["exp_avg_sq"].double() / gradient.double().square()).mean().item()
    assert mean == pytest.approx((1 - kept) * kept + 4 * (1 - kept), rel=0.01)


def test_a_fast_mean_of_squares_in_eight_bits_forgets_as_it_should():
    unit = Unit(VeloRMSRule(momentum=0.95, leak=1.0), "8bit", NUM)
    gradient = torch.exp(torch.randn(NUM, generator=torch.Generator().manual_seed(1)))
    unit.step(gradient, 1, 0.0)
    exact = {"velocity": 0.05 * gradient, "rms": 0.05**3 * gradient**2 + gradient**2}
    for t in range(2, 102):
        unit.step(torch.zeros(NUM), t, 0.0)
        exact["velocity"] = 0.95 * exact["velocity"]
        exact["rms"] = 0.95 * exact["rms"] + 0.05 * exact["velocity"] ** 2
    ratio = (unit.states()["rms"].double() / exact["rms"].double()).mean().item()
    assert ratio == pytest.approx(1.0, rel=0.04)  # a code is 3 to 6 percent


def _errors(rule, moments, steps=300):
    """Return by how much, of the way, weights end elsewhere than with float32 states."""
    num = 128 * QUANT_BLOCK
    generator = torch.Generator().manual_seed(0)
    exact, ours = Unit(rule, "float32", num), Unit(rule, moments, num)
    scale = 1e-4 * torch.exp(torch.randn(num, generator=generator))
    mean = 0.1 * torch.randn(num, generator=generator)
    for t in range(1, steps + 1):
        gradient = scale * (torch.randn(num, generator=generator) + mean)
        exact.step(gradient, t, 1e-6)
        ours.step(gradient, t, 1e-6)
    return ((ours.weight - exact.weight).norm() / exact.weight.norm()).item()


@pytest.mark.parametrize(
    ("rule", "moments", "limit"),
    [
        (RavenAdamWRule(weight_decay=0.0), "16bit", 0.01),
        (RavenAdamWRule(weight_decay=0.0), "8bit", 0.03),
        (VeloRMSRule(weight_decay=0.0), "16bit", 0.015),
        (VeloRMSRule(weight_decay=0.0), "8bit", 0.03),
        (LionRule(weight_decay=0.0), "16bit", 0.03),
        (LionRule(weight_decay=0.0), "8bit", 0.08),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_weights_go_nearly_where_float32_states_take_them(rule, moments, limit):
    assert _errors(rule, moments) < limit


def test_without_settling_six_bits_would_not_do(monkeypatch):
    rule = RavenAdamWRule(weight_decay=0.0)
    with_it = _errors(rule, "8bit")
    monkeypatch.setattr(RavenAdamWRule, "settle", lambda *_, **__: None)
    assert _errors(rule, "8bit") > 2 * with_it


def test_a_coarse_first_moment_comes_to_rest():
    rule = RavenAdamWRule(weight_decay=0.0)
    num = 64 * QUANT_BLOCK
    exact, ours = (Unit(rule, moments, num) for moments in ("float32", "8bit"))
    gradient = torch.randn(num, generator=torch.Generator().manual_seed(0))
    for t in range(1, 1301):
        for unit in (exact, ours):
            unit.step(gradient if t <= 1000 else torch.zeros(num), t, 1e-3)
        if t == 1000:
            before = ours.weight - exact.weight
    difference = ours.weight - exact.weight - before
    # The jitter is about one update, and does not add up over 300 steps without gradients.
    assert difference.abs().max() < 3e-3
    assert difference.square().mean().sqrt() < 1e-3
    states = ours.states()
    ratio = states["exp_avg"] / states["exp_avg_sq"].sqrt()
    assert ratio.abs().mean() < 0.01


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("t", [1, 10, 1000])
def test_the_settled_share_is_what_later_updates_would_have_taken(strength, t):
    rule = RavenAdamWRule(beta1=0.9, debias_strength=strength)
    by_hand = sum(0.9**k / (1 - strength * 0.9 ** (t + k)) for k in range(1, 400))
    assert rule.settled_share(t) == pytest.approx(by_hand, rel=1e-9)
    if t == 1000:
        assert rule.settled_share(t) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("rule", "moments", "num_bytes"),
    [
        (RavenAdamWRule(), "8bit", 2 + 4 / QUANT_BLOCK),
        (RavenAdamWRule(), "16bit", 4),
        (VeloRMSRule(), "16bit", 3 + 4 / QUANT_BLOCK),
        (VeloRMSRule(), "8bit", 2 + 8 / QUANT_BLOCK),
        (LionRule(), "16bit", 2),
        (LionRule(), "8bit", 1 + 4 / QUANT_BLOCK),
        # Too slow for few bits.
        (RavenAdamWRule(beta1=0.97), "8bit", 4),
        (RavenAdamWRule(beta1=0.995), "8bit", 6),
        (VeloRMSRule(momentum=0.97), "8bit", 4),
        (LionRule(beta2=0.999), "8bit", 4),
    ],
    ids=str,
)
def test_bytes_of_states_are_those_promised(rule, moments, num_bytes):
    planes = Unit(rule, moments, NUM).planes.values()
    scales = sum(plane.scales.nbytes for plane in planes if plane.scales is not None)
    assert sum(plane.values.nbytes for plane in planes) + scales == num_bytes * NUM
