"""An earlier run whose loss is shown under that of the run the charts are of."""

from __future__ import annotations

from dataclasses import dataclass

from gui.charts.run_history import RunHistory


@dataclass(frozen=True, eq=False)
class Overlay:
    """Another run to compare with.

    Attributes:
        name: What it is called in legends and files.
        history: What it did.
    """

    name: str
    history: RunHistory
