"""The gradients of a bucket between the moment they appear and their addition to a sum."""

from __future__ import annotations

from torch import Tensor

from optimizers.layout import Bucket


class Arrivals:
    """The gradients of one bucket in one backward pass.

    Backward calls `take` once for every tensor of the model, and often waits for the host: what can
    be known before is laid out here once.

    Args:
        bucket: Whose gradients.
        zeros: In the gradients' format; at least as long as any gap between two tensors.
        itemsize: Bytes of one element of a gradient.

    Attributes:
        bucket: Whose gradients.
        slots: Which of the bucket's parts each tensor is, by name; the others are gaps.
        missing: Slots whose gradients have not appeared yet.
        num_bytes: Size of the gradients that have appeared and not been given yet.
    """

    def __init__(self, bucket: Bucket, zeros: Tensor, itemsize: int) -> None:
        self.bucket = bucket
        self.slots: dict[str, int] = {}
        self._sizes: list[int] = []
        self._gaps: list[Tensor | None] = []
        for place in bucket.tensors:
            self.slots[place.name] = len(self._sizes)
            self._sizes.append(place.numel)
            self._gaps.append(None)
            gap = place.end - place.start - place.numel
            if gap:
                self._sizes.append(gap)
                self._gaps.append(zeros[:gap])
        self._bytes = [size * itemsize for size in self._sizes]
        self.missing: set[int] = set()
        self._forget()

    @property
    def has_gaps(self) -> bool:
        """Whether something stands between its tensors."""
        return len(self._sizes) > len(self.slots)

    @property
    def is_whole(self) -> bool:
        """Whether all gradients of the bucket have appeared and none was given yet."""
        return self._num_waiting == len(self.slots)

    def begin(self) -> None:
        """Expect a gradient of every tensor; what was not given is forgotten."""
        self.missing = {*self.slots.values()}
        self._forget()

    def take(self, slot: int, gradient: Tensor) -> None:
        """Keep the gradient of one tensor.

        Raises:
            KeyError: if the tensor had one already in this backward pass.
        """
        self.missing.remove(slot)
        self._parts[slot] = gradient if gradient.dim() == 1 else gradient.reshape(-1)
        self._num_waiting += 1
        self.num_bytes += self._bytes[slot]

    def give_whole(self) -> list[Tensor]:
        """Give up all parts of the bucket in order, with zeros in the gaps; it must be whole."""
        parts = [part for part in self._parts if part is not None]
        self._forget()
        return parts

    def give(self) -> dict[int, Tensor]:
        """Give up the gradients that have appeared, by slot."""
        parts = enumerate(zip(self._parts, self._gaps, strict=True))
        given = {n: part for n, (part, gap) in parts if part is not None and gap is None}
        self._forget()
        return given

    def split(self, total: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a flat sum of the bucket, tensors and gaps, by slot."""
        return total.split_with_sizes(self._sizes)

    def split_gaps(self, total: Tensor) -> list[Tensor]:
        """Return what stands between the tensors of a flat sum of the bucket."""
        parts = zip(self.split(total), self._gaps, strict=True)
        return [part for part, gap in parts if gap is not None]

    def _forget(self) -> None:
        self._parts = [*self._gaps]
        self._num_waiting = 0
        self.num_bytes = 0
