"""Walking the folders of a dataset: which files may be pictures, in an order that never varies."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aozora.data.captions import show_text
from aozora.data.images import HAS_AVIF
from aozora.errors import DatasetError
from aozora.file_names import (
    OTHER_PICTURES,
    PICTURES,
    CaptionFiles,
    alike_stem,
    index_captions,
)

_UNREADABLE = OTHER_PICTURES if HAS_AVIF else OTHER_PICTURES | {".avif"}
_READABLE = PICTURES - _UNREADABLE
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class FoundFile:
    """A file that may be a picture.

    Attributes:
        path: Where it was found.
        relative: Its name in the dataset: unique, with forward slashes, composed Unicode.
        real: Where it truly is, for telling whether two are the same.
        folder: Number of the dataset folder it belongs to.
        repeats: How often it is drawn in an epoch.
        captions: The caption files beside it.
    """

    path: Path
    relative: str
    real: str
    folder: int
    repeats: int
    captions: CaptionFiles


def find_files(
    folders: Sequence[tuple[Path, int]], *, recursive: bool
) -> tuple[list[FoundFile], list[str]]:
    """Return all files with the extension of a picture, sorted, and warnings about them.

    A file inside two of the folders belongs to the deeper one. Hidden ones are left out.

    Args:
        folders: Each folder with its number of repeats.
        recursive: Whether folders inside are searched too.

    Raises:
        DatasetError: if a folder is missing or cannot be read, or its repeats are below 1.
    """
    if not folders:
        raise DatasetError("no folder of pictures is given", "add one to data.folders")
    warnings: list[str] = []
    found: dict[str, FoundFile] = {}
    reals = []
    shared = 0
    for number, (folder, repeats) in enumerate(folders):
        if repeats < 1:
            raise DatasetError(f"{folder}: repeats must be at least 1, not {repeats}")
        _require_folder(folder)
        reals.append(os.path.realpath(folder))
        for file in _walk(folder, number, repeats, recursive, warnings):
            earlier = found.get(file.real)
            shared += earlier is not None
            if earlier is None or len(reals[number]) > len(reals[earlier.folder]):
                found[file.real] = file
    if shared:
        warnings.append(
            f"{shared} files are reached more than once; each counts once, with the repeats of the "
            "deepest folder that holds it"
        )
    files = sorted(found.values(), key=lambda file: (file.folder, file.relative, str(file.path)))
    return _with_unique_names(files, folders, warnings), warnings


def _require_folder(folder: Path) -> None:
    if not str(folder).strip():
        raise DatasetError("a folder of pictures has an empty path", "set data.folders")
    if not folder.exists():
        raise DatasetError(
            f"{show_text(str(folder))}: there is no such folder", "check data.folders"
        )
    if not folder.is_dir():
        raise DatasetError(
            f"{show_text(str(folder))} is not a folder", "data.folders takes folders of pictures"
        )


def _walk(
    folder: Path, number: int, repeats: int, recursive: bool, warnings: list[str]
) -> Iterator[FoundFile]:
    def unreadable(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise DatasetError(
                f"{show_text(str(folder))}: the folder cannot be read ({error.strerror})",
                "check its permissions",
            ) from error
        warnings.append(f"{show_text(str(error.filename))}: cannot be read ({error.strerror})")

    seen = set()
    orphans = 0
    stems: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for here, inner, names in os.walk(folder, followlinks=True, onerror=unreadable):
        real_here = os.path.realpath(here)
        identity = os.path.normcase(real_here)
        if identity in seen:  # a link back up would go round for ever
            inner.clear()
            continue
        seen.add(identity)
        names = sorted(name for name in names if not name.startswith("."))
        captions = index_captions([*names, *inner])
        inner[:] = sorted(name for name in inner if not name.startswith(".")) if recursive else []
        pictures = [name for name in names if _extension(name) in _READABLE]
        others = [name for name in names if _extension(name) in _UNREADABLE]
        left_out.update(map(_extension, others))
        folder_stems = Counter(_caption_stem(name, captions) for name in pictures)
        stems.update({f"{here}/{s}": n for s, n in folder_stems.items() if n > 1})
        beside = {alike_stem(os.path.splitext(name)[0]) for name in (*pictures, *others)}
        orphans += sum(alike_stem(stem) not in beside for stem, _ in captions.exact)
        for name in pictures:
            path = Path(here, name)
            real = os.path.realpath(path) if path.is_symlink() else os.path.join(real_here, name)
            relative = _portable(path.relative_to(folder).as_posix())
            yield FoundFile(path, relative, os.path.normcase(real), number, repeats, captions)
    _warn_of_names(folder, orphans, left_out, stems, warnings)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _caption_stem(name: str, captions: CaptionFiles) -> str:
    """Return the stem of the caption file of the picture ``name``, or its own if it has none."""
    stem = os.path.splitext(name)[0]
    return os.path.splitext(next(iter(captions.beside(stem)), stem + ".txt"))[0]


def _warn_of_names(
    folder: Path,
    orphans: int,
    left_out: Counter[str],
    stems: Counter[str],
    warnings: list[str],
) -> None:
    shown = show_text(str(folder))
    if orphans:
        warnings.append(f"{shown}: {orphans} caption files have no picture beside them")
    if left_out:
        kinds = ", ".join(f"{count} {extension}" for extension, count in left_out.most_common())
        warnings.append(
            f"{shown}: {left_out.total()} pictures are left out, files of their kind cannot be"
            f" read ({kinds}); save them as PNG or JPEG to use them"
        )
    if stems:
        first = ", ".join(show_text(Path(name).name) for name in list(stems)[:_NAMES_SHOWN])
        warnings.append(
            f"{shown}: {len(stems)} names are shared by pictures that differ in the extension "
            f"or in case only, so they share a caption file too: {first}"
        )


def _portable(relative: str) -> str:
    return unicodedata.normalize("NFC", show_text(relative))


def _with_unique_names(
    files: list[FoundFile], folders: Sequence[tuple[Path, int]], warnings: list[str]
) -> list[FoundFile]:
    """Put the folder's name before a name that an earlier folder has too."""
    taken: set[str] = set()
    unique = []
    renamed = 0
    for file in files:
        name = file.relative
        if name in taken:
            renamed += 1
            base = _portable(f"{folders[file.folder][0].absolute().name}/{name}")
            name, number = base, 2
            while name in taken:
                name, number = f"{base} ({number})", number + 1
        taken.add(name)
        unique.append(replace(file, relative=name))
    if renamed:
        warnings.append(
            f"{renamed} files have the same name as one in another folder; all are used and told "
            "apart by the name of their folder"
        )
    return unique
