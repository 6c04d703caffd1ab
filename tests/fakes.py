"""Queues that do their work as late, as early or as disorderly as events allow.

A device hides most missing waits: its copies are usually done in time. Here they are not.
`LazyBackend` takes work and does it later, in an order drawn from its seed, bounded only by the
order within a queue and by the events queues wait for. A result that needs a wait nobody asked for
comes out wrong with some seed.

What is *ordered* can also be checked whatever order the work is really done in: memory given to
`watch` is followed by vector clocks (each queue's and the host's), and two accesses to the same
bytes, one of them a write, that no chain of events orders are a race and raise at once. That is
needed where the model itself computes (``eager_compute``): its work cannot be put off.

    backend = LazyBackend(seed=3)                        # all four queues lazy
    backend = LazyBackend(seed=3, eager_compute=True)    # the model runs in the caller's thread
    backend.watch(buffer)
    with backend.watched_compute():                      # ops of the model count as compute's
        loss = model(x); loss.backward()
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HABITS = ("early", "late", "mixed")
QUEUES = ("compute", "update", "copy_in", "copy_out", "weights_in")


class Race(AssertionError):
    """Two accesses to the same memory that nothing orders."""


Clock = dict[str, int]


def _merge(clock: Clock, other: Clock) -> None:
    for name, time in other.items():
        clock[name] = max(clock.get(name, 0), time)


class LazyEvent:
    """A point in a lazy queue; waiting for it does as much work as that takes."""

    def __init__(self, backend: LazyBackend, queue: LazyQueue) -> None:
        self._backend = backend
        self.queue = queue
        self.is_done = False
        self.clock: Clock = {}

    def synchronize(self) -> None:
        with self._backend.lock:
            self._backend._drive(self)
            _merge(self._backend._host_clock, self.clock)


@dataclass
class _Item:
    work: Callable[[], object] | None = None
    awaited: LazyEvent | None = None
    recorded: LazyEvent | None = None
    host_clock: Clock = field(default_factory=dict)


class LazyQueue:
    """Keeps its work until the backend's habit, or someone who waits, has it done."""

    def __init__(self, backend: LazyBackend, name: str, *, is_eager: bool) -> None:
        self.name = name
        self._backend = backend
        self._is_eager = is_eager
        self._items: deque[_Item] = deque()
        self._time = 1
        self.clock: Clock = {}

    def run(self, work: Callable[[], object]) -> None:
        self._put(_Item(work=work))

    def wait(self, event: LazyEvent) -> None:
        assert isinstance(event, LazyEvent), f"an event of another backend: {event!r}"
        self._put(_Item(awaited=event))

    def record(self) -> LazyEvent:
        event = LazyEvent(self._backend, self)
        self._put(_Item(recorded=event))
        return event

    def _put(self, item: _Item) -> None:
        with self._backend.lock:
            item.host_clock = dict(self._backend._host_clock)
            self._items.append(item)
            if self._is_eager:
                if item.awaited is not None:
                    self._backend._drive(item.awaited)
                self.do_next()
            else:
                self._backend._follow_habit()

    @property
    def is_ready(self) -> bool:
        """Whether the next item can be done now."""
        return bool(self._items) and self.blocked_by is None

    @property
    def blocked_by(self) -> LazyEvent | None:
        """The event the next item waits for."""
        awaited = self._items[0].awaited
        return awaited if awaited is not None and not awaited.is_done else None

    def do_next(self) -> None:
        item = self._items.popleft()
        _merge(self.clock, item.host_clock)
        if item.awaited is not None:
            _merge(self.clock, item.awaited.clock)
        elif item.recorded is not None:
            item.recorded.clock = {**self.clock, self.name: self._time}
            item.recorded.is_done = True
            self._time += 1
        elif item.work is not None:
            with _Touches(self._backend, self):
                item.work()

    @property
    def now(self) -> Clock:
        """What has happened, by queue, before the work done now; its own entry is its time."""
        return {**self.clock, self.name: self._time}

    @property
    def is_empty(self) -> bool:
        return not self._items


@dataclass(frozen=True)
class _Access:
    start: int
    end: int
    queue: str
    time: int
    is_write: bool
    what: str


