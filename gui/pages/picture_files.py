"""Pictures and captions of a folder as the gallery shows them; free of Qt's widgets.

Which pictures are trained, and how, is the engine's word (`data_facts`); this only looks.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QSize
from PySide6.QtGui import QImageReader

from aozora.file_names import PICTURES, index_captions
from aozora.runtime import long_path, write_text_atomic
from gui.pages.data_facts import DataFacts

_MAX_CAPTION_BYTES = 1 << 20

Filter = Literal["all", "no_caption", "small", "broken", "left_out", "cut", "repeated", "new"]


@dataclass(frozen=True)
class PictureItem:
    """One file that has the name of a picture.

    Attributes:
        path: Where it is.
        folder: Number of its folder in the document.
        width: Upright width in pixels; 0 when it cannot be read.
        height: Upright height in pixels.
        caption: The whole text of its caption file; empty without one.
        caption_path: Its caption file; None without one.
    """

    path: Path
    folder: int
    width: int
    height: int
    caption: str
    caption_path: Path | None

    @property
    def is_broken(self) -> bool:
        """Whether it cannot be read as a picture."""
        return not (self.width and self.height)

    @property
    def has_caption(self) -> bool:
        """Whether a caption file with text is beside it."""
        return bool(self.caption.strip())


def is_small(item: PictureItem, resolution: int) -> bool:
    """Return whether the picture has less than the area it is trained at."""
    return not item.is_broken and item.width * item.height < resolution * resolution


def passes(
    item: PictureItem, wanted: Filter, words: str, resolution: int, facts: DataFacts | None = None
) -> bool:
    """Return whether ``item`` is among what the user wants to see.

    Args:
        item: The picture.
        wanted: What it has to be like.
        words: Words its name or caption must hold, in any case.
        resolution: Side of the square whose area pictures are trained at.
        facts: What the engine says; without it, nothing is what only the engine can tell.
    """
    if not _is(item, wanted, resolution, facts):
        return False
    if not words:
        return True
    text = f"{item.path.name} {item.caption}".lower()
    return all(word in text for word in words.lower().split())


def _is(item: PictureItem, wanted: Filter, resolution: int, facts: DataFacts | None) -> bool:
    match wanted:
        case "all":
            return True
        case "no_caption":
            return not item.has_caption
        case "small":
            return is_small(item, resolution)
        case "broken":
            return item.is_broken
        case "left_out":
            return facts is not None and bool(facts.reason_for(item.path))
    picture = facts.of(item.path) if facts is not None else None
    if facts is None or picture is None:
        return False
    match wanted:
        case "cut":
            return facts.is_cut(picture)
        case "repeated":
            return bool(picture.same_as)
        case "new":
            return picture.is_new


def list_pictures(
    folders: Iterable[Path | None], *, recursive: bool, should_stop: Callable[[], bool]
) -> Iterator[PictureItem]:
    """Yield the pictures in ``folders``, folder by folder, in the order of their names.

    A folder that is None or not there has none; those behind it keep their numbers.
    """
    seen: set[str] = set()
    for number, folder in enumerate(folders):
        # The walk raises where a path cannot be one, as with a NUL in it; this only says no.
        if folder is None or not os.path.isdir(folder):
            continue
        for here, inner, names in os.walk(folder, followlinks=True):
            real = os.path.realpath(here)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            inner[:] = sorted(n for n in inner if not n.startswith(".")) if recursive else []
            captions = index_captions(names)
            for name in sorted(names):
                if should_stop():
                    return
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in PICTURES and not name.startswith("."):
                    caption = next(iter(captions.beside(stem)), None)
                    yield _item(Path(here, name), number, caption)


def _item(path: Path, folder: int, caption: str | None) -> PictureItem:
    size = picture_size(path)
    caption_path = path.with_name(caption) if caption else None
    text = read_text(caption_path) if caption_path else ""
    return PictureItem(path, folder, size.width(), size.height(), text, caption_path)


def picture_size(path: Path) -> QSize:
    """Return the upright size from the head of the file, 0 by 0 when there is none to read."""
    reader = QImageReader(str(path))
    reader.setAutoTransform(True)
    size = reader.size()
    if not size.isValid():
        return QSize(0, 0)
    is_turned = bool(reader.transformation().value & 4)
    return size.transposed() if is_turned else size


def read_text(path: Path) -> str:
    """Return the text of a caption file, whatever its encoding; empty if it cannot be read."""
    try:
        with long_path(path).open("rb") as file:
            data = file.read(_MAX_CAPTION_BYTES)
    except OSError:
        return ""
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return data.decode(name, errors="replace").strip()
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace").strip()


def write_caption(item: PictureItem, text: str) -> Path:
    """Write ``text`` to the caption file of ``item``, made beside it if there is none.

    Raises:
        OSError: if it cannot be written; the old one is untouched then.
    """
    target = item.caption_path or item.path.with_suffix(".txt")
    write_text_atomic(target, text.strip() + "\n", sync=False)
    return target
