from __future__ import annotations

import math

import pytest
import torch

from optimizers.adafactor import AdafactorRule
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.velo_rms import VeloRMSRule

ALL_RULES = (RavenAdamWRule(), VeloRMSRule(), AdafactorRule())


class Runner:
    """Drives a rule on one plain float32 tensor."""

    def __init__(self, rule, weight):
        self.rule = rule
        self.weight = weight.clone()
        self.t = 0
        self.states = {
            name: torch.zeros(spec.shape) for name, spec in rule.states(weight.shape).items()
        }

    def step(self, grad, lr):
        self.t += 1
        scratch = torch.full_like(self.weight, math.nan)
        self.rule.update(self.weight, grad.clone(), self.states, scratch, lr=lr, t=self.t)


def _gradients(shape, num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(2 * torch.randn(shape, generator=generator))
    return [1e-3 * scale * torch.randn(shape, generator=generator) for _ in range(num)]


def _relative_error(value, reference):
    return ((value.double() - reference).norm() / reference.norm()).item()


def test_velo_rms_equals_its_float64_recurrence():
    rule = VeloRMSRule(momentum=0.86, leak=0.16, eps=1e-8, weight_decay=0.01)
    start = 0.02 * torch.randn(64, 48, generator=torch.Generator().manual_seed(1))
    runner = Runner(rule, start)
    w, u, r = start.double(), torch.zeros(64, 48).double(), torch.zeros(64, 48).double()
    for grad in _gradients((64, 48), 50):
        runner.step(grad, lr=1e-3)
        g = grad.double()
        u = 0.86 * u + 0.14 * g
        r = 0.86 * r + 0.14 * u**2 + 0.16 * g**2
        w = w * (1 - 1e-3 * 0.01) - 1e-3 * u / (r.sqrt() + 1e-8)
    assert _relative_error(runner.states["velocity"], u) < 1e-6
    assert _relative_error(runner.states["rms"], r) < 3e-6
    assert _relative_error(runner.weight, w) < 1e-6
    assert _relative_error(runner.weight - start, w - start.double()) < 1e-5


def test_velo_rms_under_a_constant_gradient_steps_as_documented():
    runner = Runner(VeloRMSRule(weight_decay=0.0), torch.zeros(1))
    runner.step(torch.ones(1), lr=1.0)
    assert -runner.weight.item() == pytest.approx(0.14 / math.sqrt(0.14 * 0.14**2 + 0.16), rel=1e-5)
    for _ in range(300):
        before = runner.weight.clone()
        runner.step(torch.ones(1), lr=1.0)
    assert (before - runner.weight).item() == pytest.approx(
        1 / math.sqrt(1 + 0.16 / 0.14), rel=1e-4
    )


@pytest.mark.parametrize(
    ("t", "multiplier"), [(1, 3.6), (5, 5.9), (10, 6.1), (50, 3.8), (100, 2.8), (500, 1.44)]
)
def test_weak_bias_correction_enlarges_early_updates_by_the_known_factor(t, multiplier):
    weak = RavenAdamWRule(debias_strength=0.3, weight_decay=0.0)
    full = RavenAdamWRule(weight_decay=0.0)
    assert weak.early_multiplier(t) == pytest.approx(multiplier, rel=0.015)
    assert full.early_multiplier(t) == 1
    moved = []
    for rule in (weak, full):
        runner = Runner(rule, torch.zeros(1))
        for grad in _gradients((1,), t):
            before = runner.weight.clone()
            runner.step(grad, lr=1.0)
        moved.append((runner.weight - before).item())
    assert moved[0] / moved[1] == pytest.approx(weak.early_multiplier(t), rel=1e-3)


def test_raven_equals_its_float64_recurrence_with_every_knob_turned():
    rule = RavenAdamWRule(
        beta1=0.8, beta2=0.97, eps=1e-6, weight_decay=0.1, debias_strength=0.5, centralization=0.7
    )
    start = 0.02 * torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    runner = Runner(rule, start)
    w, m, v = start.double(), torch.zeros(8, 4, 3, 3).double(), torch.zeros(8, 4, 3, 3).double()
    for t, grad in enumerate(_gradients((8, 4, 3, 3), 50), start=1):
        runner.step(grad, lr=1e-3)
        g = grad.double()
        g = g - 0.7 * g.mean(dim=(1, 2, 3), keepdim=True)
        m, v = 0.8 * m + 0.2 * g, 0.97 * v + 0.03 * g**2
        c1, c2 = 1 - 0.5 * 0.8**t, 1 - 0.5 * 0.97**t
        w = w * (1 - 1e-3 * 0.1) - 1e-3 / c1 * m / (v.sqrt() / math.sqrt(c2) + 1e-6)
    assert _relative_error(runner.weight - start, w - start.double()) < 1e-5
    assert _relative_error(runner.states["exp_avg"], m) < 1e-6
    assert _relative_error(runner.states["exp_avg_sq"], v) < 1e-6


def test_full_centralization_leaves_no_mean_in_any_output_channel():
    runner = Runner(RavenAdamWRule(centralization=1.0), torch.zeros(6, 5, 3, 3))
    runner.step(torch.randn(6, 5, 3, 3) + 3, lr=1e-3)
    means = runner.states["exp_avg"].mean(dim=(1, 2, 3))
    assert means.abs().max() < 1e-6


def test_centralization_leaves_vectors_alone():
    grad = torch.randn(7) + 3
    with_it = Runner(RavenAdamWRule(centralization=1.0), torch.zeros(7))
    without = Runner(RavenAdamWRule(), torch.zeros(7))
    for runner in (with_it, without):
        runner.step(grad, lr=1e-3)
    assert torch.equal(with_it.weight, without.weight)


def _adafactor_reference(start, gradients, lr, *, decay, scale):
    w = start.double()
    rows, columns = start.shape[0], start[0].numel() if start.ndim > 1 else 0
    r, c, v = torch.zeros(rows).double(), torch.zeros(columns).double(), torch.zeros(rows).double()
    for t, grad in enumerate(gradients, start=1):
        beta2 = 1 - t**-0.8
        g = grad.double()
        if g.ndim > 1:
            g = g.reshape(rows, columns)
            r = beta2 * r + (1 - beta2) * (g**2 + 1e-30).mean(dim=1)
            c = beta2 * c + (1 - beta2) * (g**2 + 1e-30).mean(dim=0)
            second = r[:, None] * c[None, :] / r.mean()
        else:
            v = beta2 * v + (1 - beta2) * (g**2 + 1e-30)
            second = v
        u = g / second.sqrt()
        u = u / max(1.0, u.square().mean().sqrt().item())
        size = lr * max(1e-3, w.square().mean().sqrt().item()) if scale else lr
        w = w * (1 - lr * decay) - size * u.reshape(w.shape)
    return w


@pytest.mark.parametrize("shape", [(16, 12), (8, 4, 3, 3), (20,), (1, 5)])
@pytest.mark.parametrize(
    ("decay", "scale"),
    [(0.0, False), (0.1, False), (0.0, True)],
)
def test_adafactor_equals_its_float64_recurrence(shape, decay, scale):
    rule = AdafactorRule(weight_decay=decay, scale_parameter=scale)
    start = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    gradients = _gradients(shape, 50)
    runner = Runner(rule, start)
    for grad in gradients:
        runner.step(grad, lr=1e-3)
    reference = _adafactor_reference(start, gradients, 1e-3, decay=decay, scale=scale)
    assert _relative_error(runner.weight - start, reference - start.double()) < 1e-4


def test_adafactor_state_of_a_convolution_is_one_row_and_one_column():
    states = AdafactorRule().states(torch.Size((320, 640, 3, 3)))
    assert sum(spec.shape.numel() for spec in states.values()) == 320 + 640 * 9


def test_adafactor_second_moment_is_that_of_rank_one_gradients():
    runner = Runner(AdafactorRule(), torch.zeros(6, 4))
    grad = torch.outer(torch.rand(6) + 0.5, torch.rand(4) + 0.5)
    runner.step(grad, lr=1e-3)
    torch.testing.assert_close(runner.rule.second_moment(runner.states), grad.square())


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.kind)
def test_a_zero_gradient_moves_nothing_and_makes_no_nan(rule):
    runner = Runner(rule, torch.ones(4, 3))
    for _ in range(3):
        runner.step(torch.zeros(4, 3), lr=1e-3)
    decayed = (1 - 1e-3 * rule.weight_decay) ** 3
    torch.testing.assert_close(runner.weight, torch.full((4, 3), decayed))


