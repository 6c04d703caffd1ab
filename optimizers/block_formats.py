"""Numbers in one byte: formats whose values share something with their block or with each other.

A block is QUANT_BLOCK neighbours. What they share is in one float32 a block, the scale; some
formats use its 32 bits for integers.

* **Float grid** (second moments; 8 or 10 bits): the float32 pattern of a value, shifted right, less
  the block's base. Like a small float with an exponent range of its own for every block: as fine as
  the span of the block allows, down to a 2048th, and wide enough for values 32 octaves apart.
  Steps are multiples of powers of two, so that values do not move when the base or the shift does.
* **int8** (first moments): sign and magnitude against the largest of the block, companded by
  ``y = (1 + a) x / (1 + a x)``, so that values far below the largest keep some precision.
* **int6** (first moments): against the root of the element's own second moment, which bounds it:
  ``m**2 / v`` is at most ``(1 - beta1)**2 / ((1 - beta2) (1 - beta1**2 / beta2))``. Its two spare
  bits are the low bits of that second moment on the 10-bit grid.

Rounding is dithered: up if the fraction exceeds a threshold that differs between elements and
moves by the golden ratio from step to step. Over any few dozen steps an element's thresholds fill
[0, 1) evenly (a Weyl sequence), so that values follow however slow a drift, as with random
thresholds, but with less noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimizers.chunk import QUANT_BLOCK
from optimizers.precision import fill_noise

GRID_KEY = 0x2545F491
"""Key of the first threshold of each element on the float grid."""
INT8_KEY = 0x1B873593
"""Key of the first threshold of each element in int8."""
INT6_KEY = 0x4CF5AD43
"""Key of the first threshold of each element in int6."""

FINEST_SHIFT = 12
WIDEST_SHIFT = {8: 20, 10: 18}
"""By number of bits, the shift at which 32 octaves fit."""

INT8_LEVELS = 127
INT8_COMPANDING = 8.0
INT8_BEND = INT8_COMPANDING / ((1 + INT8_COMPANDING) * INT8_LEVELS)
INT6_LEVELS = 32
INT6_REACH = 0.75
INT6_TOP = 1.1
"""int6 keeps ``x = INT6_REACH y / (INT6_TOP - y)`` for ``y = code / INT6_LEVELS``, up to 5.5."""

_GOLDEN_RATIO = 0x9E3779B9  # of 2**32
SMALLEST_SCALE = 2.0**-126
"""What is divided by instead of 0."""


def dither_offset(t: int) -> int:
    """Return by how much thresholds, as int32, have moved at step ``t``."""
    offset = t * _GOLDEN_RATIO % 2**32
    return offset - 2**32 if offset >= 2**31 else offset


def _thresholds(out: Tensor, scratch: Tensor, key: int, start: int, t: int) -> Tensor:
    return fill_noise(out, scratch, key, start).add_(dither_offset(t))


def encode_grid(
    values: Tensor, scales: Tensor, bits: int, *, t: int, start: int, scratch: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the codes of ``values`` in the first scratch tensor; write their blocks' scales.

    Args:
        values: float32 (n,), not negative.
        scales: float32 (n / QUANT_BLOCK,).
        bits: 8 or 10.
        t: Number of the step.
        start: Place of the first value in its unit.
        scratch: Two int32 work spaces (n,).
    """
    most = 2**bits - 2
    codes, spare = (part.view(-1, QUANT_BLOCK) for part in scratch)
    _thresholds(*scratch, GRID_KEY, start, t)
    patterns = values.view(torch.int32).view(-1, QUANT_BLOCK)
    largest = patterns.amax(dim=1, keepdim=True)
    # Of those that are not zero: 0 becomes the largest integer here.
    torch.sub(patterns, 1, out=spare).bitwise_and_(0x7FFFFFFF)
    smallest = torch.minimum(spare.amin(dim=1, keepdim=True), largest)
    shift = torch.full_like(largest, FINEST_SHIFT)
    for finer in range(FINEST_SHIFT, WIDEST_SHIFT[bits]):
        shift += (largest >> finer) - (smallest >> finer) + 1 > most
    base = ((largest >> shift) + 1 - most).clamp_(min=0)
    scales.view(torch.int32).copy_((base << 5 | shift).view(-1))
    mask = torch.bitwise_left_shift(torch.ones_like(shift), shift).sub_(1)
    codes.bitwise_right_shift_(32 - shift).bitwise_and_(mask)
    codes.add_(patterns).bitwise_right_shift_(shift).sub_(base - 1).clamp_(1, most + 1)
    codes.mul_(torch.clamp(patterns, max=1, out=spare))  # 0 is 0, and nothing else is
    return scratch[0]


def decode_grid(codes: Tensor, scales: Tensor, out: Tensor) -> Tensor:
    """Write to ``out`` what `encode_grid` made ``codes`` of, rounded.

    Args:
        codes: int32 (n,); overwritten.
        scales: float32 (n / QUANT_BLOCK,).
        out: float32 (n,).
    """
    shared = scales.view(torch.int32).unsqueeze(1)
    patterns = out.view(torch.int32).view(-1, QUANT_BLOCK)
    patterns.copy_(codes.view(-1, QUANT_BLOCK)).add_((shared >> 5) - 1)
    patterns.bitwise_left_shift_(shared & 31).clamp_(min=1)
    patterns.mul_(codes.clamp_(max=1).view(-1, QUANT_BLOCK))
    return out


