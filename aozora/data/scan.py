"""Finding the pictures of a dataset and making sure, before anything long starts, they are good.

Every picture is decoded once in full and every caption read. Free of torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from aozora.data.captions import Caption, CaptionSource, read_caption, show_text
from aozora.data.found_files import FoundFile, find_files
from aozora.data.images import (
    MAX_PIXELS,
    TooManyPixels,
    check_pixels,
    quiet_pillow,
    read_picture,
)
from aozora.data.scan_index import (
    FileFacts,
    index_key,
    key_path,
    load_index,
    save_index,
    stat_facts,
)
from aozora.errors import DatasetError
from aozora.runtime import long_path

log = logging.getLogger(__name__)

_INDEX_SAVE_SECONDS = 30.0
_REASONS_SHOWN = 8


@dataclass(frozen=True)
class ImageRecord:
    """One good picture of the dataset.

    Attributes:
        path: Where it is.
        relative: Its name in the dataset: unique, the same wherever the folder is.
        height: Height in pixels as it stands upright.
        width: Width in pixels as it stands upright.
        caption: What it is trained with; empty means unconditional.
        caption_source: Where the caption came from.
        repeats: How often it is drawn in an epoch.
        content_hash: Hash of the bytes of the file.
        has_alpha: Whether parts are transparent, so that the background matters.
        folder: Number of the dataset folder it belongs to.
    """

    path: Path
    relative: str
    height: int
    width: int
    caption: str
    caption_source: CaptionSource
    repeats: int
    content_hash: str
    has_alpha: bool = False
    folder: int = 0


@dataclass(frozen=True)
class SkippedItem:
    """One file left out, and why.

    Attributes:
        path: Its name in the dataset, or where it is.
        reason: Why it is left out.
        file: Where it is, as text that any stream can take.
    """

    path: str
    reason: str
    file: str = ""


@dataclass(frozen=True)
class ScanReport:
    """What a scan found.

    Attributes:
        records: Good pictures, sorted by folder and name.
        skipped: Files left out.
        warnings: Texts for the user.
        decoded: How many files were decoded, the rest being known from the index.
        stopped: The scan was stopped before its end.
    """

    records: tuple[ImageRecord, ...]
    skipped: tuple[SkippedItem, ...]
    warnings: tuple[str, ...]
    decoded: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class _Checked:
    facts: FileFacts
    caption: Caption | None = None
    problem: str = ""
    is_decoded: bool = False
    is_lasting: bool = True


def scan_folders(
    folders: Sequence[tuple[Path, int]],
    *,
    recursive: bool = True,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    index: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ScanReport:
    """Find, decode and describe all pictures in ``folders``.

    Args:
        folders: Each folder with how often its pictures are drawn in an epoch.
        recursive: Whether folders inside are searched too.
        max_pixels: Pictures whose header claims more are left out without being decoded.
        workers: Decoding threads; by default as many as there are cores, at most eight.
        index: JSON file to remember decoded files in; None decodes everything. One that cannot be
            read or written costs time only, and is logged.
        on_progress: Called in this thread with the files done and the files there are.
        should_stop: Asked between files.

    Raises:
        DatasetError: if a folder is missing, or no picture can be used.
    """
    found, warnings = find_files(folders, recursive=recursive)
    known = _load_index(index)
    checked: list[_Checked] = []
    stopped = False
    is_saved = True
    saved_at = time.monotonic()
    with contextlib.closing(_check_all(found, known, max_pixels, workers)) as results:
        for result in results:
            checked.append(result)
            if on_progress:
                on_progress(len(checked), len(found))
            if should_stop and should_stop():
                stopped = len(checked) < len(found)
                break
            # What was refused once is tried again at the end only: each refusal is told.
            if index and is_saved and time.monotonic() - saved_at > _INDEX_SAVE_SECONDS:
                facts = {**known, **_lasting_facts(found, checked)}
                is_saved = _save_index(index, facts)
                saved_at = time.monotonic()
    if index:
        kept = known if stopped else _not_looked_at(known, folders, found)
        _save_index(index, {**kept, **_lasting_facts(found, checked)})
    report = _report(found, checked, warnings, stopped)
    if not report.records and not stopped:
        raise DatasetError(_nothing_usable(folders, report), "add pictures, or mend those listed")
    return report


def _load_index(index: Path | None) -> dict[str, FileFacts]:
    try:
        return load_index(index)
    except OSError as error:
        log.warning("The index %s cannot be read; every picture is decoded (%s)", index, error)
        return {}


def _save_index(index: Path, facts: Mapping[str, FileFacts]) -> bool:
    """Save ``facts``; return whether that could be done."""
    try:
        save_index(index, facts)
    except OSError as error:
        log.warning(
            "The index %s cannot be written; these pictures are decoded again next time (%s)",
            index,
            error,
        )
        return False
    return True


def _check_all(
    found: Sequence[FoundFile],
    known: Mapping[str, FileFacts],
    max_pixels: int,
    workers: int | None,
) -> Generator[_Checked]:
    """Yield the result of each file in order; threads decode ahead."""
    workers = workers or min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="scan")
    with quiet_pillow():
        try:
            futures = [pool.submit(_check, file, known, max_pixels) for file in found]
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _check(file: FoundFile, known: Mapping[str, FileFacts], max_pixels: int) -> _Checked:
    checked = _check_picture(file.path, known, max_pixels)
    if checked.problem:
        return checked
    try:
        return replace(checked, caption=read_caption(file.path, file.captions))
    except DatasetError as error:
        return replace(checked, problem=error.message)


def _check_picture(path: Path, known: Mapping[str, FileFacts], max_pixels: int) -> _Checked:
    try:
        status = long_path(path).stat()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return _Checked(FileFacts(0, 0), problem=reason, is_lasting=False)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        return _Checked(FileFacts(0, 0), problem="not a regular file", is_lasting=False)
    facts = stat_facts(status)
    earlier = known.get(index_key(path))
    if earlier and _is_same_state(earlier, facts):
        return _Checked(earlier, problem=earlier.problem or _size_problem(earlier, max_pixels))
    if status.st_size == 0:
        facts = replace(facts, problem="the file is empty")
        return _Checked(facts, problem=facts.problem, is_decoded=True)
    try:
        picture = read_picture(path, max_pixels=max_pixels)
    except DatasetError as error:
        lasting = not (isinstance(error, TooManyPixels) or _is_passing(error.__cause__))
        facts = replace(facts, problem=error.message)
        return _Checked(facts, problem=error.message, is_decoded=True, is_lasting=lasting)
    facts = replace(
        facts,
        height=picture.image.height,
        width=picture.image.width,
        content_hash=picture.content_hash,
        has_alpha=picture.has_alpha,
        notes=picture.notes,
    )
    return _Checked(facts, is_decoded=True)


def _is_same_state(one: FileFacts, other: FileFacts) -> bool:
    states = [(facts.num_bytes, facts.mtime_ns, facts.ctime_ns) for facts in (one, other)]
    return states[0] == states[1]


def _size_problem(facts: FileFacts, max_pixels: int) -> str:
    try:
        check_pixels(facts.width, facts.height, max_pixels)
    except TooManyPixels as error:
        return error.message
    return ""


def _is_passing(error: BaseException | None) -> bool:
    """Return whether a file that gave ``error`` may be good next time.

    The system's errors have a number, unlike what Pillow raises on bytes that are no picture.
    """
    if isinstance(error, OSError):
        return error.errno is not None
    return isinstance(error, MemoryError)


def _lasting_facts(found: Sequence[FoundFile], checked: Iterable[_Checked]) -> dict[str, FileFacts]:
    pairs = zip(found, checked, strict=False)
    return {index_key(file.path): c.facts for file, c in pairs if c.is_lasting}


def _not_looked_at(
    known: Mapping[str, FileFacts],
    folders: Sequence[tuple[Path, int]],
    found: Iterable[FoundFile],
) -> dict[str, FileFacts]:
    """Return what is known of files other than ``found``, less those gone from ``folders``."""
    roots = tuple(index_key(folder).rstrip("/\\") + os.sep for folder, _ in folders)
    seen = {index_key(file.path) for file in found}
    return {
        key: facts
        for key, facts in known.items()
        if key not in seen and (not key.startswith(roots) or long_path(key_path(key)).exists())
    }


def _report(
    found: Sequence[FoundFile],
    checked: Sequence[_Checked],
    warnings: Sequence[str],
    stopped: bool,
) -> ScanReport:
    records = []
    skipped = []
    num_cut = 0
    texts = list(warnings)
    for file, result in zip(found, checked, strict=False):
        name = show_text(str(file.path))
        if result.problem or result.caption is None:
            skipped.append(SkippedItem(name, result.problem, name))
            continue
        notes = (*result.facts.notes, *result.caption.notes)
        texts.extend(f"{name}: {note}" for note in notes)
        num_cut += result.caption.has_more_lines
        records.append(_record(file, result.facts, result.caption))
    texts.extend(_caption_counts(records, num_cut))
    decoded = sum(result.is_decoded for result in checked)
    return ScanReport(tuple(records), tuple(skipped), tuple(texts), decoded, stopped)


def _caption_counts(records: Sequence[ImageRecord], num_cut: int) -> Iterator[str]:
    unnamed = sum(record.caption_source == "name" for record in records)
    empty = sum(not record.caption for record in records)
    if unnamed:
        yield f"{unnamed} of {len(records)} pictures have no caption file; their names are used"
    if empty:
        yield f"{empty} of {len(records)} pictures have an empty caption: trained without a text"
    if num_cut:
        yield f"{num_cut} of {len(records)} captions have more lines; only the first is trained"


def _record(file: FoundFile, facts: FileFacts, caption: Caption) -> ImageRecord:
    return ImageRecord(
        path=file.path,
        relative=file.relative,
        height=facts.height,
        width=facts.width,
        caption=caption.text,
        caption_source=caption.source,
        repeats=file.repeats,
        content_hash=facts.content_hash,
        has_alpha=facts.has_alpha,
        folder=file.folder,
    )


def _nothing_usable(folders: Sequence[tuple[Path, int]], report: ScanReport) -> str:
    names = ", ".join(show_text(str(folder)) for folder, _ in folders)
    if not report.skipped:
        return f"there are no pictures in {names}"
    lines = [f"{item.path}: {item.reason}" for item in report.skipped[:_REASONS_SHOWN]]
    rest = len(report.skipped) - len(lines)
    if rest:
        lines.append(f"and {rest} more")
    return "\n  ".join([f"none of the pictures in {names} can be used:", *lines])
