"""The engine in a child process: started, listened to, commanded, and ended if it must be."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from aozora.events import RunFailed, RunFinished
from gui.engine.bodies import DemoJob, Job, Post
from gui.engine.mailbox import Level, LogLine
from gui.engine.program import engine_command
from gui.engine.states import EngineEnded
from gui.engine.wire import LONGEST_LINE_BYTES, parse_line

_KEPT_LINES = 40
_LONGEST_SHOWN = 2_000
# A process that has said its last word may hang while it frees the device; its files are written.
_LINGER_SECONDS = 20.0
_JOIN_SECONDS = 2.0
_CONFIG_PLACE = "{config}"
# The last line of a traceback, and what the engine's command line says under it.
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)(:|$)")
_BUG = "This is a bug in Aozora"


def child_command(job: Job) -> tuple[list[str], str]:
    """Return the command that runs ``job`` and the text of the file it names ``{config}``."""
    if isinstance(job, DemoJob):
        return engine_command("gui.engine.demo_run", job.folder), ""
    resume = ["--resume", job.resume] if job.resume else []
    options = ["--events", "-", "--control", "-", *resume]
    text = json.dumps(job.config, indent=2, ensure_ascii=False)
    return engine_command("aozora", "train", _CONFIG_PLACE, *options), text


class ChildEngine:
    """Runs a command that writes events to stdout and reads commands from stdin.

    Args:
        command: The program and its arguments, and the text of its configuration file.
        linger_seconds: How long it may live on after its last event.
    """

    can_kill = True

    def __init__(
        self, command: tuple[Sequence[str], str], *, linger_seconds: float = _LINGER_SECONDS
    ) -> None:
        self._command, self._config_text = command
        self._linger_seconds = linger_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: list[str] = []
        self._was_killed = False
        self._said_last_word = threading.Event()
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)

    def run(self, post: Post) -> EngineEnded:
        """Run the command to its end; see `EngineBody.run`."""
        with contextlib.ExitStack() as stack:
            command = list(self._command)
            if _CONFIG_PLACE in command:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aozora-run-"))
                path = Path(folder) / "config.json"
                path.write_text(self._config_text, encoding="utf-8", newline="\n")
                command[command.index(_CONFIG_PLACE)] = str(path)
            try:
                process = self._start(command)
            except OSError as error:
                return EngineEnded(
                    message=f"the engine could not be started: {error.strerror or error}",
                    hint="run setup again",
                )
            readers = [
                self._reader(process.stdout, lambda line: self._take_event(line, post)),
                self._reader(process.stderr, lambda line: self._take_output(line, post)),
            ]
            self._wait(process)
            for reader in readers:
                # A grandchild that inherited the pipe could hold it open for ever.
                reader.join(_JOIN_SECONDS)
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            return self._ending(process.returncode)

    def send(self, command: str) -> None:
        """Write ``command`` to the engine's stdin; kept until there is one."""
        line = json.dumps({"command": command}) + "\n"
        with self._lock:
            if self._process is None:
                self._waiting.append(line)
            else:
                self._write(self._process, line)

    def kill(self) -> None:
        """End the process and all it started."""
        with self._lock:
            self._was_killed = True
            process = self._process
        if process is not None:
            _kill_tree(process)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = (
                subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
            )
        else:
            # Ctrl+C in the terminal the window was started from is the window's business.
            options["start_new_session"] = True
        with self._lock:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                **options,
            )
            self._process = process
            for line in self._waiting:
                self._write(process, line)
            killed_before = self._was_killed
        if killed_before:
            _kill_tree(process)
        return process

    def _write(self, process: subprocess.Popen[bytes], line: str) -> None:
        assert process.stdin is not None
        # The process may have ended, which is reported elsewhere.
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(line.encode("utf-8"))
            process.stdin.flush()

    def _reader(self, pipe: IO[bytes] | None, take: Any) -> threading.Thread:
        assert pipe is not None

        def read() -> None:
            with contextlib.suppress(OSError, ValueError), pipe:
                while raw := pipe.readline(LONGEST_LINE_BYTES):
                    take(raw.decode("utf-8", errors="replace").rstrip("\r\n"))

        thread = threading.Thread(target=read, name="engine-pipe", daemon=True)
        thread.start()
        return thread

    def _take_event(self, line: str, post: Post) -> None:
        event = parse_line(line)
        if event is None:
            self._take_output(line, post)
            return
        if isinstance(event, RunFinished | RunFailed):
            self._said_last_word.set()
        else:
            self._said_last_word.clear()
        post(event)

    def _take_output(self, line: str, post: Post) -> None:
        # A progress bar redraws its line; the last state is the one to read.
        text = line.rsplit("\r", 1)[-1].rstrip()
        if not text:
            return
        shown = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + " ..."
        self._tail.append(shown)
        post(LogLine(time.time(), _level_of(shown), shown))

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Return when the process is gone; one that lingers after its last word is ended."""
        since: float | None = None
        while True:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                pass
            else:
                return
            if not self._said_last_word.is_set():
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since > self._linger_seconds:
                _kill_tree(process)

    def _ending(self, code: int) -> EngineEnded:
        output = "\n".join(self._tail)
        with self._lock:
            was_killed = self._was_killed
        if was_killed:
            return EngineEnded(
                message="the engine was ended by force",
                hint="resume from the last saved state",
                was_forced=True,
            )
        if self._said_last_word.is_set() or code in (0, 130):
            return EngineEnded()
        hint = _hint(code)
        if any(line.startswith(_BUG) for line in self._tail):
            hint = "this is a bug in Aozora; please report it"
        return EngineEnded(message=_why(code, self._tail), hint=hint, output=output)


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    with contextlib.suppress(OSError):
        process.kill()


def _level_of(text: str) -> Level:
    if text.startswith(("ERROR", "CRITICAL", "Error:", "Traceback")):
        return "error"
    return "warning" if text.startswith("WARNING") else "output"


def _why(code: int, tail: deque[str]) -> str:
    errors = [line.removeprefix("Error: ") for line in tail if line.startswith("Error: ")]
    if errors:
        return errors[-1]
    raised = [line for line in tail if _RAISED.match(line)]
    if code > 0 and raised:
        return raised[-1]
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"the engine was ended by the system ({signal.Signals(-code).name})"
        return f"the engine was ended by the system (signal {-code})"
    if code > 255:
        return f"the engine crashed (code 0x{code & 0xFFFFFFFF:08X})"
    return f"the engine ended unexpectedly (code {code})"


def _hint(code: int) -> str:
    if code in (-9, -getattr(signal, "SIGKILL", 9)):
        return "the computer may have run out of memory; resume from the last saved state"
    if code < 0 or code > 255:
        return "update the graphics driver if it happens again; resume from the last saved state"
    return "the console has the engine's last words"
