"""Host memory that a GPU copies from and to: page-locked as far as a budget and the system allow.

torch's own pinned allocator rounds every request up to a power of two. Here ordinary memory is
registered with CUDA in exact slabs, one after the other, until the budget is used up or the system
refuses; what comes after is ordinary memory, and copies of it pass through a small pinned buffer.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SLAB_BYTES = 512 * 2**20
_PAGE = 4096
_ALIGNMENT = 512


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
    """Hands out parts of slabs; nothing is ever given back before the whole is dropped.

    Args:
        device: The device that copies from and to it.
        pin_budget: Most bytes to page-lock; 0 for a device that needs none.
    """

    def __init__(self, device: torch.device, pin_budget: int) -> None:
        self._is_cuda = device.type == "cuda"
        self._pin_left = pin_budget if self._is_cuda else 0
        self._slab: Tensor | None = None
        self._slab_pinned = False
        self._used = 0
        self.num_bytes = 0
        self.pinned_bytes = 0
        self._registered: list[Tensor] = []
        weakref.finalize(self, _unregister, self._registered)
        self.refusal = ""
        """What the system said when it refused to page-lock memory within the budget."""

    def allocate(self, num_bytes: int, *, expected: int = 0) -> HostBlock:
        """Return ``num_bytes`` of zeros.

        Args:
            num_bytes: Bytes needed.
            expected: Bytes that will be asked for in all, so that the last slab is not too large.
        """
        if self._slab is None or self._used + num_bytes > self._slab.numel():
            self._new_slab(max(num_bytes, min(SLAB_BYTES, expected)))
        assert self._slab is not None
        memory = self._slab[self._used : self._used + num_bytes]
        self._used += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        return HostBlock(memory, self._slab_pinned)

    def _new_slab(self, num_bytes: int) -> None:
        size = -(-num_bytes // _PAGE) * _PAGE
        raw = torch.zeros(size + _PAGE, dtype=torch.uint8)
        # Registration works on whole pages; they must not be shared with other memory.
        offset = -raw.data_ptr() % _PAGE
        self._slab = raw[offset : offset + size]
        self._slab_pinned = self._pin(self._slab)
        self._used = 0
        self.num_bytes += size
        if not self._is_cuda:
            self._slab_pinned = True  # copies on a CPU need no page-locked memory

    def _pin(self, slab: Tensor) -> bool:
        size = slab.numel()
        if size > self._pin_left or self.refusal:
            return False
        refusal = register(slab)
        if refusal:
            # Asking again would only fail again, and a failed call may leave an error behind.
            self.refusal = refusal
            log.warning("Only %.1f GB could be page-locked: %s", self.pinned_bytes / 1e9, refusal)
            return False
        self._registered.append(slab)
        self._pin_left -= size
        self.pinned_bytes += size
        return True


def register(memory: Tensor) -> str:
    """Page-lock ``memory``; return what went wrong, or nothing."""
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    try:
        status = runtime.cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
    except RuntimeError as error:
        return str(error)
    return "" if int(status) == 0 else f"cudaHostRegister: error {int(status)}"


def _unregister(slabs: list[Tensor]) -> None:
    """Undo `register`; the memory must live until then, which ``slabs`` sees to."""
    if not slabs:
        return
    torch.cuda.synchronize()
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    for slab in slabs:
        runtime.cudaHostUnregister(slab.data_ptr())
    slabs.clear()
