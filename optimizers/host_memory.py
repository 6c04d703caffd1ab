"""Host memory that a GPU copies from and to: page-locked as far as a budget and the system allow.

torch's own pinned allocator rounds every request up to a power of two. Here each block is ordinary
memory that is registered with CUDA, one after the other, until the budget is used up or the system
refuses; what comes after stays ordinary, and copies of it pass through a small pinned buffer.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)

PAGE = 4096


@dataclass(frozen=True)
class HostBlock:
    """A part of host memory.

    Attributes:
        memory: uint8, 1-D, zeros at first.
        pinned: Whether the device can copy it without the host's help.
    """

    memory: Tensor
    pinned: bool


class HostMemory:
    """Hands out blocks of whole pages; none is given back before the whole is dropped.

    Args:
        device: The device that copies from and to it.
        pin_budget: Most bytes to page-lock; 0 for a device that needs none.
    """

    def __init__(self, device: torch.device, pin_budget: int) -> None:
        self._is_cuda = device.type == "cuda"
        self._pin_left = pin_budget if self._is_cuda else 0
        self.num_bytes = 0
        self.pinned_bytes = 0
        self._registered: list[Tensor] = []
        weakref.finalize(self, _unregister, self._registered)
        self.refusal = ""
        """What the system said when it refused to page-lock memory within the budget."""

    def allocate(self, num_bytes: int) -> HostBlock:
        """Return ``num_bytes`` of zeros; they take memory when they are first written."""
        size = -(-num_bytes // PAGE) * PAGE
        raw = torch.zeros(size + PAGE, dtype=torch.uint8)
        # Registration works on whole pages; they must not be shared with other memory.
        offset = -raw.data_ptr() % PAGE
        block = raw[offset : offset + size]
        self.num_bytes += size
        # Copies on a CPU need no page-locked memory.
        pinned = self._pin(block) or not self._is_cuda
        return HostBlock(block[:num_bytes], pinned)

    def _pin(self, block: Tensor) -> bool:
        size = block.numel()
        if size > self._pin_left or self.refusal:
            return False
        refusal = register(block)
        if refusal:
            # Asking again would only fail again.
            self.refusal = refusal
            log.warning("Only %.1f GB could be page-locked: %s", self.pinned_bytes / 1e9, refusal)
            return False
        self._registered.append(block)
        self._pin_left -= size
        self.pinned_bytes += size
        return True


def register(memory: Tensor) -> str:
    """Page-lock ``memory``; return what went wrong, or nothing."""
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    try:
        status = runtime.cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
    except RuntimeError as error:
        refusal = str(error)
    else:
        refusal = "" if int(status) == 0 else f"cudaHostRegister: error {int(status)}"
    if refusal:
        _take_back_error()
    return refusal


def _take_back_error() -> None:
    """Clear the error that CUDA's runtime keeps of a call that failed.

    The next kernel to be launched would be blamed for it; this is that kernel.
    """
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda")


def _unregister(blocks: list[Tensor]) -> None:
    """Undo `register`; the memory must live until then, which ``blocks`` sees to."""
    if not blocks:
        return
    torch.cuda.synchronize()
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    for block in blocks:
        runtime.cudaHostUnregister(block.data_ptr())
    blocks.clear()
