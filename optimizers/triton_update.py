"""Updating a chunk in one fused kernel, where Triton is installed."""

from __future__ import annotations

import importlib.util
import logging
from contextlib import nullcontext
from subprocess import SubprocessError
from typing import Any

import torch
from torch import Tensor

from optimizers.block_formats import dither_offset
from optimizers.chunk import QUANT_BLOCK, Chunk, StatePlane, StepScalars
from optimizers.lion import LionRule
from optimizers.precision import StateFormat
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.rule import UpdateRule
from optimizers.velo_rms import VeloRMSRule

log = logging.getLogger(__name__)

FusedRule = RavenAdamWRule | VeloRMSRule | LionRule

_ROWS = 8  # blocks of one program; 8 elements for each of its 128 threads

# The numbers by which the kernel knows formats; it knows rules by their place below.
_FORMATS: dict[StateFormat, int] = {
    "float32": 0,
    "bfloat16": 1,
    "uint16_sr": 2,
    "int8": 3,
    "uint8": 4,
    "int6": 5,
    "uint10": 6,
}
_RULES: tuple[tuple[type[FusedRule], tuple[str, ...]], ...] = (
    (RavenAdamWRule, ("exp_avg", "exp_avg_sq")),
    (VeloRMSRule, ("velocity", "rms")),
    (LionRule, ("exp_avg",)),
)


def available() -> bool:
    """Return whether Triton can be imported."""
    return importlib.util.find_spec("triton") is not None


def supports(rule: UpdateRule) -> bool:
    """Return whether there is a fused kernel for ``rule``."""
    return isinstance(rule, FusedRule) and not rule.needs_shape


class TritonUpdate:
    """A `optimizers.chunk_update.ChunkUpdate` that reads and writes everything once.

    Against `optimizers.chunk_update.EagerUpdate` weights differ in the last place now and then,
    since kernels fuse multiplications and additions in their own ways. A run repeats bit for bit.

    Args:
        rule: One that `supports` accepts.
        device: Where the chunks will be.

    Raises:
        ValueError: for any other rule.
    """

    def __init__(self, rule: UpdateRule, device: torch.device) -> None:
        # Typed as Any: what Triton makes of a function is launched by an index in brackets.
        from optimizers import triton_kernels

        if not isinstance(rule, FusedRule) or rule.needs_shape:
            raise ValueError(f"{rule.kind} has no fused kernel")
        self._rule: FusedRule = rule
        self._kind, self._states = next(
            (kind, states)
            for kind, (rule_class, states) in enumerate(_RULES)
            if isinstance(rule, rule_class)
        )
        self._device = device
        self._kernel: Any = triton_kernels.update_chunk

    @property
    def scratch_bytes(self) -> int:
        """None: intermediate results stay in registers."""
        return 0

    def works(self) -> bool:
        """Return whether a kernel can be compiled and run here; logs why if not.

        Triton is a compiler that needs another one: without a C compiler, say, it is of no use.
        """
        memory = torch.zeros(QUANT_BLOCK, device=self._device)
        formats = self._rule.formats("float32")
        states = {name: StatePlane(memory.clone(), None, "float32") for name in formats}
        chunk = Chunk(weight=memory, master=None, gradient=memory.clone(), states=states, start=0)
        one = torch.ones((), device=self._device)
        scalars = StepScalars(lr=0.0, t=1, gradient_scale=one, noise_keys={})
        try:
            self(chunk, scalars, torch.zeros(1, device=self._device))
        except (ImportError, OSError, RuntimeError, SubprocessError) as error:
            log.warning(
                "the fused update cannot be compiled, slower operations are used: %s", error
            )
            return False
        return True

    @torch.no_grad()
    def __call__(
        self,
        chunk: Chunk,
        scalars: StepScalars,
        magnitude: Tensor,
        shape: torch.Size | None = None,
    ) -> None:
        """Update ``chunk`` in place; see `optimizers.chunk_update.ChunkUpdate`."""
        count = chunk.weight.numel()
        assert count % QUANT_BLOCK == 0
        if count == 0:
            return
        names = self._states
        first, second = (chunk.states[name] for name in (names[0], names[-1]))
        weight, master, kind = _weight_arguments(chunk)
        on_device = (
            torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()
        )
        with on_device:
            self._kernel[(-(-count // (_ROWS * QUANT_BLOCK)),)](
                weight,
                master,
                chunk.gradient,
                first.values,
                _scales(first),
                second.values,
                _scales(second),
                scalars.gradient_scale,
                magnitude.view(torch.int32),
                count,
                chunk.start,
                _key(scalars, names[0], first),
                _key(scalars, names[-1], second),
                dither_offset(scalars.t),
                *map(float, _numbers(self._rule, scalars)),
                RULE=self._kind,
                WEIGHT=kind,
                FIRST=_FORMATS[first.state_format],
                SECOND=_FORMATS[second.state_format],
                ROWS=_ROWS,
            )


def _weight_arguments(chunk: Chunk) -> tuple[Tensor, Tensor, int]:
    """Return pointers to weight and master, and the kernel's number for their kind."""
    if chunk.master is None:
        return chunk.weight, chunk.weight, 0
    if chunk.master.dtype == torch.int16:
        return chunk.weight.view(torch.int16), chunk.master, 1
    return chunk.weight, chunk.master, 2


def _scales(plane: StatePlane) -> Tensor:
    """Return the pointer to the scales, or any for a plane without."""
    if plane.scales is None:
        return plane.values
    return plane.scales if plane.state_format == "int8" else plane.scales.view(torch.int32)


def _key(scalars: StepScalars, name: str, plane: StatePlane) -> int:
    return scalars.noise_keys[name] if plane.state_format == "uint16_sr" else 0


def _numbers(rule: FusedRule, scalars: StepScalars) -> tuple[float, ...]:
    """Return step_size, settled_size, kept_weight and number0 to number4 of the kernel."""
    lr, t = scalars.lr, scalars.t
    kept = 1 - lr * rule.weight_decay
    if isinstance(rule, LionRule):
        return lr, 0.0, kept, 1 - rule.beta1, 1 - rule.beta2, 0.0, 0.0, 0.0
    if isinstance(rule, VeloRMSRule):
        return lr, 0.0, kept, rule.momentum, 1 - rule.momentum, rule.leak, rule.eps, 0.0
    correction1 = 1 - rule.debias_strength * rule.beta1**t
    correction2 = 1 - rule.debias_strength * rule.beta2**t
    return (
        lr / correction1,
        lr * rule.settled_share(t),
        kept,
        1 - rule.beta1,
        rule.beta2,
        1 - rule.beta2,
        1 / correction2**0.5,
        rule.eps,
    )
