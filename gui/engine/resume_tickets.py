"""Where the tickets of a resumed run come from: pure functions over settings and a state's pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from aozora.config.checks import ticket_pool
from aozora.config.codec import decode_config
from aozora.config.ticket_segments import OnResume, SegmentedPool
from aozora.errors import ConfigError
from gui.settings_tree import effective, value_at

Settings = Mapping[str, Any]
RULES: tuple[OnResume, ...] = get_args(OnResume)


@dataclass(frozen=True)
class TicketsLeft:
    """Where the samples left get their tickets.

    Attributes:
        old: Tickets of the pool that was begun which are drawn.
        new: Tickets of a pool made for the samples after them.
        unused: Tickets of the pool that was begun which are never drawn.
    """

    old: int
    new: int
    unused: int


def ticket_choice(
    saved: SegmentedPool, samples: int, step: int, stored: Settings, wanted: Settings
) -> dict[OnResume, TicketsLeft]:
    """Return what each rule would draw; empty when the pool just goes on.

    Args:
        saved: The tickets in the state.
        samples: Samples drawn so far.
        step: Steps done so far.
        stored: The settings in the state.
        wanted: Those to go on with.
    """
    total = _samples_of(saved, samples, step, effective(stored), effective(wanted))
    try:
        pool = ticket_pool(decode_config(dict(wanted)))
    except (ConfigError, ValueError):
        return {}
    # What has no sample left, or ends before the state, has nothing to choose.
    if total <= samples or saved.resumed(samples, total, pool, "rebuild") == saved:
        return {}
    begun = [segment for segment in saved.segments if segment.first_sample < samples]
    end = begun[-1].first_sample + begun[-1].total if begun else samples
    left: dict[OnResume, TicketsLeft] = {}
    for rule in RULES:
        old = saved.resumed(samples, total, pool, rule).left_of_begun(samples, total)
        left[rule] = TicketsLeft(old, total - samples - old, max(0, end - samples - old))
    return left


def _samples_of(
    saved: SegmentedPool, samples: int, step: int, stored: Settings, wanted: Settings
) -> int:
    """Return about how many samples the run has; exactly those of the state at the same length.

    Only the pictures say how many batches are short, so that another length is judged by the pace
    so far.
    """
    old_epochs, new_epochs = (float(value_at(each, "training.epochs")) for each in (stored, wanted))
    old_steps, new_steps = (int(value_at(each, "training.steps")) for each in (stored, wanted))
    if old_epochs and new_epochs:
        return round(saved.total * new_epochs / old_epochs)
    window = int(value_at(stored, "training.batch_size")) * int(
        value_at(stored, "training.accumulation_steps")
    )
    # A run that was shortened while it finishes a longer pool ends before the pool does.
    is_whole = saved.total <= samples + window * (old_steps - step)
    if old_epochs == new_epochs and old_steps == new_steps and is_whole:
        return saved.total
    if new_epochs or not step:
        # From steps to epochs, or before the first step: nothing is known of the pace.
        return 0
    return samples + round(samples / step * (new_steps - step))
