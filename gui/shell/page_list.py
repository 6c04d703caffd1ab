"""The pages of the window: what they are called, where they are, which settings they show."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from PySide6.QtWidgets import QWidget

from gui.forms.shapes import shape_of, shapes
from gui.shell.search import Entry
from gui.words import tr

Group = Literal["setup", "monitor", "foot"]


@dataclass(frozen=True)
class PageSpec:
    """One page.

    Attributes:
        key: Its name in code and preferences; also the name of its icon.
        group: Which part of the rail it is in.
        module: Module that holds it; imported when the page is first shown.
        sections: Sections of the configuration whose settings are on it.
        settings: Single settings that are on it although their section is elsewhere.
    """

    key: str
    title: str
    group: Group
    module: str
    sections: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def make(self, *arguments: Any) -> QWidget:
        """Return the page; its module is imported now."""
        module = importlib.import_module(self.module)
        found = getattr(module, "Page", None)
        if found is None:
            found = getattr(module, f"{self.key.capitalize()}Page")
        page: QWidget = found(*arguments)
        return page


LENGTH_SETTINGS = ("training.steps", "training.epochs")


@cache
def page_specs() -> tuple[PageSpec, ...]:
    """Return all pages in the order of the rail."""
    return (
        PageSpec("start", tr("Start"), "setup", "gui.pages.start"),
        PageSpec("model", tr("Model"), "setup", "gui.pages.model", ("model", "objective", "loss")),
        PageSpec(
            "data", tr("Data"), "setup", "gui.pages.data", ("data", "buckets", "captions", "cache")
        ),
        PageSpec(
            "schedule",
            tr("Schedule"),
            "setup",
            "gui.pages.schedule",
            ("schedule",),
            LENGTH_SETTINGS,
        ),
        PageSpec(
            "timesteps",
            tr("Timesteps"),
            "setup",
            "gui.pages.timesteps",
            ("timesteps",),
        ),
        PageSpec(
            "layers",
            tr("Layers"),
            "setup",
            "gui.pages.layers",
            ("targets",),
        ),
        PageSpec(
            "optimizer",
            tr("Optimizer and memory"),
            "setup",
            "gui.pages.optimizer",
            ("optimizer", "training", "memory"),
        ),
        PageSpec(
            "output",
            tr("Output and samples"),
            "setup",
            "gui.pages.output",
            ("output", "checkpoints", "validation", "logging"),
        ),
        PageSpec("run", tr("Run"), "monitor", "gui.pages.run"),
        PageSpec("samples", tr("Samples"), "monitor", "gui.pages.samples"),
        PageSpec("console", tr("Console"), "monitor", "gui.pages.console"),
        PageSpec("runs", tr("Runs"), "monitor", "gui.pages.runs"),
        PageSpec("preferences", tr("Preferences"), "foot", "gui.pages.preferences"),
    )


def spec_of(key: str) -> PageSpec:
    """Return the page called ``key``.

    Raises:
        KeyError: if there is none.
    """
    for spec in page_specs():
        if spec.key == key:
            return spec
    raise KeyError(key)


# Settings of a section nobody claims stand on this page, so that none is ever out of reach.
FALLBACK = "output"


def page_of(path: str) -> str:
    """Return the key of the page on which the setting at ``path`` stands."""
    section = path.split(".")[0].split("[")[0]
    for spec in page_specs():
        if path in spec.settings:
            return spec.key
    for spec in page_specs():
        if section in spec.sections:
            return spec.key
    return FALLBACK


def entries() -> tuple[Entry, ...]:
    """Return everything the search can find: pages, then settings."""
    pages = [Entry(spec.title, "", spec.key, tr("Page")) for spec in page_specs()]
    settings = []
    for shape in shapes():
        page = page_of(shape.path)
        where = spec_of(page).title
        if shape.of_kind:
            parent = shape_of(shape.path.rpartition(".")[0])
            where += f", {tr(parent.info.label)}: {dict(parent.values)[shape.of_kind]}"
        help_text = tr(shape.info.help)
        title = tr(shape.info.label)
        settings.append(Entry(title, shape.path, page, where, help_text, shape.of_kind))
    return (*pages, *settings)
