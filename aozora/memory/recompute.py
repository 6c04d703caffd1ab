"""Which activations are kept for backward and which are computed again: fewer bytes, same bits.

diffusers hands each transformer block and almost each resnet to a function of ours. What it leaves
out is wrapped here: the first resnet of the middle block, the upsamplers, and the norm and
projection before the transformer blocks. torch's checkpoint stops as soon as it has what backward
asks for, so the last matrix product or convolution of a checkpoint is not repeated; in the last two
kinds there is only one, so that checkpointing them costs next to nothing. Downsamplers keep nothing
but their input in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from aozora.memory.saved_again import SavedAgain

Level = Literal["store", "pointwise", "full"]
Kind = Literal["transformer block", "resnet", "upsampler", "transformer input"]

LEVELS: Mapping[Kind, tuple[Level, ...]] = {
    "transformer block": ("full", "pointwise", "store"),
    "resnet": ("full", "pointwise", "store"),
    "upsampler": ("full", "store"),
    "transformer input": ("full", "store"),
}
"""What each kind of module can do, from least memory to most."""

_KINDS: Mapping[str, Kind] = {
    "BasicTransformerBlock": "transformer block",
    "ResnetBlock2D": "resnet",
    "Upsample2D": "upsampler",
    "Transformer2DModel": "transformer input",
}
_STAGES = ("down_blocks.", "mid_block.", "up_blocks.")
_LEFT_OUT_BY_DIFFUSERS = "mid_block.resnets.0"
_ENTRY_OF_TRANSFORMER = "_operate_on_continuous_inputs"


class CheckpointingUNet(Protocol):
    """What is needed of diffusers' UNet."""

    def enable_gradient_checkpointing(
        self, gradient_checkpointing_func: Callable[..., Any]
    ) -> None:
        """Call every module that can be checkpointed through a function."""
        ...

    def disable_gradient_checkpointing(self) -> None:
        """Call every module directly."""
        ...

    def named_modules(self) -> Any:
        """All modules, by path."""
        ...


@dataclass(frozen=True)
class RecomputePlan:
    """What each part of a UNet does with its activations.

    Attributes:
        levels: By module path: "store" keeps all; "pointwise" keeps what matrix products,
            convolutions and attention return and repeats the rest; "full" keeps the input. Parts
            that are missing are "full".
    """

    levels: Mapping[str, Level] = field(default_factory=dict)

    def level(self, path: str) -> Level:
        """Return the level of the module at ``path``."""
        return self.levels.get(path, "full")


class Recomputation:
    """A plan in force.

    Args:
        unet: A UNet of diffusers.
        plan: What to do.
        streamed: Paths of transformer blocks whose weights are on the device in backward only if
            the block is called again then.

    Raises:
        ValueError: if the plan names a module that has no such level, or a streamed block is not
            "full".
    """

    def __init__(
        self, unet: CheckpointingUNet, plan: RecomputePlan, streamed: Collection[str] = ()
    ) -> None:
        kinds = recomputable(unet)
        _refuse_impossible(plan, kinds, streamed)
        self._unet = unet
        self._runs: dict[nn.Module, Callable[..., Any]] = {}
        self._handles: list[RemovableHandle] = []
        self._overridden: list[tuple[nn.Module, str]] = []
        modules = dict(unet.named_modules())
        for path, kind in kinds.items():
            module, level = modules[path], plan.level(path)
            if kind in ("upsampler", "transformer input"):
                if level == "full":
                    method = "forward" if kind == "upsampler" else _ENTRY_OF_TRANSFORMER
                    self._override(module, method, _checkpointed)
            elif path == _LEFT_OUT_BY_DIFFUSERS:
                self._override(module, "forward", self._way_to_run(module, level))
            else:
                self._runs[module] = partial(self._way_to_run(module, level), module)
        unet.enable_gradient_checkpointing(self._call)

    def remove(self) -> None:
        """Let the UNet keep all activations again."""
        self._unet.disable_gradient_checkpointing()
        for handle in self._handles:
            handle.remove()
        for module, method in self._overridden:
            delattr(module, method)
        self._handles.clear()
        self._overridden.clear()

    def _call(self, module: nn.Module, *args: Any) -> Any:
        return self._runs[module](*args)

    def _override(self, module: nn.Module, method: str, run: Callable[..., Any]) -> None:
        original = getattr(module, method)

        def called(*args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled():
                return run(original, *args, **kwargs)
            return original(*args, **kwargs)

        setattr(module, method, called)
        self._overridden.append((module, method))

    def _way_to_run(self, module: nn.Module, level: Level) -> Callable[..., Any]:
        if level == "full":
            return _checkpointed
        if level == "store":
            return _called
        saved = SavedAgain()
        for part in module.children():
            if isinstance(part, nn.LayerNorm | nn.GroupNorm | nn.SiLU):
                self._handles.append(part.register_forward_hook(partial(_mark_output, saved)))
        for gate in module.modules():
            if type(gate).__name__ == "GEGLU":
                setattr(gate, "forward", partial(_geglu, saved, gate))  # noqa: B010 - a method
                self._overridden.append((gate, "forward"))
        return partial(_watched, saved)


def recomputable(unet: CheckpointingUNet) -> dict[str, Kind]:
    """Return the modules that a plan can speak of, by path; the weights may be missing."""
    return {
        path: _KINDS[type(module).__name__]
        for path, module in unet.named_modules()
        if path.startswith(_STAGES) and type(module).__name__ in _KINDS
    }


def _refuse_impossible(
    plan: RecomputePlan, kinds: Mapping[str, Kind], streamed: Collection[str]
) -> None:
    for path, level in plan.levels.items():
        kind = kinds.get(path)
        if kind is None or level not in LEVELS[kind]:
            raise ValueError(f"{path}: there is nothing there whose activations can be {level!r}")
    for path in streamed:
        if plan.level(path) != "full":
            raise ValueError(f"{path} is streamed, so it must be recomputed in full")


def _checkpointed(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Nothing in the UNet draws random numbers: its dropout is 0.
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _called(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return run(*args, **kwargs)


def _watched(saved: SavedAgain, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with saved.watching():
        return run(*args, **kwargs)


def _mark_output(
    saved: SavedAgain, module: nn.Module, args: tuple[Tensor, ...], output: Tensor
) -> None:
    saved.mark(output, module.forward, *args)


def _geglu(saved: SavedAgain, module: Any, hidden_states: Tensor) -> Tensor:
    """Run diffusers' GEGLU, whose two products need not be kept."""
    hidden, gate = module.proj(hidden_states).chunk(2, dim=-1)
    activated = module.gelu(gate)
    saved.mark(activated, module.gelu, gate)
    product: Tensor = hidden * activated
    saved.mark(product, torch.mul, hidden, activated)
    return product
