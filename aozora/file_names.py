"""What files are by their names: pictures, and the captions that belong to them. Opens nothing."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

CaptionKind = Literal["txt", "caption"]

_JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_RAW = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"})

PICTURES = _JPEG | {".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
"""Extensions of files that are read as pictures."""

OTHER_PICTURES = _RAW | {".heic", ".heif", ".hif", ".jxl", ".jp2", ".psd", ".svg", ".tga", ".exr"}
"""Extensions of pictures that cannot be read."""

_CAPTION_KINDS: tuple[CaptionKind, ...] = ("txt", "caption")


@dataclass(frozen=True)
class CaptionFiles:
    """The caption files of one folder.

    Attributes:
        exact: Names of the files by stem and kind.
        alike: Those that are the only ones of their kind with a stem, by `alike_stem` and kind.
    """

    exact: Mapping[tuple[str, CaptionKind], str]
    alike: Mapping[tuple[str, CaptionKind], str]

    def beside(self, stem: str) -> dict[str, CaptionKind]:
        """Return the files for a picture of ``stem`` with their kinds, the one to take first.

        One of the very same stem goes before one whose stem differs in case or in how its accents
        are written, and ``.txt`` before ``.caption``.
        """
        places = ((self.exact, stem), (self.alike, alike_stem(stem)))
        found = ((files.get((s, kind)), kind) for files, s in places for kind in _CAPTION_KINDS)
        names: dict[str, CaptionKind] = {}
        for name, kind in found:
            if name is not None:
                names.setdefault(name, kind)
        return names


def alike_stem(stem: str) -> str:
    """Return what is the same for all that Windows and macOS take for the name ``stem``."""
    return unicodedata.normalize("NFC", stem).casefold()


def caption_kind(name: str) -> CaptionKind | None:
    """Return what kind of caption file has this name; None if it is none."""
    extension = os.path.splitext(name)[1].lower()
    return next((kind for kind in _CAPTION_KINDS if extension == f".{kind}"), None)


def index_captions(names: Iterable[str]) -> CaptionFiles:
    """Return the caption files among ``names``, those of one folder."""
    exact: dict[tuple[str, CaptionKind], str] = {}
    for name in sorted(names, reverse=True):  # of a.TXT and a.txt the latter comes first and stays
        kind = caption_kind(name)
        if kind is not None:
            exact.setdefault((os.path.splitext(name)[0], kind), name)
    counts = Counter((alike_stem(stem), kind) for stem, kind in exact)
    alike = {
        (alike_stem(stem), kind): name
        for (stem, kind), name in exact.items()
        if counts[alike_stem(stem), kind] == 1
    }
    return CaptionFiles(exact, alike)
