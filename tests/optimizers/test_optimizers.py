"""What every optimizer promises, whatever it keeps its states in: through the memory engine."""

from __future__ import annotations

import math
import random
import weakref
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from torch import nn

from optimizers.adafactor import AdafactorRule
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.lion import LionRule
from optimizers.placement import Placement
from optimizers.precision import UnrepresentableWeightError, decode_state
from optimizers.raven_adamw import AdamWRule, RavenAdamWRule
from optimizers.records import MASTER
from optimizers.rule import Moments
from optimizers.streamed import StreamedOptimizer
from optimizers.velo_rms import VeloRMSRule

SHAPES = {"conv.weight": (12, 5, 3, 3), "proj.weight": (40, 33), "norm.weight": (17,), "gain": ()}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CPU = torch.device("cpu")


class Driver:
    """An engine, its gradient sums and its optimizer, fed with gradients from a mapping.

    Unless ``placement`` says otherwise, every tensor is updated from a float32 gradient, in the
    formats that were asked for.
    """

    def __init__(self, parameters, rule, moments="float32", *, seed=42, micro_steps=2, **placement):
        self.engine = Engine(
            parameters,
            rule,
            moments=moments,
            # Records and weights pass through here only; sums stay on the device.
            placement=Placement(
                **{"gradients": "device", "small_tensor": 0, "ring_bytes": 1, **placement}
            ),
            device=CPU,
            micro_steps=micro_steps,
        )
        self.sums = GradientSums(self.engine)
        self.optimizer = StreamedOptimizer(self.engine, seed=seed)
        self.state_dict = self.optimizer.state_dict
        self.load_state_dict = self.optimizer.load_state_dict
        self.master_weight = self.optimizer.master_weight
        self.load_master_weights = self.optimizer.load_master_weights
        self.diagnostics = self.optimizer.diagnostics

    @property
    def t(self):
        return self.optimizer.t

    def step(self, gradients, lr, *, scale=1.0, diagnose=False):
        self.sums.put(gradients)
        self.optimizer.step(self.sums, lr, torch.as_tensor(scale), diagnose=diagnose)

    def refuse_weights(self):
        self.optimizer.refuse_weight(self.optimizer.largest_weight().item())

    def stored(self, name, plane):
        """Return the live memory of one state, which must not be cut."""
        (piece,) = self.state_dict()["state"][name][plane]
        return piece


def _parameters(dtype, seed=0, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(dtype))
        for name, shape in shapes.items()
    }


def _gradients(step, shapes=SHAPES):
    generator = torch.Generator().manual_seed(1000 + step)
    return {
        name: 1e-3
        * torch.randn(shape, generator=generator)
        * torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }


