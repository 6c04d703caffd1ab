from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.streamed import StreamedOptimizer
from tests.fakes import LazyBackend

CPU = torch.device("cpu")


def make_model(dtype):
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 24)) for _ in range(5)]
    return nn.Sequential(*layers).to(dtype)


def make(model, *, backend=None, micro_steps=1, moments="float32", **changes):
    parameters = dict(model.named_parameters())
    values = {
        "units": {name: name.split(".")[0] for name in parameters},
        "ring_bytes": 1,
        "chunk_elements": 512,
        "bucket_elements": 900,
        "small_tensor": 30,
    }
    engine = Engine(
        parameters,
        RavenAdamWRule(),
        moments=moments,
        placement=Placement(**{**values, **changes}),
        device=CPU,
        micro_steps=micro_steps,
        backend=backend,
    )
    return engine, GradientSums(engine)


def inputs(step, dtype):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(6, 24, generator=generator).to(dtype)


def backward(model, sums, micro_step, is_last, dtype, seed=0):
    sums.begin(micro_step, is_last=is_last)
    model(inputs(10 * seed + micro_step, dtype)).square().mean().backward()
    sums.end()


def reference_sums(dtype, micro_steps, seed=0):
    model = make_model(dtype)
    sums = {name: torch.zeros(p.shape) for name, p in model.named_parameters()}
    for k in range(micro_steps):
        model.zero_grad()
        model(inputs(10 * seed + k, dtype)).square().mean().backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad.float()
    return sums


def finished(engine, sums):
    engine.backend.synchronize()
    found = {}
    for bucket in engine.buckets():
        for chunk in bucket.chunks:
            part = sums.of(chunk, bucket)
            for place in chunk.tensors:
                inside, outside = chunk.part_of(place)
                flat = found.setdefault(place.name, torch.zeros(place.numel))
                flat[outside] = part.values[inside].float()
    return {name: flat.view(engine.parameters[name].shape) for name, flat in found.items()}


@pytest.mark.parametrize("gradients", ["host", "device"])
@pytest.mark.parametrize("micro_steps", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_sums_and_norm_are_exact_in_whatever_order_copies_are_made(
    gradients, micro_steps, dtype, seed
):
    backend = LazyBackend(seed, eager_compute=True) if seed else None
    model = make_model(dtype)
    engine, sums = make(model, backend=backend, micro_steps=micro_steps, gradients=gradients)
    for repeat in range(2):
        for k in range(micro_steps):
            backward(model, sums, k, k == micro_steps - 1, dtype, seed=repeat)
        expected = reference_sums(dtype, micro_steps, seed=repeat)
        assert torch.equal(sums.norm(), torch.nn.utils.get_total_norm(expected.values()))
        for name, total in finished(engine, sums).items():
            assert torch.equal(total, expected[name]), name


def test_a_plentiful_ring_gives_the_same_sums():
    model = make_model(torch.bfloat16)
    engine, sums = make(model, micro_steps=4, ring_bytes=2**20, gradients="host")
    for k in range(4):
        backward(model, sums, k, k == 3, torch.bfloat16)
    expected = reference_sums(torch.bfloat16, 4)
    for name, total in finished(engine, sums).items():
        assert torch.equal(total, expected[name])


def test_bfloat16_sums_are_rounded_at_every_addition():
    model = make_model(torch.bfloat16)
    engine, sums = make(model, micro_steps=8, gradients="host", sums="bfloat16", small_tensor=0)
    for k in range(8):
        backward(model, sums, k, k == 7, torch.bfloat16)
    expected = reference_sums(torch.bfloat16, 8)
    found = finished(engine, sums)
    error = sum((found[n] - expected[n]).square().sum() for n in expected)
    size = sum(expected[n].square().sum() for n in expected)
    assert 1e-4 < (error / size).sqrt() < 8e-3


def test_with_16_bit_moments_a_parked_sum_is_rounded_once():
    model = make_model(torch.bfloat16)
    engine, sums = make(model, micro_steps=3, gradients="host", moments="16bit", small_tensor=0)
    for k in range(3):
        backward(model, sums, k, k == 2, torch.bfloat16)
    expected = reference_sums(torch.bfloat16, 3)
    for name, total in finished(engine, sums).items():
        assert torch.equal(total, expected[name].bfloat16().float())


@pytest.mark.parametrize("gradients", ["host", "device"])
def test_a_discarded_step_leaves_nothing_behind(gradients):
    model = make_model(torch.float32)
    backend = LazyBackend(3, eager_compute=True)
    engine, sums = make(model, micro_steps=2, gradients=gradients, backend=backend)
    backward(model, sums, 0, False, torch.float32, seed=7)
    sums.begin(1, is_last=True)
    out = model(inputs(71, torch.float32))
    (out.square().mean() + out.detach().mean()).backward()
    sums.discard()
    for k in range(2):
        backward(model, sums, k, k == 1, torch.float32)
    expected = reference_sums(torch.float32, 2)
    for name, total in finished(engine, sums).items():
        assert torch.equal(total, expected[name])


def test_a_parameter_without_gradient_counts_as_zero():
    model = make_model(torch.float32)
    engine, sums = make(model, micro_steps=2, gradients="host")
    for k in range(2):
        sums.begin(k, is_last=k == 1)
        model[:4](inputs(k, torch.float32)).square().mean().backward()
        sums.end()
    found = finished(engine, sums)
    assert all(total.abs().max() == 0 for name, total in found.items() if name.startswith("4."))
    assert all(total.abs().max() > 0 for name, total in found.items() if name.startswith("0."))


def _update(optimizer, scale, bucket, total):
    optimizer.update_bucket(bucket, total, 1e-3, scale)


def test_gradients_used_at_once_give_the_weights_of_gradients_that_waited():
    results = []
    for gradients in ("host", "nowhere"):
        backend = LazyBackend(5, eager_compute=True)
        model = make_model(torch.bfloat16)
        engine, sums = make(model, gradients=gradients, backend=backend)
        optimizer = StreamedOptimizer(engine)
        one = torch.ones(())
        for step in range(4):
            optimizer.wait_all()
            if gradients == "nowhere":
                optimizer.begin_step(1e-3)
                sums.on_finished = partial(_update, optimizer, one)
                backward(model, sums, 0, True, torch.bfloat16, seed=step)
                optimizer.end_step()
            else:
                backward(model, sums, 0, True, torch.bfloat16, seed=step)
                optimizer.step(sums, 1e-3, one)
        results.append({n: optimizer.master_weight(n) for n in engine.parameters})
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_unknown_names_and_shapes_are_refused():
    _, sums = make(make_model(torch.float32))
    with pytest.raises(ValueError, match="nothing"):
        sums.put({"nothing": torch.zeros(3)})


def test_after_closing_gradients_stay_with_the_parameters():
    model = make_model(torch.float32)
    _, sums = make(model)
    sums.close()
    model(inputs(0, torch.float32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
