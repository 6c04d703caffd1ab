"""Streamed weights give the same bits as resident ones, in whatever order copies are done."""

from __future__ import annotations

import random
from collections import deque
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from aozora.memory.units import group_by_unit, is_transformer_block
from aozora.memory.weight_streaming import WeightStreamer, forward_order
from optimizers.backend import ImmediateBackend
from tests.fakes import HABITS, LazyBackend

NUM_BLOCKS = 7
LR = 0.05


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 2 * channels)
        self.down = nn.Linear(2 * channels, channels)

    def forward(self, x):
        tokens = self.norm(self.conv(x).flatten(2).transpose(1, 2))
        tokens = self.down(nn.functional.gelu(self.up(tokens)))
        return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 1)
        self.blocks = nn.ModuleList(Block(8) for _ in range(NUM_BLOCKS))
        self.leave = nn.Conv2d(8, 3, 1)
        self.is_checkpointed = True

    def forward(self, x, order=range(NUM_BLOCKS)):
        x = self.enter(x)
        for number in order:
            block = self.blocks[number]
            if torch.is_grad_enabled() and self.is_checkpointed:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.leave(x)


class Sgd:
    """Takes gradients in hooks and leaves none; steps weights where they live.

    With a ``seed``, the pass over streamed units goes on while the next forward runs, as one in a
    thread of its own would.
    """

    def __init__(self, model, units=(), backend=None, seed=None):
        self.gradients = {}
        self.parameters = dict(model.named_parameters())
        self.units, self.backend = units, backend
        self.home = {name: unit for unit in units for name in unit.views}
        self.streamer = None
        self.pending = deque()
        self.events = {}
        self.chance = None if seed is None else random.Random(seed)
        for name, parameter in self.parameters.items():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p, n=name: self._take(n, p))

    def _take(self, name, parameter):
        gradient, parameter.grad = parameter.grad, None
        self.gradients[name] = self.gradients.get(name, 0) + gradient

    def step(self):
        while self.pending:
            self._issue()
        changes = {name: LR * gradient for name, gradient in self.gradients.items()}
        for name, change in changes.items():
            if name not in self.home:
                self.parameters[name].data -= change
        if self.streamer is not None:
            self.streamer.invalidate_all()
            self.events.clear()
            self.pending.extend((unit, changes) for unit in self.units)
        while self.pending and self.chance is None:
            self._issue()
        self.gradients = {}
        return changes

    def finish(self):
        while self.pending:
            self._issue()
        if self.backend is not None:
            self.backend.synchronize()

    def ready(self, unit):
        while unit not in self.events:
            self._issue()
        return self.events[unit]

    def is_issued(self, unit):
        if self.pending and self.chance.random() < 0.3:
            self._issue()
        return unit in self.events

    def _issue(self):
        unit, changes = self.pending.popleft()
        # As the optimizer pass does: weights leave on `copy_out`, and no one waits for it.
        queue = self.backend.copy_out
        read = self.streamer.last_read(unit.name)
        if read is not None:
            queue.wait(read)
        mine = {name: change for name, change in changes.items() if name in unit.views}
        queue.run(lambda: _subtract(unit, mine))
        self.events[unit.name] = queue.record()


def _stream(model, units, backend, seed=None, **options):
    """Return an optimizer and a streamer that know of each other."""
    sgd = Sgd(model, units, backend, seed)
    is_issued = None if seed is None else sgd.is_issued
    sgd.streamer = WeightStreamer(
        model, units, backend, ready=sgd.ready, is_issued=is_issued, **options
    )
    return sgd, sgd.streamer


def _subtract(unit, changes):
    for name, change in changes.items():
        offset, shape = unit.views[name]
        unit.weights[offset : offset + shape.numel()].view(shape).sub_(change)


def _weights(model, units):
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for unit in units:
        for name, (offset, shape) in unit.views.items():
            values[name] = unit.weights[offset : offset + shape.numel()].view(shape)
    return values


def _assert_equal(found, expected):
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different, different


