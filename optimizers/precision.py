"""Numbers in fewer bits: exact float32 weights in two halves, 16-bit states that never get stuck.

A float32 weight is kept as ``hi``, the nearest bfloat16, which is what the model computes with, and
``lo``, the 16 low bits of the float32 pattern. Together they are the float32 value, bit for bit.

An optimizer state may be kept in one of these formats:

* ``float32``: as it is.
* ``bfloat16``: rounded to nearest. Right for a first moment, which moves by several percent a step;
  a slow second moment would never move again, since its change a step is below half a unit in the
  last place.
* ``uint16_sr``: bits 30 to 15 of the float32 pattern (8 bits of exponent, 8 of mantissa), rounded
  stochastically, so that the mean follows the float32 recurrence however slow it is. For values
  that are never negative. Codes are kept in an int16 tensor, whose sign bit is their highest bit.
* ``int8``, ``uint8``, and the pair of ``int6`` and ``uint10``, whose 16 bits are kept in two bytes:
  see `optimizers.block_formats`.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import torch
from torch import Tensor

StateFormat = Literal["float32", "bfloat16", "uint16_sr", "int8", "uint8", "int6", "uint10"]

STORAGE_DTYPES: dict[StateFormat, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "uint16_sr": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int6": torch.int8,
    "uint10": torch.uint8,
}

BLOCK_FORMATS: frozenset[StateFormat] = frozenset({"int8", "uint8", "uint10"})
"""Formats that need a scale for every block of values."""

# The smallest magnitudes that become infinite in a dtype (in bfloat16: by split_fp32's rounding).
_FIRST_OVERFLOW: dict[torch.dtype, float] = {
    torch.bfloat16: (2 - 2**-8) * 2.0**127,
    torch.float16: 65520.0,
    torch.float32: math.inf,
}


class UnrepresentableWeightError(ValueError):
    """A weight that is not finite, or that would be infinite in the dtype of its parameter.

    Args:
        name: The tensor it belongs to.
        largest: Largest magnitude in that tensor.
        dtype: Dtype of the parameter.
    """

    def __init__(self, name: str, largest: float, dtype: torch.dtype) -> None:
        super().__init__(f"{name}: largest magnitude {largest:g} cannot be held in {dtype}")
        self.name = name
        self.largest = largest


def largest_magnitude(values: Tensor) -> Tensor:
    """Return max abs of ``values`` as a 0-dim tensor; NaN if any value is NaN."""
    largest: Tensor = torch.linalg.vector_norm(values, ord=math.inf)
    return largest


def refuse_unrepresentable(name: str, largest: float, dtype: torch.dtype) -> None:
    """Refuse a tensor whose `largest_magnitude` does not fit a parameter of ``dtype``.

    Raises:
        UnrepresentableWeightError: naming the tensor.
    """
    if not largest < _FIRST_OVERFLOW[dtype]:  # also true for NaN
        raise UnrepresentableWeightError(name, largest, dtype)


def split_fp32(
    values: Tensor,
    hi: Tensor | None = None,
    lo: Tensor | None = None,
    scratch: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Split float32 ``values`` into the nearest bfloat16 (ties away from zero) and the 16 low bits.

    Exact for all finite values; ``hi`` is infinite where `refuse_unrepresentable` refuses.

    Args:
        values: float32, any shape; read only.
        hi: Where to write the bfloat16 half; allocated if None.
        lo: Where to write the int16 half; allocated if None.
        scratch: int32 work space of the same shape; allocated if None.
    """
    bits = values.view(torch.int32)
    hi = torch.empty_like(values, dtype=torch.bfloat16) if hi is None else hi
    lo = torch.empty_like(values, dtype=torch.int16) if lo is None else lo
    rounded = torch.add(bits, 0x8000, out=scratch).bitwise_right_shift_(16)
    hi.view(torch.int16).copy_(rounded)
    lo.copy_(bits)  # a narrowing integer copy keeps the low bits
    return hi, lo