def _same_bits(a, b):
    return torch.equal(a.detach().reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


@dataclass(frozen=True)
class Maker:
    rule: object
    moments: str = "float32"

    def __call__(self, parameters, **changes):
        return Driver(parameters, self.rule, self.moments, **changes)


MAKERS = {
    **{f"raven-{moments}": Maker(RavenAdamWRule(), moments) for moments in get_args(Moments)},
    "raven-centralized": Maker(RavenAdamWRule(centralization=0.5), "16bit"),
    "raven-slow-beta1": Maker(RavenAdamWRule(beta1=0.995), "16bit"),
    **{f"velo-{moments}": Maker(VeloRMSRule(), moments) for moments in get_args(Moments)},
    **{f"lion-{moments}": Maker(LionRule(), moments) for moments in get_args(Moments)},
    "adafactor": Maker(AdafactorRule()),
    "adamw": Maker(AdamWRule()),
}
every_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def _torch_adamw(parameters, **options):
    reference = {name: nn.Parameter(p.detach().float()) for name, p in parameters.items()}
    adamw = torch.optim.AdamW(reference.values(), **{"lr": 1.0, "weight_decay": 0.01, **options})

    def step(gradients, lr):
        adamw.param_groups[0]["lr"] = lr
        for name, parameter in reference.items():
            parameter.grad = gradients[name].clone()
        adamw.step()

    return reference, adamw, step


@every_dtype
@pytest.mark.parametrize("beta2", [0.999, 0.95])
@pytest.mark.parametrize("rule", [RavenAdamWRule, AdamWRule])
def test_adamw_in_float32_is_that_of_torch_bit_for_bit(dtype, beta2, rule):
    parameters = _parameters(dtype)
    optimizer = Driver(parameters, rule(beta2=beta2))
    reference, adamw, reference_step = _torch_adamw(parameters, betas=(0.9, beta2))
    for step in range(200):
        lr = 1e-4 * (1 + math.cos(step / 64)) + 1e-7
        optimizer.step(_gradients(step), lr)
        reference_step(_gradients(step), lr)
    for name, parameter in reference.items():
        expected = parameter.detach()
        assert _same_bits(optimizer.master_weight(name), expected)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert _same_bits(optimizer.stored(name, moment), adamw.state[parameter][moment])
        ties = torch.zeros(expected.shape, dtype=torch.bool)
        if dtype == torch.bfloat16:
            ties = (optimizer.stored(name, MASTER) == -(2**15)).view(expected.shape)
        assert torch.equal(parameters[name][~ties], expected.to(dtype)[~ties])


CUTS = {
    "units": {"conv.weight": "a", "proj.weight": "a", "norm.weight": "b", "gain": "b"},
    "chunk_elements": 256,
    "bucket_elements": 128,
}


@every_dtype
@pytest.mark.parametrize("seed", range(4))
def test_buckets_in_any_order_through_poisoned_memory_are_torch_adamw_bit_for_bit(dtype, seed):
    parameters = _parameters(dtype)
    streamed = frozenset("ab") if seed % 2 else frozenset()
    driver = Driver(parameters, RavenAdamWRule(), streamed=streamed, **CUTS)
    engine, optimizer = driver.engine, driver.optimizer
    reference, _, reference_step = _torch_adamw(parameters)
    order = random.Random(seed)
    for step in range(20):
        _poison(engine)
        gradients = _gradients(step)
        optimizer.begin_step(1e-4)
        buckets = engine.buckets()
        order.shuffle(buckets)
        assert len(buckets) == len(SHAPES)
        for bucket in buckets:
            total = torch.zeros(bucket.numel)
            for place in bucket.tensors:
                first = place.start - bucket.start
                total[first : first + place.numel] = gradients[place.name].view(-1)
            optimizer.update_bucket(bucket, total, 1e-4, torch.ones(()))
        optimizer.end_step()
        reference_step(gradients, 1e-4)
    for name, parameter in reference.items():
        assert _same_bits(optimizer.master_weight(name), parameter)


def _poison(engine):
    """Make everything that passes through the device start as NaN."""
    lease = engine.ring.take(engine.ring.num_bytes)
    assert lease is not None
    lease.wait_on(engine.backend.compute)
    lease.memory.fill_(0xFF)
    lease.give_back(engine.backend.compute.record())


@every_dtype
@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_clipping_is_that_of_torch_bit_for_bit(dtype, max_norm):
    parameters = _parameters(dtype)
    optimizer = Driver(parameters, RavenAdamWRule())
    reference, _, reference_step = _torch_adamw(parameters)
    for step in range(10):
        gradients = _gradients(step)
        optimizer.sums.put(gradients)
        norm = optimizer.sums.norm()
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        optimizer.optimizer.step(optimizer.sums, 1e-4, scale)
        for name, parameter in reference.items():
            parameter.grad = gradients[name].clone()
        assert torch.equal(torch.nn.utils.clip_grad_norm_(reference.values(), max_norm), norm)
        assert (scale < 1) == (max_norm < 1)
        reference_step({name: p.grad for name, p in reference.items()}, 1e-4)
    for name, parameter in reference.items():
        assert _same_bits(optimizer.master_weight(name), parameter)


def _model(dtype):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 40), nn.Linear(40, 9)).to(
        dtype
    )


def _loss(model, k, dtype):
    generator = torch.Generator().manual_seed(k)
    return model(torch.randn(6, 24, generator=generator).to(dtype)).float().square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gradients", ["host", "device"])
