"""Which timestep each sample of a run gets: as many tickets as samples, each drawn once.

The shares of the bins are met exactly over the whole run, not just on average. The ticket of the
k-th sample is a pure function of the pool, the length of the run and k, so nothing has to be saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from aozora.config.chance import chance_key
from aozora.config.issue import Issue

TIMESTEPS = 1000
BIN_COUNTS = (10, 20, 25, 40, 50, 100)

Coverage = Literal["shuffled", "stratified"]
Tickets = npt.NDArray[np.int16]
_Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class TicketPool:
    """How often each part of the noise range is trained.

    The editor may hold a pool with faults, so construction does not refuse any; see `validate`.

    Attributes:
        weights: Relative density of each bin, 1.0 = as in a uniform pool; 10, 20, 25, 40, 50 or 100
            bins of equal width cover timesteps 0 to 999.
        seed: Decides order and values.
        coverage: ``stratified`` covers the range evenly in every stretch of the run, however
            short, and goes through all timesteps of a bin before one repeats; ``shuffled`` leaves
            both to chance.
        minimum: Lowest timestep drawn.
        maximum: Highest timestep drawn.
    """

    weights: tuple[float, ...]
    seed: int
    coverage: Coverage = "stratified"
    minimum: int = 0
    maximum: int = TIMESTEPS - 1

    @property
    def bins(self) -> int:
        """The number of bins."""
        return len(self.weights)

    def bin_range(self, index: int) -> range:
        """Return the timesteps bin ``index`` can draw, which the limits may have narrowed."""
        width = TIMESTEPS // self.bins
        low = max(index * width, self.minimum)
        return range(low, max(low, min((index + 1) * width - 1, self.maximum) + 1))

    def shares(self) -> tuple[Fraction, ...]:
        """Return the exact share of each bin in the whole.

        Raises:
            ValueError: if the pool has a fault.
        """
        for issue in self._errors():
            raise ValueError(issue.text)
        return self._exact_shares()

    def _exact_shares(self) -> tuple[Fraction, ...]:
        masses = [Fraction(w) * len(self.bin_range(i)) for i, w in enumerate(self.weights)]
        total = sum(masses, Fraction(0))
        return tuple(mass / total for mass in masses)

    def counts(self, total: int) -> tuple[int, ...]:
        """Return how many of ``total`` tickets each bin gets, by largest remainder.

        Exact fractions are used, so that equal weights tie on every machine; ties go to the lower
        bin.

        Raises:
            ValueError: if the pool has a fault or ``total`` is negative.
        """
        if total < 0:
            raise ValueError(f"a pool cannot hold {total} tickets")
        wanted = [share * total for share in self.shares()]
        counts = [math.floor(value) for value in wanted]
        rest = sorted(range(self.bins), key=lambda i: (counts[i] - wanted[i], i))
        for index in rest[: total - sum(counts)]:
            counts[index] += 1
        return tuple(counts)

    def rebinned(self, bins: int) -> TicketPool:
        """Return the pool with another number of bins and the same mass in every range.

        Raises:
            ValueError: if ``bins`` is not a number of bins a pool can have.
        """
        return replace(self, weights=rebin(self.weights, bins))

    def draw_all(self, total: int, first_sample: int = 0) -> Tickets:
        """Return the tickets of a run of ``total`` samples, in order; read-only.

        Args:
            total: Number of samples.
            first_sample: Number of the sample the pool starts at, when it was made for the rest of
                a run; it gives the rest an order of its own.

        Raises:
            ValueError: if the pool has a fault.
        """
        return _draw_all(self, total, first_sample)

    def timestep(self, sample: int, total: int) -> int:
        """Return the ticket of sample number ``sample`` (0-based) in a run of ``total`` samples.

        Raises:
            ValueError: if the pool has a fault or there is no such sample.
        """
        if not 0 <= sample < total:
            raise ValueError(f"sample {sample} is outside a run of {total} samples")
        return int(self.draw_all(total)[sample])

    def share_below(self, place: float) -> float:
        """Return the share of tickets below ``place``, each spread over its timestep.

        Raises:
            ValueError: if the pool has a fault.
        """
        return math.fsum(
            share * min(max(place - span.start, 0.0), float(len(span))) / len(span)
            for share, span in self._shares_of_ranges
        )

    @cached_property
    def _shares_of_ranges(self) -> tuple[tuple[float, range], ...]:
        shares = enumerate(self.shares())
        return tuple((float(share), self.bin_range(index)) for index, share in shares if share)

    def validate(
        self, total: int, *, zero_terminal_snr: bool = False, shifted_low: float | None = None
    ) -> list[Issue]:
        """Return what is wrong with the pool, doubtful about it or worth knowing.

        Args:
            total: Number of samples of the run.
            zero_terminal_snr: Whether the noise schedule ends in pure noise, which is learned at
                the last timestep only.
            shifted_low: Share of the samples below timestep 500 after the shift of rectified flow;
                None where nothing is shifted.
        """
        errors = list(self._errors())
        if errors:
            return errors
        return [*self._cautions(total, zero_terminal_snr), *self._figures(total, shifted_low)]

    def _errors(self) -> Iterator[Issue]:
        if self.bins not in BIN_COUNTS:
            known = ", ".join(map(str, BIN_COUNTS))
            text = f"there are {self.bins} bins, and only {known} can be"
            yield Issue("error", text, None, "choose another number of bins")
            return
        for index, weight in enumerate(self.weights):
            if not (math.isfinite(weight) and weight >= 0.0):
                text = f"the weight of bin {self._name(index)} is {weight:g}"
                yield Issue("error", text, index, "give 0 or more")
                return
        if not 0 <= self.minimum <= self.maximum < TIMESTEPS:
            text = f"the timesteps {self.minimum} to {self.maximum} are no range within 0 to 999"
            yield Issue("error", text, None, "give a lower first and a higher last timestep")
        elif not any(w > 0.0 and self.bin_range(i) for i, w in enumerate(self.weights)):
            text = f"no timestep from {self.minimum} to {self.maximum} has a weight above 0"
            yield Issue("error", text, None, "raise a bin or widen the range")

    def _cautions(self, total: int, zero_terminal_snr: bool) -> Iterator[Issue]:
        counts = self.counts(total)
        top = max(range(self.bins), key=counts.__getitem__)
        if total < self.bins:
            text = f"there are only {total} tickets for {self.bins} bins"
            yield Issue("warning", text, None, "train for more steps or use fewer bins")
        missed = [i for i, share in enumerate(self.shares()) if share > 0 and counts[i] == 0]
        if missed:
            text = f"timesteps {self._names(missed)} get no ticket in a run this short"
            yield Issue("warning", text, missed[0], "raise the bins or train for more steps")
        if counts[top] * 2 > total:
            text = f"timesteps {self._name(top)} get {counts[top] / total:.0%} of all tickets"
            yield Issue("warning", text, top, "lower this bin")
        empty = [index for index, share in enumerate(self.shares()) if share == 0]
        if empty:
            text = f"never trained: timesteps {self._names(empty)}"
            yield Issue("warning", text, empty[0], "raise the bins")
        if zero_terminal_snr and (self.bins - 1 in empty or self.maximum < TIMESTEPS - 1):
            text = (
                "timestep 999 is never trained, from which sampling with zero terminal SNR starts"
            )
            yield Issue("warning", text, self.bins - 1, "raise the last bin")

    def _figures(self, total: int, shifted_low: float | None) -> Iterator[Issue]:
        shares = [float(share) for share in self.shares()]
        entropy = -math.fsum(share * math.log(share) for share in shares if share > 0.0)
        yield Issue("info", f"as varied as {math.exp(entropy):.3g} equal bars")
        low = self.share_below(TIMESTEPS / 2) if shifted_low is None else shifted_low
        after = "" if shifted_low is None else " after the flow shift"
        text = f"{low:.0%} below timestep 500{after}, {1.0 - low:.0%} from there on"
        yield Issue("info", text)
        counts = self.counts(total)
        spread = str(min(counts))
        if min(counts) != max(counts):
            spread += f" to {max(counts)}"
        yield Issue("info", f"{spread} tickets a bar")

    def _name(self, index: int) -> str:
        width = TIMESTEPS // self.bins
        return f"{index * width}-{(index + 1) * width - 1}"

    def _names(self, indices: Sequence[int]) -> str:
        """Return the timesteps of bins in rising order, those of neighbours as one range."""
        width = TIMESTEPS // self.bins
        pairs = groupby(enumerate(indices), lambda pair: pair[1] - pair[0])
        rows = [[index for _, index in row] for _, row in pairs]
        return ", ".join(f"{row[0] * width}-{(row[-1] + 1) * width - 1}" for row in rows)

    def to_json(self) -> dict[str, Any]:
        """Return the pool as plain values."""
        return {
            "weights": list(self.weights),
            "seed": self.seed,
            "coverage": self.coverage,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TicketPool:
        """Return the pool written by `to_json`.

        Raises:
            KeyError: if a part is missing.
            ValueError: if the coverage is not known.
        """
        if data["coverage"] not in get_args(Coverage):
            raise ValueError(f"there is no ticket coverage {data['coverage']!r}")
        return cls(
            weights=tuple(map(float, data["weights"])),
            seed=data["seed"],
            coverage=data["coverage"],
            minimum=data["minimum"],
            maximum=data["maximum"],
        )


def rebin(weights: tuple[float, ...], bins: int) -> tuple[float, ...]:
    """Return a density given in equal bins as one in ``bins`` equal bins with the same masses.

    Raises:
        ValueError: if either number of bins is not one a pool can have.
    """
    for count in (len(weights), bins):
        if count not in BIN_COUNTS:
            known = ", ".join(map(str, BIN_COUNTS))
            raise ValueError(f"there are {count} bins, and only {known} can be")
    if len(weights) == bins:
        return weights
    old, new = TIMESTEPS // len(weights), TIMESTEPS // bins

    def mean(start: int, stop: int) -> float:
        inside = (
            weights[i] * (min(stop, (i + 1) * old) - max(start, i * old))
            for i in range(start // old, (stop - 1) // old + 1)
        )
        return math.fsum(inside) / (stop - start)

    return tuple(mean(index * new, (index + 1) * new) for index in range(bins))


@lru_cache(maxsize=4)
def _draw_all(pool: TicketPool, total: int, first_sample: int) -> Tickets:
    counts = pool.counts(total)
    draw = _stratified if pool.coverage == "stratified" else _shuffled
    tickets = draw(pool, counts, first_sample)
    tickets.flags.writeable = False
    return tickets


def _shuffled(pool: TicketPool, counts: tuple[int, ...], first_sample: int) -> Tickets:
    index = np.arange(sum(counts), dtype=np.uint64)
    ranges = [pool.bin_range(number) for number in range(pool.bins)]
    starts = np.repeat(np.array([r.start for r in ranges], dtype=np.int64), counts)
    # A bin that the limits have emptied has no tickets; 1 avoids a division by zero for it.
    widths = np.repeat(np.array([max(len(r), 1) for r in ranges], dtype=np.uint64), counts)
    offsets = _random_words(index, pool.seed, "value", first_sample) % widths
    values = (starts + offsets.astype(np.int64)).astype(np.int16)
    # Stable: equal words, should they occur, keep the order of the bins on every machine.
    order = np.argsort(_random_words(index, pool.seed, "order", first_sample), kind="stable")
    return values[order]


def _stratified(pool: TicketPool, counts: tuple[int, ...], first_sample: int) -> Tickets:
    total = sum(counts)
    samples_by_place = np.argsort(_even_places(total, pool.seed, first_sample))
    tickets = np.empty(total, dtype=np.int16)
    start = 0
    for index, count in enumerate(counts):
        if count:
            samples = np.sort(samples_by_place[start : start + count])
            tickets[samples] = _decks(pool, index, count, first_sample)
        start += count
    return tickets


def _even_places(total: int, seed: int, first_sample: int) -> _Words:
    """Return a distinct place for each sample, so that every stretch of samples is spread evenly.

    This is a van der Corput sequence, scrambled: of the samples 2^m i to 2^m (i + 1) - 1, exactly
    one falls into each 2^m-th part of the range, for every m and i. Which sample it is, and where
    in its part, is left to chance. So the few samples of one optimizer step already cover the
    range, where dealing out each bin at equal distances would leave them to chance.
    """
    index = np.arange(total, dtype=np.uint64)
    place = np.zeros(total, dtype=np.uint64)
    one = np.uint64(1)
    for level in range(max(total - 1, 0).bit_length()):
        # The two samples that differ in this digit alone share the word, so they part ways.
        block = index >> np.uint64(level + 1)
        node = (block << np.uint64(level)) | place
        flip = _random_words(node, seed, "place", first_sample, level) >> np.uint64(63)
        place = (place << one) | (((index >> np.uint64(level)) & one) ^ flip)
    return place


def _decks(pool: TicketPool, index: int, count: int, first_sample: int) -> Tickets:
    """Return ``count`` timesteps of a bin, going through all of them before one repeats."""
    span = pool.bin_range(index)
    decks = -(-count // len(span))
    cards = np.arange(decks * len(span), dtype=np.uint64)
    words = _random_words(cards, pool.seed, "deck", first_sample, index)
    shuffled = np.argsort(words.reshape(decks, len(span)), axis=1, kind="stable")
    return (span.start + shuffled.reshape(-1)[:count]).astype(np.int16)


def _random_words(index: _Words, seed: int, *purpose: str | int) -> _Words:
    """Return a random 64-bit word for each index, a function of seed, purpose and index alone.

    This is the SplitMix64 generator, whose n-th output can be computed without the ones before.
    numpy's own generators do not promise the same numbers in every version.
    """
    words = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    words += np.uint64(chance_key(seed, "timestep", *purpose))
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
