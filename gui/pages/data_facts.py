"""What the engine says of the dataset: lengths of captions, copies, what is encoded; free of Qt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gui.words import counted, tr, whole

Counting = Literal["no", "now", "after the run"]
"""Whether an answer of the engine is to come."""


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """What the engine says of one picture that is used.

    Attributes:
        num_tokens: Length of its caption.
        same_as: Another picture with the very same bytes; empty if there is none.
        is_encoded: Whether it is in the cache; None if no model is chosen.
        is_caption_encoded: Whether its caption is, likewise.
    """

    num_tokens: int
    same_as: str
    is_encoded: bool | None
    is_caption_encoded: bool | None

    @property
    def is_new(self) -> bool:
        """Whether the next start encodes the picture or its caption."""
        return self.is_encoded is False or self.is_caption_encoded is False


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """What of some pictures the caches hold; equal pictures and captions count once."""

    pictures: int
    captions: int
    new_pictures: int
    new_captions: int


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What the engine says of the dataset.

    Attributes:
        token_limit: Tokens of a caption that are read; the rest is cut.
        tokens_per_chunk: After so many tokens a caption takes a further chunk.
        pictures: What is used, by `path_key`.
        left_out: Why each other file is left out, likewise.
        folders: The caches' share of each folder; none if no model is chosen.
        whole: That of all, with the empty caption.
    """

    token_limit: int
    tokens_per_chunk: int
    pictures: Mapping[str, PictureFacts]
    left_out: Mapping[str, str]
    folders: tuple[CacheCounts, ...]
    whole: CacheCounts | None

    def of(self, path: Path) -> PictureFacts | None:
        """Return what is said of the picture at ``path``; None if it is left out or unknown."""
        return self.pictures.get(path_key(path))

    def reason_for(self, path: Path) -> str:
        """Return why the file at ``path`` is left out; empty if it is not."""
        return self.left_out.get(path_key(path), "")

    def is_cut(self, picture: PictureFacts) -> bool:
        """Return whether the caption of ``picture`` is longer than what is read of it."""
        return picture.num_tokens > self.token_limit

    def lengths(self) -> list[int]:
        """Return the lengths of all captions in tokens, the shortest first."""
        return sorted(picture.num_tokens for picture in self.pictures.values())

    def without(self, path: Path) -> DataFacts:
        """Return what is still true once the picture at ``path`` or its caption has changed."""
        key = path_key(path)
        return replace(self, pictures={k: p for k, p in self.pictures.items() if k != key})


