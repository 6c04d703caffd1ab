"""What is said about a model under the user's hands: a curve, a ticket pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Issue:
    """One remark.

    Attributes:
        severity: ``error`` stops a run, ``warning`` does not, ``info`` is a figure worth knowing.
        text: What is the matter.
        index: Number of the point or bin it concerns, or None for the whole.
        fix: What to do about it; empty for ``info``.
    """

    severity: Severity
    text: str
    index: int | None = None
    fix: str = ""
