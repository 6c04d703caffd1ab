"""Chooses which activations to keep: those that save the most time for their bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from aozora.memory.activation_bytes import ActivationShape, Cost, Part, cost_of
from aozora.memory.recompute import LEVELS, Level, RecomputePlan

FLOPS_PER_BYTE = 64
"""How many operations of a matrix product take as long as a byte of memory traffic: about 50 on an
RTX 3060 (16 of 25 TFLOPS reached, 330 GB/s), 120 on an H200. It only ranks choices."""


def plan_recompute(
    parts: Sequence[Part],
    shape: ActivationShape,
    budget_bytes: int,
    *,
    streamed: Collection[str] = (),
) -> RecomputePlan:
    """Return the plan that keeps at most ``budget_bytes`` and repeats little work.

    Args:
        parts: Of the UNet, from `activation_bytes.parts_of`.
        shape: The largest batch that will be trained.
        budget_bytes: Device memory that is free when everything is recomputed in full.
        streamed: Paths of transformer blocks whose weights are streamed; they stay "full".
    """
    chosen: dict[str, Level] = {}
    left = budget_bytes
    free = [part for part in parts if part.path not in streamed]
    for part, level, num_bytes in _by_worth(free, shape):
        is_next = _level_before(part, level) == chosen.get(part.path, "full")
        if is_next and num_bytes <= left:
            chosen[part.path] = level
            left -= num_bytes
    return RecomputePlan(chosen)


def total_cost(plan: RecomputePlan, parts: Iterable[Part], shape: ActivationShape) -> Cost:
    """Return what all parts take together."""
    costs = [cost_of(part, plan.level(part.path), shape) for part in parts]
    return Cost(
        sum(cost.kept_bytes for cost in costs),
        sum(cost.repeated_flops for cost in costs),
        sum(cost.repeated_bytes for cost in costs),
    )


def _by_worth(parts: Iterable[Part], shape: ActivationShape) -> list[tuple[Part, Level, int]]:
    """Return every step from a level to the next with its bytes, the most useful first."""
    steps = []
    for part in parts:
        for level in LEVELS[part.kind][1:]:
            before = cost_of(part, _level_before(part, level), shape)
            after = cost_of(part, level, shape)
            num_bytes = after.kept_bytes - before.kept_bytes
            worth = (_work(before) - _work(after)) / num_bytes
            steps.append((worth, part, level, num_bytes))
    steps.sort(key=lambda step: -step[0])
    return [(part, level, num_bytes) for _, part, level, num_bytes in steps]


def _work(cost: Cost) -> int:
    return cost.repeated_flops + FLOPS_PER_BYTE * cost.repeated_bytes


def _level_before(part: Part, level: Level) -> Level:
    levels = LEVELS[part.kind]
    return levels[levels.index(level) - 1]
