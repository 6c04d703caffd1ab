"""The fused chunk update as a Triton kernel; imported only where Triton is installed.

The order of operations is that of the rules' own ``update``; see `optimizers.chunk_update` for
what is computed, and `optimizers.triton_update` for the arguments.
"""

# Triton has no types, and its functions take tensors, pointers and numbers that Python never sees.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202

import triton
import triton.language as tl

from optimizers import block_formats
from optimizers.chunk import QUANT_BLOCK

FLOAT32 = tl.constexpr(0)
BFLOAT16 = tl.constexpr(1)
UINT16_SR = tl.constexpr(2)
INT8 = tl.constexpr(3)
UINT8 = tl.constexpr(4)
INT6 = tl.constexpr(5)
UINT10 = tl.constexpr(6)

EXACT = tl.constexpr(0)  # a float32 weight
LOW_BITS = tl.constexpr(1)  # a bfloat16 weight with an int16 master
FLOAT32_MASTER = tl.constexpr(2)  # a float16 weight with a float32 master

RAVEN_ADAMW = tl.constexpr(0)
VELO_RMS = tl.constexpr(1)
LION = tl.constexpr(2)

COLUMNS = tl.constexpr(QUANT_BLOCK)
GRID_KEY = tl.constexpr(block_formats.GRID_KEY)
INT8_KEY = tl.constexpr(block_formats.INT8_KEY)
INT6_KEY = tl.constexpr(block_formats.INT6_KEY)
FINEST_SHIFT = tl.constexpr(block_formats.FINEST_SHIFT)
WIDEST_SHIFT_8 = tl.constexpr(block_formats.WIDEST_SHIFT[8])
WIDEST_SHIFT_10 = tl.constexpr(block_formats.WIDEST_SHIFT[10])
COMPANDING = tl.constexpr(block_formats.INT8_COMPANDING)
INT8_LEVELS = tl.constexpr(float(block_formats.INT8_LEVELS))
INT8_BEND = tl.constexpr(block_formats.INT8_BEND)
LEVELS = tl.constexpr(block_formats.INT6_LEVELS)
REACH = tl.constexpr(block_formats.INT6_REACH)
TOP = tl.constexpr(block_formats.INT6_TOP)
SMALLEST_SCALE = tl.constexpr(block_formats.SMALLEST_SCALE)


@triton.jit
def _noise(index, key):
    """The hash of `optimizers.precision.fill_noise`, as uint32."""
    bits = (index ^ key).to(tl.uint32, bitcast=True)
    bits = bits ^ (bits >> 16)
    bits = bits * 0x85EBCA6B
    bits = bits ^ (bits >> 13)
    bits = bits * 0xC2B2AE35
    return bits ^ (bits >> 16)


@triton.jit
def _thresholds(index, key, dither):
    moved = _noise(index, key).to(tl.int32, bitcast=True) + dither
    return moved.to(tl.uint32, bitcast=True)


@triton.jit
def _fractions(index, key, dither):
    """Return the thresholds' high halves as float32 in [0, 1), exactly."""
    high = (_thresholds(index, key, dither) >> 16).to(tl.int32, bitcast=True)
    return high.to(tl.float32) * (1 / 65536)


@triton.jit
def _decode_grid(codes, scales, rows, row_mask):
    shared = tl.load(scales + rows, mask=row_mask, other=0)[:, None]
    patterns = tl.maximum((codes + ((shared >> 5) - 1)) << (shared & 31), 1)
    return (patterns * tl.minimum(codes, 1)).to(tl.float32, bitcast=True)


