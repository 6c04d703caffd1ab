"""All memory of one training run, put together: weights, gradients, optimizer, recomputation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aozora.memory.memory_plan import FEWEST_SLOTS, MemoryPlan
from aozora.memory.recompute import Recomputation, RecomputePlan
from aozora.memory.units import is_transformer_block, unit_of
from aozora.memory.update_gate import UpdateGate
from aozora.memory.weight_streaming import HostUnit, WeightStreamer, forward_order
from optimizers.backend import Backend
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.placement import Placement
from optimizers.rule import Moments, UpdateRule
from optimizers.streamed import StreamedOptimizer

_STAGES = ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block", "up_blocks")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What was planned.

    Attributes:
        placement: What lives where.
        slots: Streamed units that are on the device at once.
        recompute: Which activations are computed twice.
    """

    placement: Placement
    slots: int
    recompute: RecomputePlan


def layout_of(plan: MemoryPlan, names: Iterable[str]) -> Layout:
    """Return ``plan`` as `Arrangement` takes it, for a UNet whose parameters have ``names``."""
    return Layout(
        placement=plan.placement(units_of(names)), slots=plan.slots, recompute=plan.recompute
    )


class Arrangement:
    """Takes over a UNet's parameters; trains them in the memory that was planned.

    Args:
        unet: The model; trained and streamed parameters may still be on the host.
        names: What is trained.
        rule: The optimizer's arithmetic.
        moments: How its states are kept.
        layout: What was planned.
        device: Where the model runs.
        micro_steps: Backward passes for each optimizer step.
        seed: Of stochastic rounding.
        backend: The device's queues; its own if None.
    """

    def __init__(
        self,
        unet: nn.Module,
        names: Iterable[str],
        rule: UpdateRule,
        moments: Moments,
        *,
        layout: Layout,
        device: torch.device,
        micro_steps: int,
        seed: int,
        backend: Backend | None = None,
    ) -> None:
        self._unet = unet
        # A plan that streams nothing has no slots; `relieve` may stream all the same.
        self._slots = max(layout.slots, FEWEST_SLOTS)
        self._plan = layout.recompute
        named = dict(unet.named_parameters())
        trained = {*names}
        self.parameters: Mapping[str, nn.Parameter] = {
            name: parameter for name, parameter in named.items() if name in trained
        }
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.engine = Engine(
            self.parameters,
            rule,
            moments=moments,
            placement=layout.placement,
            device=device,
            frozen={name: named[name] for name in named if name not in trained},
            micro_steps=micro_steps,
            update_order=in_forward_order(named),
            backend=backend,
        )
        # What is made first is page-locked first: sums are copied most often.
        self.gradients = GradientSums(self.engine)
        self.optimizer = StreamedOptimizer(self.engine, seed=seed)
        self._streamer: WeightStreamer | None = None
        self._gate: UpdateGate | None = None
        self._attach()
        self._recomputation = self._recompute(layout.recompute)

    def _attach(self) -> None:
        """Let every unit wait for its weights, where they are now."""
        if self._gate is not None:
            self._gate.close()
        if self._streamer is not None:
            self._streamer.close()
            self._streamer = None
        engine, optimizer = self.engine, self.optimizer
        resident = [unit.name for unit in engine.units if not engine.is_streamed(unit.name)]
        self._gate = UpdateGate(self._unet, resident, optimizer)
        streamed = [unit.name for unit in engine.units if engine.is_streamed(unit.name)]
        if streamed:
            self._streamer = WeightStreamer(
                self._unet,
                [self._host_unit(name) for name in forward_order(streamed)],
                engine.backend,
                slots=self._slots,
                ready=optimizer.updated_event,
                is_issued=optimizer.is_issued,
                loads=engine.backend.weights_in,
            )
            optimizer.last_read = self._streamer.last_read

    def _host_unit(self, name: str) -> HostUnit:
        unit = self.engine.unit_of[name]
        views = {place.name: (place.start, place.shape) for place in (*unit.tensors, *unit.frozen)}
        return HostUnit(name=name, weights=self.engine.weights[name], views=views)

    def after_step(self) -> None:
        """Tell whoever holds copies of weights that these have changed, or will."""
        if self._streamer is not None:
            self._streamer.invalidate_all()

    def relieve(self) -> str | None:
        """Go to the next way of saving memory; None if all are in use. No step may be under way."""
        tiers: list[Callable[[], str | None]] = [
            self._recompute_everything,
            self._empty_device,
            self._stream_blocks,
        ]
        self.optimizer.finish()
        if (saving := self.optimizer.saving) is not None:
            # What is not yet saved would keep the very memory that is to be let go of.
            for unit in self.engine.units:
                saving.before_weights(unit.name)
        for tier in tiers:
            done = tier()
            if done is not None:
                return done
        return None

    def _recompute(self, plan: RecomputePlan) -> Recomputation:
        unet: Any = self._unet
        streamed = [unit.name for unit in self.engine.units if self.engine.is_streamed(unit.name)]
        return Recomputation(unet, plan, streamed)

    def _recompute_everything(self) -> str | None:
        everything = RecomputePlan()
        if self._plan == everything:
            return None
        self._plan = everything
        self._recomputation.remove()
        self._recomputation = self._recompute(everything)
        return "all activations are computed twice from now on"

    def _empty_device(self) -> str | None:
        moved = self.optimizer.records_to_host() > 0
        if self.engine.placement.gradients == "device":
            self.gradients.close()
            self.engine.change_placement(parks_gradients=True)
            self.gradients = GradientSums(self.engine)
            moved = True
        return "gradients and optimizer states wait in main memory from now on" if moved else None

    def _stream_blocks(self) -> str | None:
        engine = self.engine
        blocks = [unit.name for unit in engine.units if is_transformer_block(unit.name)]
        if all(engine.is_streamed(name) for name in blocks):
            return None
        if self._streamer is not None:
            self._streamer.close()
            self._streamer = None
        engine.change_placement(streamed=blocks, parks_gradients=False)
        self._attach()
        return "weights are streamed from main memory from now on"

    def close(self) -> None:
        """Detach from the model; the last step may still be under way, and goes on to its end."""
        self.gradients.detach()
        self._recomputation.remove()
        if self._gate is not None:
            self._gate.close()
        if self._streamer is not None:
            self._streamer.close()


def units_of(names: Iterable[str]) -> dict[str, str]:
    """Return the unit of every parameter."""
    return {name: unit_of(name) for name in names}


def in_forward_order(parameters: Mapping[str, Any]) -> list[str]:
    """Return names of parameters, those that forward needs first coming first."""

    def stage(name: str) -> int:
        top = name.split(".", 1)[0]
        return _STAGES.index(top) if top in _STAGES else len(_STAGES)

    return sorted(parameters, key=stage)