@pytest.mark.parametrize("num", [1, 2, 5])
def test_accumulated_micro_steps_are_one_step_with_the_sum(dtype, gradients, num):
    model, theirs = _model(dtype), _model(dtype)
    driver = Driver(
        dict(model.named_parameters()),
        RavenAdamWRule(),
        micro_steps=num,
        gradients=gradients,
        chunk_elements=256,
        bucket_elements=700,
    )
    reference, _, reference_step = _torch_adamw(dict(theirs.named_parameters()))
    for step in range(4):
        for k in range(num):
            driver.sums.begin(k, is_last=k == num - 1)
            _loss(model, 10 * step + k, dtype).backward()
            driver.sums.end()
        driver.optimizer.step(driver.sums, 1e-3, torch.ones(()))
        total = {name: torch.zeros(p.shape) for name, p in theirs.named_parameters()}
        for k in range(num):
            theirs.zero_grad()
            _loss(theirs, 10 * step + k, dtype).backward()
            for name, parameter in theirs.named_parameters():
                total[name] += parameter.grad.float()
        reference_step(total, 1e-3)
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                # The model's own weights: rounded as the engine rounds.
                assert torch.equal(driver.master_weight(name), reference[name])
                parameter.copy_(driver.engine.parameters[name])


@every_optimizer
@every_dtype
def test_states_on_the_device_give_the_bits_of_states_on_the_host(make, dtype):
    ends = []
    for room in (0, 3000, 2**30):
        optimizer = make(_parameters(dtype), device_record_bytes=room)
        for step in range(4):
            optimizer.step(_gradients(step), 1e-4)
        ends.append(optimizer)
    assert ends[0].optimizer.bytes_on_device() == 0
    assert ends[1].optimizer.bytes_on_device() <= 3000
    assert ends[2].optimizer.bytes_on_host() == 0
    for end in ends[1:]:
        _assert_same(end.state_dict(), ends[0].state_dict())
        for name in SHAPES:
            assert _same_bits(end.master_weight(name), ends[0].master_weight(name))


LARGE = {"w": (110_000,)}


@pytest.mark.parametrize("moments", ["float32", "16bit"])
@pytest.mark.parametrize("start", [1.0, 1e-9])
@pytest.mark.parametrize(
    ("rule", "share"), [(RavenAdamWRule(), 0.001), (VeloRMSRule(momentum=0.999), 0.16)]
)
def test_second_moments_decay_as_they_should(rule, share, moments, start, monkeypatch):
    seen, second_moment = [], type(rule).second_moment

    def watched(self, states):
        seen.append(second_moment(self, states).double().mean().item())
        return second_moment(self, states)

    monkeypatch.setattr(type(rule), "second_moment", watched)
    optimizer = Driver(_parameters(torch.bfloat16, shapes=LARGE), rule, moments)
    first = {"w": torch.full(LARGE["w"], (start / share) ** 0.5)}
    optimizer.step(first, 0.0, diagnose=True)
    nothing = {"w": torch.zeros(LARGE["w"])}
    for k in range(1000):
        optimizer.step(nothing, 0.0, diagnose=k == 999)
    assert seen[0] == pytest.approx(start, rel=0.01)
    assert seen[1] / seen[0] == pytest.approx(0.999**1000, rel=0.02)


@pytest.mark.parametrize("moments", ["float32", "16bit"])
def test_second_moments_grow_as_they_should(moments):
    rule = RavenAdamWRule()
    formats = rule.formats(moments)
    optimizer = Driver(_parameters(torch.bfloat16, shapes=LARGE), rule, moments)
    for gradient, num in ((1.0, 300), (2.0, 300)):
        for _ in range(num):
            optimizer.step({"w": torch.full(LARGE["w"], gradient)}, 0.0)
    stored = optimizer.stored("w", "exp_avg_sq")
    mean = decode_state(stored, torch.empty(stored.shape), formats["exp_avg_sq"]).double().mean()
    kept = 0.999**300
    assert mean.item() == pytest.approx((1 - kept) * kept + 4 * (1 - kept), rel=0.005)


