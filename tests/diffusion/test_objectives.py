from __future__ import annotations

import pytest
import torch

from aozora.config.choices.predictions import (
    PREDICTIONS,
    AutoPrediction,
    Epsilon,
    Flow,
    VPrediction,
)
from aozora.config.flow_shift import flow_timestep
from aozora.diffusion.objectives import OBJECTIVES, make_objective, noise_share
from aozora.diffusion.schedule import sdxl_schedule
from aozora.errors import ConfigError

EPS = make_objective(Epsilon(), zero_terminal_snr=False)
V = make_objective(VPrediction(), zero_terminal_snr=False)
V_ZT = make_objective(VPrediction(), zero_terminal_snr=True)
FLOW = make_objective(Flow(), zero_terminal_snr=False)
FLOW_FLAT = make_objective(Flow(shift=1.0, resolution_shift=False), zero_terminal_snr=False)
SETTLED = {"eps": EPS, "v": V, "v_zt": V_ZT, "flow": FLOW, "flow_flat": FLOW_FLAT}

ALL = torch.arange(1000)


def draw(count=1000, channels=4, side=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, side, side)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def scheduler_with(objective, prediction_type):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
    )
    scheduler.alphas_cumprod = objective.schedule.alphas_cumprod
    return scheduler


def column(values):
    return values.view(-1, 1, 1, 1)


def test_every_prediction_but_auto_has_its_objective():
    assert {*OBJECTIVES, AutoPrediction} == set(PREDICTIONS.classes())
    for cls, name in ((Epsilon, "epsilon"), (VPrediction, "v_prediction"), (Flow, "flow")):
        assert make_objective(cls(), zero_terminal_snr=False).prediction == name


@pytest.mark.parametrize("prediction", [Epsilon(), Flow()])
def test_zero_terminal_snr_is_refused_where_it_cannot_be(prediction):
    with pytest.raises(ConfigError) as caught:
        make_objective(prediction, zero_terminal_snr=True)
    (problem,) = caught.value.problems
    assert problem.path == "objective.zero_terminal_snr"
    assert problem.remedy


@pytest.mark.parametrize("name", SETTLED)
def test_exact_prediction_gives_the_picture_back_at_every_timestep(name):
    objective = SETTLED[name]
    latents, noise = draw()
    timesteps = objective.model_timesteps(ALL, 1024, 1024)
    noisy = objective.noise_latents(latents, noise, timesteps)
    target = objective.target(latents, noise, timesteps)
    found = objective.clean_latents(noisy, target, timesteps)
    assert (found - latents).abs().max() < 1e-4


@pytest.mark.parametrize("objective", [V, V_ZT])
def test_v_follows_its_closed_form_at_every_timestep(objective):
    latents, noise = draw()
    a = objective.schedule.alphas_cumprod.double()
    signal, sigma = column(a.sqrt()), column((1 - a).sqrt())
    noisy = signal * latents.double() + sigma * noise.double()
    target = signal * noise.double() - sigma * latents.double()
    assert torch.allclose(
        objective.noise_latents(latents, noise, ALL).double(), noisy, rtol=0, atol=2e-6
    )
    assert torch.allclose(objective.target(latents, noise, ALL).double(), target, rtol=0, atol=2e-6)
    assert torch.allclose(objective.snr(ALL).double(), a / (1 - a), rtol=4e-5, atol=0)


def test_epsilon_target_is_the_noise_itself():
    latents, noise = draw()
    assert torch.equal(EPS.target(latents, noise, ALL), noise)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_follows_its_closed_form_at_every_timestep(shift):
    objective = make_objective(Flow(shift=shift), zero_terminal_snr=False)
    latents, noise = draw()
    timesteps = objective.model_timesteps(ALL, 1024, 1024)
    u = (ALL.double() + 0.5) / 1000
    u = shift * u / (1 + (shift - 1) * u)
    assert torch.allclose(timesteps.double(), 1000 * u, rtol=1e-7, atol=0)
    noisy = (1 - column(u)) * latents.double() + column(u) * noise.double()
    assert torch.allclose(
        objective.noise_latents(latents, noise, timesteps).double(), noisy, rtol=0, atol=1e-6
    )
    assert torch.equal(objective.target(latents, noise, timesteps), noise - latents)
    snr = ((1 - u) / u) ** 2
    assert torch.allclose(objective.snr(timesteps).double(), snr, rtol=1e-3, atol=0)


def test_flow_noises_as_diffusers_does():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    latents, noise = draw(8)
    timesteps = scheduler.timesteps[::125]
    ours = FLOW.noise_latents(latents, noise, timesteps)
    assert torch.allclose(ours, scheduler.scale_noise(latents, timesteps, noise), atol=1e-6)


