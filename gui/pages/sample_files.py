"""Sample pictures of a run, found by their names: which prompt, which step. Free of Qt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PICTURE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp"})

_STEP = re.compile(r"[_\- ]*step[_\- ]?(\d+)", re.IGNORECASE)
_EDGES = "_- "


@dataclass(frozen=True)
class SamplePicture:
    """One picture.

    Attributes:
        prompt: What its name says besides the step; empty when nothing.
        step: The step it was made at.
    """

    path: Path
    prompt: str
    step: int


@dataclass(frozen=True)
class SampleGrid:
    """Pictures by prompt (rows) and step (columns)."""

    prompts: tuple[str, ...]
    steps: tuple[int, ...]
    pictures: dict[tuple[str, int], SamplePicture]

    def at(self, row: int, column: int) -> SamplePicture | None:
        """Return the picture in a cell."""
        return self.pictures.get((self.prompts[row], self.steps[column]))


def parse_name(path: Path) -> SamplePicture | None:
    """Return what the name of ``path`` says; None when it names no step."""
    if path.suffix.lower() not in PICTURE_ENDINGS:
        return None
    match = _STEP.search(path.stem)
    if match is None:
        return None
    before = path.stem[: match.start()].strip(_EDGES)
    after = path.stem[match.end() :].strip(_EDGES)
    # What follows the step is the prompt; before it stands the name of the run.
    return SamplePicture(path, after or before, int(match[1]))


def grid_of(paths: Iterable[Path]) -> SampleGrid:
    """Return the grid of the pictures among ``paths``; of two for one cell the later name wins."""
    found = [picture for path in sorted(paths) if (picture := parse_name(path)) is not None]
    prompts = sorted({picture.prompt for picture in found})
    steps = sorted({picture.step for picture in found})
    cells = {(picture.prompt, picture.step): picture for picture in found}
    return SampleGrid(tuple(prompts), tuple(steps), cells)


def find_samples(folder: Path) -> SampleGrid:
    """Return the grid of the pictures in ``folder``; empty when it is not there."""
    try:
        return grid_of(folder.iterdir())
    except OSError:
        return grid_of(())
