"""Start of the window: ``python -m gui``; with ``--check`` only says whether it could open."""

from __future__ import annotations

import sys
from importlib.metadata import version

NO_WINDOW = """This version of Aozora has no window yet; it is used from the command line:
  python bootstrap.py demo
  python bootstrap.py train --preset sdxl-12gb --model BASE.safetensors --data FOLDER
"""


def check() -> list[str]:
    """Return one line about each thing the window needs.

    Raises:
        ImportError: when torch or Qt cannot be loaded.
        OSError: when one of their libraries cannot be.
    """
    # torch first: on Windows its libraries may fail to load once Qt's are there.
    import torch
    from PySide6 import QtWidgets

    has_card = torch.cuda.is_available()
    card = torch.cuda.get_device_name() if has_card else "none that torch can use"
    return [
        f"torch {torch.__version__}",
        f"Qt {version('PySide6-Essentials')} ({QtWidgets.__name__} loads)",
        f"graphics card: {card}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the check or open the window; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--check"]:
        try:
            lines = check()
        except (ImportError, OSError) as error:
            sys.stderr.write(f"Error: {error}\nWhat to do: run setup again.\n")
            return 3
        sys.stdout.write("\n".join(lines) + "\n")
    # Under pythonw there is nobody to read and no stream to write to.
    if sys.stderr is not None:
        sys.stderr.write(NO_WINDOW)
    return 2


if __name__ == "__main__":
    sys.exit(main())
