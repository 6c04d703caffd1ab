"""The UNet as a tree of layers, and what ticking a box of it does to a choice of layers."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from aozora.config.targeting import LAYER_SETS, matches
from gui.editors.layer_rules import LayerChoice, Names, count

State = Literal["all", "some", "none"]

MOST_PATTERNS = 24

# Parts with more parts inside that nobody wants to tick one by one.
_WHOLE = frozenset({"attn1", "attn2", "ff", "time_embedding", "add_embedding"})
_WORDS = {
    "conv_in": "Input convolution",
    "conv_out": "Output convolution",
    "conv_norm_out": "Output norm",
    "time_embedding": "Time embedding",
    "add_embedding": "Size and text embedding",
    "down_blocks": "Down block",
    "up_blocks": "Up block",
    "mid_block": "Middle block",
    "resnets": "Resnet",
    "attentions": "Attention",
    "transformer_blocks": "Transformer block",
    "downsamplers": "Downsampler",
    "upsamplers": "Upsampler",
    "attn1": "Self-attention",
    "attn2": "Cross-attention",
    "ff": "Feed-forward",
    "norm": "Norm",
    "norm1": "Norm 1",
    "norm2": "Norm 2",
    "norm3": "Norm 3",
    "conv": "Convolution",
    "conv1": "Convolution 1",
    "conv2": "Convolution 2",
    "conv_shortcut": "Shortcut",
    "time_emb_proj": "Time projection",
    "proj_in": "Projection in",
    "proj_out": "Projection out",
}
KINDS = (
    ("Self-attention", "*.attn1.*"),
    ("Cross-attention", "*.attn2.*"),
    ("Feed-forward", "*.ff.*"),
    ("Resnets", "*.resnets.*"),
    ("Norms", "*norm*"),
)


@dataclass(frozen=True, eq=False)
class LayerNode:
    """A layer, a block of them, or all layers of a kind.

    Attributes:
        label: What users read.
        pattern: The pattern that fits exactly its parameters.
        names: Its parameters.
        num_params: How many numbers they hold.
        children: Its parts.
    """

    label: str
    pattern: str
    names: frozenset[str]
    num_params: int
    children: tuple[LayerNode, ...] = ()

    @cached_property
    def key(self) -> str:
        """The name of the module, empty for all of them and for a kind."""
        return self.pattern.removesuffix(".*") if not self.pattern.startswith("*") else ""

    def state(self, trained: frozenset[str]) -> State:
        """Return how much of it is in ``trained``."""
        if self.names <= trained:
            return "all"
        return "none" if self.names.isdisjoint(trained) else "some"

    def walk(self) -> Iterator[LayerNode]:
        """Yield it and everything in it."""
        yield self
        for child in self.children:
            yield from child.walk()


def layer_tree(shapes: Mapping[str, tuple[int, ...]]) -> LayerNode:
    """Return the tree of a UNet with parameters of ``shapes``."""
    top = _children("", list(shapes), shapes)
    order = {"conv_in": 0, "time_embedding": 1, "add_embedding": 2, "mid_block": 4}
    order |= {"down_blocks": 3, "up_blocks": 5, "conv_norm_out": 6, "conv_out": 7}
    top.sort(key=lambda node: order.get(node.key.split(".")[0], 8))
    names = frozenset(shapes)
    return LayerNode("UNet", "*", names, count(shapes, names), tuple(top))


def kind_nodes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[LayerNode, ...]:
    """Return the layers of each kind, wherever they stand."""
    names = tuple(shapes)
    found = ((label, pattern, matches(names, pattern)) for label, pattern in KINDS)
    return tuple(LayerNode(label, p, fit, count(shapes, fit)) for label, p, fit in found)


def _children(
    prefix: str, names: list[str], shapes: Mapping[str, tuple[int, ...]]
) -> list[LayerNode]:
    groups: dict[str, list[str]] = {}
    for name in names:
        match = re.match(r"[a-z_]+\d?(\.\d+(?=\.))?", name[len(prefix) :])
        assert match is not None
        groups.setdefault(prefix + match[0], []).append(name)
    return [_node(key, inside, shapes) for key, inside in groups.items()]


def _node(key: str, names: list[str], shapes: Mapping[str, tuple[int, ...]]) -> LayerNode:
    part = re.sub(r"\.\d+$", "", key).rsplit(".", 1)[-1]
    number = re.search(r"\.(\d+)$", key)
    label = _WORDS.get(part, part) + (f" {number[1]}" if number else "")
    own = all(name.rsplit(".", 1)[0] == key for name in names)
    inside = [] if own or part in _WHOLE else _children(f"{key}.", names, shapes)
    fit = frozenset(names)
    return LayerNode(label, f"{key}.*", fit, count(shapes, fit), tuple(inside))


def with_node(
    choice: LayerChoice, node: LayerNode, root: LayerNode, names: Names, *, on: bool
) -> LayerChoice:
    """Return ``choice`` with all or nothing of ``node`` trained and everything else as it was.

    Raises:
        ValueError: if a pattern of the user would fall into too many pieces.
    """
    return _ticked(choice, node, root, names) if on else _unticked(choice, node, names)


def _outside(patterns: tuple[str, ...], node: LayerNode, names: Names) -> tuple[str, ...]:
    """Return the patterns that fit anything beyond ``node``, or nothing at all."""
    kept = []
    for pattern in patterns:
        fit = matches(names, pattern)
        if not fit or not fit <= node.names:
            kept.append(pattern)
    return tuple(kept)


def _unticked(choice: LayerChoice, node: LayerNode, names: Names) -> LayerChoice:
    fewer = dataclasses.replace(choice, include=_outside(choice.include, node, names))
    if node.names.isdisjoint(fewer.trained(names)):
        return fewer
    exclude = (*_outside(choice.exclude, node, names), node.pattern)
    return dataclasses.replace(fewer, exclude=exclude)


def _ticked(choice: LayerChoice, node: LayerNode, root: LayerNode, names: Names) -> LayerChoice:
    exclude: list[str] = []
    for pattern in choice.exclude:
        fit = matches(names, pattern)
        if fit and fit <= node.names:
            continue
        if fit.isdisjoint(node.names):
            exclude.append(pattern)
            continue
        pieces = _few(_cover(fit - node.names, root, (pattern,), names))
        if len(pieces) > MOST_PATTERNS:
            return _anew(choice, node, root, names, pattern)
        exclude += [piece for piece in pieces if piece not in exclude]
    changed = dataclasses.replace(choice, exclude=tuple(exclude))
    if node.names <= changed.trained(names):
        return changed
    include = (*_outside(choice.include, node, names), node.pattern)
    return dataclasses.replace(changed, include=include)


def _anew(
    choice: LayerChoice, node: LayerNode, root: LayerNode, names: Names, culprit: str
) -> LayerChoice:
    """Return the shortest choice that trains what ``choice`` does, and ``node``.

    Raises:
        ValueError: if none is short enough to be read.
    """
    wanted = choice.trained(names) | node.names
    found = []
    for layers in LAYER_SETS:
        base = LayerChoice(layers).trained(names)
        include = tuple(_pieces(wanted - base, root, names))
        exclude = tuple(_pieces(base - wanted, root, names))
        found.append(LayerChoice(layers, (), include, exclude))
    best = min(found, key=lambda c: len(c.include) + len(c.exclude))
    if len(best.include) + len(best.exclude) > MOST_PATTERNS:
        text = f"the pattern {culprit!r} leaves parts of it out"
        raise ValueError(f"{text}; narrow or remove that pattern first")
    return best


def _pieces(wanted: frozenset[str], root: LayerNode, names: Names) -> list[str]:
    """Return patterns that together fit exactly ``wanted``, whole kinds first."""
    pieces = []
    for _, pattern in KINDS:
        fit = matches(names, pattern)
        if fit <= wanted:
            pieces.append(pattern)
            wanted -= fit
    kinds = tuple(pattern for _, pattern in KINDS)
    return pieces + _few(_cover(wanted, root, kinds, names))


def _few(pieces: Iterator[str]) -> list[str]:
    """Return ``pieces``, or as many as show that there are too many."""
    return list(itertools.islice(pieces, MOST_PATTERNS + 1))


def _cover(
    wanted: frozenset[str], node: LayerNode, patterns: tuple[str, ...], names: Names
) -> Iterator[str]:
    """Yield patterns that together fit exactly those of ``wanted`` within ``node``.

    Whole blocks are named as such; else one of ``patterns`` is narrowed to the block, where that
    fits.
    """
    inside = wanted & node.names
    if not inside:
        return
    if inside == node.names:
        yield node.pattern
        return
    for pattern in patterns:
        # The quick look at sets rules nearly all out before names are compared.
        if matches(names, pattern) & node.names == inside:
            narrowed = _narrowed(pattern, node)
            if matches(names, narrowed) == inside:
                yield narrowed
                return
    if not node.children:
        yield from sorted(inside)
    for child in node.children:
        yield from _cover(wanted, child, patterns, names)


def _narrowed(pattern: str, node: LayerNode) -> str:
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    if not node.key:
        return pattern
    return f"{node.key}.{pattern}" if pattern.startswith("*") else pattern
