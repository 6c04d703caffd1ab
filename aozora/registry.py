"""Named sets of alternatives: the losses, weightings, objectives, optimizers one can choose from.

A choice is a frozen dataclass whose fields are its settings. Registering the class under a name is
all that is needed for it to appear in configs, forms, checks and docs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T", bound=type[Any])

_KIND_ATTRIBUTE = "__choice_kind__"
_FAMILY_ATTRIBUTE = "__choice_family__"


class Family:
    """The alternatives for one setting, by name.

    Args:
        name: What is chosen, in words: ``"loss weighting"``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._classes: dict[str, type[Any]] = {}
        self._labels: dict[str, str] = {}

    def register(self, kind: str, label: str) -> Callable[[T], T]:
        """Return a class decorator that adds the class as alternative ``kind``.

        Raises:
            ValueError: if ``kind`` is taken.
        """

        def decorate(cls: T) -> T:
            if kind in self._classes:
                raise ValueError(f"{self.name}: {kind!r} is registered twice")
            self._classes[kind] = cls
            self._labels[kind] = label
            setattr(cls, _KIND_ATTRIBUTE, kind)
            setattr(cls, _FAMILY_ATTRIBUTE, self)
            return cls

        return decorate

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __contains__(self, kind: object) -> bool:
        return kind in self._classes

    def __getitem__(self, kind: str) -> type[Any]:
        return self._classes[kind]

    def label(self, kind: str) -> str:
        """Return the name of ``kind`` as shown to users."""
        return self._labels[kind]

    def classes(self) -> tuple[type[Any], ...]:
        """Return every registered class, in the order of registration."""
        return tuple(self._classes.values())


def kind_of(choice: object) -> str:
    """Return the registered name of a choice (an instance or its class).

    Raises:
        TypeError: if it belongs to no family.
    """
    kind = getattr(choice, _KIND_ATTRIBUTE, None)
    if not isinstance(kind, str):
        raise TypeError(f"{choice!r} is not a registered choice")
    return kind


def family_of(cls: type[Any]) -> Family | None:
    """Return the family ``cls`` is registered in, if any."""
    family = getattr(cls, _FAMILY_ATTRIBUTE, None)
    return family if isinstance(family, Family) else None


def did_you_mean(word: str, known: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""