@triton.jit
def _encode_grid(
    state, scales, rows, row_mask, index, dither, MOST: tl.constexpr, WIDEST_SHIFT: tl.constexpr
):
    """Return the codes and the values that they stand for."""
    patterns = state.to(tl.int32, bitcast=True)
    largest = tl.max(patterns, axis=1)
    smallest = tl.minimum(tl.min((patterns - 1) & 0x7FFFFFFF, axis=1), largest)
    shift = tl.zeros_like(largest) + FINEST_SHIFT
    for finer in tl.static_range(FINEST_SHIFT, WIDEST_SHIFT):
        shift += ((largest >> finer) - (smallest >> finer) + 1 > MOST).to(tl.int32)
    base = tl.maximum((largest >> shift) + 1 - MOST, 0)
    tl.store(scales + rows, (base << 5) | shift, mask=row_mask)
    shift = shift[:, None]
    before_base = base[:, None] - 1
    noise = _thresholds(index, GRID_KEY, dither) >> (32 - shift).to(tl.uint32)
    codes = ((noise.to(tl.int32, bitcast=True) + patterns) >> shift) - before_base
    is_more = tl.minimum(patterns, 1)
    codes = tl.minimum(tl.maximum(codes, 1), MOST + 1) * is_more
    kept = tl.maximum((codes + before_base) << shift, 1) * is_more
    return codes, kept.to(tl.float32, bitcast=True)


@triton.jit
def _decode(values, scales, offsets, mask, rows, row_mask, FORMAT: tl.constexpr):
    stored = tl.load(values + offsets, mask=mask, other=0)
    if FORMAT == UINT16_SR:
        decoded = ((stored.to(tl.int32) & 0xFFFF) << 15).to(tl.float32, bitcast=True)
    elif FORMAT == INT8:
        largest = tl.load(scales + rows, mask=row_mask, other=0.0)[:, None]
        codes = stored.to(tl.float32)
        relative = tl.div_rn(codes, 1.0 - INT8_BEND * tl.abs(codes))
        decoded = relative * (1 / (INT8_LEVELS * (1 + COMPANDING))) * largest
    elif FORMAT == UINT8:
        decoded = _decode_grid(stored.to(tl.int32), scales, rows, row_mask)
    else:
        decoded = stored.to(tl.float32)
    return decoded


@triton.jit
def _encode(
    state, values, scales, offsets, mask, rows, row_mask, index, key, dither, FORMAT: tl.constexpr
):
    if FORMAT == UINT16_SR:
        bits = state.to(tl.int32, bitcast=True)
        noise = _noise(index, key).to(tl.int32, bitcast=True)
        codes = ((noise & 0x7FFF) + bits) >> 15
        codes = tl.maximum(codes, tl.minimum(bits, 1))
        tl.store(values + offsets, codes.to(tl.int16), mask=mask)
    elif FORMAT == INT8:
        largest = tl.max(tl.abs(state), axis=1)
        tl.store(scales + rows, largest, mask=row_mask)
        threshold = _fractions(index, INT8_KEY, dither)
        scale = tl.maximum(largest, SMALLEST_SCALE)[:, None]
        relative = tl.div_rn(tl.abs(state), tl.broadcast_to(scale, state.shape))
        companded = tl.div_rn(
            relative * (INT8_LEVELS * (1 + COMPANDING)), relative * COMPANDING + 1.0
        )
        codes = tl.floor(companded)
        share = (companded - codes) * (1.0 - INT8_BEND * (codes + 1.0))
        codes += (share > threshold * (1.0 - INT8_BEND * companded)).to(tl.float32)
        codes = tl.minimum(codes, INT8_LEVELS)
        codes = tl.where(state < 0, -codes, codes)
        tl.store(values + offsets, codes.to(tl.int8), mask=mask)
    elif FORMAT == UINT8:
        codes, _ = _encode_grid(state, scales, rows, row_mask, index, dither, 254, WIDEST_SHIFT_8)
        tl.store(values + offsets, codes.to(tl.uint8), mask=mask)
    elif FORMAT == BFLOAT16:
        tl.store(values + offsets, state.to(tl.bfloat16), mask=mask)
    else:
        tl.store(values + offsets, state, mask=mask)


@triton.jit
def _expand_int6(codes):
    return tl.div_rn(codes * REACH, LEVELS * TOP - tl.abs(codes))


