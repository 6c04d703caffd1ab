"""Which UNet parameters are trained, told from names and shapes alone.

Nothing is loaded: a file's header is enough to show what a selection comes to. The window draws
its tree of layers by the same rules.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

from aozora.errors import ConfigError, Problem

LayerSet = Literal["all", "attention", "input_and_middle", "no_resnet_convs"]

_WILDCARDS = frozenset("*?[")
_OUTPUT_SIDE = ("up_blocks.", "conv_norm_out.", "conv_out.")
_RESNET_CONV = re.compile(r"\.resnets\.\d+\.conv(1|2|_shortcut)\.")
_RAISED_BLOCK = re.compile(r"((?:down|up)_blocks\.\d+|mid_block)\.")


def _is_attention(name: str) -> bool:
    # Modules called "attentions" hold feed-forward layers too, more than half of their weights.
    return ".attn1." in name or ".attn2." in name


def _is_input_or_middle(name: str) -> bool:
    return not name.startswith(_OUTPUT_SIDE)


def _is_no_resnet_conv(name: str) -> bool:
    return _RESNET_CONV.search(name) is None


LAYER_SETS: dict[LayerSet, Callable[[str], bool]] = {
    "all": lambda name: True,
    "attention": _is_attention,
    "input_and_middle": _is_input_or_middle,
    "no_resnet_convs": _is_no_resnet_conv,
}

NOTHING_LEFT = Problem(
    "targets", "no layer is left to train", "widen layers or blocks, or exclude less"
)


@dataclass(frozen=True)
class TargetSelection:
    """What a selection comes to.

    Attributes:
        names: Trained parameters, in the model's order.
        num_params: How many numbers they hold.
        total_params: How many the UNet has.
        groups: By block, as ``down_blocks.1``: numbers trained and numbers there are.
    """

    names: tuple[str, ...]
    num_params: int
    total_params: int
    groups: Mapping[str, tuple[int, int]]


def block_of(name: str) -> str:
    """Return the block of a parameter, as ``down_blocks.1``, ``mid_block`` or ``conv_in``."""
    match = _RAISED_BLOCK.match(name)
    return match[1] if match else name.split(".", 1)[0]


def select_targets(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layers: LayerSet = "all",
    blocks: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> TargetSelection:
    """Return the parameters to train: (set and blocks), plus ``include``, minus ``exclude``.

    A pattern with ``*``, ``?`` or ``[`` must fit a whole name; any other one is looked for inside
    names.

    Args:
        shapes: Shape of every UNet parameter by its diffusers name.
        layers: A named set.
        blocks: Narrows the set to these blocks, or parts of blocks; empty for all.
        include: Patterns of parameters to add.
        exclude: Patterns of parameters to leave out.

    Raises:
        ConfigError: lists every pattern that fits nothing, or says that nothing is left to train.
    """
    names = tuple(shapes)
    problems = unfit_targets(names, blocks, include, exclude)
    if problems:
        raise ConfigError(problems)
    chosen = chosen_names(names, layers, blocks, include, exclude)
    if not chosen:
        raise ConfigError([NOTHING_LEFT])
    return _counted(shapes, tuple(name for name in names if name in chosen))


def chosen_names(
    names: tuple[str, ...],
    layers: LayerSet,
    blocks: Sequence[str],
    include: Sequence[str],
    exclude: Sequence[str],
) -> set[str]:
    """Return those of ``names`` that are chosen; patterns that fit nothing change nothing."""
    in_set = LAYER_SETS[layers]
    chosen = {name for name in names if in_set(name) and _in_blocks(name, blocks)}
    for pattern in include:
        chosen |= matches(names, pattern)
    for pattern in exclude:
        chosen -= matches(names, pattern)
    return chosen


def unfit_targets(
    names: tuple[str, ...],
    blocks: Sequence[str],
    include: Sequence[str],
    exclude: Sequence[str],
) -> list[Problem]:
    """Return a problem for every block and pattern that fits none of ``names``."""
    problems = _unknown_blocks(names, blocks)
    for path, patterns in (("include", include), ("exclude", exclude)):
        problems += _unmatched(names, f"targets.{path}", patterns)
    return problems


def fits(name: str, pattern: str) -> bool:
    """Return whether ``pattern`` fits: a whole name with wildcards, else a part of one."""
    if _WILDCARDS.isdisjoint(pattern):
        return pattern != "" and pattern in name
    return fnmatchcase(name, pattern)


@lru_cache(maxsize=4096)
def matches(names: tuple[str, ...], pattern: str) -> frozenset[str]:
    """Return those of ``names`` that ``pattern`` fits."""
    return frozenset(name for name in names if fits(name, pattern))


def _in_blocks(name: str, blocks: Sequence[str]) -> bool:
    return not blocks or any(name == b or name.startswith(f"{b}.") for b in blocks)


def _unknown_blocks(names: Sequence[str], blocks: Sequence[str]) -> list[Problem]:
    known = _module_paths(names)
    return [
        Problem(
            f"targets.blocks[{number}]",
            f"the UNet has no block {block!r}",
            _did_you_mean(block, known) or "blocks are down_blocks.0 ... mid_block ... up_blocks.2",
        )
        for number, block in enumerate(blocks)
        if not any(_in_blocks(name, (block,)) for name in names)
    ]


def _unmatched(names: tuple[str, ...], path: str, patterns: Sequence[str]) -> list[Problem]:
    return [
        Problem(
            f"{path}[{number}]",
            f"the pattern {pattern!r} fits no layer" if pattern else "the pattern is empty",
            _did_you_mean(pattern, _module_paths(names)) or "'aozora inspect --layers' lists them",
        )
        for number, pattern in enumerate(patterns)
        if not matches(names, pattern)
    ]


def _module_paths(names: Sequence[str]) -> list[str]:
    """Return all names, all beginnings of names and all their single parts, without repeats."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            found[".".join(parts[:length])] = None
        found |= dict.fromkeys(part for part in parts if not part.isdigit())
    return list(found)


def _did_you_mean(pattern: str, known: Sequence[str]) -> str:
    core = pattern.strip("*.")
    close = difflib.get_close_matches(core, known, n=1, cutoff=0.7) if core else []
    return f"did you mean {pattern.replace(core, close[0])!r}?" if close else ""


def _counted(shapes: Mapping[str, tuple[int, ...]], selected: tuple[str, ...]) -> TargetSelection:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    trained: Counter[str] = Counter()
    total: Counter[str] = Counter()
    chosen = set(selected)
    for name, size in sizes.items():
        total[block_of(name)] += size
        if name in chosen:
            trained[block_of(name)] += size
    return TargetSelection(
        names=selected,
        num_params=sum(trained.values()),
        total_params=sum(total.values()),
        groups={block: (trained[block], total[block]) for block in total},
    )
