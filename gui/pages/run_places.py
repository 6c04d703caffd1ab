"""Where recorded runs are looked for."""

from __future__ import annotations

from pathlib import Path

from gui.document import Document
from gui.engine.host import EngineHost
from gui.preferences import load_preferences, preferences_path


def outputs_in_use(document: Document, host: EngineHost) -> list[Path]:
    """Return the output folders of the document, of runs seen before, and of the current one."""
    named = [str(document.value("output.folder"))]
    named += load_preferences(preferences_path()).seen_runs
    if host.status.folder:
        named.append(str(Path(host.status.folder).parent.parent))
    return list(dict.fromkeys(Path(name).absolute() for name in named if name))