@pytest.mark.parametrize(
    ("rule", "state", "decay"),
    [(RavenAdamWRule(beta1=b), "exp_avg", b) for b in (0.9, 0.99, 0.995)]
    + [(VeloRMSRule(momentum=b), "velocity", b) for b in (0.86, 0.99)],
)
def test_first_moments_in_16_bits_reach_a_new_mean(rule, state, decay):
    optimizer = Driver(_parameters(torch.bfloat16, shapes=LARGE), rule, "16bit")
    generator = torch.Generator().manual_seed(0)
    for mean, num in ((1.0, 5), (-0.5, round(8 / (1 - decay)))):
        for _ in range(num):
            gradient = mean + torch.randn(2000, generator=generator).repeat(55)
            optimizer.step({"w": gradient}, 0.0)
    got = optimizer.stored("w", state).double().mean().item()
    assert got == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("moments", ["float32", "16bit"])
@pytest.mark.parametrize("rule", [RavenAdamWRule(), VeloRMSRule()], ids=lambda rule: rule.kind)
def test_tiny_updates_move_bfloat16_weights_as_far_as_float32_weights(rule, moments):
    shapes = {"w": (200, 100)}
    start = _parameters(torch.float32, shapes=shapes)["w"].detach().clone()
    displacement = {}
    for dtype, kept in ((torch.float32, "float32"), (torch.bfloat16, moments)):
        parameters = _parameters(dtype, shapes=shapes)
        optimizer = Driver(parameters, rule, kept)
        optimizer.load_master_weights({"w": start})
        for step in range(300):
            optimizer.step(_gradients(step, shapes), 1e-6)
        displacement[dtype] = (optimizer.master_weight("w") - start).double()
    wanted = displacement[torch.float32]
    error = (displacement[torch.bfloat16] - wanted).norm() / wanted.norm()
    assert error <= (0.0 if moments == "float32" else 0.02)
    # What the model computes with has moved along, too, give or take its rounding.
    seen = (parameters["w"].detach().float() - start.bfloat16().float()).double()
    assert (seen * wanted).sum() / wanted.square().sum() == pytest.approx(1, abs=0.1)


def _copied(state):
    """Return a state whose tensors are not views of one memory, as saving demands."""
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state.detach().clone() if isinstance(state, torch.Tensor) else state


def _save_and_load(state, path):
    torch.save(_copied(state), path)
    return torch.load(path, weights_only=True, mmap=True)


@every_optimizer
@every_dtype
def test_four_steps_saved_and_four_more_are_eight_steps(make, dtype, tmp_path):
    straight_parameters = _parameters(dtype)
    straight = make(straight_parameters)
    for step in range(8):
        straight.step(_gradients(step), 1e-4)

    parameters = _parameters(dtype)
    optimizer = make(parameters)
    for step in range(4):
        optimizer.step(_gradients(step), 1e-4)
    saved = _save_and_load(
        {"optimizer": optimizer.state_dict(), "weights": parameters}, tmp_path / "state.pt"
    )
    resumed_parameters = _parameters(dtype, seed=5)
    resumed = make(resumed_parameters)
    resumed.step(_gradients(77), 1e-2)  # whatever it held before must leave no trace
    with torch.no_grad():
        for name, parameter in resumed_parameters.items():
            parameter.copy_(saved["weights"][name])
    resumed.load_state_dict(saved["optimizer"])
    assert resumed.t == 4
    for step in range(4, 8):
        resumed.step(_gradients(step), 1e-4)

    _assert_same(resumed.state_dict(), straight.state_dict())
    for name, parameter in straight_parameters.items():
        assert torch.equal(resumed_parameters[name], parameter)
        assert torch.equal(resumed.master_weight(name), straight.master_weight(name))


def _assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            _assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for ours, theirs in zip(a, b, strict=True):
            _assert_same(ours, theirs)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    else:
        assert a == b


