"""What going on from a state would mean: pure functions over plain settings."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aozora.config.codec import decode_config
from aozora.config.lr_schedule import LrSchedule
from aozora.config.resume_rules import is_compared_by_content, must_match
from aozora.config.ticket_segments import OnResume, SegmentedPool
from aozora.errors import ConfigError
from gui.charts.planned import PlannedPart, PlannedRates
from gui.engine.resume_tickets import TicketsLeft, ticket_choice
from gui.settings_tree import changed_paths, effective, value_at, with_value

_OWN_PLACES = ("model.base", "model.vae", "cache.folder", "output.folder")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class ResumePlan:
    """What differs, and how the learning rate goes on.

    Attributes:
        forbidden: Paths of settings that differ and must not.
        allowed: Paths of settings that differ and may.
        rates: The curve of the state up to it, then the one to go on with; None when a length is
            not known in steps.
        rate_before: Rate of the last step in the state; NaN when unknown.
        rate_after: Rate of the first step after it; NaN when unknown.
        ends_before: Whether the run would have no step left.
        tickets: What the samples left would draw by each rule, when the pool of timestep tickets or
            its size is another one; empty when the pool just goes on, or that is not known.
    """

    forbidden: tuple[str, ...]
    allowed: tuple[str, ...]
    rates: PlannedRates | None
    rate_before: float
    rate_after: float
    ends_before: bool
    tickets: Mapping[OnResume, TicketsLeft]

    @property
    def has_ticket_choice(self) -> bool:
        """Whether the rules differ: not where the old pool has nothing left."""
        return any(left.old for left in self.tickets.values())

    @property
    def jump(self) -> float:
        """By what factor the rate changes at the resume."""
        return self.rate_after / self.rate_before if self.rate_before > 0 else float("nan")


def _leaves(paths: Iterable[str]) -> list[str]:
    """Return ``paths`` without those that only stand above others, sorted."""
    known = sorted(paths)
    return [path for path in known if not any(o.startswith(path + ".") for o in known)]


def without_schema(settings: Settings) -> dict[str, Any]:
    """Return ``settings`` without their version."""
    return {key: copy.deepcopy(value) for key, value in settings.items() if key != "schema"}


def plan_resume(
    stored: Settings,
    wanted: Settings,
    step: int,
    *,
    samples: int = 0,
    tickets: SegmentedPool | None = None,
) -> ResumePlan:
    """Return what it would mean to go on at ``step`` of a run of ``stored`` with ``wanted``.

    Args:
        stored: The settings in the state.
        wanted: Those to go on with.
        step: Steps done.
        samples: Samples drawn.
        tickets: The tickets in the state, if they are known.
    """
    before, after = without_schema(stored), without_schema(wanted)
    changed = _leaves(
        path for path in changed_paths(before, after) if not is_compared_by_content(path)
    )
    forbidden = tuple(path for path in changed if must_match(path))
    old_total, new_total = _steps(before), _steps(after)
    rates = PlannedRates(
        (PlannedPart(0, old_total, _curve(before)), PlannedPart(step, new_total, _curve(after)))
    )
    rate_before, rate_after = _last_and_next(rates, step)
    return ResumePlan(
        forbidden=forbidden,
        allowed=tuple(path for path in changed if path not in forbidden),
        rates=rates if new_total > step and old_total else None,
        rate_before=rate_before,
        rate_after=rate_after,
        ends_before=0 < new_total <= step,
        tickets=ticket_choice(tickets, samples, step, before, after) if tickets else {},
    )


def _steps(settings: Settings) -> int:
    """Return the length of a run in steps; 0 when it is given in epochs."""
    values = effective(settings)
    return 0 if value_at(values, "training.epochs") else int(value_at(values, "training.steps"))


def _curve(settings: Settings) -> LrSchedule | None:
    try:
        return decode_config(dict(settings)).schedule.learning_rate
    except ConfigError:
        return None


def _last_and_next(rates: PlannedRates, step: int) -> tuple[float, float]:
    before, after = rates.at(np.array([step, step + 1], dtype=np.float64))
    return float(before), float(after)


def moved_places(stored: Settings, document: Settings) -> dict[str, Any]:
    """Return what the document has in the place of files and folders that are gone."""
    old, new = effective(without_schema(stored)), effective(without_schema(document))
    moved: dict[str, Any] = {}
    for path in _OWN_PLACES:
        name, other = str(value_at(old, path)), str(value_at(new, path))
        if name and name != other and other and not Path(name).exists():
            moved[path] = other
    folders = value_at(old, "data.folders")
    is_gone = any(not Path(str(folder.get("path", ""))).is_dir() for folder in folders)
    if is_gone and value_at(new, "data.folders"):
        moved["data.folders"] = value_at(new, "data.folders")
    return moved


def resumed_settings(stored: Settings, document: Settings, *, steps: int | None) -> dict[str, Any]:
    """Return the settings of the state, with its places moved and, if given, another length."""
    settings: dict[str, Any] = without_schema(stored)
    changes = moved_places(stored, document)
    if steps is not None:
        changes |= {"training.steps": steps, "training.epochs": 0.0}
    for path, value in changes.items():
        settings = with_value(settings, path, copy.deepcopy(value))
    return settings
