"""Weights that live on the host and visit the device when their unit computes.

A few slots on the device are shared by all streamed units. A unit's parameters point into a slot
from just before its forward until nothing reads them any more; meanwhile the units that come next
are copied into the other slots. Copies and computation are ordered by events alone; the host waits
only for a unit that is needed at once while its update has not even begun.

**When a slot may be overwritten.** Without recomputation, autograd would keep views of a slot from
forward to backward, and overwriting the slot would give wrong gradients without any error. So a
streamed unit must be checkpointed (non-reentrant); then its forward leaves nothing behind, and its
slot is free when its forward has been queued. In backward the checkpoint calls the module again,
and the slot is needed until every gradient of the unit has been computed. That is the case when the
*next* unit is called: autograd runs nodes that are ready in descending order of their creation, so
a node of an earlier unit can only run when no node of the later unit is left. This holds for units
that are run one after the other, as the transformer blocks of a UNet are. Should a model break it,
a gradient appears for a unit that no longer holds a slot, which raises an error at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optimizers.backend import Backend, Event, Queue

_STAGES = ("down_blocks", "mid_block", "up_blocks")
_NUMBER = re.compile(r"(?<=\.)\d+")


@dataclass(frozen=True)
class HostUnit:
    """The weights of one streamed unit.

    Attributes:
        name: Path of the module that computes with them.
        weights: All of them, 1-D, in host memory, of the parameters' dtype.
        views: Full parameter name -> offset of its first element in ``weights``, and its shape.
    """

    name: str
    weights: Tensor
    views: Mapping[str, tuple[int, torch.Size]]


@dataclass(eq=False)
class _Slot:
    """A part of device memory that holds one unit at a time.

    Attributes:
        memory: 1-D.
        free: After it, whatever was last done with the memory is done.
        unit: Number of the unit whose weights are here or on their way; None if of no use.
        loaded: After it, they are here.
    """

    memory: Tensor
    free: Event
    unit: int | None = None
    loaded: Event | None = None


class WeightStreamer:
    """Brings the weights of streamed units to the device in time.

    Between uses a streamed parameter keeps shape, dtype and device, but reads as NaN: its values
    are in ``HostUnit.weights``. Saving must read them there, and the model must not be moved or
    cast while this is attached.

    Args:
        model: Its parameters named in ``units`` are streamed; others stay where they are.
        units: In the order of forward.
        backend: The device's queues.
        slots: Units that are on the device at once. Two can overlap copies with computation; more
            even out units that compute faster than they are copied.
        ready: Called with the name of a unit before its first load since it was invalidated;
            returns the event after which its new weights are on the host, if there is anything to
            wait for. It may keep the host waiting until that event exists.
        is_issued: Whether ``ready`` would return at once. Units for which it would not are never
            fetched ahead, only when they are called. If None, ``ready`` never keeps anyone waiting.
        loads: The queue of the copies; ``copy_in`` if None. On ``weights_in`` they need not come
            after all the copies of an optimizer pass that is under way, but then whoever writes
            host weights must wait for `last_read`.

    Raises:
        ValueError: if ``units`` or ``slots`` cannot be streamed.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[HostUnit],
        backend: Backend,
        *,
        slots: int = 3,
        ready: Callable[[str], Event | None] | None = None,
        is_issued: Callable[[str], bool] | None = None,
        loads: Queue | None = None,
    ) -> None:
        if not units or slots < 1:
            raise ValueError("streaming needs at least one unit and one slot")
        dtypes = {unit.weights.dtype for unit in units}
        if len(dtypes) != 1:
            raise ValueError(f"streamed units of different formats: {sorted(map(str, dtypes))}")
        self._backend = backend
        self._loads = loads or backend.copy_in
        self._units = tuple(units)
        self._number = {unit.name: number for number, unit in enumerate(units)}
        self._parameters = [[model.get_parameter(name) for name in unit.views] for unit in units]
        (dtype,) = dtypes
        nothing = torch.full((1,), float("nan"), dtype=dtype, device=backend.device)
        self._placeholders = [
            [nothing.expand(shape) for _, shape in unit.views.values()] for unit in units
        ]
        largest = max(unit.weights.numel() for unit in units)
        memory = [
            torch.empty(largest, dtype=dtype, device=backend.device)
            for _ in range(min(slots, len(units)))
        ]
        # The allocator may have handed out memory that queued computation still reads.
        allocated = backend.compute.record()
        self._slots = [_Slot(part, allocated) for part in memory]
        self._views: dict[tuple[int, int], list[Tensor]] = {}
        self._held: int | None = None
        self._ready = ready
        self._is_issued = is_issued
        self._stale: set[int] = set()
        self._read: dict[int, Event] = {}
        self._watched_task = -1
        self._handles: list[RemovableHandle] = []
        for number in range(len(units)):
            self._put_away(number)
        self._attach(model)

    @property
    def device_bytes(self) -> int:
        """Device memory the slots take."""
        return sum(slot.memory.numel() * slot.memory.element_size() for slot in self._slots)

    def invalidate(self, unit: str) -> None:
        """Load ``unit`` anew before its next use: its weights on the host change or have changed.

        To be called before anything may be loaded again, so that no load takes old weights for new.
        """
        number = self._number[unit]
        self._stale.add(number)
        if self._held == number:
            self._release()
        for slot in self._slots:
            if slot.unit == number:
                # A load may still be on its way; the next one comes after it on the same queue.
                slot.unit = None

    def invalidate_all(self) -> None:
        """Load every unit anew before its next use."""
        for unit in self._units:
            self.invalidate(unit.name)

    def last_read(self, unit: str) -> Event | None:
        """Return the event after which no load reads the host weights of ``unit`` any more.

        Whoever overwrites them must wait for it: a unit may have been fetched ahead and not used.
        None if they were never read.
        """
        return self._read.get(self._number[unit])

    def prefetch(self) -> None:
        """Begin to load the first units of forward, as after an optimizer step."""
        self._fetch(range(len(self._units)), held=self._held)

    def close(self) -> None:
        """Detach from the model; its streamed parameters stay without values."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._release()
        # The slots' memory goes back to the allocator, which knows nothing of copies under way.
        self._backend.compute.wait(self._loads.record())
        self._slots.clear()
        self._views.clear()

    def _attach(self, model: nn.Module) -> None:
        for number, unit in enumerate(self._units):
            module = model.get_submodule(unit.name)
            before = partial(self._before_forward, number)
            after = partial(self._after_forward, number)
            self._handles.append(module.register_forward_pre_hook(before))
            self._handles.append(module.register_forward_hook(after))
            for name, parameter in zip(unit.views, self._parameters[number], strict=True):
                if parameter.requires_grad:
                    check = partial(self._check_held, number, name)
                    self._handles.append(
                        parameter.register_post_accumulate_grad_hook(check)  # type: ignore[no-untyped-call]
                    )

    def _before_forward(self, number: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and not _saves_are_intercepted():
            raise RuntimeError(
                f"{self._units[number].name} is streamed but not checkpointed: its gradients would"
                " be computed with the weights of another unit"
            )
        if _is_in_backward():
            self._watch_end_of_backward()
        self._acquire(number)
        self._fetch(self._upcoming(number), held=number)

    def _after_forward(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        # When backward recomputes, the weights are needed until its gradients are there.
        if self._held == number and not _is_in_backward():
            self._release()

    def _check_held(self, number: int, name: str, parameter: Tensor) -> None:
        if self._held != number:
            raise RuntimeError(
                f"the gradient of {name} was computed after its weights had left the device;"
                " streamed units must run one after the other"
            )

    def _acquire(self, number: int) -> None:
        """Point the parameters of a unit at its weights on the device."""
        if self._held is not None and self._held != number:
            self._release()
        slot = self._slot_of(number)
        if slot is None:
            slot = self._farthest(self._upcoming(number), keep=set())
            assert slot is not None, "nothing is held here, so every slot can be given up"
            self._load(number, slot)
        assert slot.loaded is not None
        self._backend.compute.wait(slot.loaded)
        for parameter, view in zip(
            self._parameters[number], self._views_of(number, slot), strict=True
        ):
            parameter.data = view
        self._held = number

    def _release(self) -> None:
        """Let go of the held unit: everything that reads its weights has been queued."""
        number = self._held
        if number is None:
            return
        self._held = None
        slot = self._slot_of(number)
        assert slot is not None, "a held unit is in a slot"
        slot.free = self._backend.compute.record()
        self._put_away(number)

    def _put_away(self, number: int) -> None:
        for parameter, nothing in zip(
            self._parameters[number], self._placeholders[number], strict=True
        ):
            parameter.data = nothing

    def _fetch(self, upcoming: Sequence[int], *, held: int | None) -> None:
        """Load the next units of ``upcoming`` into all slots but that of the held unit."""
        num_wanted = len(self._slots) - (held is not None)
        wanted = list(dict.fromkeys(n for n in upcoming if n != held))[:num_wanted]
        keep = {*wanted} if held is None else {*wanted, held}
        for number in wanted:
            if self._slot_of(number) is None and not self._would_wait(number):
                slot = self._farthest(upcoming, keep)
                assert slot is not None, "as many slots as units are wanted"
                self._load(number, slot)

    def _would_wait(self, number: int) -> bool:
        """Return whether loading a unit now could keep the host waiting."""
        if self._is_issued is None or number not in self._stale:
            return False
        return not self._is_issued(self._units[number].name)

    def _farthest(self, upcoming: Sequence[int], keep: set[int]) -> _Slot | None:
        """Return the slot whose unit is needed last, of those not in ``keep``."""
        candidates = [slot for slot in self._slots if slot.unit is None or slot.unit not in keep]
        distance = {number: place for place, number in reversed(list(enumerate(upcoming)))}

        def next_use(slot: _Slot) -> int:
            if slot.unit is None:
                return len(upcoming) + 1
            return distance.get(slot.unit, len(upcoming))

        return max(candidates, key=next_use, default=None)

    def _load(self, number: int, slot: _Slot) -> None:
        queue = self._loads
        weights = self._units[number].weights
        ready = self._take_ready(number)
        if ready is not None:
            queue.wait(ready)  # once is enough: later loads come after this one
            if slot.memory.is_cuda and not weights.is_pinned():
                ready.synchronize()  # the host itself reads ordinary memory, and at once
        queue.wait(slot.free)
        target = slot.memory[: weights.numel()]
        queue.run(lambda: target.copy_(weights, non_blocking=True))
        slot.unit = number
        slot.loaded = self._read[number] = queue.record()

    def _take_ready(self, number: int) -> Event | None:
        if self._ready is None or number not in self._stale:
            return None
        ready = self._ready(self._units[number].name)
        self._stale.discard(number)
        return ready

    def _views_of(self, number: int, slot: _Slot) -> list[Tensor]:
        key = (number, self._slots.index(slot))
        if key not in self._views:
            self._views[key] = [
                slot.memory[offset : offset + shape.numel()].view(shape)
                for offset, shape in self._units[number].views.values()
            ]
        return self._views[key]

    def _slot_of(self, number: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.unit == number), None)

    def _upcoming(self, number: int) -> Sequence[int]:
        """Return the units in the order of their next uses, after the use that begins now."""
        count = len(self._units)
        if _is_in_backward():
            return tuple(_chain(range(number - 1, -1, -1), range(count)))
        if torch.is_grad_enabled():
            return tuple(_chain(range(number + 1, count), range(count - 1, -1, -1)))
        return tuple(_chain(range(number + 1, count), range(count)))

    def _watch_end_of_backward(self) -> None:
        """Let the last unit of backward be released when all of backward has been queued."""
        if self._watched_task != _graph_task():
            self._watched_task = _graph_task()
            torch.autograd.Variable._execution_engine.queue_callback(self._release)


def forward_order(blocks: Iterable[str]) -> list[str]:
    """Return transformer blocks of a UNet in the order in which forward runs them.

    The model lists its up blocks before the middle one.
    """

    def place(block: str) -> tuple[int, list[int]]:
        stage = _STAGES.index(block.partition(".")[0])
        return stage, [int(number) for number in _NUMBER.findall(block)]

    return sorted(blocks, key=place)


def _chain(*parts: range) -> Iterator[int]:
    return chain.from_iterable(parts)


def _graph_task() -> int:
    return int(torch._C._current_graph_task_id())


def _is_in_backward() -> bool:
    return _graph_task() != -1


def _saves_are_intercepted() -> bool:
    """Return whether autograd is kept from holding weights, as inside a checkpoint."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