def _watched(backend, streamer):
    if not isinstance(backend, LazyBackend):
        return nullcontext()
    for slot in streamer._slots:
        backend.watch(slot.memory)
    for unit in streamer._units:
        backend.watch(unit.weights)
    return backend.watched_compute()


def _toy(frozen=()):
    torch.manual_seed(1)
    model = Toy()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    return model


def _blocks():
    return [f"blocks.{number}" for number in range(NUM_BLOCKS)]


def _input(k):
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(k))


def _orders(k):
    """Return the orders of a step's passes: training twice, and validation between."""
    chance = random.Random(k)
    drawn = [sorted(chance.sample(range(NUM_BLOCKS), chance.randint(2, NUM_BLOCKS)))]
    shuffled = list(range(NUM_BLOCKS))
    chance.shuffle(shuffled)
    return [range(NUM_BLOCKS), *(drawn if k % 2 else [shuffled])]


def _train_toy(model, sgd, steps, *, shuffled=False):
    """Return everything that was computed."""
    seen = []
    for k in range(steps):
        for micro_step, order in enumerate(_orders(k) if shuffled else [range(NUM_BLOCKS)] * 2):
            loss = model(_input(2 * k + micro_step), order).square().mean()
            loss.backward()
            seen.append(loss.detach())
        seen += sgd.step().values()
        if k % 3 == 0:
            with torch.no_grad():
                seen += [model(_input(50 + v)) for v in range(2)]
    return seen


def _compare_toy(
    move_to_host,
    backend,
    slots,
    *,
    steps=4,
    frozen=(),
    shuffled=False,
    moved=None,
    seed=None,
    **more,
):
    resident = _toy(frozen)
    expected = _train_toy(resident, Sgd(resident), steps, shuffled=shuffled)
    model = _toy(frozen)
    units = move_to_host(model, _blocks(), is_moved=moved or (lambda name: True))
    sgd, streamer = _stream(model, units, backend, seed, slots=slots, **more)
    with _watched(backend, streamer):
        found = _train_toy(model, sgd, steps, shuffled=shuffled)
        sgd.finish()
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    _assert_equal(_weights(model, units), _weights(resident, ()))


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 9])
def test_streaming_changes_no_bit_over_20_steps(move_to_host, slots):
    _compare_toy(move_to_host, ImmediateBackend(torch.device("cpu")), slots, steps=20)


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_copies_may_be_done_in_any_order_that_events_allow(move_to_host, slots, habit):
    for seed in range(3):
        backend = LazyBackend(seed, eager_compute=True, habit=habit)
        _compare_toy(move_to_host, backend, slots)


@pytest.mark.parametrize("has_own_queue", [False, True])
@pytest.mark.parametrize("slots", [1, 3])
def test_the_next_forward_may_begin_while_weights_are_updated(move_to_host, slots, has_own_queue):
    for seed in range(6):
        backend = LazyBackend(seed, eager_compute=True)
        loads = backend.weights_in if has_own_queue else None
        _compare_toy(move_to_host, backend, slots, seed=seed, loads=loads)


def test_loads_on_a_queue_of_their_own_keep_away_from_that_of_the_pass(move_to_host):
    model = _toy()
    backend = LazyBackend(0, eager_compute=True)
    backend.copy_in = None
    streamer = WeightStreamer(
        model, move_to_host(model, _blocks()), backend, loads=backend.weights_in
    )
    expected = _toy()(_input(0))
    assert torch.equal(model(_input(0)), expected)
    streamer.close()


def test_new_slots_wait_for_what_was_queued_before_them(move_to_host):
    model = _toy()
    backend = LazyBackend(0, habit="late")
    # The allocator may hand out memory that computation still to be done has let go of.
    before = []
    backend.compute.run(lambda: before.append("computed"))
    streamer = WeightStreamer(model, move_to_host(model, _blocks()), backend)
    streamer.prefetch()
    streamer._slots[0].loaded.synchronize()
    assert before == ["computed"]


