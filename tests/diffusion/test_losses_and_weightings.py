from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from aozora.config.choices.losses import LOSSES, Huber, Mse
from aozora.config.choices.predictions import Epsilon, Flow, VPrediction
from aozora.config.choices.weightings import WEIGHTINGS, MinSnr, NoWeighting
from aozora.diffusion.losses import LOSS_FUNCTIONS, per_sample_loss
from aozora.diffusion.objectives import make_objective
from aozora.diffusion.weightings import WEIGHTING_FUNCTIONS, sample_weights

EPS = make_objective(Epsilon(), zero_terminal_snr=False)
V = make_objective(VPrediction(), zero_terminal_snr=False)
V_ZT = make_objective(VPrediction(), zero_terminal_snr=True)
FLOW = make_objective(Flow(shift=1.0), zero_terminal_snr=False)
ALL = torch.arange(1000)


class Fixed:
    """An objective with signal-to-noise ratios of its own."""

    def __init__(self, prediction, snr):
        self.prediction = prediction
        self.values = torch.tensor(snr)

    def snr(self, timesteps):
        return self.values


def pair(count=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    shape = (count, 4, 6, 10)
    return tuple(torch.randn(shape, generator=generator).to(dtype) for _ in range(2))


def test_every_loss_and_weighting_has_its_function():
    assert set(LOSS_FUNCTIONS) == set(LOSSES.classes())
    assert set(WEIGHTING_FUNCTIONS) == set(WEIGHTINGS.classes())


def test_mse_is_the_mean_square_of_each_sample():
    model_pred, target = pair()
    loss = per_sample_loss(Mse(), model_pred, target)
    assert loss.shape == (3,)
    expected = (model_pred.double() - target.double()).square().mean((1, 2, 3))
    assert torch.allclose(loss.double(), expected, rtol=1e-6)


def test_loss_and_gradient_of_one_sample_have_the_bits_of_the_plainest_form():
    model_pred, target = pair(1)
    ours = model_pred.clone().requires_grad_()
    per_sample_loss(Mse(), ours, target).mean().backward()
    plain = model_pred.clone().requires_grad_()
    F.mse_loss(plain, target).backward()
    assert torch.equal(ours.grad, plain.grad)


@pytest.mark.parametrize("c", [0.01, 0.1, 1.0, 10.0])
def test_huber_follows_its_closed_form(c):
    model_pred, target = pair()
    d = model_pred.double() - target.double()
    expected = (2 * c * ((d * d + c * c).sqrt() - c)).mean((1, 2, 3))
    assert torch.allclose(
        per_sample_loss(Huber(c=c), model_pred, target).double(), expected, rtol=1e-5
    )


def test_huber_is_square_for_small_and_linear_for_large_differences():
    zero = torch.zeros(1, 1, 1, 1)
    small = per_sample_loss(Huber(c=0.1), zero + 1e-4, zero).item()
    assert small == pytest.approx(1e-8, rel=1e-5)
    large = per_sample_loss(Huber(c=0.1), zero + 1000.0, zero).item()
    assert large == pytest.approx(0.2 * (1000 - 0.1), rel=1e-6)
    same = zero.clone().requires_grad_()
    per_sample_loss(Huber(c=0.1), same, zero).backward()
    assert same.grad.item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cls", LOSSES.classes())
def test_losses_are_computed_in_float32(cls, dtype):
    model_pred, target = pair(dtype=dtype)
    loss = per_sample_loss(cls(), model_pred, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, per_sample_loss(cls(), model_pred.float(), target.float()))


@pytest.mark.parametrize("cls", LOSSES.classes())
def test_loss_of_a_sample_does_not_depend_on_its_neighbours(cls):
    model_pred, target = pair(5)
    together = per_sample_loss(cls(), model_pred, target)
    alone = [per_sample_loss(cls(), model_pred[i : i + 1], target[i : i + 1]) for i in range(5)]
    assert torch.equal(together, torch.cat(alone))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="shape"):
        per_sample_loss(Mse(), torch.zeros(2, 4, 8, 8), torch.zeros(1, 4, 8, 8))


def test_golden_min_snr_weights():
    snr = [0.0, 0.00468192, 1.0, 5.0, 100.0, 1175.47]
    timesteps = torch.zeros(6, dtype=torch.int64)
    v = sample_weights(MinSnr(), Fixed("v_prediction", snr), timesteps)
    golden = [0.0, 0.00466010, 0.5, 0.833333, 0.0495050, 0.00425000]
    assert v.tolist() == pytest.approx(golden, rel=2e-6)
    eps = sample_weights(MinSnr(), Fixed("epsilon", snr), timesteps)
    assert eps.tolist() == pytest.approx([1, 1, 1, 1, 0.05, 0.00425362], rel=2e-6)


@pytest.mark.parametrize(
    ("objective", "gamma", "mean"),
    [(V, 5, 0.29433), (V_ZT, 5, 0.27761), (EPS, 5, 0.91657), (EPS, 1, 0.767), (EPS, 20, 0.974)],
)
def test_golden_means_of_min_snr(objective, gamma, mean):
    weights = sample_weights(MinSnr(gamma=float(gamma)), objective, ALL)
    assert weights.double().mean().item() == pytest.approx(mean, abs=6e-6 if gamma == 5 else 6e-4)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("floor", [0.0, 0.05])
@pytest.mark.parametrize("objective", [EPS, V, V_ZT, FLOW], ids=["eps", "v", "v_zt", "flow"])
def test_min_snr_follows_its_closed_form_at_every_timestep(objective, gamma, floor):
    timesteps = objective.model_timesteps(ALL, 1024, 1024)
    weights = sample_weights(MinSnr(gamma=gamma, floor=floor), objective, timesteps).double()
    if objective.prediction == "flow":
        u = timesteps.double() / 1000
        snr = ((1 - u) / u) ** 2
        expected = snr.clamp(max=gamma) * u * u
    else:
        snr = objective.snr(ALL).double()
        divisor = snr if objective.prediction == "epsilon" else snr + 1
        expected = snr.clamp(max=gamma) / divisor
    assert bool(torch.isfinite(weights).all())
    assert torch.allclose(weights, expected.clamp(min=floor), rtol=1e-3, atol=1e-12)
    assert weights.min() >= floor - 1e-8


def test_min_snr_leaves_the_end_of_zero_terminal_snr_untrained_unless_it_has_a_floor():
    bare = sample_weights(MinSnr(), V_ZT, ALL)
    assert bare[999] == 0
    assert (bare[900:].sum() / bare.sum()).item() == pytest.approx(0.0003, abs=1e-4)
    assert (bare[500:].sum() / bare.sum()).item() == pytest.approx(0.113, abs=1e-3)
    assert sample_weights(MinSnr(floor=0.05), V_ZT, ALL)[999].item() == pytest.approx(0.05)


def test_epsilon_and_v_weights_ask_the_same_of_the_picture():
    snr = EPS.snr(ALL).double()
    in_picture = torch.clamp(snr, max=5.0)
    assert torch.allclose(sample_weights(MinSnr(), EPS, ALL).double() * snr, in_picture, rtol=1e-5)
    assert torch.allclose(
        sample_weights(MinSnr(), V, ALL).double() * (snr + 1), in_picture, rtol=1e-5
    )


def test_no_weighting_changes_no_bit():
    model_pred, target = pair(4)
    loss = per_sample_loss(Mse(), model_pred, target)
    assert torch.equal(loss * sample_weights(NoWeighting(), V, torch.arange(4)), loss)
