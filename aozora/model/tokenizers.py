"""Captions to token numbers, the same for both text encoders, with nothing fetched.

The vocabulary follows from CLIP's list of merges. It comes from a folder the user names, from the
model's own folder, or from the data that the installed ``open_clip_torch`` package carries (the
package is never imported). Either way its fingerprint says whether it is the standard one.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aozora.errors import ModelFileError
from aozora.runtime import write_text_atomic

START, END = 49406, 49407
TOKENS_PER_CHUNK = 75
_NUM_MERGES = 48_894
_MERGES_GZIP_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
_SPECIAL = re.compile(r"<\|(startoftext|endoftext)\|>", re.IGNORECASE)


@dataclass(frozen=True)
class TokenChunks:
    """A caption as both encoders take it.

    Attributes:
        ids: For the first encoder, one row of 77 a chunk, padded with the end token.
        ids_2: For the second, padded with 0.
        num_cut: Tokens that did not fit.
    """

    ids: tuple[tuple[int, ...], ...]
    ids_2: tuple[tuple[int, ...], ...]
    num_cut: int


class ClipTokenizer:
    """CLIP's byte-pair encoding under the rules of the first encoder's tokenizer.

    The second encoder gets the same tokens. Its own tokenizer would take ``!`` in a caption for
    padding, which no program that samples does.

    Args:
        merges: The merges in their order, such as ``"i n"``.
    """

    def __init__(self, merges: list[str]) -> None:
        from transformers import CLIPTokenizer

        self._merges = merges
        self._vocabulary = _vocabulary(merges)
        pairs: Any = [tuple(merge.split(" ")) for merge in merges]
        self._tokenizer = CLIPTokenizer(vocab=self._vocabulary, merges=pairs)
        digest = hashlib.sha256("\n".join(merges).encode("utf-8"))
        self.fingerprint = digest.hexdigest()
        self._tokens = functools.lru_cache(maxsize=100_000)(self._encode)

    def num_tokens(self, caption: str) -> int:
        """Return how many tokens ``caption`` has, start and end aside."""
        return len(self._tokens(caption))

    def encode_chunks(self, caption: str, num_chunks: int) -> TokenChunks:
        """Return ``caption`` in ``num_chunks`` chunks of 75 tokens, each with start and end."""
        tokens = self._tokens(caption)
        rows, rows_2 = [], []
        for number in range(num_chunks):
            part = tokens[number * TOKENS_PER_CHUNK : (number + 1) * TOKENS_PER_CHUNK]
            missing = TOKENS_PER_CHUNK - len(part)
            rows.append((START, *part, END, *[END] * missing))
            rows_2.append((START, *part, END, *[0] * missing))
        num_cut = max(0, len(tokens) - num_chunks * TOKENS_PER_CHUNK)
        return TokenChunks(tuple(rows), tuple(rows_2), num_cut)

    def _encode(self, caption: str) -> tuple[int, ...]:
        # A caption that spells a special token means the letters, not the token.
        plain = _SPECIAL.sub(lambda match: f"< |{match[1]}| >", caption)
        return tuple(self._tokenizer(plain, add_special_tokens=False)["input_ids"])

    def write_folder(self, folder: Path) -> None:
        """Write ``vocab.json`` and ``merges.txt`` as the hub has them, byte for byte."""
        text = json.dumps(self._vocabulary, indent=2, sort_keys=True, ensure_ascii=False)
        write_text_atomic(folder / "vocab.json", text + "\n")
        merges = "\n".join(["#version: 0.2", *self._merges])
        write_text_atomic(folder / "merges.txt", merges + "\n")


def load_tokenizer(folder: Path | None = None, model: Path | None = None) -> ClipTokenizer:
    """Return the tokenizer of ``folder``, of the model folder ``model``, or the standard one.

    Raises:
        ModelFileError: if ``folder`` holds none, or the standard vocabulary is not installed.
    """
    if folder is not None:
        path = folder / "merges.txt"
        if not path.is_file():
            raise ModelFileError(
                f"model.tokenizer: {folder} has no merges.txt",
                "name a folder with vocab.json and merges.txt, or leave the setting empty",
            )
        return _from_merges_file(path)
    if model is not None and (model / "tokenizer" / "merges.txt").is_file():
        return _from_merges_file(model / "tokenizer" / "merges.txt")
    return standard_tokenizer()


@functools.cache
def standard_tokenizer() -> ClipTokenizer:
    """Return CLIP's tokenizer from the installed package data.

    Raises:
        ModelFileError: if it is missing or altered.
    """
    spec = importlib.util.find_spec("open_clip")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    path = folder / "bpe_simple_vocab_16e6.txt.gz" if folder else None
    if path is None or not path.is_file():
        raise ModelFileError(
            "the CLIP vocabulary is not installed",
            "run bootstrap.py again, pip install --no-deps open_clip_torch,"
            " or name a folder in model.tokenizer",
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _MERGES_GZIP_SHA256:
        raise ModelFileError(
            f"{path} is not the CLIP vocabulary", "install open_clip_torch again"
        )
    lines = gzip.decompress(content).decode("utf-8").split("\n")
    return ClipTokenizer(lines[1 : 1 + _NUM_MERGES])


def _from_merges_file(path: Path) -> ClipTokenizer:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}", "name another folder") from error
    merges = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#")]
    if len(merges) != _NUM_MERGES or any(merge.count(" ") != 1 for merge in merges):
        raise ModelFileError(
            f"{path} is not the vocabulary of SDXL's text encoders",
            f"it has {len(merges)} merges, {_NUM_MERGES} are needed",
        )
    return ClipTokenizer(merges)


def _vocabulary(merges: list[str]) -> dict[str, int]:
    """Return every token's number: bytes, bytes that end a word, merges, start and end."""
    characters = _byte_characters()
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def _byte_characters() -> list[str]:
    """Return a printable character for each byte: itself, or one from 256 up (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
