"""Which Python runs the engine, and with what before the name of the module."""

from __future__ import annotations

import sys
from pathlib import Path


def engine_program() -> str:
    """Return the Python that runs the engine: with a console even where the window has none."""
    program = Path(sys.executable)
    if program.name.lower() == "pythonw.exe":
        return str(program.with_name("python.exe"))
    return str(program)


def engine_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``module``, of Aozora whatever the current folder holds."""
    return [engine_program(), "-P", "-m", module, *arguments]
