from __future__ import annotations

import pytest
import torch

from optimizers.lion import LionRule


def _gradients(num_steps, shape=(23, 11)):
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(shape, generator=generator) for _ in range(num_steps)]


def _run(rule, start, gradients, lr):
    weight, states = start.clone(), {"exp_avg": torch.zeros_like(start)}
    for t, gradient in enumerate(gradients, start=1):
        rule.update(weight, gradient.clone(), states, torch.empty_like(start), lr=lr, t=t)
    return weight, states["exp_avg"]


def test_lion_equals_its_float64_recurrence():
    rule, lr = LionRule(beta1=0.8, beta2=0.95, weight_decay=0.1), 1e-3
    gradients = _gradients(40)
    start = torch.ones(23, 11)
    weight, mean = start.double(), torch.zeros(23, 11, dtype=torch.float64)
    for gradient in gradients:
        direction = torch.sign(0.8 * mean + 0.2 * gradient.double())
        weight = weight - lr * (direction + 0.1 * weight)
        mean = 0.95 * mean + 0.05 * gradient.double()
    ours, our_mean = _run(rule, start, gradients, lr)
    torch.testing.assert_close(our_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.double(), weight, rtol=0, atol=1e-6)


def test_every_weight_moves_by_the_learning_rate_and_none_without_a_gradient():
    rule = LionRule(weight_decay=0.0)
    gradients = [gradient * 1e-12 for gradient in _gradients(1)]
    weight, _ = _run(rule, torch.zeros(23, 11), gradients, 1e-3)
    assert torch.equal(weight, -1e-3 * gradients[0].sign())
    weight, mean = _run(rule, torch.zeros(23, 11), [torch.zeros(23, 11)] * 3, 1e-3)
    assert not weight.any()
    assert not mean.any()


def test_lion_keeps_one_state_and_has_no_second_moment():
    rule = LionRule()
    assert list(rule.states(torch.Size([5]))) == ["exp_avg"]
    assert rule.second_moment({"exp_avg": torch.zeros(5)}) is None
    assert rule.formats("float32") == {"exp_avg": "float32"}
    assert rule.formats("16bit") == {"exp_avg": "bfloat16"}
    # In 16 bits a slower mean would stand still.
    assert LionRule(beta2=0.999).formats("16bit") == {"exp_avg": "float32"}


@pytest.mark.parametrize(
    ("option", "value"), [("beta1", 1.0), ("beta2", -0.1), ("weight_decay", float("nan"))]
)
def test_a_bad_hyperparameter_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        LionRule(**{option: value})
