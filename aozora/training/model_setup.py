"""Loading the model for training: weights on the device, optimizer, and what a state restores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aozora.config.schema import TrainConfig
from aozora.errors import CheckpointError
from aozora.events import EventSink, Warned
from aozora.memory.arrangement import Arrangement, Layout
from aozora.model.attention import use_attention
from aozora.model.loading import load_unet
from aozora.model.source import ModelSource
from aozora.training.device import DTYPES, release_memory
from aozora.training.loss_scaler import LossScaler
from aozora.training.optimizer_factory import build_rule
from aozora.training.state_file import FileTensor
from optimizers.streamed import StreamedOptimizer

State = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainableModel:
    """A UNet that is ready to train.

    Attributes:
        unet: The model, on its device.
        memory: Its weights, gradients and optimizer.
        scaler: Loss scale; disabled unless fp16.
        attention: The attention kernel in use.
        total_parameters: Numbers the UNet holds.
    """

    unet: Any
    memory: Arrangement
    scaler: LossScaler
    attention: str
    total_parameters: int


class _BaseWeights(Mapping[str, Tensor]):
    """The trained tensors as the base model's file has them, read one at a time."""

    def __init__(self, source: ModelSource, names: tuple[str, ...]) -> None:
        self._source = source
        self._names = names

    def __getitem__(self, name: str) -> Tensor:
        return self._source.read("unet", name).float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_trainable(
    config: TrainConfig,
    source: ModelSource,
    names: tuple[str, ...],
    layout: Layout,
    device: torch.device,
    state: State | None,
    emit: EventSink,
) -> TrainableModel:
    """Load the UNet, freeze what is not in ``names``, and lay out all memory as planned.

    Raises:
        ModelFileError: if weights are missing or not finite.
        ConfigError: if the attention kernel asked for is not to be had.
        CheckpointError: if ``state`` does not fit.
    """
    dtype = DTYPES[config.training.precision]
    placement = layout.placement
    streamed = [n for n, unit in placement.units.items() if unit in placement.streamed]
    unet: Any = load_unet(
        source,
        dtype,
        device,
        on_host={*names, *streamed},
        warn=lambda text: emit(Warned(text=text)),
    )
    unet.requires_grad_(False)
    attention = use_attention(unet, config.model.attention)
    rule, moments = build_rule(config.optimizer)
    memory = Arrangement(
        unet,
        names,
        rule,
        moments,
        layout=layout,
        device=device,
        micro_steps=config.training.accumulation_steps,
        seed=config.training.seed,
    )
    scaler = LossScaler(enabled=config.training.precision == "fp16")
    if state is not None:
        _restore(state, memory.optimizer, scaler)
    elif dtype != torch.float32:
        # The exact weights start from the file's own bits, not from their rounding.
        memory.optimizer.load_master_weights(_BaseWeights(source, tuple(memory.parameters)))
    # Frozen tensors that stay on the host belong to no streamed unit after all.
    for parameter in unet.parameters():
        if not parameter.requires_grad and parameter.device.type != device.type:
            parameter.data = parameter.data.to(device)
    source.close()
    release_memory(device)
    return TrainableModel(
        unet=unet,
        memory=memory,
        scaler=scaler,
        attention=attention,
        total_parameters=sum(parameter.numel() for parameter in unet.parameters()),
    )


@torch.no_grad()
def _restore(state: State, optimizer: StreamedOptimizer, scaler: LossScaler) -> None:
    """Put a state's tensors back in place.

    Raises:
        CheckpointError: if they do not fit.
    """
    for name, weight in optimizer.weights().items():
        weight.copy_(state["weights"][name].read())
    try:
        optimizer.load_state_dict(state["optimizer"], read=FileTensor.read)
    except ValueError as error:
        raise CheckpointError(
            f"the optimizer in the state does not fit: {error}", "restore its settings"
        ) from error
    scaler.load_state_dict(state["loss_scale"])
