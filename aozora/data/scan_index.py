"""What decoding told about each file, remembered so that unchanged files are not decoded again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version

from aozora.runtime import write_json_atomic

log = logging.getLogger(__name__)

_VERSION = 2


@dataclass(frozen=True)
class FileFacts:
    """What is known about the bytes of one file.

    Attributes:
        num_bytes: Size of the file.
        mtime_ns: When it was last written.
        ctime_ns: When it or its name was last changed; 0 where the system does not keep that.
        height: Upright height in pixels.
        width: Upright width in pixels.
        content_hash: Hash of its bytes.
        has_alpha: Whether parts are transparent.
        notes: What a user should know about how it was read.
        problem: Why it cannot be used; empty for a good picture.
    """

    num_bytes: int
    mtime_ns: int
    ctime_ns: int = 0
    height: int = 0
    width: int = 0
    content_hash: str = ""
    has_alpha: bool = False
    notes: tuple[str, ...] = ()
    problem: str = ""


def stat_facts(status: os.stat_result) -> FileFacts:
    """Return what tells the state of a file from another one."""
    # On Windows this time is that of the file's making.
    changed = 0 if os.name == "nt" else status.st_ctime_ns
    return FileFacts(status.st_size, status.st_mtime_ns, changed)


def index_key(path: Path) -> str:
    """Return the name under which a file is remembered."""
    # JSON holds no lone surrogates in UTF-8, which names that are no Unicode turn into.
    return os.fsencode(os.path.abspath(path)).decode("latin-1")


def key_path(key: str) -> Path:
    """Return the file that is remembered under ``key``."""
    return Path(os.fsdecode(key.encode("latin-1")))


def load_index(path: Path | None) -> dict[str, FileFacts]:
    """Return the facts in the file ``path``; none if it is missing, damaged or out of date."""
    if path is None or not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["made_with"] != _made_with():
            return {}
        for key in stored["files"]:
            key_path(key)  # raises where it is no name of a file
        return {key: _facts(fields) for key, fields in stored["files"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        log.warning("The index %s cannot be used and is made anew (%s)", path, error)
        return {}


def save_index(path: Path, facts: Mapping[str, FileFacts]) -> None:
    """Write ``facts`` to ``path``."""
    files = {key: asdict(value) for key, value in sorted(facts.items())}
    stored = {"made_with": _made_with(), "files": files}
    write_json_atomic(path, stored, sync=False)


def forget_files(path: Path, files: Iterable[Path]) -> None:
    """Have ``files`` decoded at the next scan, whatever their sizes and times say.

    Raises:
        OSError: if the index ``path`` cannot be read or written.
    """
    gone = set(map(index_key, files))
    facts = load_index(path)
    kept = {key: value for key, value in facts.items() if key not in gone}
    if len(kept) < len(facts):
        save_index(path, kept)


def _made_with() -> dict[str, Any]:
    return {"version": _VERSION, "pillow": pillow_version}


def _facts(fields: dict[str, Any]) -> FileFacts:
    facts = FileFacts(**{**fields, "notes": tuple(fields["notes"])})
    numbers = (facts.num_bytes, facts.mtime_ns, facts.ctime_ns, facts.height, facts.width)
    texts = (facts.content_hash, facts.problem, *facts.notes)
    if not all(type(n) is int for n in numbers) or not all(type(t) is str for t in texts):
        raise TypeError("an entry has fields of the wrong type")
    if not facts.problem and not (facts.height > 0 and facts.width > 0 and facts.content_hash):
        raise ValueError("an entry has neither a size nor a problem")
    return facts
