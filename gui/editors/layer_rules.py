"""A choice of layers as it stands in a configuration; the rules are the engine's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from aozora.config.targeting import NOTHING_LEFT, LayerSet, chosen_names, unfit_targets

Names = tuple[str, ...]


@dataclass(frozen=True)
class LayerChoice:
    """A choice of layers, as it stands in a configuration."""

    layers: LayerSet = "all"
    blocks: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def trained(self, names: Names) -> frozenset[str]:
        """Return those of ``names`` that are trained: (set and blocks) + include - exclude."""
        chosen = chosen_names(names, self.layers, self.blocks, self.include, self.exclude)
        return frozenset(chosen)

    def faults(self, names: Names) -> list[str]:
        """Return what would stop a run: patterns and blocks that fit nothing, nothing to train."""
        faults = list(_unfit(names, self.blocks, self.include, self.exclude))
        if not faults and not self.trained(names):
            faults.append(NOTHING_LEFT.text)
        return faults


# Looking for what was meant by a pattern takes a while, and a page asks at every change.
@lru_cache(maxsize=64)
def _unfit(names: Names, blocks: Names, include: Names, exclude: Names) -> tuple[str, ...]:
    return tuple(problem.text for problem in unfit_targets(names, blocks, include, exclude))


def count(shapes: Mapping[str, tuple[int, ...]], names: Iterable[str]) -> int:
    """Return how many numbers the parameters called ``names`` hold."""
    return sum(math.prod(shapes[name]) for name in names)
