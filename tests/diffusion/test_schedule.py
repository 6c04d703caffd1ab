from __future__ import annotations

import numpy as np
import pytest
import torch

from aozora.diffusion.schedule import sdxl_schedule


def exact(zero_terminal_snr):
    """Return alphas_cumprod in float64, written out once more, one timestep after the other."""
    table, product = [], 1.0
    for i in range(1000):
        root = 0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / 999
        product *= 1.0 - root * root
        table.append(product)
    if zero_terminal_snr:
        roots = [value**0.5 for value in table]
        scale = roots[0] / (roots[0] - roots[-1])
        table = [((root - roots[-1]) * scale) ** 2 for root in roots]
    return np.array(table)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_all_tables_follow_from_the_closed_form(zero_terminal_snr):
    schedule = sdxl_schedule(zero_terminal_snr)
    a = exact(zero_terminal_snr)
    for table, expected, rel in (
        (schedule.alphas_cumprod, a, 1e-7),
        (schedule.sqrt_alphas_cumprod, np.sqrt(a), 1e-7),
        # 1 - a is taken of float32, which costs the first timesteps four digits of seven.
        (schedule.sqrt_one_minus_alphas_cumprod, np.sqrt(1 - a), 3e-5),
        (schedule.snr, a / (1 - a), 1e-7),
    ):
        assert table.dtype == torch.float32
        assert table.shape == (1000,)
        np.testing.assert_allclose(table.double().numpy(), expected, rtol=rel, atol=0)


def test_golden_numbers_of_the_sdxl_schedule():
    schedule = sdxl_schedule(zero_terminal_snr=False)
    sigma = (1 / schedule.snr.double()).sqrt()
    assert sigma[0].item() == pytest.approx(0.0291672, rel=2e-6)
    assert sigma[999].item() == pytest.approx(14.614641, rel=1e-7)
    assert schedule.alphas_cumprod[999].item() == pytest.approx(0.004660099, rel=1e-6)
    assert schedule.sqrt_alphas_cumprod[999].item() == pytest.approx(0.068265, rel=1e-5)
    golden = {0: 1175.47, 10: 103.5, 50: 19.65, 100: 8.454, 250: 2.066, 500: 0.38185}
    golden |= {750: 0.05951, 900: 0.014354, 999: 0.00468192}
    for t, snr in golden.items():
        assert schedule.snr[t].item() == pytest.approx(snr, rel=5e-4)
    assert int((schedule.snr >= 5).sum()) == pytest.approx(147, abs=1)
    assert int((schedule.snr >= 1).sum()) == pytest.approx(354, abs=1)


def test_golden_numbers_of_zero_terminal_snr():
    schedule = sdxl_schedule(zero_terminal_snr=True)
    golden = {500: 0.241019, 750: 0.0327991, 900: 0.00296039, 990: 1.65304e-5, 998: 1.96789e-7}
    for t, value in golden.items():
        assert schedule.alphas_cumprod[t].item() == pytest.approx(value, rel=4e-6)
    assert (1 / schedule.snr[998].double()).sqrt().item() == pytest.approx(2254.24, rel=1e-5)
    assert schedule.alphas_cumprod[0] == sdxl_schedule(zero_terminal_snr=False).alphas_cumprod[0]


def test_last_timestep_of_zero_terminal_snr_is_exactly_noise_in_every_table():
    schedule = sdxl_schedule(zero_terminal_snr=True)
    assert schedule.alphas_cumprod[999] == 0
    assert schedule.sqrt_alphas_cumprod[999] == 0
    assert schedule.sqrt_one_minus_alphas_cumprod[999] == 1
    assert schedule.snr[999] == 0
    assert bool((schedule.alphas_cumprod[:999] > 0).all())
    assert bool((schedule.alphas_cumprod.diff() < 0).all())


def test_snr_is_that_of_the_rescaled_schedule_and_not_of_the_one_before():
    before, after = sdxl_schedule(zero_terminal_snr=False), sdxl_schedule(zero_terminal_snr=True)
    rebuilt = after.alphas_cumprod.double() / (1 - after.alphas_cumprod.double())
    assert torch.allclose(after.snr.double(), rebuilt, rtol=4e-5, atol=0)
    assert bool((after.snr[1:] < before.snr[1:]).all())
    assert bool(torch.isfinite(after.snr).all())


def test_schedule_is_copied_to_a_device_once():
    schedule = sdxl_schedule(zero_terminal_snr=True)
    assert schedule.to(torch.device("cpu")) is schedule
    moved = schedule.to(torch.device("meta"))
    assert moved is schedule.to(torch.device("meta"))
    assert moved.zero_terminal_snr
    tables = (
        moved.alphas_cumprod,
        moved.sqrt_alphas_cumprod,
        moved.sqrt_one_minus_alphas_cumprod,
        moved.snr,
    )
    assert {table.device.type for table in tables} == {"meta"}


def test_tables_agree_with_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    schedule = sdxl_schedule(zero_terminal_snr=False)
    # diffusers computes in float32, which is where the difference comes from.
    assert torch.allclose(schedule.alphas_cumprod, scheduler.alphas_cumprod, rtol=2e-6, atol=0)
    rescaled = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
    )
    ours = sdxl_schedule(zero_terminal_snr=True).alphas_cumprod
    assert torch.allclose(ours[:998], rescaled.alphas_cumprod[:998], rtol=1e-3, atol=0)
