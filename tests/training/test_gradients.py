from __future__ import annotations

import pytest
import torch
from torch import nn

from aozora.training.gradients import GradientAccumulator, LossScaler


def small_model(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 4)).to(dtype)


def test_accumulated_gradients_equal_torchs_own_bitwise():
    ours, theirs = small_model(), small_model()
    accumulator = GradientAccumulator(dict(ours.named_parameters()))
    for _ in range(3):
        x = torch.randn(5, 8)
        ours(x).square().mean().backward()
        theirs(x).square().mean().backward()
    for name, parameter in theirs.named_parameters():
        assert torch.equal(accumulator.sums[name], parameter.grad)
        assert dict(ours.named_parameters())[name].grad is None


def test_clipping_equals_torchs_own_bitwise():
    ours, theirs = small_model(), small_model()
    accumulator = GradientAccumulator(dict(ours.named_parameters()))
    x = torch.randn(5, 8)
    (100 * ours(x).square().mean()).backward()
    (100 * theirs(x).square().mean()).backward()
    norm = accumulator.norm()
    accumulator.clip(norm, 0.5)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5))
    for name, parameter in theirs.named_parameters():
        assert torch.equal(accumulator.sums[name], parameter.grad)


def test_bf16_gradients_are_summed_in_float32():
    model = small_model(torch.bfloat16)
    accumulator = GradientAccumulator(dict(model.named_parameters()))
    x = torch.randn(5, 8, dtype=torch.bfloat16)
    model(x).sum().backward()
    first = {name: gradient.clone() for name, gradient in accumulator.sums.items()}
    for _ in range(255):
        model(x).sum().backward()
    for name, gradient in accumulator.sums.items():
        assert gradient.dtype == torch.float32
        # In bf16 the sum would stop growing at 256 times the addend's half unit.
        torch.testing.assert_close(gradient, 256 * first[name], rtol=1e-6, atol=0)


def test_clearing_forgets_a_half_summed_step():
    model = small_model()
    accumulator = GradientAccumulator(dict(model.named_parameters()))
    model(torch.randn(5, 8)).sum().backward()
    accumulator.clear()
    assert accumulator.sums == {}


def test_after_closing_gradients_stay_with_the_parameters():
    model = small_model()
    GradientAccumulator(dict(model.named_parameters())).close()
    model(torch.randn(5, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_loss_scale_halves_on_overflow_and_grows_after_good_steps():
    scaler = LossScaler(enabled=True)
    assert scaler.note_overflow()
    assert scaler.scale == LossScaler.INITIAL / 2
    for _ in range(LossScaler.GROWTH_INTERVAL):
        scaler.note_good_step()
    assert scaler.scale == LossScaler.INITIAL


def test_a_loss_scale_of_one_cannot_mend_an_overflow():
    scaler = LossScaler(enabled=True)
    while scaler.note_overflow():
        pass
    assert scaler.scale == 1.0


def test_the_loss_scale_continues_where_it_was():
    scaler = LossScaler(enabled=True)
    scaler.note_overflow()
    scaler.note_good_step()
    other = LossScaler(enabled=True)
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    with pytest.raises(ValueError, match="not a positive"):
        other.load_state_dict({"scale": float("nan"), "good_steps": 0})


def test_without_fp16_there_is_no_scale():
    scaler = LossScaler(enabled=False)
    scaler.note_good_step()
    assert not scaler.note_overflow()
    assert scaler.scale == 1.0
