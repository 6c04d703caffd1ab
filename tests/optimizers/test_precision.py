from __future__ import annotations

import math

import pytest
import torch

from optimizers.precision import (
    UnrepresentableWeightError,
    decode_state,
    encode_state,
    fill_noise,
    join_fp32,
    largest_magnitude,
    noise_key,
    refuse_unrepresentable,
    split_fp32,
)


def _floats(bits: torch.Tensor) -> torch.Tensor:
    return bits.to(torch.int32).view(torch.float32)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def _encode(values, state_format, key=1, start=0):
    num = values.numel()
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "uint16_sr": torch.int16}
    return encode_state(
        values,
        torch.empty(num, dtype=dtype[state_format]),
        state_format,
        key=key,
        scratch=(torch.empty(num, dtype=torch.int32), torch.empty(num, dtype=torch.int32)),
        start=start,
    )


def _decode(stored, state_format):
    return decode_state(stored, torch.empty(stored.shape), state_format)


LOW_HALVES = (0, 1, 2, 0x1234, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xABCD, 0xFFFE, 0xFFFF)


@pytest.mark.parametrize("low", LOW_HALVES)
def test_split_and_join_are_exact_for_every_high_half(low):
    high = torch.arange(-(2**15), 2**15, dtype=torch.int64)
    values = _floats((high << 16) | low)
    values = values[values.isfinite()]
    assert values.numel() == 2**16 - 2 * 2**7  # all but infinities and NaNs
    assert _same_bits(join_fp32(*split_fp32(values)), values)


def test_split_and_join_are_exact_for_random_bit_patterns():
    generator = torch.Generator().manual_seed(0)
    values = _floats(torch.randint(-(2**31), 2**31, (2_000_000,), generator=generator))
    values = values[values.isfinite()]
    hi, lo = split_fp32(values)
    assert _same_bits(join_fp32(hi, lo), values)
    # hi is the nearest bfloat16: torch's rounding, but for exact ties.
    ties = lo == -(2**15)
    assert torch.equal(hi[~ties], values[~ties].bfloat16())
    assert (hi[ties].float().abs() >= values[ties].abs()).all()


def test_zeros_and_subnormals_keep_their_sign_and_bits():
    values = torch.tensor([0.0, -0.0, 2.0**-149, -(2.0**-149), 2.0**-130, -(2.0**-127)])
    assert _same_bits(join_fp32(*split_fp32(values)), values)