@every_optimizer
@every_dtype
def test_master_weights_round_trip_exactly(make, dtype):
    parameters = _parameters(dtype)
    optimizer = make(parameters)
    wanted = {name: 300 * gradient for name, gradient in _gradients(0).items()}
    optimizer.load_master_weights(wanted)
    for name, value in wanted.items():
        got = optimizer.master_weight(name)
        assert torch.equal(got, value)
        ties = (value.view(torch.int32) & 0xFFFF) == 0x8000  # rounded away from zero by the split
        assert torch.equal(parameters[name][~ties], value.to(dtype)[~ties])
        got.fill_(7)  # a copy
        assert torch.equal(optimizer.master_weight(name), value)


@every_optimizer
@every_dtype
def test_a_step_writes_to_the_parameters_memory_and_leaves_gradients_alone(make, dtype):
    parameters = _parameters(dtype)
    optimizer = make(parameters)
    places = {name: parameter.data_ptr() for name, parameter in parameters.items()}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    gradients = _gradients(0)
    parameters["norm.weight"].grad = torch.ones_like(parameters["norm.weight"])
    optimizer.step(gradients, 1e-2)
    for name, parameter in parameters.items():
        assert parameter.data_ptr() == places[name]
        assert parameter.requires_grad
        assert not torch.equal(parameter, before[name])
        assert torch.equal(gradients[name], _gradients(0)[name])
    assert torch.equal(parameters["norm.weight"].grad, torch.ones_like(parameters["norm.weight"]))


@every_optimizer
def test_channels_last_weights_are_trained_like_any_other(make):
    shapes = {"conv.weight": SHAPES["conv.weight"]}
    plain = _parameters(torch.bfloat16, shapes=shapes)
    strided = {
        name: nn.Parameter(p.detach().to(memory_format=torch.channels_last))
        for name, p in plain.items()
    }
    for parameters in (plain, strided):
        optimizer = make(parameters)
        for step in range(3):
            optimizer.step(_gradients(step, shapes), 1e-3)
    torch.testing.assert_close(strided["conv.weight"], plain["conv.weight"], rtol=0, atol=0)


@every_optimizer
def test_diagnostics_say_how_the_step_went(make):
    parameters = _parameters(torch.float32)
    optimizer = make(parameters)
    optimizer.step(_gradients(0), 1e-4)
    assert optimizer.diagnostics() is None
    before = {name: optimizer.master_weight(name) for name in parameters}
    optimizer.step(_gradients(1), 1e-4, diagnose=True)
    after = {name: optimizer.master_weight(name) for name in parameters}
    got = optimizer.diagnostics()
    updates = torch.cat([(after[name] - before[name]).flatten() for name in parameters]).double()
    weights = torch.cat([after[name].flatten() for name in parameters]).double()
    assert got.update_rms == pytest.approx(updates.square().mean().sqrt().item(), rel=1e-6)
    assert got.weight_rms == pytest.approx(weights.square().mean().sqrt().item(), rel=1e-6)
    assert got.share_moved == pytest.approx((updates != 0).double().mean().item())
    assert list(got.v_quantiles) == sorted(got.v_quantiles)
    assert len(got.v_quantiles) == (0 if isinstance(make.rule, LionRule) else 5)
    assert all(0 < value < 1e-5 for value in got.v_quantiles[2:3])
    optimizer.step(_gradients(2), 1e-4)
    assert optimizer.diagnostics() is None


@every_optimizer
def test_measuring_a_step_changes_no_bit_of_it(make):
    results = []
    for diagnose in (False, True):
        parameters = _parameters(torch.bfloat16)
        optimizer = make(parameters)
        for step in range(3):
            optimizer.step(_gradients(step), 1e-4, diagnose=diagnose)
        results.append(optimizer.state_dict())
    _assert_same(*results)


def test_share_moved_counts_what_the_model_sees():
    shapes = {"w": (300, 200)}
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        parameters = _parameters(dtype, shapes=shapes)
        rule = RavenAdamWRule()
        optimizer = Driver(parameters, rule)
        optimizer.step(_gradients(0, shapes), 1e-7, diagnose=True)
        moved[dtype] = optimizer.diagnostics().share_moved
    assert moved[torch.float32] > 0.95
    assert moved[torch.bfloat16] < 0.1