@triton.jit
def _decode_pair(low_values, high_values, scales, offsets, mask, rows, row_mask):
    """Return the first moment, in int6, and the second, in uint10."""
    low = tl.load(low_values + offsets, mask=mask, other=0).to(tl.int32)
    high = tl.load(high_values + offsets, mask=mask, other=0).to(tl.int32)
    second = _decode_grid((high << 2) + (low & 3), scales, rows, row_mask)
    roots = tl.maximum(tl.sqrt_rn(second), SMALLEST_SCALE)
    return _expand_int6((low >> 2).to(tl.float32)) * roots, second


@triton.jit
def _encode_pair(
    first, second, low_values, high_values, scales, offsets, mask, rows, row_mask, index, dither
):
    """Return what rounding took from the first moment."""
    codes, kept = _encode_grid(second, scales, rows, row_mask, index, dither, 1022, WIDEST_SHIFT_10)
    tl.store(high_values + offsets, (codes >> 2).to(tl.uint8), mask=mask)
    roots = tl.maximum(tl.sqrt_rn(kept), SMALLEST_SCALE)
    relative = tl.abs(tl.div_rn(first, roots)) + REACH
    companded = LEVELS * TOP - (LEVELS * TOP * REACH) / relative
    rounded = tl.floor(companded + _fractions(index, INT6_KEY, dither))
    rounded = tl.minimum(rounded, LEVELS - 1.0)
    rounded = tl.where(first < 0, -rounded, rounded)
    low = rounded.to(tl.int32) * 4 + (codes & 3)
    tl.store(low_values + offsets, low.to(tl.int8), mask=mask)
    return first - _expand_int6(rounded) * roots


@triton.jit
def _lerp(start, end, share):
    """The two formulas of torch.lerp, each the more exact on its side."""
    difference = end - start
    return tl.where(share < 0.5, start + share * difference, end - difference * (1.0 - share))


@triton.jit
def _read_weight(weight, master, offsets, mask, KIND: tl.constexpr):
    if KIND == LOW_BITS:
        high = tl.load(weight + offsets, mask=mask, other=0).to(tl.int32)
        low = tl.load(master + offsets, mask=mask, other=0).to(tl.int32)
        exact = ((high << 16) + low).to(tl.float32, bitcast=True)
    elif KIND == FLOAT32_MASTER:
        exact = tl.load(master + offsets, mask=mask, other=0.0)
    else:
        exact = tl.load(weight + offsets, mask=mask, other=0.0)
    return exact


@triton.jit
def _write_weight(exact, weight, master, offsets, mask, KIND: tl.constexpr):
    if KIND == LOW_BITS:
        bits = exact.to(tl.int32, bitcast=True)
        tl.store(weight + offsets, ((bits + 0x8000) >> 16).to(tl.int16), mask=mask)
        tl.store(master + offsets, bits.to(tl.int16), mask=mask)
    elif KIND == FLOAT32_MASTER:
        tl.store(master + offsets, exact, mask=mask)
        tl.store(weight + offsets, exact.to(tl.float16), mask=mask)
    else:
        tl.store(weight + offsets, exact, mask=mask)


