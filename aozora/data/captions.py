"""Captions: the text file beside a picture, or else the picture's name."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aozora.errors import DatasetError
from aozora.file_names import CaptionFiles, CaptionKind
from aozora.runtime import long_path

CaptionSource = CaptionKind | Literal["name"]

_MAX_BYTES = 16 << 20
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Marks that turn the direction of writing: they hide what a text says and mean nothing besides.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Caption:
    """What a picture is trained with.

    Attributes:
        text: One line; empty means unconditional.
        source: Where it came from.
        notes: What a user should know about how it was read.
        has_more_lines: Whether its file has further lines, which are not trained.
    """

    text: str
    source: CaptionSource
    notes: tuple[str, ...] = ()
    has_more_lines: bool = False


def read_caption(image: Path, caption_files: CaptionFiles) -> Caption:
    """Return the caption of ``image``.

    A ``.txt`` file of the same stem is taken first, then a ``.caption`` file, then those of nearly
    the same stem, else the name of the picture with underscores as spaces. The first line that is
    not blank counts.

    Args:
        image: The picture.
        caption_files: Those of its folder.

    Raises:
        DatasetError: if its caption file cannot be read; the message has the reason only.
    """
    notes: list[str] = []
    for name, kind in caption_files.beside(image.stem).items():
        path = long_path(image.with_name(name))
        if not path.is_file():
            notes.append(f"{show_text(name)} is not a regular file and is ignored")
            continue
        lines = _lines(_decode(_read_bytes(path), notes))
        text = _clean(lines, notes)
        return Caption(text, kind, tuple(notes), len(lines) > 1)
    text = _clean(_lines(show_text(image.stem).replace("_", " ")), notes)
    return Caption(text, "name", tuple(notes))


def show_text(text: str) -> str:
    """Return a file name as text that any stream can take, whatever bytes the name has."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DatasetError(
            f"its caption file cannot be read ({(error.strerror or str(error)).lower()})"
        ) from error
    if len(data) > _MAX_BYTES:
        raise DatasetError(f"its caption file is larger than {_MAX_BYTES >> 20} MiB")
    return data


def _decode(data: bytes, notes: list[str]) -> str:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = data.decode(encoding, errors="replace")
            break
    else:
        text = _decode_without_bom(data, notes)
    if "\ufffd" in text:
        notes.append("its caption holds bytes that are no text in its encoding")
    return text


def _decode_without_bom(data: bytes, notes: list[str]) -> str:
    encoding = _guess_utf16(data)
    if encoding:
        notes.append(
            "its caption looks like UTF-16 without a mark and was read so; save it as UTF-8"
        )
        return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append("its caption is not UTF-8 and was read as Windows-1252; save it as UTF-8")
        return data.decode("cp1252", errors="replace")


def _guess_utf16(data: bytes) -> str | None:
    """Name the UTF-16 flavour of mostly Latin text: every other byte is zero."""
    sample = data[:4096]
    pairs = len(sample) // 2
    if pairs < 2:
        return None
    high, low = sample[: 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)
    if high >= 0.7 * pairs and low == 0:
        return "utf-16-be"
    return "utf-16-le" if low >= 0.7 * pairs and high == 0 else None


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in re.split(r"\r\n|\r|\n", text))
    return [line for line in lines if line]


def _clean(lines: list[str], notes: list[str]) -> str:
    line = next(iter(lines), "")
    cleaned = "".join(map(_without_controls, line))
    if cleaned != line.replace("\t", " "):
        notes.append("control characters were removed from its caption")
    return cleaned.strip()


def _without_controls(character: str) -> str:
    if character in _DIRECTION_MARKS:
        return ""
    return " " if unicodedata.category(character) == "Cc" else character
