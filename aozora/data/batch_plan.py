"""Which samples make up which batch, for the whole run, as a pure function of the seed.

Position k, the number of a micro-step, gives its epoch and its place there by arithmetic, so a
resumed run goes on where it was without any state. Nothing is dropped: short batches are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from aozora.config.chance import chance_key


@dataclass(frozen=True)
class PlannedBatch:
    """One batch.

    Attributes:
        epoch: Epoch it belongs to, from 0.
        items: Indices into the dataset, all of one bucket.
        first_sample: How many samples of the whole run are drawn before it.
    """

    epoch: int
    items: tuple[int, ...]
    first_sample: int


class BatchPlan:
    """The order of a run.

    In every epoch each item is drawn as often as it is repeated. Its place in its bucket comes from
    the seed, the epoch, its id and the number of the repeat only, so adding an item leaves the
    order of the others as it was.

    Args:
        item_shapes: Bucket (height, width) of each item.
        item_ids: Unique name of each item.
        repeats: How often each item is drawn in an epoch.
        batch_size: Samples in a full batch.
        seed: The run's seed.

    Raises:
        ValueError: if there is nothing to plan, or ids are not unique.
    """

    def __init__(
        self,
        item_shapes: Sequence[tuple[int, int]],
        item_ids: Sequence[str],
        repeats: Sequence[int],
        batch_size: int,
        seed: int,
    ) -> None:
        if not len(item_shapes) == len(item_ids) == len(repeats):
            raise ValueError("shapes, ids and repeats differ in number")
        if not item_ids or len(set(item_ids)) != len(item_ids):
            raise ValueError("the ids are none at all or not unique")
        if batch_size < 1 or min(repeats) < 1:
            raise ValueError("batch size and repeats start at 1")
        self._ids = tuple(item_ids)
        self._repeats = tuple(repeats)
        self._batch_size = batch_size
        self._seed = seed
        self._buckets: dict[tuple[int, int], list[int]] = {}
        for index, shape in enumerate(item_shapes):
            self._buckets.setdefault(shape, []).append(index)
        sizes = [sum(repeats[i] for i in bucket) for bucket in self._buckets.values()]
        self.samples_per_epoch = sum(sizes)
        self.batches_per_epoch = sum(-(-size // batch_size) for size in sizes)
        # A batch near an epoch's end asks for the next one too: sorting both anew for every batch
        # would take longer than training it. A prefetching thread asks at the same time.
        self._epoch = lru_cache(maxsize=2)(self._order)

    def batch(self, k: int) -> PlannedBatch:
        """Return batch number ``k`` of the run, from 0."""
        if k < 0:
            raise ValueError(f"there is no batch {k}")
        epoch, place = divmod(k, self.batches_per_epoch)
        return self._epoch(epoch)[place]

    def samples_before(self, k: int) -> int:
        """Return how many samples are drawn before batch ``k``, that is, in the first k batches."""
        epoch, place = divmod(k, self.batches_per_epoch)
        if place == 0:
            return epoch * self.samples_per_epoch
        return self.batch(k).first_sample

    def _order(self, epoch: int) -> list[PlannedBatch]:
        batches: list[tuple[int, str, tuple[int, ...]]] = []
        for bucket in self._buckets.values():
            draws = sorted(
                (chance_key(self._seed, "order", epoch, self._ids[i], repeat), self._ids[i], i)
                for i in bucket
                for repeat in range(self._repeats[i])
            )
            for start in range(0, len(draws), self._batch_size):
                members = draws[start : start + self._batch_size]
                key = chance_key(self._seed, "batch_order", epoch, members[0][0], members[0][1])
                batches.append((key, members[0][1], tuple(i for _, _, i in members)))
        batches.sort()
        planned = []
        first_sample = epoch * self.samples_per_epoch
        for _, _, items in batches:
            planned.append(PlannedBatch(epoch, items, first_sample))
            first_sample += len(items)
        return planned
