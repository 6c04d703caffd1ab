"""What each chart shows: columns of the history, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gui.charts.numbers import bytes_text, seconds_text, short_number
from gui.charts.run_history import RunHistory
from gui.charts.table import Table
from gui.words import tr

LineStyle = Literal["peaks", "faint", "smooth", "dots", "dashed"]
TableName = Literal["steps", "memory", "validation", "motion"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series.

    Attributes:
        table: Table of the history it comes from.
        column: Column there.
        label: Its name in the legend.
        ink: Number of the series colour of the theme.
        style: ``peaks`` touches every extreme; ``faint`` does so behind a ``smooth`` one.
        unit_size: Plotted values are divided by this.
    """

    table: TableName
    column: str
    label: str
    ink: int
    style: LineStyle
    unit_size: float = 1.0

    @property
    def is_of_device(self) -> bool:
        """Whether it is memory of a device, which is zero where there is none."""
        return self.table == "memory" and self.column.startswith("device")

    def table_in(self, history: RunHistory) -> Table:
        """Return its table."""
        tables = {
            "steps": history.steps,
            "memory": history.memory,
            "validation": history.validation,
            "motion": history.motion,
        }
        return tables[self.table]


@dataclass(frozen=True, kw_only=True)
class ChartSpec:
    """One chart.

    Attributes:
        key: Its name in code and file names.
        unit: Shown beside the title; empty for plain numbers.
        text: How a value reads beside the crosshair.
        can_log: Whether the shared logarithmic switch concerns it.
        is_log: Whether its axis is always logarithmic.
        from_zero: Whether zero is always in view.
        is_optional: Whether it is left out while there is nothing to show.
    """

    key: str
    title: str
    lines: tuple[Line, ...]
    unit: str = ""
    text: Callable[[float], str] = short_number
    can_log: bool = False
    is_log: bool = False
    from_zero: bool = False
    is_optional: bool = False
    note: str = ""


def chart_specs() -> tuple[ChartSpec, ...]:
    """Return the charts of the Run page, the loss first."""
    gib = float(2**30)

    def gib_text(value: float) -> str:
        return bytes_text(value * gib)

    return (
        ChartSpec(
            key="loss",
            title=tr("Loss"),
            lines=(
                Line(table="steps", column="loss", label=tr("each step"), ink=0, style="faint"),
                Line(table="steps", column="loss", label=tr("smoothed"), ink=0, style="smooth"),
                Line(
                    table="validation", column="loss", label=tr("validation"), ink=1, style="dots"
                ),
            ),
            can_log=True,
            note=tr("Steps mostly show which timesteps were drawn; validation is unweighted MSE."),
        ),
        ChartSpec(
            key="learning_rate",
            title=tr("Learning rate"),
            lines=(Line(table="steps", column="lr", label=tr("applied"), ink=0, style="dots"),),
            is_log=True,
        ),
        ChartSpec(
            key="gradient_norm",
            title=tr("Gradient norm"),
            lines=(
                Line(
                    table="steps",
                    column="grad_norm",
                    label=tr("before clipping"),
                    ink=2,
                    style="peaks",
                ),
            ),
            is_log=True,
        ),
        ChartSpec(
            key="memory",
            title=tr("Memory"),
            lines=(
                Line(
                    table="memory",
                    column="device_used",
                    label=tr("VRAM"),
                    ink=0,
                    style="peaks",
                    unit_size=gib,
                ),
                Line(
                    table="memory",
                    column="device_total",
                    label=tr("VRAM in all"),
                    ink=0,
                    style="dashed",
                    unit_size=gib,
                ),
                Line(
                    table="memory",
                    column="process_rss",
                    label=tr("RAM"),
                    ink=3,
                    style="peaks",
                    unit_size=gib,
                ),
                Line(
                    table="memory",
                    column="host_available",
                    label=tr("RAM left"),
                    ink=1,
                    style="dashed",
                    unit_size=gib,
                ),
            ),
            unit=tr("GiB"),
            text=gib_text,
            from_zero=True,
        ),
        ChartSpec(
            key="pace",
            title=tr("Time a step"),
            lines=(
                Line(
                    table="steps",
                    column="seconds_per_step",
                    label=tr("whole step"),
                    ink=0,
                    style="peaks",
                ),
                Line(
                    table="steps",
                    column="data_wait",
                    label=tr("waiting for data"),
                    ink=1,
                    style="peaks",
                ),
            ),
            unit=tr("seconds"),
            text=seconds_text,
            from_zero=True,
        ),
        ChartSpec(
            key="motion",
            title=tr("Weights that moved"),
            lines=(
                Line(
                    table="motion",
                    column="share_moved",
                    label=tr("share of stored weights"),
                    ink=2,
                    style="peaks",
                    unit_size=0.01,
                ),
            ),
            unit=tr("%"),
            from_zero=True,
            is_optional=True,
        ),
    )
