"""Errors a user can act on.

An `AozoraError` is shown plainly, without a traceback. Any other exception that reaches the top of
the program is a bug and is shown with its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AozoraError(Exception):
    """Something the user can mend.

    Args:
        message: What is wrong, and with which file or setting.
        hint: What to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True)
class Problem:
    """One fault of a configuration.

    Attributes:
        path: Dotted path of the setting, such as ``training.batch_size``; empty for the whole file.
        text: What is wrong.
        remedy: What to do.
    """

    path: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        head = f"{self.path}: {self.text}" if self.path else self.text
        return f"{head} ({self.remedy})" if self.remedy else head


class ConfigError(AozoraError):
    """A configuration that cannot be used; lists all its problems at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "1 problem in the settings" if count == 1 else f"{count} problems in the settings"
        super().__init__("\n  ".join([f"{title}:", *map(str, self.problems)]))


class ModelFileError(AozoraError):
    """A model file that cannot be read, is not what was expected, or cannot be written."""


class DatasetError(AozoraError):
    """A dataset that cannot be used as it is."""


class CacheError(AozoraError):
    """A cache folder or entry that cannot be read or written."""


class CheckpointError(AozoraError):
    """A training state that cannot be written, read or resumed from."""


class SaveError(CheckpointError):
    """A save that could not be written; the earlier ones are untouched."""


class NumericsError(AozoraError):
    """Training produced values that are not finite."""


class OutOfMemory(AozoraError):
    """The device or the host has too little memory for the run."""