def test_closing_lets_computation_wait_for_loads_that_are_under_way(move_to_host):
    model = _toy()
    backend = LazyBackend(0, habit="late")
    streamer = WeightStreamer(model, move_to_host(model, _blocks()), backend)
    streamer.prefetch()
    loads = [slot.loaded for slot in streamer._slots]
    streamer.close()
    # What is computed from now on may be given the memory of the slots.
    backend.compute.record().synchronize()
    assert all(load.is_done for load in loads)


def test_a_recomputation_that_runs_to_its_end_keeps_the_weights(move_to_host):
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        _compare_toy(move_to_host, LazyBackend(4, eager_compute=True), 2)


@pytest.mark.parametrize("slots", [2, 3, NUM_BLOCKS])
def test_only_a_unit_that_is_called_waits_for_its_update_to_begin(move_to_host, slots):
    model = _toy()
    units = move_to_host(model, _blocks())
    backend = ImmediateBackend(torch.device("cpu"))
    called, awaited, issued = [], [], set()
    for name in _blocks():
        module = model.get_submodule(name)
        module.register_forward_pre_hook(lambda *_, n=name: called.append(n))

    def ready(unit):
        if unit not in issued:
            assert called[-1] == unit, f"fetching {unit} ahead kept {called[-1]} waiting"
            issued.update(_blocks()[: _blocks().index(unit) + 2])
        awaited.append(unit)

    streamer = WeightStreamer(
        model, units, backend, slots=slots, ready=ready, is_issued=lambda unit: unit in issued
    )
    for _ in range(2):
        called.clear()
        awaited.clear()
        issued.clear()
        streamer.invalidate_all()
        streamer.prefetch()
        assert not awaited
        model(_input(0)).sum().backward()
        assert sorted(awaited) == _blocks(), "once for each unit, however often it is loaded"


def test_an_update_that_failed_is_reported_by_whoever_needs_it(move_to_host):
    model = _toy()

    def ready(unit):
        raise ArithmeticError("the pass failed")

    streamer = WeightStreamer(
        model,
        move_to_host(model, _blocks()),
        ImmediateBackend(torch.device("cpu")),
        ready=ready,
        is_issued=lambda unit: False,
    )
    model(_input(0)).sum().backward()
    streamer.invalidate("blocks.4")
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="the pass failed"):
            model(_input(0))


@pytest.mark.parametrize("slots", [2, 3])
def test_blocks_may_be_left_out_or_run_in_another_order(move_to_host, slots):
    for seed in range(4):
        backend = LazyBackend(seed, eager_compute=True)
        _compare_toy(move_to_host, backend, slots, shuffled=True)


@pytest.mark.parametrize("frozen", [("conv",), ("blocks.2", "blocks.6"), ("enter", "blocks.0")])
def test_frozen_weights_may_be_streamed(move_to_host, frozen):
    backend = LazyBackend(1, eager_compute=True)
    _compare_toy(move_to_host, backend, 3, frozen=frozen)


def test_some_parameters_of_a_unit_may_stay_resident(move_to_host):
    backend = LazyBackend(2, eager_compute=True)
    moved = lambda name: not name.endswith(("bias", "norm.weight"))  # noqa: E731
    _compare_toy(move_to_host, backend, 3, moved=moved)


def test_a_unit_that_is_not_checkpointed_is_refused(move_to_host):
    model = _toy()
    model.is_checkpointed = False
    backend = ImmediateBackend(torch.device("cpu"))
    WeightStreamer(model, move_to_host(model, _blocks()), backend)
    with pytest.raises(RuntimeError, match=r"blocks\.0 is streamed but not checkpointed"):
        model(_input(0))
    with torch.no_grad():
        assert torch.equal(model(_input(0)), _toy()(_input(0)))


def test_a_gradient_that_comes_too_late_is_an_error(move_to_host):
    model = _toy()
    WeightStreamer(model, move_to_host(model, _blocks()), ImmediateBackend(torch.device("cpu")))
    pair = nn.Sequential(*model.blocks[:2])
    # One checkpoint around two units: both are recomputed before backward comes to the first.
    loss = checkpoint(pair, model.enter(_input(0)), use_reentrant=False).sum()
    with pytest.raises(RuntimeError, match=r"blocks\.0\..* after its weights had left"):
        loss.backward()


