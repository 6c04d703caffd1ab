"""The two ways to run the engine behind one Protocol: in a child process, or in the thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aozora.events import Event
from gui.engine.mailbox import LogLine
from gui.engine.states import EngineEnded

HostMode = Literal["process", "thread"]
Post = Callable[[Event | LogLine], None]


class EngineBody(Protocol):
    """One run of the engine. `run` is called once, in a thread; the rest from any thread."""

    @property
    def can_kill(self) -> bool:
        """Whether `kill` can end it."""

    def run(self, post: Post) -> EngineEnded:
        """Run to the end, give what happens to ``post`` from any thread, and say how it ended."""

    def send(self, command: str) -> None:
        """Pass on a command of `aozora.api.RunControl`; lost without harm when it is over."""

    def kill(self) -> None:
        """End it at once, whatever it does."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """A run of the document.

    Attributes:
        config: The configuration, as plain JSON values.
        resume: A state file to go on from, ``last``, or empty for a new run.
    """

    config: Mapping[str, Any]
    resume: str = ""


@dataclass(frozen=True, kw_only=True)
class DemoJob:
    """The demo: model and pictures made, trained, stopped, resumed and measured in ``folder``."""

    folder: str


Job = TrainJob | DemoJob


def body_for(job: Job, mode: HostMode) -> EngineBody:
    """Return what runs ``job`` in ``mode``."""
    if mode == "thread":
        from gui.engine.inline import InlineEngine

        return InlineEngine(job)
    from gui.engine.child import ChildEngine, child_command

    return ChildEngine(child_command(job))
