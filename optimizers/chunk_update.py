"""Updating a chunk with plain torch operations, in slices that fit a small work space."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from optimizers import triton_update
from optimizers.chunk import QUANT_BLOCK, Chunk, StatePlane, StepScalars
from optimizers.precision import join_fp32, split_fp32
from optimizers.rule import UpdateRule
from optimizers.state_codec import Settling, decode_states, encode_states, is_paired

SCRATCH_ELEMENTS = 2 * 2**20


class ChunkUpdate(Protocol):
    """Takes one step of an update rule on one chunk, in place."""

    @property
    def scratch_bytes(self) -> int:
        """Device memory held for intermediate results."""
        ...

    def __call__(
        self,
        chunk: Chunk,
        scalars: StepScalars,
        magnitude: Tensor,
        shape: torch.Size | None = None,
    ) -> None:
        """Update weights, master and states of ``chunk``.

        The result does not depend on how a unit is cut into chunks.

        Args:
            chunk: On the device; its weight, master and states are written.
            scalars: Of this step.
            magnitude: float32, one element, on the device; raised to the largest magnitude of the
                new exact weights, and to NaN if one of them is NaN.
            shape: Of the one whole tensor that is the chunk, padding aside; for rules that need it.
        """
        ...


class EagerUpdate:
    """A `ChunkUpdate` for every rule and every device.

    Rules that work element by element see slices of the chunk; nothing is allocated for them.
    Rules that need a shape see the whole tensor, and the work space grows to the largest one.

    Args:
        rule: The arithmetic.
        device: Where the chunks will be.
        scratch_elements: Most elements of a slice; rounded down to whole blocks.
    """

    def __init__(
        self, rule: UpdateRule, device: torch.device, scratch_elements: int = SCRATCH_ELEMENTS
    ) -> None:
        self._rule = rule
        self._device = device
        self._largest = torch.zeros((), device=device)
        self._buffers: dict[str, Tensor] = {}
        self._states: dict[str, Tensor] = {}
        self._elements = 0
        self._grow(max(scratch_elements // QUANT_BLOCK, 1) * QUANT_BLOCK)

    @property
    def scratch_bytes(self) -> int:
        """Device memory held for intermediate results."""
        buffers = [*self._buffers.values(), *self._states.values()]
        return sum(buffer.nbytes for buffer in buffers)

    @torch.no_grad()
    def __call__(
        self,
        chunk: Chunk,
        scalars: StepScalars,
        magnitude: Tensor,
        shape: torch.Size | None = None,
    ) -> None:
        """Update ``chunk`` in place; see `ChunkUpdate`.

        Raises:
            ValueError: if the rule needs a shape and none is given.
        """
        num_elements = chunk.weight.numel()
        if shape is not None:
            self._grow(num_elements)
            self._update(chunk, scalars, magnitude, shape)
            return
        if self._rule.needs_shape:
            raise ValueError(f"{self._rule.kind} cannot update a chunk without its tensor's shape")
        for first in range(0, num_elements, self._elements):
            part = _part_of(chunk, first, min(first + self._elements, num_elements))
            self._update(part, scalars, magnitude, part.weight.shape)

    def _grow(self, elements: int) -> None:
        if elements <= self._elements:
            return
        self._elements = elements
        # Freed before their successors are made.
        self._buffers.clear()
        self._states.clear()
        for name in ("weight", "gradient", "scratch"):
            self._buffers[name] = torch.empty(elements, device=self._device)
        for name in self._rule.states(torch.Size([elements])):
            self._states[name] = torch.empty(elements, device=self._device)

    def _update(
        self, chunk: Chunk, scalars: StepScalars, magnitude: Tensor, shape: torch.Size
    ) -> None:
        # Padding at the end is read and written as it is, but the rule does not see it.
        count = chunk.weight.numel()
        weight, gradient, scratch = (buffer[:count] for buffer in self._buffers.values())
        _read_weight(chunk, weight)
        states = {name: self._state(name, plane) for name, plane in chunk.states.items()}
        integers = (gradient.view(torch.int32), scratch.view(torch.int32))
        decode_states(chunk.states, states, integers)
        gradient.copy_(chunk.gradient).mul_(scalars.gradient_scale)
        specs = self._rule.states(shape)
        shaped = {name: _in_shape(values, specs[name].shape) for name, values in states.items()}
        self._rule.update(
            _in_shape(weight, shape),
            _in_shape(gradient, shape),
            shaped,
            _in_shape(scratch, shape),
            lr=scalars.lr,
            t=scalars.t,
        )
        spare = self._room("spare", count) if is_paired(chunk.states) else None
        error = encode_states(
            chunk.states, states, scalars, start=chunk.start, scratch=integers, spare=spare
        )
        if error is not None:
            assert isinstance(self._rule, Settling)
            self._rule.settle(weight, error, states, scratch, lr=scalars.lr, t=scalars.t)
        torch.linalg.vector_norm(weight, ord=torch.inf, out=self._largest)
        torch.maximum(magnitude, self._largest, out=magnitude)
        _write_weight(chunk, weight, scratch)

    def _state(self, name: str, plane: StatePlane) -> Tensor:
        return self._room(name, plane.values.numel())

    def _room(self, name: str, size: int) -> Tensor:
        room = self._states.get(name)
        if room is None or room.numel() < size:
            room = torch.empty(size, device=self._device)
            self._states[name] = room
        return room[:size]


def update_for(
    rule: UpdateRule, device: torch.device, scratch_elements: int = SCRATCH_ELEMENTS
) -> ChunkUpdate:
    """Return the fastest `ChunkUpdate` for a rule on a device."""
    if device.type == "cuda" and triton_update.supports(rule) and triton_update.available():
        fused = triton_update.TritonUpdate(rule, device)
        if fused.works():
            return fused
    return EagerUpdate(rule, device, scratch_elements)


def _part_of(chunk: Chunk, first: int, last: int) -> Chunk:
    return Chunk(
        weight=chunk.weight[first:last],
        master=None if chunk.master is None else chunk.master[first:last],
        gradient=chunk.gradient[first:last],
        states={name: _part_of_plane(plane, first, last) for name, plane in chunk.states.items()},
        start=chunk.start + first,
    )


def _part_of_plane(plane: StatePlane, first: int, last: int) -> StatePlane:
    scales = plane.scales
    if scales is not None:
        scales = scales[first // QUANT_BLOCK : last // QUANT_BLOCK]
    return StatePlane(plane.values[first:last], scales, plane.state_format)


def _in_shape(buffer: Tensor, shape: torch.Size) -> Tensor:
    return buffer[: shape.numel()].view(shape)


def _read_weight(chunk: Chunk, out: Tensor) -> None:
    if chunk.master is None:
        out.copy_(chunk.weight)
    elif chunk.master.dtype == torch.int16:
        join_fp32(chunk.weight, chunk.master, out=out)
    else:
        out.copy_(chunk.master)


def _write_weight(chunk: Chunk, weight: Tensor, scratch: Tensor) -> None:
    if chunk.master is not None and chunk.master.dtype == torch.int16:
        split_fp32(weight, hi=chunk.weight, lo=chunk.master, scratch=scratch.view(torch.int32))
        return
    chunk.weight.copy_(weight)
    if chunk.master is not None:
        chunk.master.copy_(weight)
