"""Host memory that takes the place of records which are still being saved."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from optimizers.engine import Engine
from optimizers.host_memory import PAGE, HostMemory
from optimizers.ring import aligned

_PORTION_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class SpareBlock:
    """A part of host memory that no record uses.

    Attributes:
        memory: uint8, 1-D.
        pinned: Whether the device can copy it by itself.
    """

    memory: Tensor
    pinned: bool


class SpareMemory:
    """A store of blocks; what a record had before goes into it when the record gets another.

    One thread may `allocate` while others `give` and `take`, one at a time.

    Args:
        engine: The run's memory.
        budget_bytes: Most memory to add to it.
    """

    def __init__(self, engine: Engine, budget_bytes: int) -> None:
        self._engine = engine
        self._budget = budget_bytes
        self._host: HostMemory | None = None
        self._size = 0
        self._num_left = 0
        self._blocks: list[SpareBlock] = []
        self._whole: dict[int, SpareBlock] = {}

    def allocate(self, sizes: list[int]) -> list[SpareBlock]:
        """Return some more blocks, each for any record of these sizes; none when all are there.

        Page-locking them takes long, which is why they come a portion at a time.
        """
        engine = self._engine
        if self._host is None and sizes:
            self._size = aligned(max(sizes))
            self._num_left = min(self._budget // self._size, len(sizes))
            may_pin = engine.placement.pin_bytes > 0
            rounding = PAGE * self._num_left
            self._host = HostMemory(engine.device, self._budget + rounding if may_pin else 0)
        if self._host is None or self._num_left == 0:
            return []
        size = self._size
        count = min(self._num_left, max(1, _PORTION_BYTES // size))
        self._num_left -= count
        whole = self._host.allocate(size * count)
        # Memory that the device cannot copy by itself needs buffers which may not be there.
        if engine.device.type == "cuda" and not whole.pinned and not engine.transfers.bounces:
            self._num_left = 0
            return []
        parts = [whole.memory[start : start + size] for start in range(0, size * count, size)]
        blocks = [SpareBlock(memory, whole.pinned) for memory in parts]
        # A smaller record may have one for a while; it comes back in its full length.
        self._whole.update({block.memory.data_ptr(): block for block in blocks})
        return blocks

    def give(self, block: SpareBlock) -> None:
        """Put a block into the store."""
        self._blocks.append(self._whole.get(block.memory.data_ptr(), block))

    def take(self, num_bytes: int) -> SpareBlock | None:
        """Return exactly so much memory, page-locked if there is such; None if there is none."""
        fitting = [block for block in self._blocks if block.memory.nbytes >= num_bytes]
        if not fitting:
            return None
        best = min(fitting, key=lambda block: (not block.pinned, block.memory.nbytes))
        self._blocks.remove(best)
        return SpareBlock(best.memory[:num_bytes], best.pinned)

    @property
    def num_blocks(self) -> int:
        """How many blocks are in the store."""
        return len(self._blocks)
