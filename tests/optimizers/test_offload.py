from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optimizers.adafactor import AdafactorRule
from optimizers.adamw import MasterAdamW
from optimizers.offload import OffloadedOptimizer
from optimizers.precision import UnrepresentableWeightError, decode_state
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.velo_rms import VeloRMSRule

SHAPES = {"conv.weight": (12, 5, 3, 3), "proj.weight": (40, 33), "norm.weight": (17,), "gain": ()}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def _offloaded(rule, moments):
    return lambda parameters: OffloadedOptimizer(
        parameters, rule, formats=rule.formats(moments), seed=42
    )


MAKERS = {
    "raven-float32": _offloaded(RavenAdamWRule(), "float32"),
    "raven-16bit": _offloaded(RavenAdamWRule(), "16bit"),
    "raven-centralized": _offloaded(RavenAdamWRule(centralization=0.5), "16bit"),
    "raven-slow-beta1": _offloaded(RavenAdamWRule(beta1=0.995), "16bit"),
    "velo-float32": _offloaded(VeloRMSRule(), "float32"),
    "velo-16bit": _offloaded(VeloRMSRule(), "16bit"),
    "adafactor": _offloaded(AdafactorRule(), "float32"),
    "adamw": MasterAdamW,
}
every_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@every_dtype
@pytest.mark.parametrize("beta2", [0.999, 0.95])
def test_raven_is_torch_adamw_in_float32_bit_for_bit(dtype, beta2):
    parameters = _parameters(dtype)
    rule = RavenAdamWRule(beta2=beta2)
    optimizer = OffloadedOptimizer(parameters, rule, formats=rule.formats("float32"))
    reference = {name: nn.Parameter(p.detach().float()) for name, p in parameters.items()}
    adamw = torch.optim.AdamW(
        reference.values(), lr=1.0, betas=(0.9, beta2), eps=1e-8, weight_decay=0.01
    )
    for step in range(200):
        gradients = _gradients(step)
        lr = 1e-4 * (1 + math.cos(step / 64)) + 1e-7
        optimizer.step(gradients, lr)
        adamw.param_groups[0]["lr"] = lr
        for name, parameter in reference.items():
            parameter.grad = gradients[name].clone()
        adamw.step()
    for name, parameter in reference.items():
        expected = parameter.detach()
        assert torch.equal(optimizer.master_weight(name), expected)
        moments = adamw.state[parameter]
        for moment, value in optimizer.state_dict()["state"][name].items():
            assert torch.equal(value, moments[moment])
        ties = optimizer.state_dict()["master"][name].get("lo", torch.zeros(())) == -(2**15)
        assert torch.equal(parameters[name][~ties], expected.to(dtype)[~ties])


@every_dtype
def test_master_adamw_is_torch_adamw_in_float32_bit_for_bit(dtype):
    parameters = _parameters(dtype)
    optimizer = MasterAdamW(parameters, weight_decay=0.1)
    reference = {name: nn.Parameter(p.detach().float().clone()) for name, p in parameters.items()}
    adamw = torch.optim.AdamW(reference.values(), lr=1e-4, weight_decay=0.1)
    for step in range(20):
        gradients = _gradients(step)
        optimizer.step(gradients, 1e-4)
        for name, parameter in reference.items():
            parameter.grad = gradients[name].clone()
        adamw.step()
    for name, parameter in reference.items():
        assert torch.equal(optimizer.master_weight(name), parameter.detach())
        assert torch.equal(parameters[name], parameter.to(dtype))


LARGE = {"w": (110_000,)}


@pytest.mark.parametrize(
    ("rule", "moments", "state", "start"),
    [
        (RavenAdamWRule(), "float32", "exp_avg_sq", 1.0),
        (RavenAdamWRule(), "16bit", "exp_avg_sq", 1.0),
        (RavenAdamWRule(), "16bit", "exp_avg_sq", 1e-9),
        (VeloRMSRule(momentum=0.999), "float32", "rms", 1.0),
        (VeloRMSRule(momentum=0.999), "16bit", "rms", 1.0),
        (VeloRMSRule(momentum=0.999), "16bit", "rms", 1e-9),
    ],
)
def test_second_moments_decay_as_they_should(rule, moments, state, start):
    parameters = _parameters(torch.bfloat16, shapes=LARGE)
    formats = rule.formats(moments)
    optimizer = OffloadedOptimizer(parameters, rule, formats=formats)
    stored = optimizer.state_dict()["state"]["w"][state]
    if stored.dtype == torch.int16:
        stored.copy_((torch.tensor(start).view(torch.int32) >> 15).to(torch.int16))
    else:
        stored.fill_(start)
    first = decode_state(stored, torch.empty(stored.shape), formats[state])
    nothing = {"w": torch.zeros(LARGE["w"])}
    for _ in range(1000):
        optimizer.step(nothing, 0.0)
    last = decode_state(stored, torch.empty(stored.shape), formats[state])
    kept = last.double().mean() / first.double().mean()
    assert kept.item() == pytest.approx(0.999**1000, rel=0.02)