class _Touches(TorchDispatchMode):
    """Reports every access to watched memory."""

    def __init__(self, backend: LazyBackend, queue: LazyQueue) -> None:
        super().__init__()
        self._backend = backend
        self._queue = queue

    def __enter__(self):
        self._backend._active.append(self)
        return super().__enter__()

    def __exit__(self, *error):
        self._backend._active.pop()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Work of a queue may be done while another's is under way; it passes both.
        if self._backend._watched and self._backend._active[-1] is self:
            self._note(func, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, func, args, kwargs) -> None:
        for position, argument in enumerate(func._schema.arguments):
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            alias = argument.alias_info
            if alias is not None and not alias.is_write:
                continue  # a view is no access
            for tensor in tree_leaves(value):
                if isinstance(tensor, Tensor):
                    self._backend._access(tensor, self._queue, alias is not None, str(func))


class LazyBackend:
    """Queues whose work is done in a legal order drawn from ``seed``.

    Args:
        seed: Of the order, and of the habit if none is given.
        eager_compute: Do the work of ``compute`` at once, as a model in the caller's thread does.
        habit: "early": as soon as events allow; "late": not before someone waits for it, and then
            only what that needs; "mixed": at random.
    """

    def __init__(self, seed: int, *, eager_compute: bool = False, habit: str | None = None) -> None:
        self._random = random.Random(seed)
        self.habit = habit or self._random.choice(HABITS)
        self.device = torch.device("cpu")
        self._watched: list[tuple[int, int]] = []
        self._accesses: list[_Access] = []
        self._active: list[_Touches] = []
        self._host_clock: Clock = {}
        self.lock = threading.RLock()
        self.compute = LazyQueue(self, "compute", is_eager=eager_compute)
        self.update = LazyQueue(self, "update", is_eager=False)
        self.copy_in = LazyQueue(self, "copy_in", is_eager=False)
        self.copy_out = LazyQueue(self, "copy_out", is_eager=False)
        self.weights_in = LazyQueue(self, "weights_in", is_eager=False)
        self._queues = [
            self.compute,
            self.update,
            self.copy_in,
            self.copy_out,
            self.weights_in,
        ]

    def synchronize(self) -> None:
        """Do everything that is left, in a random legal order."""
        with self.lock:
            while not all(queue.is_empty for queue in self._queues):
                self._do_any()
            for queue in self._queues:
                _merge(self._host_clock, queue.now)

    def watch(self, memory: Tensor) -> None:
        """Check accesses to ``memory`` for races from now on."""
        start = memory.untyped_storage().data_ptr()
        self._watched.append((start, start + memory.untyped_storage().nbytes()))

    @contextmanager
    def watched_compute(self) -> Iterator[None]:
        """Count what the caller's thread computes as work of ``compute``."""
        with _Touches(self, self.compute):
            yield

    def _drive(self, event: LazyEvent) -> None:
        while not event.is_done:
            if self.habit == "mixed" and self._random.random() < 0.5:
                self._do_any()
            else:
                self._do_needed(event)

    def _do_needed(self, event: LazyEvent) -> None:
        queue, seen = event.queue, set()
        while (blocker := queue.blocked_by) is not None:
            assert queue.name not in seen, f"queues wait for each other: {sorted(seen)}"
            seen.add(queue.name)
            queue = blocker.queue
        queue.do_next()

    def _do_any(self) -> None:
        ready = [queue for queue in self._queues if queue.is_ready]
        assert ready, "queues wait for each other"
        self._random.choice(ready).do_next()

    def _follow_habit(self) -> None:
        if self.habit == "late":
            return
        while any(queue.is_ready for queue in self._queues):
            if self.habit == "mixed" and self._random.random() < 0.5:
                return
            self._do_any()

    def _access(self, tensor: Tensor, queue: LazyQueue, is_write: bool, what: str) -> None:
        if tensor.numel() == 0 or tensor.layout != torch.strided:
            return
        start = tensor.data_ptr()
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        end = start + reach * tensor.element_size()
        if not any(start < high and low < end for low, high in self._watched):
            return
        now = queue.now
        kept: list[_Access] = []
        for old in self._accesses:
            if old.start >= end or start >= old.end:
                kept.append(old)
                continue
            is_ordered = old.queue == queue.name or now.get(old.queue, 0) >= old.time
            if not is_ordered and (is_write or old.is_write):
                raise Race(f"{what} on {queue.name} and {old.what} on {old.queue} are not ordered")
            is_covered = is_ordered and start <= old.start and old.end <= end
            # Whoever comes after this access in order also comes after what it came after.
            if not (is_covered and (is_write or not old.is_write)):
                kept.append(old)
        kept.append(_Access(start, end, queue.name, now[queue.name], is_write, what))
        self._accesses = kept