def test_weights_that_are_away_cannot_be_used_unseen(move_to_host):
    model = _toy()
    streamer = WeightStreamer(
        model, move_to_host(model, _blocks()), ImmediateBackend(torch.device("cpu"))
    )
    for during in (model(_input(0)).sum(), None):
        if during is not None:
            during.backward()
        for name, parameter in model.blocks.named_parameters():
            assert parameter.isnan().all(), name
            assert parameter.shape == _toy().blocks.get_parameter(name).shape
    streamer.close()
    assert model.blocks[0].up.weight.isnan().all()


def test_a_changed_unit_is_loaded_anew_only_when_invalidated(move_to_host):
    model = _toy()
    units = move_to_host(model, _blocks())
    streamer = WeightStreamer(model, units, ImmediateBackend(torch.device("cpu")), slots=NUM_BLOCKS)
    with torch.no_grad():
        before = model(_input(0))
        for unit in units:
            unit.weights.mul_(0.5)
        assert torch.equal(model(_input(0)), before), "everything was on the device"
        streamer.invalidate("blocks.3")
        once = model(_input(0))
        streamer.invalidate_all()
        after = model(_input(0))
        halved = _toy()
        for parameter in halved.blocks[3].parameters():
            parameter.mul_(0.5)
        assert torch.equal(once, halved(_input(0)))
        for number in (0, 1, 2, 4, 5, 6):
            for parameter in halved.blocks[number].parameters():
                parameter.mul_(0.5)
        assert torch.equal(after, halved(_input(0)))


class CountingQueue:
    def __init__(self, queue):
        self.queue, self.runs = queue, 0

    def run(self, work):
        self.runs += 1
        self.queue.run(work)

    def __getattr__(self, name):
        return getattr(self.queue, name)


@pytest.mark.parametrize("slots", [2, 3, 4, NUM_BLOCKS])
def test_no_unit_is_loaded_more_often_than_its_slots_demand(move_to_host, slots):
    model = _toy()
    backend = ImmediateBackend(torch.device("cpu"))
    backend.copy_in = CountingQueue(backend.copy_in)
    streamer = WeightStreamer(model, move_to_host(model, _blocks()), backend, slots=slots)
    for k in range(3):
        before = backend.copy_in.runs
        model(_input(k)).square().mean().backward()
        # The last units stay for backward, the first ones for the next forward.
        expected = 2 * (NUM_BLOCKS - slots) + (slots if k == 0 else 0)
        assert backend.copy_in.runs - before == expected
    assert streamer.device_bytes == slots * max(u.weights.nbytes for u in streamer._units)


def test_next_unit_is_under_way_while_one_computes(move_to_host):
    model = _toy()
    units = move_to_host(model, _blocks())
    backend = LazyBackend(0, eager_compute=True, habit="early")
    streamer = WeightStreamer(model, units, backend, slots=2)
    there = []
    for number, block in enumerate(model.blocks):
        block.conv.register_forward_hook(
            lambda *_, n=number: there.append((n, [s.unit for s in streamer._slots]))
        )
    model(_input(0)).sum().backward()
    assert [n for n, _ in there] == [*range(NUM_BLOCKS), *reversed(range(NUM_BLOCKS))]
    uses = [n for n, _ in there]
    for (number, units_there), following in zip(there, [*uses[1:], 1], strict=True):
        assert number in units_there
        assert following in units_there or following == number


def test_prefetch_loads_the_first_units_before_they_are_called(move_to_host):
    model = _toy()
    backend = LazyBackend(0, eager_compute=True, habit="early")
    streamer = WeightStreamer(model, move_to_host(model, _blocks()), backend, slots=3)
    streamer.prefetch()
    assert sorted(slot.unit for slot in streamer._slots) == [0, 1, 2]
    assert all(slot.loaded.is_done for slot in streamer._slots)


