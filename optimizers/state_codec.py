"""All states of a chunk, from how they are kept to float32 and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from optimizers.block_formats import (
    decode_grid,
    decode_int6,
    decode_int8,
    encode_grid,
    encode_int6,
    encode_int8,
    roots_of,
)
from optimizers.chunk import StatePlane, StepScalars
from optimizers.precision import decode_state, encode_state

Scratch = tuple[Tensor, Tensor]
"""Two int32 work spaces, at least as long as any state."""


@runtime_checkable
class Settling(Protocol):
    """A rule whose first moment may be rounded coarsely.

    What rounding takes from a first moment would have reached the weight over the next steps, in
    shares that are known: ``beta1**k`` of it in step k. So it is given to the weight at once. Where
    the weight goes is then that of an exact first moment, but for a bounded jitter; 6 bits do.
    """

    def settle(
        self,
        weight: Tensor,
        error: Tensor,
        states: Mapping[str, Tensor],
        scratch: Tensor,
        *,
        lr: float,
        t: int,
    ) -> None:
        """Give the weight what rounding took from the first moment.

        Args:
            weight: float32; updated.
            error: float32, same shape: the first moment less what is kept of it.
            states: As `optimizers.rule.UpdateRule.update` left them, the first moment aside.
            scratch: float32 work space of the same shape.
            lr: Learning rate.
            t: Number of this step, from 1.
        """
        ...


def decode_states(
    planes: Mapping[str, StatePlane], out: Mapping[str, Tensor], scratch: Scratch
) -> None:
    """Write the float32 values of all states to ``out``.

    Args:
        planes: By name.
        out: float32, flat, by name.
        scratch: See `Scratch`.
    """
    for name, plane in planes.items():
        if plane.state_format not in ("int6", "uint10"):
            _decode(plane, out[name], scratch)
    pair = _pair(planes)
    if pair is not None:
        first, second = pair
        low, high = planes[first].values, planes[second].values
        codes, spare = _cut(scratch, low.numel())
        codes.copy_(low).bitwise_and_(3).add_(spare.copy_(high).bitwise_left_shift_(2))
        decode_grid(codes, _scales(planes[second]), out[second])
        roots = roots_of(out[second], spare.view(torch.float32))
        decode_int6(low, roots, out[first], scratch=(codes, spare))


def encode_states(
    planes: Mapping[str, StatePlane],
    values: Mapping[str, Tensor],
    scalars: StepScalars,
    *,
    start: int,
    scratch: Scratch,
    spare: Tensor | None,
) -> Tensor | None:
    """Write float32 states as they are kept.

    Args:
        planes: By name; written.
        values: float32, flat, by name; overwritten.
        scalars: Of the step.
        start: Place of the first element in its unit.
        scratch: See `Scratch`.
        spare: float32 work space for the pair of int6 and uint10; not used for others.

    Returns:
        What rounding took from a first moment in int6, for `Settling`; None if there is none.
    """
    for name, plane in planes.items():
        if plane.state_format not in ("int6", "uint10"):
            _encode(plane, values[name], scalars, scalars.noise_keys.get(name, 0), start, scratch)
    pair = _pair(planes)
    if pair is None:
        return None
    assert spare is not None
    first, second = pair
    low, high = planes[first].values, planes[second].values
    scratch = _cut(scratch, low.numel())
    spare = spare[: low.numel()]
    scales = _scales(planes[second])
    codes = encode_grid(values[second], scales, 10, t=scalars.t, start=start, scratch=scratch)
    high.copy_(torch.bitwise_right_shift(codes, 2, out=scratch[1]))
    low.copy_(torch.bitwise_and(codes, 3, out=scratch[1]))
    roots = roots_of(decode_grid(codes, scales, spare), spare)
    encode_int6(values[first], roots, low, t=scalars.t, start=start, scratch=scratch)
    return values[first]


def is_paired(planes: Mapping[str, StatePlane]) -> bool:
    """Return whether two of the states share their bytes, and `encode_states` needs its spare."""
    return any(plane.state_format == "int6" for plane in planes.values())


def _pair(planes: Mapping[str, StatePlane]) -> tuple[str, str] | None:
    by_format = {plane.state_format: name for name, plane in planes.items()}
    if "int6" not in by_format:
        return None
    return by_format["int6"], by_format["uint10"]


def _decode(plane: StatePlane, out: Tensor, scratch: Scratch) -> None:
    codes, spare = _cut(scratch, plane.values.numel())
    if plane.state_format == "int8":
        decode_int8(plane.values, _scales(plane), out, spare.view(torch.float32))
    elif plane.state_format == "uint8":
        decode_grid(codes.copy_(plane.values), _scales(plane), out)
    else:
        decode_state(plane.values, out, plane.state_format)


def _encode(
    plane: StatePlane, values: Tensor, scalars: StepScalars, key: int, start: int, scratch: Scratch
) -> None:
    scratch = _cut(scratch, plane.values.numel())
    t = scalars.t
    if plane.state_format == "int8":
        encode_int8(values, _scales(plane), plane.values, t=t, start=start, scratch=scratch)
    elif plane.state_format == "uint8":
        plane.values.copy_(
            encode_grid(values, _scales(plane), 8, t=t, start=start, scratch=scratch)
        )
    else:
        encode_state(
            values, plane.values, plane.state_format, key=key, scratch=scratch, start=start
        )


def _cut(scratch: Scratch, size: int) -> Scratch:
    return scratch[0][:size], scratch[1][:size]


def _scales(plane: StatePlane) -> Tensor:
    assert plane.scales is not None, f"{plane.state_format} without scales"
    return plane.scales