def encode_int8(
    values: Tensor,
    scales: Tensor,
    out: Tensor,
    *,
    t: int,
    start: int,
    scratch: tuple[Tensor, Tensor],
) -> None:
    """Write the codes of ``values`` to ``out``, the largest magnitude of each block to ``scales``.

    Args:
        values: float32 (n,); overwritten.
        scales: float32 (n / QUANT_BLOCK,).
        out: int8 (n,).
        t: Number of the step.
        start: Place of the first value in its unit.
        scratch: Two int32 work spaces (n,).
    """
    rows = values.view(-1, QUANT_BLOCK)
    scales.copy_(torch.linalg.vector_norm(rows, ord=torch.inf, dim=1))
    companded, spare = (part.view(torch.float32).view(-1, QUANT_BLOCK) for part in scratch)
    _thresholds(*scratch, INT8_KEY, start, t).bitwise_right_shift_(16).bitwise_and_(0xFFFF)
    thresholds = spare.copy_(scratch[0].view(-1, QUANT_BLOCK)).mul_(2.0**-16)
    torch.div(rows, scales.clamp(min=SMALLEST_SCALE).unsqueeze(1), out=companded)
    out.copy_(torch.sign(companded, out=rows).view(-1))
    denominator = torch.abs(companded, out=rows).mul_(INT8_COMPANDING).add_(1.0)
    companded.abs_().mul_(INT8_LEVELS * (1 + INT8_COMPANDING)).div_(denominator)
    # With b = INT8_BEND, a code c stands for c / (1 - b c), times a constant; so c + f is
    # f (1 - b (c + 1)) / (1 - b (c + f)) of the way from c to c + 1.
    thresholds.addcmul_(thresholds, companded, value=-INT8_BEND)
    codes = torch.floor(companded, out=rows)
    fraction = companded.sub_(codes)
    below = 1 - INT8_BEND
    fraction.addcmul_(fraction, codes, value=-INT8_BEND / below).mul_(below)
    codes.add_(fraction.sub_(thresholds).sign_().clamp_(min=0)).clamp_(max=INT8_LEVELS)
    out.copy_(codes.view(-1).mul_(out))


def decode_int8(codes: Tensor, scales: Tensor, out: Tensor, scratch: Tensor) -> Tensor:
    """Write to ``out`` what `encode_int8` made ``codes`` of, rounded.

    Args:
        codes: int8 (n,).
        scales: float32 (n / QUANT_BLOCK,).
        out: float32 (n,).
        scratch: float32 (n,).
    """
    out.copy_(codes)
    below = torch.abs(out, out=scratch).mul_(-INT8_BEND).add_(1.0)
    out.div_(below).mul_(1 / (INT8_LEVELS * (1 + INT8_COMPANDING)))
    out.view(-1, QUANT_BLOCK).mul_(scales.unsqueeze(1))
    return out


def encode_int6(
    values: Tensor,
    roots: Tensor,
    out: Tensor,
    *,
    t: int,
    start: int,
    scratch: tuple[Tensor, Tensor],
) -> None:
    """Add the codes of ``values`` to ``out``, and leave in ``values`` what rounding took from them.

    Args:
        values: float32 (n,); overwritten.
        roots: float32 (n,), from `roots_of` the second moment as it is kept.
        out: int8 (n,); holds the low bits of the second moment's codes, from 0 to 3.
        t: Number of the step.
        start: Place of the first value in its unit.
        scratch: Two int32 work spaces (n,).
    """
    codes, spare = (part.view(torch.float32) for part in scratch)
    _thresholds(*scratch, INT6_KEY, start, t).bitwise_right_shift_(16).bitwise_and_(0xFFFF)
    spare.copy_(scratch[0]).mul_(2.0**-16)
    torch.div(values, roots, out=codes).abs_().add_(INT6_REACH).reciprocal_()
    codes.mul_(-INT6_LEVELS * INT6_TOP * INT6_REACH).add_(INT6_LEVELS * INT6_TOP)
    codes.add_(spare).floor_().clamp_(max=INT6_LEVELS - 1).copysign_(values)
    out.copy_(scratch[1].copy_(codes).mul_(4).add_(out))
    values.sub_(_expand_int6(codes, spare).mul_(roots))


def decode_int6(
    codes: Tensor, roots: Tensor, out: Tensor, *, scratch: tuple[Tensor, Tensor]
) -> Tensor:
    """Write to ``out`` what `encode_int6` made ``codes`` of, rounded.

    Args:
        codes: int8 (n,).
        roots: float32 (n,), from `roots_of` the second moment as it is kept.
        out: float32 (n,).
        scratch: Two int32 work spaces (n,).
    """
    out.copy_(scratch[0].copy_(codes).bitwise_right_shift_(2))
    return _expand_int6(out, scratch[0].view(torch.float32)).mul_(roots)


def roots_of(second_moment: Tensor, out: Tensor) -> Tensor:
    """Write to ``out`` the roots of ``second_moment``, made divisible by, and return it."""
    return torch.sqrt(second_moment, out=out).clamp_(min=SMALLEST_SCALE)


def _expand_int6(codes: Tensor, scratch: Tensor) -> Tensor:
    """Replace codes, as float32, by the ratios they stand for."""
    below = torch.abs(codes, out=scratch).neg_().add_(INT6_LEVELS * INT6_TOP)
    return codes.mul_(INT6_REACH).div_(below)
