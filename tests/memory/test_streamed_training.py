"""A UNet trained with streamed weights takes the same steps, bit for bit, as a resident one."""

from __future__ import annotations

import copy
import random
import threading

import pytest
import torch

from aozora.memory.arrangement import Arrangement, Layout, units_of
from aozora.memory.recompute import LEVELS, RecomputePlan, recomputable
from aozora.memory.units import is_transformer_block
from optimizers.background import Background
from optimizers.gradient_sums import GradientSums
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.transfers import Transfers
from tests.fakes import LazyBackend

CPU = torch.device("cpu")
MICRO_STEPS = 2
SIDE = 8


def _trained(unet, share):
    """Return the names of about ``share`` of the parameters, whole modules at a time."""
    modules = sorted({name.rpartition(".")[0] for name, _ in unet.named_parameters()})
    chosen = {*random.Random(7).sample(modules, round(share * len(modules)))}
    return [name for name, _ in unet.named_parameters() if name.rpartition(".")[0] in chosen]


def _blocks(unet):
    units = units_of(name for name, _ in unet.named_parameters()).values()
    return [unit for unit in dict.fromkeys(units) if is_transformer_block(unit)]


def _plan_for(unet, streamed, seed):
    chance = random.Random(seed)
    kinds = recomputable(unet)
    return RecomputePlan(
        {path: chance.choice(LEVELS[kinds[path]]) for path in kinds if path not in streamed}
    )


def _arrange(unet, share, *, streamed, slots=3, backend=None, plan=None, moments="float32", **more):
    names = _trained(unet, share)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name in {*names})
    values = {
        "units": units_of(name for name, _ in unet.named_parameters()),
        "streamed": frozenset(streamed),
        "ring_bytes": 1,
        "chunk_elements": 20_000,
        "bucket_elements": 60_000,
        "small_tensor": 100,
    }
    return Arrangement(
        unet,
        names,
        RavenAdamWRule(),
        moments,
        layout=Layout(
            placement=Placement(**{**values, **more}),
            slots=slots,
            recompute=plan or RecomputePlan(),
        ),
        device=CPU,
        micro_steps=MICRO_STEPS,
        seed=3,
        backend=backend,
    )


def _train(unet, memory, run_unet, steps):
    """Return every loss, the losses of validation, and all weights and states at the end."""
    losses = []
    for step in range(steps):
        for micro_step in range(MICRO_STEPS):
            loss = run_unet(unet, MICRO_STEPS * step + micro_step, side=SIDE)
            memory.optimizer.wait_until_issued()
            memory.gradients.begin(micro_step, is_last=micro_step == MICRO_STEPS - 1)
            loss.backward()
            memory.gradients.end()
            losses.append(loss.detach())
        losses.append(memory.gradients.norm().clone())
        memory.optimizer.step(memory.gradients, 1e-3, torch.ones(()))
        memory.after_step()
        if step % 4 == 0:
            with torch.no_grad():
                losses += [run_unet(unet, 1000 + k, side=SIDE) for k in range(2)]
    memory.optimizer.finish()
    found = {f"loss {number}": loss for number, loss in enumerate(losses)}
    found |= {n: memory.optimizer.master_weight(n).clone() for n in memory.parameters}
    for unit in memory.engine.units:
        flat = memory.engine.weights[unit.name]
        for place in (*unit.tensors, *unit.frozen):
            found[f"weight {place.name}"] = flat[place.start : place.start + place.numel].clone()
    for piece in memory.optimizer.pieces():
        key = f"{piece.plane} of {piece.parameter}"
        parts = [found[key]] if key in found else []
        found[key] = torch.cat([*parts, piece.values.flatten()])
    return found


def _same_bits(a, b):
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _assert_equal(found, expected):
    shared = expected.keys() & found.keys()
    different = [name for name in shared if not _same_bits(found[name], expected[name])]
    assert not different, sorted(different)[:5]
    # Frozen weights are in a unit only if it is streamed.
    assert all(name.startswith("weight ") for name in expected.keys() ^ found.keys())
    assert any(name.startswith("loss") for name in shared)


