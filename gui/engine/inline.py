"""The engine inside the window's process: the same events, but no way to end it by force."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aozora import api
from aozora.config.codec import decode_config
from aozora.errors import AozoraError, ConfigError
from aozora.events import Event, EventSink, RunFailed
from gui.engine.bodies import DemoJob, Job, Post, TrainJob
from gui.engine.mailbox import Level, LogLine
from gui.engine.states import EngineEnded

if TYPE_CHECKING:
    from aozora.config.schema import TrainConfig


class _LogToPost(logging.Handler):
    """Passes warnings of libraries on; events are shown already and are logged below that."""

    def __init__(self, post: Post) -> None:
        super().__init__(logging.WARNING)
        self._post = post

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        self._post(LogLine(time.time(), level, record.getMessage()))


def _comes_too_late() -> bool:
    """Return whether torch cannot be loaded any more: on Windows its libraries go before Qt's."""
    return sys.platform == "win32" and "torch" not in sys.modules


class InlineEngine:
    """Calls `aozora.api` in the thread that calls `run`.

    torch is imported there, not before; only on Windows the start of the window does it.
    """

    can_kill = False

    def __init__(self, job: Job) -> None:
        self._job = job
        self._control = api.RunControl()
        self._has_failed = False

    def run(self, post: Post) -> EngineEnded:
        """Run the job to its end; see `EngineBody.run`."""
        if _comes_too_late():
            return EngineEnded(
                message="the engine can be a thread of the window only from its next start on",
                hint="close Aozora and start it again, or let the engine be a process of its own",
            )

        def receive(event: Event) -> None:
            self._has_failed = self._has_failed or isinstance(event, RunFailed)
            post(event)

        handler = _LogToPost(post)
        logging.getLogger().addHandler(handler)
        try:
            self._run(receive)
        except AozoraError as error:
            if not self._has_failed:
                receive(RunFailed(message=error.message, hint=error.hint))
        finally:
            logging.getLogger().removeHandler(handler)
        return EngineEnded()

    def send(self, command: str) -> None:
        """Pass ``command`` to the run's control."""
        self._control.send(command)

    def kill(self) -> None:
        """Ask it to stop at the next moment; a thread cannot be ended."""
        self.send("stop")

    def _run(self, receive: EventSink) -> None:
        if isinstance(self._job, DemoJob):
            from gui.engine.demo_run import run_demo

            run_demo(Path(self._job.folder), receive, self._control)
        else:
            api.train(_config_of(self._job), receive, self._control, resume=_resume(self._job))


def _config_of(job: TrainJob) -> TrainConfig:
    try:
        return decode_config(dict(job.config))
    except ConfigError as error:
        raise AozoraError(error.message, error.hint) from error


def _resume(job: TrainJob) -> Path | Literal["last"] | None:
    if not job.resume:
        return None
    return "last" if job.resume == "last" else Path(job.resume)
