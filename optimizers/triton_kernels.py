"""The fused chunk update as a Triton kernel; imported only where Triton is installed.

The order of operations is that of the rules' own ``update``; see `optimizers.chunk_update` for
what is computed, and `optimizers.triton_update` for the arguments.
"""

# Triton has no types, and its functions take tensors, pointers and numbers that Python never sees.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202

import triton
import triton.language as tl

FLOAT32 = tl.constexpr(0)
BFLOAT16 = tl.constexpr(1)
UINT16_SR = tl.constexpr(2)

EXACT = tl.constexpr(0)  # a float32 weight
LOW_BITS = tl.constexpr(1)  # a bfloat16 weight with an int16 master
FLOAT32_MASTER = tl.constexpr(2)  # a float16 weight with a float32 master

RAVEN_ADAMW = tl.constexpr(0)
VELO_RMS = tl.constexpr(1)
LION = tl.constexpr(2)


@triton.jit
def _noise(index, key):
    """The hash of `optimizers.precision.fill_noise`."""
    bits = (index ^ key).to(tl.uint32, bitcast=True)
    bits = bits ^ (bits >> 16)
    bits = bits * 0x85EBCA6B
    bits = bits ^ (bits >> 13)
    bits = bits * 0xC2B2AE35
    bits = bits ^ (bits >> 16)
    return bits.to(tl.int32, bitcast=True)


@triton.jit
def _decode(values, offsets, mask, FORMAT: tl.constexpr):
    stored = tl.load(values + offsets, mask=mask, other=0)
    if FORMAT == UINT16_SR:
        decoded = ((stored.to(tl.int32) & 0xFFFF) << 15).to(tl.float32, bitcast=True)
    else:
        decoded = stored.to(tl.float32)
    return decoded


@triton.jit
def _encode(state, values, offsets, mask, index, key, FORMAT: tl.constexpr):
    if FORMAT == UINT16_SR:
        bits = state.to(tl.int32, bitcast=True)
        codes = ((_noise(index, key) & 0x7FFF) + bits) >> 15
        codes = tl.maximum(codes, tl.minimum(bits, 1))
        tl.store(values + offsets, codes.to(tl.int16), mask=mask)
    elif FORMAT == BFLOAT16:
        tl.store(values + offsets, state.to(tl.bfloat16), mask=mask)
    else:
        tl.store(values + offsets, state, mask=mask)


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
        "step_size",
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
    second_values,
    gradient_scale,
    magnitude,
    count,
    start,
    first_key,
    second_key,
    step_size,
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
    BLOCK: tl.constexpr,
):
    """Update BLOCK elements of a chunk.

    Args:
        weight: Pointer; to int16 if WEIGHT is LOW_BITS.
        master: Pointer; not used if WEIGHT is EXACT.
        gradient: Pointer to float32 or bfloat16.
        first_values: Pointer to the first moment.
        second_values: Pointer to the second; not used by LION.
        gradient_scale: Pointer to one float32.
        magnitude: Pointer to one float32 as int32: non-negative floats are ordered as integers,
            and NaN comes after infinity.
        count: Number of elements in the chunk.
        start: See `optimizers.chunk.Chunk`.
        first_key: Key of the first moment's noise.
        second_key: Key of the second's.
        step_size: What the direction is multiplied by before it is subtracted.
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
        BLOCK: Elements of one program.
    """
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < count
    exact = _read_weight(weight, master, offsets, mask, WEIGHT)
    fresh = tl.load(gradient + offsets, mask=mask, other=0.0).to(tl.float32)
    fresh = fresh * tl.load(gradient_scale)
    first = _decode(first_values, offsets, mask, FIRST)
    exact = exact * kept_weight
    if RULE == LION:
        mixed = _lerp(first, fresh, number0)
        direction = tl.where(mixed > 0, 1.0, tl.where(mixed < 0, -1.0, 0.0))
        exact = exact - step_size * direction
        first = _lerp(first, fresh, number1)
    else:
        second = _decode(second_values, offsets, mask, SECOND)
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
        _encode(second, second_values, offsets, mask, start + offsets, second_key, SECOND)
    _encode(first, first_values, offsets, mask, start + offsets, first_key, FIRST)
    largest = tl.max(tl.where(mask, exact.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0), axis=0)
    tl.atomic_max(magnitude, largest, sem="relaxed")
    _write_weight(exact, weight, master, offsets, mask, WEIGHT)