def test_large_models_are_measured_on_a_sample():
    shapes = {"w": (1500, 1500), "b": (3,)}
    parameters = _parameters(torch.bfloat16, shapes=shapes)
    optimizer = MAKERS["raven-16bit"](parameters)
    optimizer.step(_gradients(0, shapes), 1e-4, diagnose=True)
    assert optimizer.diagnostics().weight_rms == pytest.approx(0.02, rel=0.02)
    assert optimizer.diagnostics().update_rms == pytest.approx(1e-4, rel=0.02)


@every_optimizer
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_weight_that_is_not_finite_is_refused_at_once(make, bad):
    parameters = _parameters(torch.bfloat16)
    with torch.no_grad():
        parameters["norm.weight"][3] = bad
    with pytest.raises(UnrepresentableWeightError, match=r"norm\.weight"):
        make(parameters)


@pytest.mark.parametrize(
    ("make", "first_update"),
    [
        (Maker(RavenAdamWRule(weight_decay=0.0), "16bit"), 1.0),
        (Maker(VeloRMSRule(weight_decay=0.0), "16bit"), 0.35),
        (Maker(AdafactorRule()), 1.0),
        (Maker(LionRule(weight_decay=0.0), "16bit"), 1.0),
        (Maker(AdamWRule(weight_decay=0.0)), 1.0),
    ],
    ids=["raven", "velo", "adafactor", "lion", "adamw"],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_step_that_outgrows_the_dtype_is_refused_by_name(make, first_update, dtype):
    parameters = _parameters(dtype)
    optimizer = make(parameters)
    limit = torch.finfo(dtype).max
    huge = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    huge["conv.weight"][0, 0, 0, 0] = limit
    optimizer.load_master_weights(huge)  # the largest there is
    with pytest.raises(UnrepresentableWeightError, match=r"conv\.weight"):
        optimizer.load_master_weights({**huge, "conv.weight": huge["conv.weight"] * 1.003})
    assert torch.equal(optimizer.master_weight("conv.weight"), huge["conv.weight"])
    gradients = _gradients(0)
    gradients["conv.weight"].fill_(-1.0)
    optimizer.refuse_weights()
    optimizer.step(gradients, 0.003 * limit / first_update)
    with pytest.raises(UnrepresentableWeightError, match=r"conv\.weight"):
        optimizer.refuse_weights()
    # The exact weights are whole still.
    largest = optimizer.master_weight("conv.weight").max().item()
    assert largest == pytest.approx(1.003 * limit, rel=1e-4)


def test_what_is_kept_has_the_promised_size():
    shapes = {"conv.weight": (32, 16, 3, 3), "proj.weight": (64, 128), "norm.weight": (512,)}
    num = sum(math.prod(shape) for shape in shapes.values())
    sizes = {
        ("raven-16bit", torch.bfloat16): 2 + 2 + 2,
        ("raven-float32", torch.bfloat16): 4 + 4 + 2,
        ("velo-float32", torch.bfloat16): 4 + 4 + 2,
        ("raven-float32", torch.float32): 4 + 4,
        ("raven-16bit", torch.float16): 2 + 2 + 4,
        ("lion-16bit", torch.bfloat16): 2 + 2,
        ("lion-float32", torch.float32): 4,
        ("adamw", torch.bfloat16): 4 + 4 + 2,
        ("adamw", torch.float32): 4 + 4,
    }
    for (kind, dtype), size in sizes.items():
        optimizer = MAKERS[kind](_parameters(dtype, shapes=shapes)).optimizer
        assert (optimizer.bytes_on_host(), optimizer.bytes_on_device()) == (size * num, 0)
    # Small tensors stay on the device, in float32 whatever was asked for.
    optimizer = MAKERS["raven-16bit"](_parameters(torch.bfloat16, shapes=shapes), small_tensor=600)
    assert optimizer.optimizer.bytes_on_device() == (4 + 4 + 2) * 512
    assert optimizer.optimizer.bytes_on_host() == 6 * (num - 512)


def test_small_tensors_are_as_exact_as_float32_moments_make_them():
    ends = []
    for moments in ("16bit", "float32"):
        optimizer = Driver(
            _parameters(torch.bfloat16), RavenAdamWRule(), moments, small_tensor=10_000
        )
        for step in range(5):
            optimizer.step(_gradients(step), 1e-4)
        ends.append({name: optimizer.master_weight(name) for name in SHAPES})
    assert all(_same_bits(ends[0][name], ends[1][name]) for name in SHAPES)


@every_optimizer
def test_wrong_gradients_and_learning_rates_are_refused_and_change_nothing(make):
    optimizer, untouched = make(_parameters(torch.bfloat16)), make(_parameters(torch.bfloat16))
    good = _gradients(0)
    for bad, words in (
        ({**good, "other": good["gain"]}, "other: there is no parameter"),
        ({**good, "gain": torch.zeros(1)}, "gain: there is no parameter"),
    ):
        with pytest.raises(ValueError, match=words):
            optimizer.step(bad, 1e-4)
    for lr in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="learning rate"):
            optimizer.step(good, lr)
    assert optimizer.t == 0
    for driver in (optimizer, untouched):
        driver.step(good, 1e-4)
    assert torch.equal(optimizer.sums.norm(), untouched.sums.norm())
    for name in SHAPES:
        assert _same_bits(optimizer.master_weight(name), untouched.master_weight(name))


