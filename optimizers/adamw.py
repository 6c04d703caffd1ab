"""torch's own AdamW, on float32 masters that stay on the parameters' device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.diagnostics import Survey
from optimizers.precision import largest_magnitude, refuse_unrepresentable
from optimizers.protocol import Diagnostics
from optimizers.saved_state import refuse_other_shapes, refuse_other_state

_MOMENTS = ("exp_avg", "exp_avg_sq")


class MasterAdamW:
    """``torch.optim.AdamW`` in float32: the reference, for those with the memory for it.

    float32 parameters are their own masters; others have a float32 copy beside them. Implements
    `optimizers.protocol.MasterOptimizer`.

    Args:
        named_parameters: What to train, by name; on the devices where they stay.
        beta1: Share of the first moment kept at every step.
        beta2: Share of the second moment kept at every step.
        eps: Added to the root of the second moment.
        weight_decay: Share of the weight taken away at every step, times the learning rate.

    Raises:
        ValueError: if there are no parameters.
        UnrepresentableWeightError: if a weight is not finite.
    """

    def __init__(
        self,
        named_parameters: Mapping[str, nn.Parameter],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        if not named_parameters:
            raise ValueError("there are no parameters to train")
        self._parameters = dict(named_parameters)
        # A parameter of its own even where it shares memory: gradients of the model are not ours.
        self._masters = {
            name: nn.Parameter(parameter.detach().float())
            for name, parameter in named_parameters.items()
        }
        self._refuse_unrepresentable()
        self._adamw = torch.optim.AdamW(
            list(self._masters.values()),
            lr=0.0,
            betas=(beta1, beta2),
            eps=eps,
            weight_decay=weight_decay,
            foreach=False,  # the other forms need memory for all intermediate results at once
        )
        for master in self._masters.values():
            self._adamw.state[master] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }
        self._t = 0
        self._diagnostics: Diagnostics | None = None

    @property
    def t(self) -> int:
        """Number of steps taken."""
        return self._t

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], lr: float, *, diagnose: bool = False) -> None:
        """Take one step; see `optimizers.protocol.MasterOptimizer.step`."""
        refuse_other_shapes("gradients", self._masters, gradients)
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr: {lr} is not a learning rate")
        survey = Survey(self._num_elements()) if diagnose else None
        if survey:
            for name, master in self._masters.items():
                survey.before(name, master, self._parameters[name])
        self._take_step(gradients, lr)
        self._t += 1
        self._write_parameters()
        if survey:
            for name, master in self._masters.items():
                moment = self._adamw.state[master]["exp_avg_sq"]
                survey.after(name, master, self._parameters[name], moment)
        self._diagnostics = survey.result() if survey else None
        self._refuse_unrepresentable()

    def master_weight(self, name: str) -> Tensor:
        """Return a copy of the exact float32 weights of a parameter, in host memory."""
        master = self._masters[name].detach()
        return torch.empty(master.shape).copy_(master)

    @torch.no_grad()
    def load_master_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set the exact weights, and with them the parameters."""
        refuse_other_shapes("master weights", self._masters, weights)
        for name, parameter in self._parameters.items():
            largest = largest_magnitude(weights[name].float()).item()
            refuse_unrepresentable(name, largest, parameter.dtype)
        for name, master in self._masters.items():
            master.copy_(weights[name])
        self._write_parameters()

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the parameters: plain values and host tensors."""
        return {
            "kind": "adamw",
            "t": self._t,
            "seed": 0,  # nothing here is random
            "formats": dict.fromkeys(_MOMENTS, "float32"),
            "state": {name: self._moments(name) for name in self._masters},
            "master": {
                name: {"weight": master.detach().cpu()} if self._is_copy(name) else {}
                for name, master in self._masters.items()
            },
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy in what `state_dict` returned."""
        refuse_other_state(state, self.state_dict())
        self._t = state["t"]
        self._diagnostics = None
        for name, master in self._masters.items():
            kept = self._adamw.state[master]
            kept["step"].fill_(self._t)
            for moment in _MOMENTS:
                kept[moment].copy_(state["state"][name][moment])
            if self._is_copy(name):
                master.copy_(state["master"][name]["weight"])

    def diagnostics(self) -> Diagnostics | None:
        """Return what the last step measured; None if it was not asked to."""
        return self._diagnostics

    def bytes_on_host(self) -> int:
        """Return 0 for parameters on a GPU; for those on the CPU everything kept."""
        return self._num_bytes(on_host=True)

    def bytes_on_device(self) -> int:
        """Return the size of masters and moments on GPUs."""
        return self._num_bytes(on_host=False)

    def _take_step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        for name, master in self._masters.items():
            parameter = self._parameters[name]
            if not self._is_copy(name) and master.data_ptr() != parameter.data_ptr():
                raise ValueError(f"{name}: its memory was replaced after the optimizer was made")
            master.grad = gradients[name].detach().to(master)
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)

    def _write_parameters(self) -> None:
        for name, master in self._masters.items():
            if self._is_copy(name):
                self._parameters[name].copy_(master)

    def _refuse_unrepresentable(self) -> None:
        magnitudes = [largest_magnitude(master.detach()) for master in self._masters.values()]
        # One transfer for all tensors, so that nothing waits for the device in between.
        together = torch.stack([each.to(magnitudes[0].device) for each in magnitudes])
        for (name, parameter), largest in zip(
            self._parameters.items(), together.tolist(), strict=True
        ):
            refuse_unrepresentable(name, largest, parameter.dtype)

    def _moments(self, name: str) -> dict[str, Tensor]:
        kept = self._adamw.state[self._masters[name]]
        return {moment: kept[moment].cpu() for moment in _MOMENTS}

    def _is_copy(self, name: str) -> bool:
        return self._parameters[name].dtype != torch.float32

    def _num_elements(self) -> int:
        return sum(master.numel() for master in self._masters.values())

    def _num_bytes(self, *, on_host: bool) -> int:
        total = 0
        for name, master in self._masters.items():
            if (master.device.type == "cpu") == on_host:
                total += (len(_MOMENTS) + self._is_copy(name)) * master.nbytes
        return total
