"""The memory engine on a GPU: the bits of the CPU where they can be, the same bits every time."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from aozora.memory.update_gate import UpdateGate
from aozora.memory.weight_streaming import HostUnit, WeightStreamer
from optimizers.adafactor import AdafactorRule
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.host_memory import register
from optimizers.lion import LionRule
from optimizers.placement import Placement
from optimizers.precision import decode_state, encode_state, join_fp32, split_fp32
from optimizers.raven_adamw import AdamWRule, RavenAdamWRule
from optimizers.rule import Moments
from optimizers.streamed import StreamedOptimizer
from optimizers.velo_rms import VeloRMSRule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPES = {"conv.weight": (64, 33, 3, 3), "proj.weight": (300, 257), "norm.weight": (17,)}
RULES = {
    "raven": RavenAdamWRule(),
    "centralized": RavenAdamWRule(centralization=0.5),
    "velo": VeloRMSRule(),
    "lion": LionRule(),
    "adamw": AdamWRule(),
    "adafactor": AdafactorRule(),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_moments = pytest.mark.parametrize("moments", get_args(Moments))


class Driver:
    """An engine, its gradient sums and its optimizer."""

    def __init__(
        self, parameters, rule, moments="float32", *, device=CUDA, micro_steps=2, **placement
    ):
        self.engine = Engine(
            parameters,
            rule,
            moments=moments,
            placement=Placement(
                **{"gradients": "device", "small_tensor": 0, "ring_bytes": 1, **placement}
            ),
            device=device,
            micro_steps=micro_steps,
        )
        self.sums = GradientSums(self.engine)
        self.optimizer = StreamedOptimizer(self.engine, seed=1)
        self.one = torch.ones((), device=device)

    def step(self, gradients, lr, **options):
        self.optimizer.wait_until_issued()
        self.sums.put(gradients)
        self.optimizer.step(self.sums, lr, self.one, **options)

    def weights(self):
        return {name: self.optimizer.master_weight(name) for name in self.engine.parameters}

    def states(self):
        """Return copies of all states, in host memory."""
        return {
            (name, plane): torch.cat([piece.cpu() for piece in pieces])
            for name, planes in self.optimizer.state_dict()["state"].items()
            for plane, pieces in planes.items()
        }


def _parameters(dtype, device=CUDA, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(device, dtype))
        for name, shape in shapes.items()
    }


def _gradients(step, device=CUDA, shapes=SHAPES):
    generator = torch.Generator().manual_seed(1000 + step)
    return {
        name: (1e-3 * torch.randn(shape, generator=generator)).to(device)
        for name, shape in shapes.items()
    }


def _same_bits(a, b):
    a, b = (value.detach().cpu().contiguous().view(-1).view(torch.uint8) for value in (a, b))
    return torch.equal(a, b)


def _assert_same(*drivers):
    expected_weights, expected_states = drivers[0].weights(), drivers[0].states()
    for driver in drivers[1:]:
        for name, weight in driver.weights().items():
            assert _same_bits(weight, expected_weights[name]), name
        for key, state in driver.states().items():
            assert _same_bits(state, expected_states[key]), key


def test_split_and_join_are_exact():
    bits = torch.randint(-(2**31), 2**31, (4_000_000,), generator=torch.Generator().manual_seed(0))
    values = bits.to(torch.int32).view(torch.float32)
    values = values[values.isfinite()].to(CUDA)
    hi, lo = split_fp32(values)
    assert _same_bits(join_fp32(hi, lo), values)
    on_host = split_fp32(values.cpu())
    assert torch.equal(hi.cpu().view(torch.int16), on_host[0].view(torch.int16))
    assert torch.equal(lo.cpu(), on_host[1])


def test_stochastic_rounding_gives_the_bits_of_the_cpu():
    values = torch.exp(torch.empty(1_000_000).uniform_(-100, 80, generator=torch.Generator()))
    values[:10] = torch.tensor([0.0, 2.0**-149, 2.0**-135, 2.0**-134, 1e-40] * 2)
    stored = []
    for device in (CPU, CUDA):
        scratch = (torch.empty(values.shape, dtype=torch.int32, device=device) for _ in range(2))
        out = torch.empty(values.shape, dtype=torch.int16, device=device)
        encode_state(
            values.to(device), out, "uint16_sr", key=-123456789, scratch=tuple(scratch), start=77
        )
        stored.append(out.cpu())
        decoded = decode_state(out, torch.empty(values.shape, device=device), "uint16_sr")
        assert ((decoded.cpu() == 0) == (values == 0)).all()
    assert torch.equal(*stored)


# A difference in the last place now and then rounds a narrow state the other way.
TOLERANCES = {"float32": 1e-4, "16bit": 1e-3, "8bit": 3e-2}


@every_dtype
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@every_moments
def test_steps_land_where_those_of_the_cpu_do_and_are_the_same_every_time(dtype, rule, moments):
    drivers, moved = [], []
    for device in (CPU, CUDA, CUDA):
        driver = Driver(
            _parameters(dtype, device), rule, moments, device=device, chunk_elements=5120
        )
        start = driver.weights()
        for step in range(20):
            driver.step(_gradients(step, device), 1e-4, diagnose=step == 10)
        end = driver.weights()
        assert all(
            record.memory.device.type == "cpu" for record in driver.optimizer.records.values()
        )
        drivers.append(driver)
        moved.append({name: end[name] - start[name] for name in SHAPES})
    _assert_same(*drivers[1:])
    # Lion moves by a sign, which such a difference turns now and then, too.
    tolerance = 1e-2 if rule.kind == "lion" else TOLERANCES[moments]
    for name in SHAPES:
        on_cpu, on_gpu = moved[0][name], moved[1][name]
        assert (on_gpu - on_cpu).norm() <= max(tolerance, TOLERANCES[moments]) * on_cpu.norm()


def test_the_rule_is_torch_adamw_bit_for_bit_on_one_device():
    reference = _parameters(torch.float32)
    adamw = torch.optim.AdamW(reference.values(), lr=1e-4, weight_decay=0.01, foreach=False)
    rule = RavenAdamWRule()
    weights = {name: p.detach().clone() for name, p in reference.items()}
    states = {
        name: {state: torch.zeros_like(w) for state in rule.states(w.shape)}
        for name, w in weights.items()
    }
    for step in range(50):
        for name, gradient in _gradients(step).items():
            reference[name].grad = gradient.clone()
            scratch = torch.empty_like(gradient)
            rule.update(weights[name], gradient, states[name], scratch, lr=1e-4, t=step + 1)
        adamw.step()
    for name, weight in weights.items():
        assert _same_bits(weight, reference[name])


@every_dtype
def test_the_engine_follows_torch_adamw(dtype):
    driver = Driver(_parameters(dtype), RavenAdamWRule())
    start = driver.weights()
    reference = {name: nn.Parameter(weight.clone().to(CUDA)) for name, weight in start.items()}
    adamw = torch.optim.AdamW(reference.values(), lr=1e-4, weight_decay=0.01, foreach=False)
    for step in range(50):
        driver.step(_gradients(step), 1e-4)
        for name, gradient in _gradients(step).items():
            reference[name].grad = gradient
        adamw.step()
    end = driver.weights()
    for name, parameter in reference.items():
        # Whether a product and a sum are rounded once or twice is each kernel's own choice: of 50
        # updates of 1e-4, a unit in the last place of weights of 0.05 is a part in 30,000.
        wanted = parameter.detach().cpu() - start[name]
        assert (end[name] - start[name] - wanted).norm() <= 1e-4 * wanted.norm()


LARGE = {"conv.weight": (320, 160, 3, 3), "proj.weight": (640, 1280), "norm.weight": (640,)}
CUT = {"chunk_elements": 64 * 1024, "bucket_elements": 200_000, "small_tensor": 1000}


def test_memory_that_the_system_refuses_to_lock_leaves_no_error_behind():
    memory = torch.zeros(2**20, dtype=torch.uint8)
    assert register(memory) == ""
    assert "error" in register(memory).lower()  # it is locked already
    assert torch.ones(4, device="cuda").sum().item() == 4
    torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())


@every_moments
@pytest.mark.parametrize("gradients", ["host", "device"])
def test_pinned_and_bounced_copies_and_none_at_all_give_the_same_bits(moments, gradients):
    drivers = {}
    for name, changes in {
        "pinned": {"pin_bytes": 2**30},
        "bounced": {"pin_bytes": 4 * 2**20},  # enough for the buffers, not for any record
        "ordinary": {"pin_bytes": 0},
        "resident": {"device_record_bytes": 2**30},
    }.items():
        driver = Driver(
            _parameters(torch.bfloat16, CPU, LARGE),
            RavenAdamWRule(),
            moments,
            gradients=gradients,
            **CUT,
            **changes,
        )
        for step in range(6):
            driver.step(_gradients(step, shapes=LARGE), 1e-4)
        drivers[name] = driver
    _assert_same(*drivers.values())
    hosts = {name: driver.engine.host for name, driver in drivers.items()}
    assert not hosts["pinned"].refusal
    assert hosts["pinned"].pinned_bytes == hosts["pinned"].num_bytes > 2**20
    assert 0 < hosts["bounced"].pinned_bytes < hosts["bounced"].num_bytes
    assert hosts["ordinary"].pinned_bytes == 0
    bounces = {name for name, driver in drivers.items() if driver.engine.transfers.bounces}
    assert bounces >= {"bounced", "ordinary"}
    assert "pinned" not in bounces
    assert drivers["resident"].optimizer.bytes_on_host() == 0


@every_moments
@pytest.mark.parametrize("pin_bytes", [0, 2**30])
@pytest.mark.parametrize("gradients", ["host", "device"])
def test_no_step_allocates_more_than_the_first(moments, pin_bytes, gradients):
    driver = Driver(
        _parameters(torch.bfloat16, shapes=LARGE),
        RavenAdamWRule(),
        moments,
        pin_bytes=pin_bytes,
        gradients=gradients,
        **CUT,
    )
    given = _gradients(0, shapes=LARGE)

    def step():
        driver.step(given, 1e-4)
        driver.optimizer.largest_weight().item()

    for _ in range(2):
        step()
    driver.optimizer.finish()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(10):
        step()
    driver.optimizer.finish()
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.memory_reserved() == reserved
    # Norms and magnitudes: far less than the smallest matrix, which has 1.6 MB.
    assert torch.cuda.max_memory_allocated() - before <= 2**17


WIDTH = 256


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(x)))


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(24, WIDTH), nn.Linear(WIDTH, 24)
        self.blocks = nn.ModuleList(Block() for _ in range(6))

    def forward(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.leave(x)


BLOCKS = tuple(f"blocks.{number}" for number in range(6))


def _toy(dtype, device=CUDA):
    torch.manual_seed(5)
    return Toy().to(device, dtype)


def _unit(name):
    return ".".join(name.split(".")[:2]) if name.startswith("blocks") else ""


def _loss(model, k, dtype, device=CUDA):
    generator = torch.Generator().manual_seed(k)
    x, target = torch.randn(2, 32, 24, generator=generator).to(device, dtype).unbind()
    return (model(x) - target).float().square().mean()


def _drive_toy(dtype, device=CUDA, **changes):
    model = _toy(dtype, device)
    parameters = dict(model.named_parameters())
    options = {
        "units": {name: _unit(name) for name in parameters},
        "chunk_elements": 32 * 1024,
        "bucket_elements": 100_000,
        "small_tensor": 1000,
        **changes,
    }
    return model, Driver(parameters, RavenAdamWRule(), device=device, **options)


def _stream(model, driver):
    """Return what brings streamed weights to the device."""
    engine, optimizer = driver.engine, driver.optimizer
    units = [
        HostUnit(
            name=name,
            weights=engine.weights[name],
            views={
                place.name: (place.start, place.shape) for place in engine.unit_of[name].tensors
            },
        )
        for name in BLOCKS
    ]
    streamer = WeightStreamer(
        model,
        units,
        engine.backend,
        slots=2,
        ready=optimizer.updated_event,
        is_issued=optimizer.is_issued,
        loads=engine.backend.weights_in,
    )
    optimizer.last_read = streamer.last_read
    return streamer


def _train_toy(dtype, steps=8, **changes):
    """Train with real backward passes, forward overlapping the update; return the driver."""
    model, driver = _drive_toy(dtype, **changes)
    engine, optimizer = driver.engine, driver.optimizer
    streamer = _stream(model, driver) if engine.placement.streamed else None
    gate = UpdateGate(
        model, [u.name for u in engine.units if not engine.is_streamed(u.name)], optimizer
    )
    for step in range(steps):
        for k in range(engine.micro_steps):
            loss = _loss(model, 100 * step + k, dtype)
            optimizer.wait_until_issued()
            driver.sums.begin(k, is_last=k == engine.micro_steps - 1)
            loss.backward()
            driver.sums.end()
        optimizer.step(driver.sums, 1e-3, (0.1 / driver.sums.norm()).clamp(max=1.0))
        if streamer is not None:
            streamer.invalidate_all()
    optimizer.finish()
    gate.close()
    if streamer is not None:
        streamer.close()
    return driver


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gradients", ["host", "device"])
@pytest.mark.parametrize("micro_steps", [1, 3])
def test_streamed_weights_are_trained_like_resident_ones(dtype, gradients, micro_steps):
    resident = _train_toy(dtype, gradients="device", micro_steps=micro_steps)
    again = _train_toy(dtype, gradients="device", micro_steps=micro_steps)
    _assert_same(resident, again)  # or nothing below could hold
    for pin_bytes in (2**30, 2**22, 0):
        streamed = _train_toy(
            dtype,
            gradients=gradients,
            micro_steps=micro_steps,
            streamed=frozenset(BLOCKS),
            pin_bytes=pin_bytes,
        )
        _assert_same(resident, streamed)
    start = Driver(dict(_toy(dtype).named_parameters()), RavenAdamWRule()).weights()
    assert all((weight != start[name]).any() for name, weight in resident.weights().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gradients", ["host", "device"])
@pytest.mark.parametrize("pin_bytes", [0, 2**30])
def test_hooks_sum_what_backward_computes_on_gpu_and_cpu(dtype, gradients, pin_bytes):
    num, sums = 4, {}
    for device in (CPU, CUDA):
        model, driver = _drive_toy(
            dtype, device, gradients=gradients, micro_steps=num, pin_bytes=pin_bytes
        )
        plain = _toy(dtype, device)
        expected = {n: torch.zeros(p.shape, device=device) for n, p in plain.named_parameters()}
        for k in range(num):
            driver.sums.begin(k, is_last=k == num - 1)
            _loss(model, k, dtype, device).backward()
            driver.sums.end()
            assert all(parameter.grad is None for parameter in model.parameters())
            plain.zero_grad()
            _loss(plain, k, dtype, device).backward()
            for name, parameter in plain.named_parameters():
                expected[name] += parameter.grad
        norm = torch.nn.utils.get_total_norm(expected.values())
        torch.testing.assert_close(driver.sums.norm(), norm, rtol=1e-6, atol=0)
        sums[device.type] = _finished(driver)
        for name, total in sums[device.type].items():
            assert torch.equal(total, expected[name].cpu()), name
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    for name, on_cpu in sums["cpu"].items():
        assert (sums["cuda"][name] - on_cpu).norm() <= tolerance * on_cpu.norm(), name


def _finished(driver):
    engine = driver.engine
    engine.backend.synchronize()
    found = {}
    for bucket in engine.buckets():
        for chunk in bucket.chunks:
            values = driver.sums.of(chunk, bucket).values.cpu().float()
            for place in chunk.tensors:
                inside, outside = chunk.part_of(place)
                flat = found.setdefault(place.name, torch.zeros(place.numel))
                flat[outside] = values[inside]
    return {name: flat.view(engine.parameters[name].shape) for name, flat in found.items()}


def test_gradients_used_at_once_give_the_weights_of_gradients_that_waited():
    drivers = []
    for gradients in ("host", "device", "nowhere"):
        model, driver = _drive_toy(
            torch.bfloat16, gradients=gradients, micro_steps=1, pin_bytes=2**30
        )
        optimizer, sums = driver.optimizer, driver.sums
        for step in range(6):
            optimizer.wait_all()
            loss = _loss(model, step, torch.bfloat16)
            if gradients == "nowhere":
                optimizer.begin_step(1e-3)
                sums.on_finished = _update(driver)
            sums.begin(0, is_last=True)
            loss.backward()
            sums.end()
            if gradients == "nowhere":
                optimizer.end_step()
            else:
                optimizer.step(sums, 1e-3, driver.one)
        drivers.append(driver)
    assert drivers[2].sums.bytes_on_host() == 0
    _assert_same(*drivers)


def _update(driver):
    return lambda bucket, total: driver.optimizer.update_bucket(bucket, total, 1e-3, driver.one)