def test_refused_gradients_leave_nothing_half_done():
    units = {"norm.weight": "b", "gain": "b"}
    optimizer = MAKERS["adamw"](_parameters(torch.bfloat16), units=units)
    good = _gradients(0)
    with pytest.raises(ValueError, match="other"):
        optimizer.sums.put({"gain": 1000 * good["gain"], "other": good["gain"]})
    optimizer.sums.put({name: good[name] for name in ("norm.weight", "gain")})
    wanted = torch.nn.utils.get_total_norm([good["norm.weight"], good["gain"]])
    assert optimizer.sums.norm().item() == pytest.approx(wanted.item(), rel=1e-6)


def test_parameters_without_a_gradient_count_as_zero():
    optimizer, explicit = (MAKERS["raven-16bit"](_parameters(torch.bfloat16)) for _ in range(2))
    for step in range(3):
        gradients = _gradients(step)
        optimizer.step({n: g for n, g in gradients.items() if n != "proj.weight"}, 1e-3)
        nothing = torch.zeros(SHAPES["proj.weight"])
        explicit.step({**gradients, "proj.weight": nothing}, 1e-3)
    _assert_same(optimizer.state_dict(), explicit.state_dict())


@every_optimizer
def test_a_foreign_state_is_refused_whole(make):
    optimizer = make(_parameters(torch.bfloat16))
    optimizer.step(_gradients(0), 1e-4)
    good = make(_parameters(torch.bfloat16)).state_dict()
    gain = good["state"]["gain"]
    kept = next(iter(gain))
    longer = {**gain, kept: [*gain[kept], torch.zeros(1, dtype=gain[kept][0].dtype)]}
    other_dtype = {**gain, kept: [piece.double() for piece in gain[kept]]}
    fewer = {plane: pieces for plane, pieces in gain.items() if plane != kept}
    without = {name: value for name, value in good["state"].items() if name != "gain"}
    before = optimizer.master_weight("conv.weight")
    for change, words in (
        ({"kind": "sgd"}, "kind is 'sgd'"),
        ({"formats": {"exp_avg": "int4"}}, "formats"),
        ({"t": -1}, "t is -1"),
        ({"seed": None}, "seed is None"),
        ({"state": None}, "no tensors"),
        ({"state": without}, "such as gain"),
        ({"state": {**good["state"], "extra": {}}}, "such as extra"),
        ({"state": {**good["state"], "gain": fewer}}, "state of gain"),
        ({"state": {**good["state"], "gain": longer}}, f"gain: {kept} is not"),
        ({"state": {**good["state"], "gain": other_dtype}}, f"gain: {kept} is not"),
    ):
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict({**good, **change})
    assert optimizer.t == 1
    assert torch.equal(optimizer.master_weight("conv.weight"), before)


