"""What is kept in host memory for a parameter, and the device buffers it passes through."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from optimizers.precision import (
    STORAGE_DTYPES,
    StateFormat,
    decode_state,
    encode_state,
    join_fp32,
    largest_magnitude,
    split_fp32,
)
from optimizers.rule import UpdateRule

Master = Literal["none", "split", "float32"]

_MASTER_OF_DTYPE: dict[torch.dtype, Master] = {
    torch.float32: "none",
    torch.bfloat16: "split",
    torch.float16: "float32",
}


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One parameter and what is kept for it in host memory.

    Attributes:
        index: Position among all slots.
        name: Name of the parameter.
        trained: The parameter.
        master: Where its exact value is: in itself, in itself and 16 low bits, or in a copy.
        kept: By master: nothing, ``lo`` or ``weight``, in the parameter's shape.
        states: The rule's states, in their formats.
    """

    index: int
    name: str
    trained: nn.Parameter
    master: Master
    kept: dict[str, Tensor]
    states: dict[str, Tensor]

    @property
    def parameter(self) -> Tensor:
        """The parameter without its gradient: same memory."""
        return self.trained.detach()


def new_slot(
    index: int,
    name: str,
    parameter: nn.Parameter,
    rule: UpdateRule,
    formats: Mapping[str, StateFormat],
) -> Slot:
    """Return a slot with zero states and the parameter's value as its exact value.

    Raises:
        ValueError: if the dtype cannot be trained, or a format is not one of the rule's.
    """
    if parameter.dtype not in _MASTER_OF_DTYPE:
        raise ValueError(f"{name}: parameters of {parameter.dtype} cannot be trained")
    master = _MASTER_OF_DTYPE[parameter.dtype]
    kept: dict[str, Tensor] = {}
    if master == "split":
        kept["lo"] = torch.zeros(parameter.shape, dtype=torch.int16)
    elif master == "float32":
        kept["weight"] = torch.empty(parameter.shape).copy_(parameter.detach())
    states: dict[str, Tensor] = {}
    for state, spec in rule.states(parameter.shape).items():
        chosen = formats.get(state)
        if chosen is None or chosen not in spec.formats:
            raise ValueError(f"{state}: {chosen!r} is not one of {', '.join(spec.formats)}")
        states[state] = torch.zeros(spec.shape, dtype=STORAGE_DTYPES[chosen])
    return Slot(index=index, name=name, trained=parameter, master=master, kept=kept, states=states)


class Staging:
    """Buffers on one device, each as large as the largest tensor that passes through it.

    Copies between host and device keep the dtype, so that the narrow form is what travels.

    Args:
        slots: The slots of that device.
        device: The device.
        num_slots: Number of slots on all devices.
    """

    def __init__(self, slots: Collection[Slot], device: torch.device, num_slots: int) -> None:
        largest = max(slot.parameter.numel() for slot in slots)
        sizes: dict[str, int] = {}
        for slot in slots:
            for name, state in slot.states.items():
                sizes[name] = max(sizes.get(name, 0), state.numel())

        def float32(num_elements: int) -> Tensor:
            return torch.empty(num_elements, dtype=torch.float32, device=device)

        self._weight, self._grad, self._scratch = (float32(largest) for _ in range(3))
        self._states = {name: float32(size) for name, size in sizes.items()}
        narrowest = max([largest, *sizes.values()])
        self._narrow = torch.empty(narrowest, dtype=torch.int16, device=device)
        self._magnitudes = torch.zeros(num_slots, dtype=torch.float32, device=device)

    def num_bytes(self) -> int:
        """Return the size of all buffers."""
        buffers = [self._weight, self._grad, self._scratch, self._narrow, self._magnitudes]
        return sum(buffer.nbytes for buffer in [*buffers, *self._states.values()])

    def magnitudes(self) -> list[float]:
        """Return the largest magnitude of each slot's last written weight; 0 for other devices."""
        magnitudes: list[float] = self._magnitudes.tolist()
        return magnitudes

    def note_magnitude(self, slot: Slot, weight: Tensor) -> None:
        """Remember the largest magnitude of a slot's weight, without waiting for the device."""
        self._magnitudes[slot.index].copy_(largest_magnitude(weight))

    def weight_buffer(self, slot: Slot) -> Tensor:
        """Return the weight buffer in the shape of a slot's parameter."""
        return _in_shape(self._weight, slot.parameter.shape)

    def scratch_buffer(self, slot: Slot) -> Tensor:
        """Return work space in the shape of a slot's parameter."""
        return _in_shape(self._scratch, slot.parameter.shape)

    def read_gradient(self, gradient: Tensor) -> Tensor:
        """Return a float32 copy of ``gradient``, so that a rule may write to it."""
        return _in_shape(self._grad, gradient.shape).copy_(gradient)

    def read_weight(self, slot: Slot) -> Tensor:
        """Return the exact weight of a slot."""
        weight = self.weight_buffer(slot)
        if slot.master == "split":
            lo = _in_shape(self._narrow, slot.parameter.shape).copy_(slot.kept["lo"])
            return join_fp32(slot.parameter, lo, out=weight)
        return weight.copy_(slot.kept.get("weight", slot.parameter))

    def write_weight(self, slot: Slot, weight: Tensor) -> None:
        """Store the exact ``weight`` of a slot, its parameter included. Uses the scratch buffer."""
        self.note_magnitude(slot, weight)
        if slot.master == "split":
            lo = _in_shape(self._narrow, weight.shape)
            scratch = self.scratch_buffer(slot).view(torch.int32)
            split_fp32(weight, hi=slot.parameter, lo=lo, scratch=scratch)
            slot.kept["lo"].copy_(lo)
            return
        slot.parameter.copy_(weight)
        if slot.master == "float32":
            slot.kept["weight"].copy_(weight)

    def read_state(self, slot: Slot, name: str, state_format: StateFormat) -> Tensor:
        """Return a state of a slot in float32."""
        stored = slot.states[name]
        values = _in_shape(self._states[name], stored.shape)
        if stored.dtype != torch.float32:
            narrow = _in_shape(self._narrow, stored.shape).view(stored.dtype)
            stored = narrow.copy_(stored)
        return decode_state(stored, values, state_format)

    def write_state(
        self, slot: Slot, name: str, values: Tensor, state_format: StateFormat, key: int
    ) -> None:
        """Store a state of a slot. Uses the gradient and scratch buffers.

        Args:
            slot: The slot.
            name: Name of the state.
            values: What `read_state` returned, updated.
            state_format: How it is kept.
            key: Of the rounding noise.
        """
        stored = slot.states[name]
        if stored.dtype == torch.float32:
            stored.copy_(values)
            return
        num = stored.numel()
        narrow = self._narrow[:num].view(stored.dtype)
        spare = (self._grad[:num].view(torch.int32), self._scratch[:num].view(torch.int32))
        encode_state(values.view(-1), narrow, state_format, key=key, scratch=spare)
        stored.view(-1).copy_(narrow)


def _in_shape(buffer: Tensor, shape: torch.Size) -> Tensor:
    return buffer[: shape.numel()].view(shape)