def test_split_and_join_write_where_told_whatever_the_layout():
    values = torch.randn(4, 3, 5, 5)
    hi = torch.zeros(4, 3, 5, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    lo = torch.zeros(4, 3, 5, 5, dtype=torch.int16)
    out = torch.zeros(4, 3, 5, 5)
    scratch = torch.zeros(4, 3, 5, 5, dtype=torch.int32)
    assert split_fp32(values, hi=hi, lo=lo, scratch=scratch)[0] is hi
    assert join_fp32(hi, lo, out=out) is out
    assert torch.equal(out, values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_weight_is_refused_exactly_when_its_parameter_would_be_infinite(dtype):
    limit = {torch.bfloat16: (2 - 2**-8) * 2.0**127, torch.float16: 65520.0}.get(dtype, math.inf)
    first_bad = torch.tensor([limit, 0.0])
    last_good = torch.nextafter(first_bad, torch.zeros(()))
    if dtype == torch.bfloat16:
        assert split_fp32(first_bad)[0][0].isinf()
        assert split_fp32(last_good)[0][0].isfinite()
    else:
        assert first_bad.to(dtype)[0].isinf()
        assert last_good.to(dtype)[0].isfinite()
    refuse_unrepresentable("w", largest_magnitude(last_good).item(), dtype)
    for bad in (first_bad, torch.tensor([math.nan, 1.0]), torch.tensor([1.0, -math.inf])):
        with pytest.raises(UnrepresentableWeightError, match=r"some\.weight"):
            refuse_unrepresentable("some.weight", largest_magnitude(bad).item(), dtype)


def _murmur_finaliser(x: int) -> int:
    x ^= x >> 16
    x = x * 0x85EBCA6B & 0xFFFFFFFF
    x ^= x >> 13
    x = x * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16


def test_noise_is_the_hash_written_out():
    for key in (0, 1, -1, noise_key(42, 7, "exp_avg_sq", "conv_in.weight")):
        noise = torch.empty(50, dtype=torch.int32)
        fill_noise(noise, torch.empty_like(noise), key, start=1000)
        expected = [_murmur_finaliser((1000 + i) ^ (key & 0xFFFFFFFF)) for i in range(50)]
        assert [value & 0xFFFFFFFF for value in noise.tolist()] == expected


def test_noise_does_not_depend_on_chunks_or_their_order():
    values = torch.rand(10_000) + 1e-3
    whole = _encode(values, "uint16_sr", key=99)
    pieces = {
        start: _encode(values[start : start + 1234].clone(), "uint16_sr", key=99, start=start)
        for start in reversed(range(0, 10_000, 1234))
    }
    assert torch.equal(torch.cat([pieces[start] for start in sorted(pieces)]), whole)


def test_noise_differs_between_seeds_steps_planes_and_tensors():
    keys = {
        noise_key(seed, t, plane, name)
        for seed in (0, 1)
        for t in (1, 2)
        for plane in ("exp_avg_sq", "rms")
        for name in ("a", "b")
    }
    assert len(keys) == 16


def test_stochastic_rounding_is_unbiased_and_as_noisy_as_it_must_be():
    value = 1.0 + 0.3 * 2**-8  # three tenths of the way from one code to the next
    decoded = _decode(_encode(torch.full((200_000,), value), "uint16_sr"), "uint16_sr")
    assert set(decoded.tolist()) == {1.0, 1.0 + 2**-8}
    up = (decoded > 1).double().mean().item()
    assert abs(up - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 200_000)


def test_stochastic_rounding_is_unbiased_over_the_whole_range():
    values = torch.exp(torch.empty(500_000).uniform_(-60, 60, generator=torch.Generator()))
    error = _decode(_encode(values, "uint16_sr"), "uint16_sr").double() / values.double() - 1
    assert error.abs().max() <= 2**-8
    assert abs(error.mean().item()) < 5 * error.std().item() / math.sqrt(values.numel())


def test_stochastic_rounding_is_uncorrelated_between_neighbours_steps_and_tensors():
    value = torch.full((200_000,), 1.0 + 0.5 * 2**-8)

    def signs(t: int, name: str) -> torch.Tensor:
        stored = _encode(value, "uint16_sr", key=noise_key(0, t, "exp_avg_sq", name))
        return torch.where(_decode(stored, "uint16_sr") > 1, 1.0, -1.0)

    first = signs(1, "a")
    for other in (first.roll(1), first.roll(64), signs(2, "a"), signs(1, "b")):
        assert abs((first * other).mean().item()) < 5 / math.sqrt(200_000)


def test_stochastic_rounding_keeps_zero_and_never_makes_one():
    tiny = torch.tensor([2.0**-149, 2.0**-140, 2.0**-135, 2.0**-126, 1e-30])
    for key in range(200):
        assert (_decode(_encode(tiny, "uint16_sr", key=key), "uint16_sr") > 0).all()
        assert (_decode(_encode(torch.zeros(5), "uint16_sr", key=key), "uint16_sr") == 0).all()


def test_exactly_representable_values_are_never_moved():
    codes = torch.arange(0, 0xFF00, dtype=torch.int64)  # every finite one
    values = _floats(codes << 15)
    for key in (0, 5):
        stored = _encode(values, "uint16_sr", key=key)
        assert torch.equal(stored.to(torch.int64) & 0xFFFF, codes)
        assert torch.equal(_decode(stored, "uint16_sr"), values)


def test_plain_formats_round_as_torch_does():
    values = torch.randn(1000)
    assert torch.equal(_decode(_encode(values, "float32"), "float32"), values)
    assert torch.equal(_decode(_encode(values, "bfloat16"), "bfloat16"), values.bfloat16().float())