def test_an_aborted_backward_leaves_everything_usable(move_to_host):
    model = _toy()
    units = move_to_host(model, _blocks())
    backend = LazyBackend(3, eager_compute=True)
    streamer = WeightStreamer(model, units, backend, slots=3)

    def fail(gradient):
        raise ArithmeticError("on purpose")

    def spoil(module, args, output):
        output.register_hook(fail)

    with _watched(backend, streamer):
        handle = model.blocks[4].register_forward_hook(spoil)
        with pytest.raises(ArithmeticError):
            model(_input(0)).sum().backward()
        handle.remove()
        model.zero_grad()
        model(_input(0)).sum().backward()
    resident = _toy()
    resident(_input(0)).sum().backward()
    _assert_equal(
        {name: parameter.grad for name, parameter in model.named_parameters()},
        {name: parameter.grad for name, parameter in resident.named_parameters()},
    )


def test_a_unit_may_be_invalidated_after_its_forward_was_aborted(move_to_host):
    model = _toy()
    units = move_to_host(model, _blocks())
    streamer = WeightStreamer(model, units, ImmediateBackend(torch.device("cpu")), slots=2)

    def fail(module, args):
        raise ArithmeticError("on purpose")

    handle = model.blocks[3].up.register_forward_pre_hook(fail)
    with torch.no_grad(), pytest.raises(ArithmeticError):
        model(_input(0))
    handle.remove()
    for unit in units:
        unit.weights.mul_(0.5)
    streamer.invalidate_all()
    halved = _toy()
    with torch.no_grad():
        for parameter in halved.blocks.parameters():
            parameter.mul_(0.5)
        assert torch.equal(model(_input(0)), halved(_input(0)))


def test_what_cannot_be_streamed_is_refused(move_to_host):
    model = _toy()
    units = move_to_host(model, _blocks())
    backend = ImmediateBackend(torch.device("cpu"))
    with pytest.raises(ValueError, match="at least one"):
        WeightStreamer(model, [], backend)
    with pytest.raises(ValueError, match="at least one"):
        WeightStreamer(model, units, backend, slots=0)
    mixed = [*units[:-1], replace(units[-1], weights=units[-1].weights.bfloat16())]
    with pytest.raises(ValueError, match="different formats"):
        WeightStreamer(model, mixed, backend)


def _unet_blocks(unet):
    named = group_by_unit(name for name, _ in unet.named_parameters())
    return forward_order(unit for unit in named if is_transformer_block(unit))


def test_forward_order_is_the_order_of_forward(make_unet, run_unet):
    unet = make_unet()
    called = []
    for name in _unet_blocks(unet):
        module = unet.get_submodule(name)
        module.register_forward_pre_hook(lambda *_, n=name: called.append(n))
    with torch.no_grad():
        run_unet(unet)
    assert called == _unet_blocks(unet)
    assert forward_order([f"mid_block.attentions.0.transformer_blocks.{n}" for n in (10, 9)]) == [
        "mid_block.attentions.0.transformer_blocks.9",
        "mid_block.attentions.0.transformer_blocks.10",
    ]


def _train_unet(unet, sgd, run_unet, steps):
    seen = []
    for k in range(steps):
        loss = run_unet(unet, k)
        loss.backward()
        changes = sgd.step()
        seen.append(loss.detach())
        seen += changes.values()
        if k == 1:
            with torch.no_grad():
                seen.append(run_unet(unet, 99))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slots", "frozen"), [(2, ()), (3, ("attn2", "norm")), (4, ("down_blocks", "ff.net.0"))]
)
def test_a_streamed_unet_trains_to_the_same_bits(make_unet, run_unet, move_to_host, slots, frozen):
    def prepared():
        unet = make_unet()
        unet.enable_gradient_checkpointing()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(not any(part in name for part in frozen))
        return unet

    resident = prepared()
    expected = _train_unet(resident, Sgd(resident), run_unet, 6)
    unet = prepared()
    units = move_to_host(unet, _unet_blocks(unet), is_moved=lambda n: ".norm" not in n)
    backend = LazyBackend(slots, eager_compute=True)
    sgd, streamer = _stream(unet, units, backend, slots=slots)
    with _watched(backend, streamer):
        found = _train_unet(unet, sgd, run_unet, 6)
        sgd.finish()
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    _assert_equal(_weights(unet, units), _weights(resident, ()))
