"""Undo and redo of whole values, free of Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

T = TypeVar("T")

_MERGE_SECONDS = 1.0
_LONGEST = 500


@dataclass(frozen=True)
class Step(Generic[T]):
    """One entry: the value after it, and what the user did.

    Attributes:
        value: The value this step led to.
        title: What was done, as in "Undo TITLE".
        moment: When, in seconds of any clock.
        group: Steps of one group (a drag) become one; 0 is none.
    """

    value: T
    title: str
    moment: float = 0.0
    group: int = 0


@dataclass(frozen=True)
class History(Generic[T]):
    """Values in the order they were reached, and which of them holds now.

    Attributes:
        steps: The first is the value the history began with.
        index: Number of the step that holds now.
        saved: Number of the step that is on disk; -1 when none of them is.
    """

    steps: tuple[Step[T], ...]
    index: int = 0
    saved: int = 0

    @classmethod
    def starting_with(cls, value: T, *, is_saved: bool = True) -> History[T]:
        """Return a history of nothing but ``value``."""
        return cls((Step(value, ""),), 0, 0 if is_saved else -1)

    @property
    def value(self) -> T:
        """The value that holds now."""
        return self.steps[self.index].value

    @property
    def is_clean(self) -> bool:
        """Whether the value that holds now is the saved one."""
        return self.index == self.saved or (
            self.saved >= 0 and self.steps[self.saved].value == self.value
        )

    @property
    def undo_title(self) -> str:
        """What an undo would take back; empty when there is nothing."""
        return self.steps[self.index].title if self.index > 0 else ""

    @property
    def redo_title(self) -> str:
        """What a redo would do again; empty when there is nothing."""
        is_last = self.index + 1 >= len(self.steps)
        return "" if is_last else self.steps[self.index + 1].title

    def done(
        self, value: T, title: str, *, moment: float, group: int = 0, may_merge: bool = False
    ) -> History[T]:
        """Return the history after one more step; what could be redone is forgotten.

        Args:
            value: The new value.
            title: What was done.
            moment: The time, for merging.
            group: Joins the previous step when that has the same group and title.
            may_merge: Joins the previous step when that has the same title and is a second old.
        """
        last = self.steps[self.index]
        same = self.index > 0 and last.title == title and self.index != self.saved
        joins = same and (
            (group != 0 and last.group == group)
            or (may_merge and moment - last.moment <= _MERGE_SECONDS)
        )
        kept = self.steps[: self.index + (0 if joins else 1)]
        saved = self.saved if self.saved < len(kept) else -1
        steps = (*kept, Step(value, title, moment, group))
        surplus = max(0, len(steps) - _LONGEST)
        return History(steps[surplus:], len(steps) - 1 - surplus, _shifted(saved, surplus))

    def undone(self) -> History[T]:
        """Return the history one step back; itself when there is none."""
        return replace(self, index=max(0, self.index - 1))

    def redone(self) -> History[T]:
        """Return the history one step on; itself when there is none."""
        return replace(self, index=min(len(self.steps) - 1, self.index + 1))

    def marked_saved(self) -> History[T]:
        """Return the history with the present value as the saved one."""
        return replace(self, saved=self.index)


def _shifted(saved: int, surplus: int) -> int:
    return saved - surplus if saved >= surplus else -1