@pytest.mark.parametrize("moments", ["float32", "16bit"])
def test_second_moments_grow_as_they_should(moments):
    parameters = _parameters(torch.bfloat16, shapes=LARGE)
    rule = RavenAdamWRule()
    formats = rule.formats(moments)
    optimizer = OffloadedOptimizer(parameters, rule, formats=formats)
    for gradient, num in ((1.0, 300), (2.0, 300)):
        for _ in range(num):
            optimizer.step({"w": torch.full(LARGE["w"], gradient)}, 0.0)
    stored = optimizer.state_dict()["state"]["w"]["exp_avg_sq"]
    mean = decode_state(stored, torch.empty(stored.shape), formats["exp_avg_sq"]).double().mean()
    kept = 0.999**300
    assert mean.item() == pytest.approx((1 - kept) * kept + 4 * (1 - kept), rel=0.005)


@pytest.mark.parametrize(
    ("rule", "state", "decay"),
    [(RavenAdamWRule(beta1=b), "exp_avg", b) for b in (0.9, 0.99, 0.995)]
    + [(VeloRMSRule(momentum=b), "velocity", b) for b in (0.86, 0.99)],
)
def test_first_moments_in_16_bits_reach_a_new_mean(rule, state, decay):
    parameters = _parameters(torch.bfloat16, shapes=LARGE)
    optimizer = OffloadedOptimizer(parameters, rule, formats=rule.formats("16bit"))
    generator = torch.Generator().manual_seed(0)
    for mean, num in ((1.0, 5), (-0.5, round(8 / (1 - decay)))):
        for _ in range(num):
            gradient = mean + torch.randn(2000, generator=generator).repeat(55)
            optimizer.step({"w": gradient}, 0.0)
    got = optimizer.state_dict()["state"]["w"][state].double().mean().item()
    assert got == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("moments", ["float32", "16bit"])
@pytest.mark.parametrize("rule", [RavenAdamWRule(), VeloRMSRule()], ids=lambda rule: rule.kind)
def test_tiny_updates_move_bfloat16_weights_as_far_as_float32_weights(rule, moments):
    shapes = {"w": (200, 100)}
    start = _parameters(torch.float32, shapes=shapes)["w"].detach().clone()
    displacement = {}
    for dtype, kept in ((torch.float32, "float32"), (torch.bfloat16, moments)):
        parameters = _parameters(dtype, shapes=shapes)
        optimizer = OffloadedOptimizer(parameters, rule, formats=rule.formats(kept))
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


def _save_and_load(state, path):
    torch.save(state, path)
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
def test_backward_after_a_step_complains_about_the_changed_weight(make):
    parameters = _parameters(torch.float32)
    optimizer = make(parameters)
    loss = (parameters["proj.weight"] ** 2).sum()
    optimizer.step(_gradients(0), 1e-3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


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
    assert len(got.v_quantiles) == 5
    assert 0 < got.v_quantiles[2] < 1e-5
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
        optimizer = OffloadedOptimizer(parameters, rule, formats=rule.formats("float32"))
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
        (_offloaded(RavenAdamWRule(weight_decay=0.0), "16bit"), 1.0),
        (_offloaded(VeloRMSRule(weight_decay=0.0), "16bit"), 0.35),
        (_offloaded(AdafactorRule(), "float32"), 1.0),
        (lambda parameters: MasterAdamW(parameters, weight_decay=0.0), 1.0),
    ],
    ids=["raven", "velo", "adafactor", "adamw"],
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
    with pytest.raises(UnrepresentableWeightError, match=r"conv\.weight"):
        optimizer.step(gradients, 0.003 * limit / first_update)
    # The exact weights are whole still.
    largest = optimizer.master_weight("conv.weight").max().item()
    assert largest == pytest.approx(1.003 * limit, rel=1e-4)


def test_what_is_kept_has_the_promised_size():
    num = sum(math.prod(shape) for shape in SHAPES.values())
    sizes = {
        ("raven-16bit", torch.bfloat16): 2 + 2 + 2,
        ("raven-float32", torch.bfloat16): 4 + 4 + 2,
        ("velo-16bit", torch.bfloat16): 2 + 2 + 2,
        ("raven-float32", torch.float32): 4 + 4,
        ("raven-16bit", torch.float16): 2 + 2 + 4,
        ("adamw", torch.bfloat16): 4 + 4 + 4,
        ("adamw", torch.float32): 4 + 4,
    }
    for (kind, dtype), size in sizes.items():
        assert MAKERS[kind](_parameters(dtype)).bytes_on_host() == size * num
    largest = math.prod(SHAPES["proj.weight"])
    buffers = MAKERS["raven-16bit"](_parameters(torch.bfloat16)).bytes_on_device()
    assert buffers == largest * (5 * 4 + 2) + 4 * len(SHAPES)