@triton.jit(
    do_not_specialize=[
        "count",
        "start",
        "first_key",
        "second_key",
        "dither",
        "step_size",
        "settled_size",
        "kept_weight",
        "number0",
        "number1",
        "number2",
        "number3",
        "number4",
    ]
)
def update_chunk(
    weight,
    master,
    gradient,
    first_values,
    first_scales,
    second_values,
    second_scales,
    gradient_scale,
    magnitude,
    count,
    start,
    first_key,
    second_key,
    dither,
    step_size,
    settled_size,
    kept_weight,
    number0,
    number1,
    number2,
    number3,
    number4,
    RULE: tl.constexpr,
    WEIGHT: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Update ROWS blocks of a chunk.

    Args:
        weight: Pointer; to int16 if WEIGHT is LOW_BITS.
        master: Pointer; not used if WEIGHT is EXACT.
        gradient: Pointer to float32 or bfloat16.
        first_values: Pointer to the first moment.
        first_scales: Pointer to its scales, for INT8.
        second_values: Pointer to the second; not used by LION.
        second_scales: Pointer to its scales as int32, for UINT8 and UINT10.
        gradient_scale: Pointer to one float32.
        magnitude: Pointer to one float32 as int32: non-negative floats are ordered as integers,
            and NaN comes after infinity.
        count: Number of elements in the chunk: whole blocks.
        start: See `optimizers.chunk.Chunk`.
        first_key: Key of the first moment's noise.
        second_key: Key of the second's.
        dither: By how much thresholds have moved; see `optimizers.block_formats`.
        step_size: What the direction is multiplied by before it is subtracted.
        settled_size: The same for what rounding takes from a first moment in INT6.
        kept_weight: What the weight is multiplied by for weight decay.
        number0: Of the rule, as are the following; see `optimizers.triton_update`.
        number1: See there.
        number2: See there.
        number3: See there.
        number4: See there.
        RULE: Which rule.
        WEIGHT: How the exact weight is kept.
        FIRST: Format of the first moment.
        SECOND: Format of the second.
        ROWS: Blocks of one program.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_mask = rows * COLUMNS < count
    offsets = rows[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    # A mask that is the same along a row lets neighbours be loaded together.
    mask = tl.broadcast_to(row_mask[:, None], (ROWS, COLUMNS))
    index = start + offsets
    exact = _read_weight(weight, master, offsets, mask, WEIGHT)
    fresh = tl.load(gradient + offsets, mask=mask, other=0.0).to(tl.float32)
    fresh = fresh * tl.load(gradient_scale)
    exact = exact * kept_weight
    if RULE == LION:
        first = _decode(first_values, first_scales, offsets, mask, rows, row_mask, FIRST)
        mixed = _lerp(first, fresh, number0)
        direction = tl.where(mixed > 0, 1.0, tl.where(mixed < 0, -1.0, 0.0))
        exact = exact - step_size * direction
        first = _lerp(first, fresh, number1)
    else:
        if FIRST == INT6:
            first, second = _decode_pair(
                first_values, second_values, second_scales, offsets, mask, rows, row_mask
            )
        else:
            first = _decode(first_values, first_scales, offsets, mask, rows, row_mask, FIRST)
            second = _decode(second_values, second_scales, offsets, mask, rows, row_mask, SECOND)
        if RULE == RAVEN_ADAMW:
            first = _lerp(first, fresh, number0)
            second = second * number1 + number2 * fresh * fresh
            root = tl.sqrt_rn(second) * number3 + number4
        else:
            first = first * number0 + number1 * fresh
            second = second * number0 + number1 * first * first
            second = second + number2 * fresh * fresh
            root = tl.sqrt_rn(second) + number3
        exact = exact - step_size * tl.div_rn(first, root)
        if FIRST == INT6:
            error = _encode_pair(
                first,
                second,
                first_values,
                second_values,
                second_scales,
                offsets,
                mask,
                rows,
                row_mask,
                index,
                dither,
            )
            exact = exact - settled_size * tl.div_rn(error, root)
        else:
            _encode(
                second,
                second_values,
                second_scales,
                offsets,
                mask,
                rows,
                row_mask,
                index,
                second_key,
                dither,
                SECOND,
            )
    if FIRST != INT6:
        _encode(
            first,
            first_values,
            first_scales,
            offsets,
            mask,
            rows,
            row_mask,
            index,
            first_key,
            dither,
            FIRST,
        )
    size = tl.where(mask, exact.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0)
    tl.atomic_max(magnitude, tl.max(tl.max(size, axis=1), axis=0), sem="relaxed")
    _write_weight(exact, weight, master, offsets, mask, WEIGHT)