def path_key(path: Path) -> str:
    """Return ``path`` as the engine writes it: as text that any stream can take."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def parse_facts(data: Any) -> DataFacts:
    """Return the facts in the answer of ``aozora dataset --json``.

    Raises:
        ValueError: if it is none.
    """
    try:
        return DataFacts(
            token_limit=int(data["token_limit"]),
            tokens_per_chunk=int(data["tokens_per_chunk"]),
            pictures={
                row["path"]: PictureFacts(
                    num_tokens=row["num_tokens"],
                    same_as=row["same_as"],
                    is_encoded=row["is_encoded"],
                    is_caption_encoded=row["is_caption_encoded"],
                )
                for row in data["pictures"]
            },
            left_out=dict(data["left_out"]),
            folders=tuple(CacheCounts(**row) for row in data["folders"]),
            whole=CacheCounts(**data["whole"]) if data["whole"] else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("this is no answer about a dataset") from error


def folder_words(counts: CacheCounts) -> str:
    """Return in short what of a folder is encoded."""
    if not (counts.new_pictures or counts.new_captions):
        return tr("all encoded")
    if counts.new_pictures == counts.pictures and counts.new_captions == counts.captions:
        return tr("not encoded yet")
    return tr("not encoded yet: {0}").format(_new_words(counts))


def _new_words(counts: CacheCounts) -> str:
    """Return what is to be encoded, which is something."""
    pictures = counted(counts.new_pictures, tr("picture"), tr("pictures"))
    captions = counted(counts.new_captions, tr("caption"), tr("captions"))
    if not counts.new_captions:
        return pictures
    return tr("{0} and {1}").format(pictures, captions) if counts.new_pictures else captions


def whole_words(counts: CacheCounts) -> str:
    """Return what of the dataset is encoded, and what the next start encodes."""
    pictures = counted(counts.pictures, tr("different picture"), tr("different pictures"))
    captions = counted(counts.captions, tr("different caption"), tr("different captions"))
    if not (counts.new_pictures or counts.new_captions):
        return tr("Encoded already: all, {0} and {1}.").format(pictures, captions)
    done = tr("Encoded already: {0} of {1} and {2} of {3}.").format(
        whole(counts.pictures - counts.new_pictures),
        pictures,
        whole(counts.captions - counts.new_captions),
        captions,
    )
    return done + " " + tr("The next start encodes {0}.").format(_new_words(counts))


def encoded_words(facts: DataFacts | None, counting: Counting) -> str:
    """Return what of the dataset is encoded, as far as that is known."""
    if counting == "now":
        return tr("Counting what is encoded already…")
    if counting == "after the run":
        return tr("What is encoded is counted again once the run has ended.")
    if facts is None:
        return ""
    if facts.whole is None:
        return tr("What is encoded already can be told once a base model is chosen.")
    return whole_words(facts.whole)


def counting_words(
    facts: DataFacts | None, counting: Counting, fault: str
) -> tuple[str, Literal["muted", "warn"]]:
    """Return what is known of the lengths of captions, and the tone to say it in."""
    if fault:
        return tr("The captions could not be counted: {0}").format(fault), "warn"
    if facts is None and counting == "now":
        text = tr("Counting the tokens of all captions. New pictures are read first.")
        return text, "muted"
    if facts is None and counting == "after the run":
        return tr("Counted once the run has ended."), "muted"
    if facts is None:
        return tr("Shown once a folder with pictures is chosen."), "muted"
    again = " " + tr("Being counted again…") if counting == "now" else ""
    return length_words(facts) + again, "muted"


def length_words(facts: DataFacts) -> str:
    """Return how long captions are and how many are cut."""
    lengths = facts.lengths()
    if not lengths:
        return ""
    middle, longest = lengths[(len(lengths) - 1) // 2], lengths[-1]
    words = tr("Half of the captions have at most {0} tokens, the longest has {1}.").format(
        whole(middle), whole(longest)
    )
    cut = sum(length > facts.token_limit for length in lengths)
    limit = whole(facts.token_limit)
    if not cut:
        return words + " " + tr("All are read in full.")
    if cut == 1:
        text = tr("One is cut after {0} tokens.").format(limit)
    else:
        text = tr("{0} of {1} are cut after {2} tokens.").format(
            whole(cut), whole(len(lengths)), limit
        )
    return " ".join([words, text, tr("Caption length, below, sets how many are read.")])


def fact_lines(path: Path, facts: DataFacts | None) -> list[str]:
    """Return what the engine says of the picture at ``path``; nothing while it says nothing."""
    if facts is None:
        return []
    reason = facts.reason_for(path)
    if reason:
        return [tr("Left out of training: {0}.").format(reason)]
    picture = facts.of(path)
    if picture is None:
        return []
    tokens = counted(picture.num_tokens, tr("token"), tr("tokens"))
    if facts.is_cut(picture):
        lines = [tr("Caption of {0}, cut after {1}.").format(tokens, whole(facts.token_limit))]
    else:
        lines = [tr("Caption of {0}.").format(tokens)]
    if picture.same_as:
        lines.append(tr("The same file as {0}.").format(Path(picture.same_as).name))
    return [*lines, *_state_lines(picture)]


def _state_lines(picture: PictureFacts) -> list[str]:
    match picture.is_encoded, picture.is_caption_encoded:
        case True, True:
            return [tr("Picture and caption are encoded already.")]
        case True, False:
            return [tr("The picture is encoded; the caption will be at the next start.")]
        case False, True:
            return [tr("The caption is encoded; the picture will be at the next start.")]
        case False, False:
            return [tr("Picture and caption will be encoded at the next start.")]
        case _:
            return []