def join_fp32(hi: Tensor, lo: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the float32 values that `split_fp32` split.

    Where it rounded up, the highest bit of ``lo`` is set; read as a signed number, ``lo`` then
    takes back exactly what the rounding added, so the pattern is a plain sum.

    Args:
        hi: bfloat16 half.
        lo: int16 half, same shape.
        out: float32 tensor to write to; allocated if None.
    """
    out = torch.empty_like(hi, dtype=torch.float32) if out is None else out
    bits = out.view(torch.int32)
    bits.copy_(hi.view(torch.int16)).bitwise_left_shift_(16).add_(lo)
    return out


def noise_key(seed: int, t: int, plane: str, name: str) -> int:
    """Return the 32-bit key of the rounding noise of one state of one tensor at one step.

    Made from names, not positions, so it does not depend on which other tensors are trained.
    """
    text = f"{seed}:{t}:{plane}:{name}"
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little", signed=True)


def fill_noise(out: Tensor, scratch: Tensor, key: int, start: int = 0) -> Tensor:
    """Fill ``out`` with random bits: a hash of ``key`` and the index of each element.

    Every element has its own counter, so chunks may be made in any order and on any device.

    Args:
        out: int32, 1-D, contiguous.
        scratch: int32 work space of the same shape.
        key: From `noise_key`.
        start: Index of the first element within its tensor.
    """
    torch.arange(start, start + out.numel(), out=out)
    out.bitwise_xor_(key)
    # Murmur3's finaliser, in int32: shifts are made logical by a mask, products wrap.
    _xor_shifted(out, scratch, 16)
    out.mul_(0x85EBCA6B - 2**32)
    _xor_shifted(out, scratch, 13)
    out.mul_(0xC2B2AE35 - 2**32)
    return _xor_shifted(out, scratch, 16)


def _xor_shifted(bits: Tensor, scratch: Tensor, shift: int) -> Tensor:
    torch.bitwise_right_shift(bits, shift, out=scratch)
    scratch.bitwise_and_((1 << (32 - shift)) - 1)
    return bits.bitwise_xor_(scratch)


def decode_state(stored: Tensor, out: Tensor, state_format: StateFormat) -> Tensor:
    """Write the float32 values of ``stored`` to ``out`` and return it; not for one-byte formats."""
    assert STORAGE_DTYPES[state_format].itemsize > 1
    if state_format != "uint16_sr":
        return out.copy_(stored)
    bits = out.view(torch.int32)
    bits.copy_(stored).bitwise_and_(0xFFFF).bitwise_left_shift_(15)
    return out


def encode_state(
    values: Tensor,
    out: Tensor,
    state_format: StateFormat,
    *,
    key: int,
    scratch: tuple[Tensor, Tensor],
    start: int = 0,
) -> Tensor:
    """Write float32 ``values`` to ``out`` in ``state_format`` and return it; not for one byte.

    Args:
        values: float32, 1-D, contiguous; not negative for ``uint16_sr``.
        out: Of the dtype that `STORAGE_DTYPES` gives, same shape.
        state_format: How to keep them.
        key: From `noise_key`; used by stochastic rounding only.
        scratch: Two int32 work spaces of the same shape; used by stochastic rounding only.
        start: Index of the first element within its tensor.
    """
    assert STORAGE_DTYPES[state_format].itemsize > 1
    if state_format != "uint16_sr":
        return out.copy_(values)
    bits = values.view(torch.int32)
    codes = fill_noise(*scratch, key, start)
    codes.bitwise_and_(0x7FFF).add_(bits).bitwise_right_shift_(15)
    # Never 0 for a value that is not: an update is divided by the root of it.
    smallest = torch.clamp(bits, max=1, out=scratch[1])
    return out.copy_(torch.maximum(codes, smallest, out=codes))