@pytest.mark.parametrize(("objective", "kind"), [(EPS, "epsilon"), (V, "v_prediction")])
def test_bits_are_those_of_diffusers_with_the_same_table(objective, kind):
    scheduler = scheduler_with(objective, kind)
    latents, noise = draw()
    assert torch.equal(
        objective.noise_latents(latents, noise, ALL), scheduler.add_noise(latents, noise, ALL)
    )
    if kind == "v_prediction":
        assert torch.equal(
            objective.target(latents, noise, ALL), scheduler.get_velocity(latents, noise, ALL)
        )
    for t in range(0, 1000, 37):
        one = slice(t, t + 1)
        assert torch.equal(
            objective.noise_latents(latents[one], noise[one], ALL[one]),
            scheduler.add_noise(latents[one], noise[one], ALL[one]),
        )


def test_last_step_of_zero_terminal_snr_is_noise_and_its_target_minus_the_picture():
    latents, noise = draw(5)
    last = torch.full((5,), 999)
    assert torch.equal(V_ZT.noise_latents(latents, noise, last), noise)
    assert torch.equal(V_ZT.target(latents, noise, last), -latents)
    assert torch.equal(V_ZT.clean_latents(noise, -latents, last), latents)
    assert not torch.equal(V.noise_latents(latents, noise, last), noise)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["eps", "v", "flow"])
def test_coefficients_are_float32_whatever_the_type_of_the_latents(name, dtype):
    objective = SETTLED[name]
    latents, noise = (tensor.to(dtype) for tensor in draw(20))
    timesteps = objective.model_timesteps(torch.arange(20), 1024, 1024)
    for function in (objective.noise_latents, objective.target):
        full = function(latents.float(), noise.float(), timesteps)
        assert torch.equal(function(latents, noise, timesteps).float(), full)
    # In bfloat16 tables the first timesteps would hold no noise at all.
    noisy = objective.noise_latents(latents, noise, timesteps)
    assert noisy.dtype == torch.float32
    assert (noisy[0] - latents[0].float()).abs().max() > 1e-3 * noise[0].abs().max()


def test_error_of_a_prediction_is_the_error_of_the_picture_times_a_known_factor():
    latents, noise = draw()
    for objective in SETTLED.values():
        timesteps = objective.model_timesteps(ALL, 1024, 1024)
        noisy = objective.noise_latents(latents, noise, timesteps).double()
        target = objective.target(latents, noise, timesteps).double()
        off = target + 0.1 * draw(seed=1)[0].double()
        picture = objective.clean_latents(noisy, off, timesteps) - objective.clean_latents(
            noisy, target, timesteps
        )
        snr = objective.snr(timesteps).double()
        factor = {
            "epsilon": snr,
            "v_prediction": snr + 1,
            "flow": noise_share(timesteps).double() ** -2,
        }[objective.prediction]
        ratio = (off - target).square().sum((1, 2, 3)) / picture.square().sum((1, 2, 3))
        assert torch.allclose(ratio, factor, rtol=1e-4)


def test_epsilon_and_v_give_the_unet_the_ticket_itself():
    for objective in (EPS, V, V_ZT):
        assert torch.equal(objective.model_timesteps(ALL, 768, 1344), ALL)


def test_flow_shifts_more_for_larger_pictures():
    tickets = torch.tensor([0, 500, 999])
    small = FLOW.model_timesteps(tickets, 768, 768)
    large = FLOW.model_timesteps(tickets, 1536, 1536)
    assert bool((small < large).all())
    assert large.tolist() == pytest.approx([flow_timestep(t, 4.5) for t in (0, 500, 999)])
    assert torch.equal(
        FLOW_FLAT.model_timesteps(tickets, 1536, 1536), torch.tensor([0.5, 500.5, 999.5])
    )


@pytest.mark.parametrize(
    "timesteps", [torch.tensor(3), torch.tensor([3.0]), torch.tensor([[3]]), torch.tensor([3, 3])]
)
def test_timesteps_of_another_form_are_refused(timesteps):
    latents, noise = draw(1)
    with pytest.raises(ValueError, match="timesteps"):
        V.noise_latents(latents, noise, timesteps)


def test_schedules_do_not_share_their_tables():
    assert sdxl_schedule(zero_terminal_snr=True).zero_terminal_snr
    assert not V.schedule.zero_terminal_snr
    assert not torch.equal(V.schedule.snr, V_ZT.schedule.snr)
