"""Captions to token ids for both text encoders, with no file fetched at run time.

The vocabulary is fully determined by CLIP's list of merges. It is taken from a folder that the user
names, else from the model's own folder, else from the data of the installed ``open_clip_torch``
package, which is never imported. Rules are those of the Hugging Face tokenizers.

Both encoders get the same tokens. They differ in padding: encoder 1 is padded with the end token,
encoder 2 with 0. Padding is not read from the tokenizer of encoder 2, because that one turns every
``!`` of a caption into padding.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aozora.errors import ModelFileError
from aozora.model.diffusers_folder import read_json
from aozora.model.sizes import packaged_config
from aozora.runtime import set_up_with, write_json_atomic, write_text_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START = "<|startoftext|>"
END = "<|endoftext|>"
TOKENS_PER_CHUNK = 75
CHUNK_LENGTH = 77
ENCODER_2_PADDING = 0

_RULES = 1
_MERGES_PACKAGE = "open_clip"
_MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
_NUM_MERGES = 48_894
_WORD_END = "</w>"
_MERGES_TITLE = "#version: 0.2"
_INSTALL = f"run {set_up_with()}, or name a tokenizer folder in model.tokenizer"

# Contractions, words, single digits, runs of anything else. Special tokens are not in it: written
# in a caption they are plain text, or they would move the place that the pooled embedding is
# read from.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class TokenChunks:
    """Token ids of a caption: chunks of start token, 75 tokens, end token.

    Attributes:
        ids: For encoder 1, one row of 77 a chunk.
        ids_2: For encoder 2, likewise.
        num_tokens: Length of the caption.
        num_cut: How many tokens of it did not fit.
    """

    ids: tuple[tuple[int, ...], ...]
    ids_2: tuple[tuple[int, ...], ...]
    num_tokens: int
    num_cut: int


class ClipTokenizer:
    """CLIP's tokenizer, built from its merges.

    Args:
        merges: Pairs of tokens that are joined, most frequent first, each ``left right``.
    """

    def __init__(self, merges: Sequence[str]) -> None:
        self.merges = tuple(merges)
        self.vocabulary = _vocabulary(self.merges)
        self._start = self.vocabulary[START]
        self._end = self.vocabulary[END]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the merges and of the rules here: equal hashes give equal ids."""
        text = "\n".join([str(_RULES), *self.merges])
        return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()

    @cached_property
    def _backend(self) -> Tokenizer:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        pairs = [(left, right) for left, _, right in (m.partition(" ") for m in self.merges)]
        tokenizer = Tokenizer(
            models.BPE(
                vocab=self.vocabulary,
                merges=pairs,
                continuing_subword_prefix="",
                end_of_word_suffix=_WORD_END,
                unk_token=END,
            )
        )
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.NFC(),
                normalizers.Replace(Regex(r"\s+"), " "),
                normalizers.Lowercase(),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        return tokenizer

    def tokens(self, caption: str) -> list[int]:
        """Return the ids of ``caption`` without start, end and padding."""
        ids: list[int] = self._backend.encode(caption, add_special_tokens=False).ids
        return ids

    def num_tokens(self, caption: str) -> int:
        """Return how many tokens ``caption`` has, start and end not counted."""
        return len(self.tokens(caption))

    def encode_chunks(self, caption: str, num_chunks: int = 1) -> TokenChunks:
        """Return ``caption`` in ``num_chunks`` chunks of 77 ids; what does not fit is cut.

        Raises:
            ValueError: if ``num_chunks`` is less than 1.
        """
        if num_chunks < 1:
            raise ValueError("a caption takes at least one chunk")
        tokens = self.tokens(caption)
        limit = num_chunks * TOKENS_PER_CHUNK
        parts = [tokens[start : start + TOKENS_PER_CHUNK] for start in range(0, limit, 75)]
        return TokenChunks(
            ids=tuple(self._padded(part, self._end) for part in parts),
            ids_2=tuple(self._padded(part, ENCODER_2_PADDING) for part in parts),
            num_tokens=len(tokens),
            num_cut=max(0, len(tokens) - limit),
        )

    def _padded(self, tokens: Sequence[int], padding: int) -> tuple[int, ...]:
        ids = (self._start, *tokens, self._end)
        return ids + (padding,) * (CHUNK_LENGTH - len(ids))

    def write_folder(self, folder: Path, *, second: bool = False) -> None:
        """Write the tokenizer as a folder that transformers loads.

        Args:
            folder: Made if missing.
            second: As the tokenizer of encoder 2, which differs in its padding.
        """
        name = "tokenizer_2" if second else "tokenizer"
        write_text_atomic(folder / "merges.txt", "\n".join([_MERGES_TITLE, *self.merges, ""]))
        vocabulary = json.dumps(self.vocabulary, indent=2, sort_keys=True, ensure_ascii=False)
        write_text_atomic(folder / "vocab.json", vocabulary + "\n")
        write_json_atomic(folder / "tokenizer_config.json", packaged_config(f"{name}_config.json"))
        special = packaged_config(f"{name}_special_tokens_map.json")
        write_json_atomic(folder / "special_tokens_map.json", special)


