"""An optimizer whose states live in host memory and are updated on the parameters' device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.diagnostics import Survey
from optimizers.precision import (
    StateFormat,
    join_fp32,
    largest_magnitude,
    noise_key,
    refuse_unrepresentable,
)
from optimizers.protocol import Diagnostics
from optimizers.rule import UpdateRule
from optimizers.saved_state import refuse_other_shapes, refuse_other_state
from optimizers.staging import Slot, Staging, new_slot


class OffloadedOptimizer:
    """Applies an update rule tensor by tensor; states are on the device only while they are used.

    The exact float32 weight is the parameter itself when that is float32; for bfloat16 parameters
    it is the parameter and its 16 low bits on the host; for float16 parameters a float32 copy on
    the host. Implements `optimizers.protocol.MasterOptimizer`.

    Args:
        named_parameters: What to train, by name; on the devices where they stay.
        rule: The arithmetic.
        formats: How to keep each of the rule's states; from ``rule.formats``.
        seed: Chooses the noise of stochastic rounding.

    Raises:
        ValueError: if a dtype cannot be trained, or a format is not one of the rule's.
        UnrepresentableWeightError: if a weight is not finite.
    """

    def __init__(
        self,
        named_parameters: Mapping[str, nn.Parameter],
        rule: UpdateRule,
        *,
        formats: Mapping[str, StateFormat],
        seed: int = 0,
    ) -> None:
        if not named_parameters:
            raise ValueError("there are no parameters to train")
        self._rule = rule
        self._formats = dict(formats)
        self._seed = seed
        self._t = 0
        self._diagnostics: Diagnostics | None = None
        self._slots = {
            name: new_slot(index, name, parameter, rule, formats)
            for index, (name, parameter) in enumerate(named_parameters.items())
        }
        by_device: dict[torch.device, list[Slot]] = {}
        for slot in self._slots.values():
            by_device.setdefault(slot.parameter.device, []).append(slot)
        self._stagings = {
            device: Staging(slots, device, len(self._slots)) for device, slots in by_device.items()
        }
        for slot in self._slots.values():
            self._staging(slot).note_magnitude(slot, slot.parameter)
        self._refuse_unrepresentable()

    @property
    def t(self) -> int:
        """Number of steps taken."""
        return self._t

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], lr: float, *, diagnose: bool = False) -> None:
        """Take one step; see `optimizers.protocol.MasterOptimizer.step`."""
        refuse_other_shapes("gradients", self._parameters(), gradients)
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr: {lr} is not a learning rate")
        self._t += 1
        survey = Survey(self._num_elements()) if diagnose else None
        for slot in self._slots.values():
            self._update(slot, gradients[slot.name], lr, survey)
        self._diagnostics = survey.result() if survey else None
        self._refuse_unrepresentable()

    @torch.no_grad()
    def master_weight(self, name: str) -> Tensor:
        """Return a copy of the exact float32 weights of a parameter, in host memory."""
        slot = self._slots[name]
        weight = torch.empty(slot.parameter.shape)
        if slot.master == "split":
            return join_fp32(slot.parameter.cpu(), slot.kept["lo"], out=weight)
        return weight.copy_(slot.kept.get("weight", slot.parameter))

    @torch.no_grad()
    def load_master_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set the exact weights, and with them the parameters."""
        refuse_other_shapes("master weights", self._parameters(), weights)
        for slot in self._slots.values():
            largest = largest_magnitude(weights[slot.name].float()).item()
            refuse_unrepresentable(slot.name, largest, slot.parameter.dtype)
        for slot in self._slots.values():
            staging = self._staging(slot)
            staging.write_weight(slot, staging.weight_buffer(slot).copy_(weights[slot.name]))

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the parameters: plain values and the very tensors of the host."""
        return {
            "kind": self._rule.kind,
            "t": self._t,
            "seed": self._seed,
            "formats": dict(self._formats),
            "state": {name: dict(slot.states) for name, slot in self._slots.items()},
            "master": {name: dict(slot.kept) for name, slot in self._slots.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy in what `state_dict` returned, seed included."""
        refuse_other_state(state, self.state_dict())
        self._t, self._seed = state["t"], state["seed"]
        self._diagnostics = None
        for name, slot in self._slots.items():
            for key, tensor in slot.states.items():
                tensor.copy_(state["state"][name][key])
            for key, tensor in slot.kept.items():
                tensor.copy_(state["master"][name][key])

    def diagnostics(self) -> Diagnostics | None:
        """Return what the last step measured; None if it was not asked to."""
        return self._diagnostics

    def bytes_on_host(self) -> int:
        """Return the size of states and masters."""
        return sum(
            tensor.nbytes
            for slot in self._slots.values()
            for tensor in [*slot.states.values(), *slot.kept.values()]
        )

    def bytes_on_device(self) -> int:
        """Return the size of the staging buffers."""
        return sum(staging.num_bytes() for staging in self._stagings.values())

    def _parameters(self) -> dict[str, Tensor]:
        return {name: slot.parameter for name, slot in self._slots.items()}

    def _num_elements(self) -> int:
        return sum(slot.parameter.numel() for slot in self._slots.values())

    def _staging(self, slot: Slot) -> Staging:
        device = slot.parameter.device
        if device not in self._stagings:
            raise ValueError(f"{slot.name}: was moved to {device} after the optimizer was made")
        return self._stagings[device]

    def _update(self, slot: Slot, gradient: Tensor, lr: float, survey: Survey | None) -> None:
        staging = self._staging(slot)
        weight = staging.read_weight(slot)
        states = {name: staging.read_state(slot, name, self._formats[name]) for name in slot.states}
        if survey:
            survey.before(slot.name, weight, slot.parameter)
        self._rule.update(
            weight,
            staging.read_gradient(gradient),
            states,
            staging.scratch_buffer(slot),
            lr=lr,
            t=self._t,
        )
        staging.write_weight(slot, weight)
        if survey:
            moment = self._rule.second_moment(states)
            survey.after(slot.name, weight, slot.parameter, moment)
        for name, values in states.items():
            key = noise_key(self._seed, self._t, name, slot.name)
            staging.write_state(slot, name, values, self._formats[name], key)

    def _refuse_unrepresentable(self) -> None:
        # One transfer for all tensors, so that nothing waits for the device in between.
        for device, staging in self._stagings.items():
            magnitudes = staging.magnitudes()
            for slot in self._slots.values():
                if slot.parameter.device == device:
                    refuse_unrepresentable(slot.name, magnitudes[slot.index], slot.parameter.dtype)