@pytest.mark.parametrize("rule", [r for r in ALL_RULES if not r.needs_shape], ids=lambda r: r.kind)
def test_rules_that_need_no_shape_give_the_same_bits_on_flat_slices(rule):
    start = torch.randn(37, 29)
    whole = Runner(rule, start)
    slices = [Runner(rule, piece) for piece in start.view(-1).split(100)]
    for grad in _gradients((37, 29), 5):
        whole.step(grad, lr=1e-3)
        for runner, piece in zip(slices, grad.view(-1).split(100), strict=True):
            runner.step(piece, lr=1e-3)
    assert torch.equal(torch.cat([runner.weight for runner in slices]), whole.weight.view(-1))


def test_centralization_needs_the_shape():
    assert not RavenAdamWRule().needs_shape
    assert RavenAdamWRule(centralization=0.5).needs_shape


@pytest.mark.parametrize(
    ("rule", "option", "value"),
    [
        (RavenAdamWRule, "beta1", 1.0),
        (RavenAdamWRule, "beta2", -0.1),
        (RavenAdamWRule, "debias_strength", 1.5),
        (RavenAdamWRule, "centralization", float("nan")),
        (VeloRMSRule, "momentum", 1.0),
        (VeloRMSRule, "leak", -1.0),
        (AdafactorRule, "clip_threshold", 0.0),
    ],
)
def test_a_bad_hyperparameter_is_refused_by_name(rule, option, value):
    with pytest.raises(ValueError, match=option):
        rule(**{option: value})