def test_states_of_other_formats_dtypes_or_kinds_do_not_fit_each_other():
    states = {
        name: MAKERS[name](_parameters(torch.bfloat16)).state_dict()
        for name in (
            "raven-float32",
            "raven-16bit",
            "velo-16bit",
            "adafactor",
            "adamw",
            "lion-16bit",
        )
    }
    for name in states:
        for other, state in states.items():
            if other != name:
                with pytest.raises(ValueError, match="optimizer state"):
                    MAKERS[name](_parameters(torch.bfloat16)).load_state_dict(state)
    with pytest.raises(ValueError, match="master is not"):
        MAKERS["raven-16bit"](_parameters(torch.float16)).load_state_dict(states["raven-16bit"])


def test_loading_copies_and_does_not_alias():
    source = MAKERS["raven-16bit"](_parameters(torch.bfloat16))
    source.step(_gradients(0), 1e-3)
    state = source.state_dict()
    saved = state["state"]["proj.weight"]
    kept = {plane: torch.cat(pieces) for plane, pieces in saved.items()}
    other = MAKERS["raven-16bit"](_parameters(torch.bfloat16))
    other.load_state_dict(state)
    other.step(_gradients(1), 1e-3)
    for plane, values in kept.items():
        assert torch.equal(torch.cat(saved[plane]), values)
    assert not torch.equal(other.stored("proj.weight", "exp_avg"), kept["exp_avg"])


def test_rounding_noise_follows_the_seed_and_not_the_other_tensors():
    def moment(parameters, seed):
        rule = RavenAdamWRule()
        optimizer = Driver(parameters, rule, "16bit", seed=seed)
        gradients = {name: _gradients(0)[name] for name in parameters}
        for _ in range(3):
            optimizer.step(gradients, 1e-4)
        return optimizer.stored("proj.weight", "exp_avg_sq")

    everything = _parameters(torch.bfloat16)
    alone = {"proj.weight": _parameters(torch.bfloat16)["proj.weight"]}
    assert torch.equal(moment(everything, 1), moment(alone, 1))
    assert not torch.equal(moment(_parameters(torch.bfloat16), 2), moment(alone, 1))


@dataclass(frozen=True, kw_only=True)
class KeptOtherwise(RavenAdamWRule):
    chosen: dict

    def formats(self, moments):
        return self.chosen


@pytest.mark.parametrize(
    "formats",
    [
        {"exp_avg": "bfloat16", "exp_avg_sq": "bfloat16"},  # would never decay
        {"exp_avg": "uint16_sr", "exp_avg_sq": "float32"},  # has a sign
        {"exp_avg": "float32"},
    ],
)
def test_a_format_that_does_not_suit_a_state_is_refused(formats):
    with pytest.raises(ValueError, match="exp_avg"):
        Driver(_parameters(torch.bfloat16), KeptOtherwise(chosen=formats))


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameters"):
        MAKERS["raven-16bit"]({})


def test_only_the_common_floats_can_be_trained():
    with pytest.raises(ValueError, match="float64"):
        MAKERS["raven-16bit"]({"w": nn.Parameter(torch.zeros(3, dtype=torch.float64))})


def test_parameters_of_several_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"bfloat16.*float32"):
        MAKERS["raven-16bit"](_parameters(torch.bfloat16) | {"w": nn.Parameter(torch.zeros(3))})


def test_the_scale_of_a_step_is_kept_while_the_step_may_read_it():
    # A GPU reads it long after `step` has returned; memory that was let go may be written again.
    optimizer = MAKERS["adamw"](_parameters(torch.bfloat16))
    optimizer.sums.put(_gradients(0))
    scale = torch.ones(())
    kept = weakref.ref(scale)
    optimizer.optimizer.step(optimizer.sums, 1e-4, scale)
    del scale
    assert kept() is not None
    optimizer.step(_gradients(1), 1e-4)
    assert kept() is None
