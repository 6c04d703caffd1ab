"""Choosing which parameters of the UNet are trained, by their names alone."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aozora.errors import ConfigError, Problem
from aozora.registry import did_you_mean

LayerSet = Literal["all", "attention", "input_and_middle", "no_resnet_convs"]
Shapes = Mapping[str, tuple[int, ...]]

_OUTPUT_PREFIXES = ("up_blocks.", "conv_norm_out.", "conv_out.")
_RESNET_CONVS = (".conv1.", ".conv2.", ".conv_shortcut.")


@dataclass(frozen=True)
class TargetSelection:
    """The parameters that are trained.

    Attributes:
        names: Their names, in the order of the model.
        num_params: How many numbers they hold.
        total_params: How many the whole UNet holds.
        groups: Of each block, the numbers trained and the numbers it holds.
    """

    names: tuple[str, ...]
    num_params: int
    total_params: int
    groups: Mapping[str, tuple[int, int]]


def block_of(name: str) -> str:
    """Return the block a parameter belongs to: ``down_blocks.1``, ``mid_block``, ``conv_in``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in ("down_blocks", "up_blocks") else parts[0]


def is_in_set(name: str, layers: LayerSet) -> bool:
    """Return whether the parameter ``name`` belongs to a named set."""
    if layers == "attention":
        return ".attn1." in name or ".attn2." in name
    if layers == "input_and_middle":
        return not name.startswith(_OUTPUT_PREFIXES)
    if layers == "no_resnet_convs":
        return not (".resnets." in name and any(part in name for part in _RESNET_CONVS))
    return True


def matches(name: str, pattern: str) -> bool:
    """Return whether ``pattern`` fits ``name``: whole with wildcards, else anywhere in it."""
    if any(character in pattern for character in "*?["):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern in name


def select_targets(
    shapes: Shapes,
    *,
    layers: LayerSet = "all",
    blocks: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> TargetSelection:
    """Return the parameters to train.

    A parameter is trained if it is in the set and in one of the blocks, or fits ``include``; and
    does not fit ``exclude``.

    Args:
        shapes: Shape of every UNet parameter by name.
        layers: A named set.
        blocks: Blocks such as ``down_blocks.1``; none means all.
        include: Patterns of names to add.
        exclude: Patterns of names to leave out.

    Raises:
        ConfigError: if a block or pattern fits nothing, or nothing is left to train.
    """
    problems = [*_unknown_blocks(shapes, blocks)]
    problems += _unmatched(shapes, "targets.include", include)
    problems += _unmatched(shapes, "targets.exclude", exclude)
    if problems:
        raise ConfigError(problems)

    def is_trained(name: str) -> bool:
        if any(matches(name, pattern) for pattern in exclude):
            return False
        if any(matches(name, pattern) for pattern in include):
            return True
        return is_in_set(name, layers) and (not blocks or block_of(name) in blocks)

    names = tuple(name for name in shapes if is_trained(name))
    if not names:
        remedy = "choose more layers or blocks, or exclude fewer"
        raise ConfigError([Problem("targets", "no layer is left to train", remedy)])
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    trained = set(names)
    groups: dict[str, tuple[int, int]] = {}
    for name, size in sizes.items():
        done, total = groups.get(block_of(name), (0, 0))
        groups[block_of(name)] = (done + size * (name in trained), total + size)
    return TargetSelection(
        names=names,
        num_params=sum(sizes[name] for name in names),
        total_params=sum(sizes.values()),
        groups=groups,
    )


def _unknown_blocks(shapes: Shapes, blocks: Sequence[str]) -> list[Problem]:
    known = list(dict.fromkeys(map(block_of, shapes)))
    return [
        Problem(
            "targets.blocks",
            f"there is no block {block!r}",
            did_you_mean(block, known) or f"there are: {', '.join(known)}",
        )
        for block in blocks
        if block not in known
    ]


def _unmatched(shapes: Shapes, path: str, patterns: Sequence[str]) -> list[Problem]:
    words = {part for name in shapes for part in (name, *name.split("."))}
    return [
        Problem(
            path,
            f"the pattern {pattern!r} fits no parameter",
            did_you_mean(pattern.strip("*"), sorted(words))
            or "use diffusers' names, such as *attn2* or down_blocks.1.*",
        )
        for pattern in patterns
        if not any(matches(name, pattern) for name in shapes)
    ]
