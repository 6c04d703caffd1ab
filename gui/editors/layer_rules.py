"""Which parameters a choice of layers trains: a set, blocks, patterns to add or leave out.

The rules are those of the engine, whose room the window does not enter; a test compares both on
random choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

_WILDCARDS = frozenset("*?[")
_RESNET_CONV = re.compile(r"\.resnets\.\d+\.conv(1|2|_shortcut)\.")
_OUTPUT_SIDE = ("up_blocks.", "conv_norm_out.", "conv_out.")

Names = tuple[str, ...]

SETS: Mapping[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "attention": lambda name: ".attn1." in name or ".attn2." in name,
    "input_and_middle": lambda name: not name.startswith(_OUTPUT_SIDE),
    "no_resnet_convs": lambda name: _RESNET_CONV.search(name) is None,
}


@dataclass(frozen=True)
class LayerChoice:
    """A choice of layers, as it stands in a configuration."""

    layers: str = "all"
    blocks: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def trained(self, names: Names) -> frozenset[str]:
        """Return those of ``names`` that are trained: (set and blocks) + include - exclude."""
        chosen = {name for name in names if SETS[self.layers](name) and self._in_blocks(name)}
        for pattern in self.include:
            chosen |= matches(names, pattern)
        for pattern in self.exclude:
            chosen -= matches(names, pattern)
        return frozenset(chosen)

    def _in_blocks(self, name: str) -> bool:
        return not self.blocks or any(name == b or name.startswith(f"{b}.") for b in self.blocks)

    def faults(self, names: Names) -> list[str]:
        """Return what would stop a run: patterns and blocks that fit nothing, nothing to train."""
        faults = [
            f"the UNet has no block {block!r}"
            for block in self.blocks
            if not any(name == block or name.startswith(f"{block}.") for name in names)
        ]
        for pattern in (*self.include, *self.exclude):
            if not matches(names, pattern):
                faults.append(f"the pattern {pattern!r} fits no layer")
        if not faults and not self.trained(names):
            faults.append("no layer is left to train")
        return faults


def fits(name: str, pattern: str) -> bool:
    """Return whether ``pattern`` fits: a whole name with wildcards, else a part of one."""
    if _WILDCARDS.isdisjoint(pattern):
        return pattern != "" and pattern in name
    return fnmatchcase(name, pattern)


@lru_cache(maxsize=4096)
def matches(names: Names, pattern: str) -> frozenset[str]:
    """Return those of ``names`` that ``pattern`` fits."""
    return frozenset(name for name in names if fits(name, pattern))


def count(shapes: Mapping[str, tuple[int, ...]], names: Iterable[str]) -> int:
    """Return how many numbers the parameters called ``names`` hold."""
    total = 0
    for name in names:
        size = 1
        for side in shapes[name]:
            size *= side
        total += size
    return total