@every_optimizer
def test_wrong_gradients_are_refused_and_change_nothing(make):
    parameters = _parameters(torch.bfloat16)
    optimizer = make(parameters)
    before = {name: optimizer.master_weight(name) for name in parameters}
    good = _gradients(0)
    for bad, words in (
        ({name: good[name] for name in list(good)[1:]}, r"1 missing \(conv\.weight\)"),
        ({**good, "other": good["gain"]}, r"1 unexpected \(other\)"),
        ({**good, "gain": torch.zeros(1)}, r"gain is \(1,\), not \(\)"),
    ):
        with pytest.raises(ValueError, match=words):
            optimizer.step(bad, 1e-4)
    for lr in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="learning rate"):
            optimizer.step(good, lr)
    assert optimizer.t == 0
    for name, weight in before.items():
        assert torch.equal(optimizer.master_weight(name), weight)


@every_optimizer
def test_a_foreign_state_is_refused_whole(make):
    optimizer = make(_parameters(torch.bfloat16))
    optimizer.step(_gradients(0), 1e-4)
    good = make(_parameters(torch.bfloat16)).state_dict()
    kept = next(iter(good["state"]["gain"]))
    bad_tensors = {**good["state"]["gain"], kept: torch.zeros(3)}
    bad_dtype = {**good["state"]["gain"], kept: good["state"]["gain"][kept].double()}
    without = {name: value for name, value in good["state"].items() if name != "gain"}
    before = optimizer.master_weight("conv.weight")
    for change, words in (
        ({"kind": "sgd"}, "kind is 'sgd'"),
        ({"formats": {"exp_avg": "int4"}}, "formats"),
        ({"t": -1}, "t is -1"),
        ({"state": without}, r"missing \(gain\)"),
        ({"state": {**good["state"], "extra": {}}}, r"unexpected \(extra\)"),
        ({"state": {**good["state"], "gain": bad_tensors}}, r"\(3,\), not \(\)"),
        ({"state": {**good["state"], "gain": bad_dtype}}, "float64"),
        ({"surprise": 1}, r"unexpected \(surprise\)"),
    ):
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict({**good, **change})
    assert optimizer.t == 1
    assert torch.equal(optimizer.master_weight("conv.weight"), before)


def test_states_of_other_formats_dtypes_or_kinds_do_not_fit_each_other():
    states = {
        name: MAKERS[name](_parameters(torch.bfloat16)).state_dict()
        for name in ("raven-float32", "raven-16bit", "velo-16bit", "adafactor", "adamw")
    }
    for name in states:
        for other, state in states.items():
            if other != name:
                with pytest.raises(ValueError, match="optimizer state"):
                    MAKERS[name](_parameters(torch.bfloat16)).load_state_dict(state)
    with pytest.raises(ValueError, match="master"):
        MAKERS["raven-16bit"](_parameters(torch.float16)).load_state_dict(states["raven-16bit"])


def test_loading_copies_and_does_not_alias():
    source = MAKERS["raven-16bit"](_parameters(torch.bfloat16))
    source.step(_gradients(0), 1e-3)
    state = source.state_dict()
    copy = {name: dict(tensors) for name, tensors in state["state"].items()}
    kept = {key: tensor.clone() for key, tensor in copy["proj.weight"].items()}
    other = MAKERS["raven-16bit"](_parameters(torch.bfloat16))
    other.load_state_dict(state)
    other.step(_gradients(1), 1e-3)
    for key, tensor in kept.items():
        assert torch.equal(state["state"]["proj.weight"][key], tensor)


def test_rounding_noise_follows_the_seed_and_not_the_other_tensors():
    def moment(parameters, seed):
        rule = RavenAdamWRule()
        optimizer = OffloadedOptimizer(parameters, rule, formats=rule.formats("16bit"), seed=seed)
        gradients = {name: _gradients(0)[name] for name in parameters}
        for _ in range(3):
            optimizer.step(gradients, 1e-4)
        return optimizer.state_dict()["state"]["proj.weight"]["exp_avg_sq"]

    everything = _parameters(torch.bfloat16)
    alone = {"proj.weight": _parameters(torch.bfloat16)["proj.weight"]}
    assert torch.equal(moment(everything, 1), moment(alone, 1))
    assert not torch.equal(moment(_parameters(torch.bfloat16), 2), moment(alone, 1))


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
        OffloadedOptimizer(_parameters(torch.bfloat16), RavenAdamWRule(), formats=formats)


@pytest.mark.parametrize("make", [MAKERS["raven-16bit"], MAKERS["adamw"]])
def test_nothing_to_train_is_refused(make):
    with pytest.raises(ValueError, match="no parameters"):
        make({})


@pytest.mark.parametrize("make", [MAKERS["raven-16bit"]])
def test_only_the_common_floats_can_be_trained(make):
    with pytest.raises(ValueError, match="float64"):
        make({"w": nn.Parameter(torch.zeros(3, dtype=torch.float64))})