def _byte_characters() -> list[str]:
    """Return a printable character for every byte, in the order of the vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(len(others))]


def _vocabulary(merges: Sequence[str]) -> dict[str, int]:
    characters = _byte_characters()
    joined = [merge.replace(" ", "") for merge in merges]
    tokens = [*characters, *(c + _WORD_END for c in characters), *joined, START, END]
    return {token: number for number, token in enumerate(tokens)}


def load_tokenizer(folder: Path | None = None, model: Path | None = None) -> ClipTokenizer:
    """Return the tokenizer of both text encoders.

    Args:
        folder: Folder the user names; must hold a tokenizer then.
        model: The base model; its folder is looked into if it is one.

    Raises:
        ModelFileError: if no vocabulary is found, or one is damaged.
    """
    if folder is not None:
        return _from_folder(folder)
    if model is not None and (model / "tokenizer").is_dir():
        return _from_folder(model / "tokenizer")
    return ClipTokenizer(_packaged_merges())


def _from_folder(folder: Path) -> ClipTokenizer:
    for place in (folder, folder / "tokenizer"):
        merges: list[str] | None = None
        if (place / "merges.txt").is_file():
            merges = _parse_merges(_read_text(place / "merges.txt"))
        elif (place / "tokenizer.json").is_file():
            merges = _merges_of_json(read_json(place / "tokenizer.json"))
        if merges is not None:
            return _checked(place, merges)
    raise ModelFileError(
        f"{folder} holds no tokenizer (merges.txt or tokenizer.json)",
        "name another folder in model.tokenizer, or leave it empty",
    )


def _checked(place: Path, merges: list[str]) -> ClipTokenizer:
    fault = f"{place} does not hold CLIP's tokenizer"
    hint = "name another folder in model.tokenizer, or leave it empty"
    if len(merges) != _NUM_MERGES or not all(len(m.split(" ")) == 2 for m in merges):
        raise ModelFileError(f"{fault}: {len(merges)} merges instead of {_NUM_MERGES}", hint)
    tokenizer = ClipTokenizer(merges)
    vocabulary = place / "vocab.json"
    if vocabulary.is_file() and read_json(vocabulary) != tokenizer.vocabulary:
        raise ModelFileError(f"{fault}: vocab.json does not fit merges.txt", hint)
    # A merge of parts that no earlier merge makes cannot be built.
    known = {*_byte_characters(), *(c + _WORD_END for c in _byte_characters())}
    for merge in merges:
        left, right = merge.split(" ")
        if left not in known or right not in known:
            raise ModelFileError(f"{fault}: the merge {merge!r} is of unknown parts", hint)
        known.add(left + right)
    return tokenizer


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error


def _parse_merges(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return [line for line in lines if line and not line.startswith("#version")]


def _merges_of_json(document: dict[str, Any]) -> list[str]:
    model = document.get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    if not isinstance(merges, list):
        return []
    return [" ".join(map(str, m)) if isinstance(m, list) else str(m) for m in merges]


def _packaged_merges() -> list[str]:
    """Return the merges from the data of the installed package, which is not imported."""
    spec = importlib.util.find_spec(_MERGES_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = next((p for p in (Path(place, _MERGES_FILE) for place in places) if p.is_file()), None)
    if path is None:
        raise ModelFileError("no tokenizer vocabulary is installed", _INSTALL)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != _MERGES_SHA256:
        raise ModelFileError(f"{path} is not CLIP's vocabulary or is damaged", _INSTALL)
    lines = gzip.decompress(data).decode("utf-8").split("\n")
    return lines[1 : 1 + _NUM_MERGES]