@pytest.fixture(scope="module")
def resident_run(_built_unet, run_unet):
    """Return a function that gives what a resident UNet computes that keeps all activations."""
    known = {}

    def run(share, steps, moments="float32"):
        key = (share, steps, moments)
        if key not in known:
            unet = copy.deepcopy(_built_unet).bfloat16()
            everything = dict.fromkeys(recomputable(unet), "store")
            memory = _arrange(
                unet, share, streamed=[], plan=RecomputePlan(everything), moments=moments
            )
            known[key] = _train(unet, memory, run_unet, steps)
        return known[key]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "slots", "gradients", "steps"),
    [(1.0, 2, "host", 20), (0.75, 3, "device", 4), (0.15, 3, "host", 4)],
)
def test_streaming_changes_no_bit(
    make_unet, run_unet, resident_run, share, slots, gradients, steps
):
    unet = make_unet().bfloat16()
    blocks = _blocks(unet)
    memory = _arrange(
        unet,
        share,
        streamed=blocks,
        slots=slots,
        plan=_plan_for(unet, blocks, slots),
        gradients=gradients,
    )
    untouched = {n: p.detach().clone() for n, p in make_unet().bfloat16().named_parameters()}
    found = _train(unet, memory, run_unet, steps)
    _assert_equal(found, resident_run(share, steps))
    for name, before in untouched.items():
        kept = found.get(f"weight {name}", unet.get_parameter(name).detach())
        assert _same_bits(kept, before) == (name not in memory.parameters), name


@pytest.mark.parametrize(("share", "seed"), [(1.0, 1), (0.75, 0), (0.15, 1)])
def test_the_order_of_queued_work_changes_no_bit(make_unet, run_unet, resident_run, share, seed):
    unet = make_unet().bfloat16()
    blocks = _blocks(unet)
    streamed = blocks if seed else blocks[::2]
    backend = LazyBackend(seed, eager_compute=True)
    memory = _arrange(
        unet,
        share,
        streamed=streamed,
        slots=2 + seed,
        backend=backend,
        plan=_plan_for(unet, streamed, seed),
    )
    for slot in memory._streamer._slots:
        backend.watch(slot.memory)
    with backend.watched_compute():
        found = _train(unet, memory, run_unet, 2)
    _assert_equal(found, resident_run(share, 2))


@pytest.mark.parametrize("moments", ["float32", "16bit"])
def test_forward_may_begin_while_a_thread_still_updates(
    make_unet, run_unet, resident_run, monkeypatch, moments
):
    monkeypatch.setattr(Transfers, "bounces", property(lambda self: True))
    started = []
    run = Background._run
    monkeypatch.setattr(Background, "_run", lambda self: (started.append(self), run(self)))
    unet = make_unet().bfloat16()
    memory = _arrange(unet, 1.0, streamed=_blocks(unet), slots=2, moments=moments)
    found = _train(unet, memory, run_unet, 4)
    assert len(started) == 4
    _assert_equal(found, resident_run(1.0, 4, moments))


@pytest.mark.parametrize("gradients", ["host", "device"])
def test_a_step_under_way_goes_on_to_its_end_when_the_model_is_let_go_of(
    make_unet, run_unet, monkeypatch, gradients
):
    def arranged():
        unet = make_unet().bfloat16()
        memory = _arrange(unet, 0.15, streamed=[], gradients=gradients)
        for micro_step in range(MICRO_STEPS):
            loss = run_unet(unet, micro_step, side=SIDE)
            memory.gradients.begin(micro_step, is_last=micro_step == MICRO_STEPS - 1)
            loss.backward()
            memory.gradients.end()
        return memory

    expected = arranged()
    expected.optimizer.step(expected.gradients, 1e-3, torch.ones(()))
    expected.optimizer.finish()
    monkeypatch.setattr(Transfers, "bounces", property(lambda self: True))
    gate, original = threading.Event(), GradientSums.of

    def wait_for_leave(sums, chunk, bucket):
        assert gate.wait(30)
        return original(sums, chunk, bucket)

    monkeypatch.setattr(GradientSums, "of", wait_for_leave)
    memory = arranged()
    memory.optimizer.step(memory.gradients, 1e-3, torch.ones(()))
    memory.after_step()
    memory.close()
    gate.set()
    memory.optimizer.finish()
    for name in memory.parameters:
        found = memory.optimizer.master_weight(name)
        assert torch.equal(found, expected.optimizer.master_weight(name)), name
