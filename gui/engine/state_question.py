"""What is in a state file, asked in a child process so that the window needs no torch.

``python -m gui.engine.state_question FILE`` prints one JSON object with ``facts``, as
``aozora inspect --json`` has them, ``config``, the settings stored in the state, and ``tickets``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from aozora.errors import AozoraError
from aozora.runtime import guard_streams
from gui.engine.program import engine_command


@dataclass(frozen=True)
class StateFacts:
    """What a state file says.

    Attributes:
        facts: Facts by name, as `aozora inspect` has them.
        config: The settings stored in it, all written out.
        problem: Why it cannot be read; then there is nothing else.
        tickets: The timestep tickets stored in it, as `SegmentedPool.to_json` writes them.
    """

    facts: dict[str, Any]
    config: dict[str, Any]
    problem: str = ""
    tickets: list[dict[str, Any]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The step it was saved at."""
        return int(self.facts.get("step", 0))

    @property
    def samples(self) -> int:
        """Samples drawn until then."""
        return int(self.facts.get("samples", 0))


def parse_answer(output: str, said: str) -> StateFacts:
    """Return what the child answered."""
    try:
        data = json.loads(output)
        return StateFacts(dict(data["facts"]), dict(data["config"]), tickets=list(data["tickets"]))
    except (ValueError, KeyError, TypeError):
        lines = [line.removeprefix("Error: ") for line in said.splitlines() if line.strip()]
        errors = [line for line in said.splitlines() if line.startswith("Error: ")]
        problem = errors[-1].removeprefix("Error: ") if errors else "\n".join(lines[-3:])
        return StateFacts({}, {}, problem or "the engine gave no answer")


class StateQuestion(QObject):
    """Asks about one state file.

    Signals:
        answered(StateFacts): in the window's thread.
    """

    answered = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process: subprocess.Popen[str] | None = None

    def ask(self, path: Path) -> None:
        """Start reading ``path``."""
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NO_WINDOW
        command = engine_command("gui.engine.state_question", str(path))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            creationflags=flags,
        )
        self._process = process

        def wait() -> None:
            output, said = process.communicate()
            # The dialog may be gone by now.
            with contextlib.suppress(RuntimeError):
                self.answered.emit(parse_answer(output, said))

        threading.Thread(target=wait, name="state-question", daemon=True).start()

    def drop(self) -> None:
        """Stop reading; no answer comes any more that matters."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def main() -> int:
    """Answer the question; return the exit code."""
    guard_streams()
    from aozora import api

    # Whatever libraries print must not stand in the answer.
    stream, sys.stdout = sys.stdout, sys.stderr
    path = Path(sys.argv[1])
    try:
        answer = {
            "facts": api.inspect(path),
            "config": api.stored_config(path),
            "tickets": api.stored_tickets(path),
        }
    except (AozoraError, OSError, KeyError) as error:
        text = error.message if isinstance(error, AozoraError) else f"{path}: {error!r}"
        sys.stderr.write(f"Error: {text}\n")
        return 2
    stream.write(json.dumps(answer, ensure_ascii=False) + "\n")
    stream.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
