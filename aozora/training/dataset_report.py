"""What the pictures and captions of a run are, and which are encoded already; encodes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aozora.config.schema import TrainConfig
from aozora.data.captions import show_text
from aozora.data.dataset import DatasetItem
from aozora.data.text_cache import NULL_CAPTION
from aozora.model.opening import open_model
from aozora.model.source import ModelSource
from aozora.model.tokenizers import TOKENS_PER_CHUNK
from aozora.training.cache_keys import CacheKeys, CaptionLengths
from aozora.training.inputs import Pictures, find_pictures, require_encoders


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """One picture that is trained or held out.

    Attributes:
        path: Where it is, as text that any stream can take.
        num_tokens: Length of its caption.
        same_as: Another picture with the very same bytes, if one comes before it, else empty.
        is_encoded: Whether its latent is in the cache; None if no model is chosen.
        is_caption_encoded: Whether its caption's embeddings are, likewise.
    """

    path: str
    num_tokens: int
    same_as: str
    is_encoded: bool | None
    is_caption_encoded: bool | None


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """What of some pictures the caches hold.

    Equal pictures are encoded once, and equal captions too, so each counts once.

    Attributes:
        pictures: Different pictures.
        captions: Different captions.
        new_pictures: How many of the pictures the next start encodes.
        new_captions: How many of the captions it encodes.
    """

    pictures: int
    captions: int
    new_pictures: int
    new_captions: int


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """The pictures of a run with their captions.

    Attributes:
        token_limit: Tokens of a caption that are read; the rest is cut.
        tokens_per_chunk: After so many tokens a caption takes a further chunk.
        pictures: Those that are trained or held out.
        left_out: Where each file lies that is not, and why it is left out.
        folders: The caches' share of each dataset folder; none if no model is chosen.
        whole: That of all; its captions include the empty one, which is always encoded.
    """

    token_limit: int
    tokens_per_chunk: int
    pictures: tuple[PictureFacts, ...]
    left_out: tuple[tuple[str, str], ...]
    folders: tuple[CacheCounts, ...]
    whole: CacheCounts | None

    def to_plain(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the figures for a terminal."""
        lines = [_caption_line(self)]
        twins = sum(bool(picture.same_as) for picture in self.pictures)
        if twins:
            verb = "picture is" if twins == 1 else "pictures are"
            lines.append(f"  Repeated     {twins} {verb} the same file as another")
        if self.whole is None:
            return [*lines, "  Encoded      not known before a base model is chosen"]
        return [*lines, f"  Encoded      {_encoded_words(self.whole)}"]

    def to_text(self) -> str:
        """Return the report for a terminal."""
        count, left_out = len(self.pictures), len(self.left_out)
        lines = [f"  Pictures     {count} usable, {left_out} left out", *self.lines()]
        if len(self.folders) > 1:
            lines += [
                f"    folder {number:<4} {_encoded_words(counts)}"
                for number, counts in enumerate(self.folders, 1)
            ]
        return "\n".join([*lines, *(f"Left out {path}: {why}" for path, why in self.left_out)])


def _caption_line(report: DatasetReport) -> str:
    lengths = sorted(picture.num_tokens for picture in report.pictures)
    cut = sum(length > report.token_limit for length in lengths)
    verdict = f"{cut} of {len(lengths)} are cut" if cut else "none is cut"
    return (
        f"  Captions     {lengths[0]} to {lengths[-1]} tokens, half have at most"
        f" {lengths[(len(lengths) - 1) // 2]}; {verdict} at {report.token_limit}"
    )


def _encoded_words(counts: CacheCounts) -> str:
    done = (
        f"{counts.pictures - counts.new_pictures} of {counts.pictures} different pictures,"
        f" {counts.captions - counts.new_captions} of {counts.captions} different captions"
    )
    if not (counts.new_pictures or counts.new_captions):
        return done
    return f"{done}; the next start encodes {counts.new_pictures} and {counts.new_captions}"


def report_dataset(config: TrainConfig) -> DatasetReport:
    """Return what the pictures of ``config`` are; without a base model, as far as that goes.

    Reads the encoders once to tell them apart, which takes seconds, and remembers them.

    Raises:
        DatasetError: if a folder is missing or too few pictures are usable.
        ModelFileError: if a part of the model is missing, or the tokenizer cannot be read.
        CacheError: if the cache cannot be read.
    """
    pictures = find_pictures(config)
    if not config.model.base:
        return describe_pictures(config, pictures, None)
    model = config.model
    # What is trained of the model is checked elsewhere; here its encoders are told apart only.
    source = open_model(
        Path(model.base),
        Path(model.vae) if model.vae else None,
        Path(model.text_encoders) if model.text_encoders else None,
        verify=False,
    )
    require_encoders(source)
    return describe_pictures(config, pictures, source)


def describe_pictures(
    config: TrainConfig, pictures: Pictures, source: ModelSource | None
) -> DatasetReport:
    """Return what ``pictures`` are; see `report_dataset`.

    Args:
        config: The run's settings.
        pictures: What a run would train and hold out.
        source: The opened model; None leaves open what is encoded.
    """
    items = (*pictures.trained, *pictures.held_out)
    lengths = CaptionLengths(config)
    ready = _Ready(items, CacheKeys(config, source, lengths)) if source is not None else None
    first: dict[str, str] = {}
    rows = []
    for item in items:
        record = item.record
        path = show_text(str(record.path))
        earlier = first.setdefault(record.content_hash, path)
        rows.append(
            PictureFacts(
                path=path,
                num_tokens=lengths.num_tokens(record.caption),
                same_as="" if earlier == path else earlier,
                is_encoded=ready.has_picture(item) if ready else None,
                is_caption_encoded=ready.has_caption(item) if ready else None,
            )
        )
    numbers = range(len(config.data.folders))
    groups = [[item for item in items if item.record.folder == number] for number in numbers]
    return DatasetReport(
        token_limit=lengths.limit,
        tokens_per_chunk=TOKENS_PER_CHUNK,
        pictures=tuple(rows),
        left_out=tuple((item.file or item.path, item.reason) for item in pictures.skipped),
        folders=tuple(map(ready.counts, groups)) if ready else (),
        whole=ready.counts(items, NULL_CAPTION) if ready else None,
    )


class _Ready:
    """Which of some pictures and their captions the caches hold."""

    def __init__(self, items: Sequence[DatasetItem], keys: CacheKeys) -> None:
        captions = keys.of_captions(item.record.caption for item in items)
        self._caption_keys = {caption: key for key, caption in captions.items()}
        pictures = keys.of_pictures(items)
        self._picture_keys = {
            item.record.relative: key for key, equal in pictures.items() for item in equal
        }
        self._there = keys.texts.has(captions) | keys.latents.has(pictures)

    def has_picture(self, item: DatasetItem) -> bool:
        return self._picture_keys[item.record.relative] in self._there

    def has_caption(self, item: DatasetItem) -> bool:
        return self._caption_keys[item.record.caption] in self._there

    def counts(self, items: Iterable[DatasetItem], *more_captions: str) -> CacheCounts:
        items = list(items)
        pictures = {self._picture_keys[item.record.relative] for item in items}
        texts = {item.record.caption for item in items} | set(more_captions)
        captions = {self._caption_keys[text] for text in texts}
        return CacheCounts(
            pictures=len(pictures),
            captions=len(captions),
            new_pictures=len(pictures - self._there),
            new_captions=len(captions - self._there),
        )
