"""What tells whether a picture or caption is encoded already: keys, and where they are stored."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from aozora.config.schema import TrainConfig
from aozora.data.cache_store import CacheStore, unwritable
from aozora.data.dataset import DatasetItem
from aozora.data.images import parse_colour
from aozora.data.latent_cache import KIND as LATENT_KIND
from aozora.data.latent_cache import LatentSpec, latent_keys
from aozora.data.text_cache import KIND as TEXT_KIND
from aozora.data.text_cache import TextSpec, text_keys
from aozora.model.key_map import Component
from aozora.model.source import ModelSource
from aozora.model.tokenizers import TOKENS_PER_CHUNK, ClipTokenizer, load_tokenizer
from aozora.runtime import cache_folder, write_json_atomic

log = logging.getLogger(__name__)


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def cache_root(config: TrainConfig) -> Path:
    """Return the folder of the caches."""
    return Path(config.cache.folder) if config.cache.folder else cache_folder()


class CaptionLengths:
    """How many tokens captions have, and in how many chunks they are encoded.

    Args:
        config: The run's settings.

    Raises:
        ModelFileError: if no vocabulary is found, or one is damaged.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.tokenizer: ClipTokenizer = load_tokenizer(
            Path(config.model.tokenizer) if config.model.tokenizer else None,
            Path(config.model.base) if config.model.base else None,
        )
        self.limit = config.captions.tokens
        """Tokens of a caption that are read; the rest is cut."""
        self._known: dict[str, int] = {}

    def num_tokens(self, caption: str) -> int:
        """Return how many tokens ``caption`` has, start and end not counted."""
        if caption not in self._known:
            self._known[caption] = self.tokenizer.num_tokens(caption)
        return self._known[caption]

    def num_chunks(self, caption: str) -> int:
        """Return how many chunks of 75 tokens ``caption`` takes, at most as many as are allowed."""
        needed = -(-self.num_tokens(caption) // TOKENS_PER_CHUNK)
        return max(1, min(needed, self.limit // TOKENS_PER_CHUNK))

    def is_cut(self, caption: str) -> bool:
        """Return whether ``caption`` is longer than what is read of it."""
        return self.num_tokens(caption) > self.limit


class CacheKeys:
    """The caches of a run, and the keys of what is looked up in them.

    Args:
        config: The run's settings.
        source: The opened model; its encoders are read once to be told apart, which takes seconds,
            and remembered.
        lengths: The lengths of captions.

    Raises:
        ModelFileError: if an encoder is missing or cannot be read.
        CacheError: if the cache folder cannot be written.
    """

    def __init__(self, config: TrainConfig, source: ModelSource, lengths: CaptionLengths) -> None:
        root = cache_root(config)
        hashes = _ComponentHashes(root / "component-hashes.json", source)
        self.text_spec = TextSpec(
            encoder_hash=hashes.of("te1"),
            encoder_2_hash=hashes.of("te2"),
            tokenizer_hash=lengths.tokenizer.fingerprint,
            dtype=config.cache.text,
        )
        self.latent_spec = LatentSpec(
            vae_hash=hashes.of("vae"),
            dtype=config.cache.latents,
            background=parse_colour(config.data.background),
        )
        self.texts = CacheStore(root, TEXT_KIND)
        self.latents = CacheStore(root, LATENT_KIND)
        self._lengths = lengths

    def of_captions(self, captions: Iterable[str]) -> dict[str, str]:
        """Return each different caption by its key, and always the empty one."""
        return text_keys(captions, self.text_spec, self._lengths.num_chunks)

    def of_pictures(self, items: Iterable[DatasetItem]) -> dict[str, list[DatasetItem]]:
        """Return the pictures by the key of their latent, which equal ones share."""
        return latent_keys(items, self.latent_spec)


class _ComponentHashes:
    """Hashes of model parts, remembered by path, size and time since they read gigabytes.

    Args:
        path: Where they are remembered.
        source: The opened model.
    """

    def __init__(self, path: Path, source: ModelSource) -> None:
        self._path = path
        self._source = source

    def of(self, component: Component) -> str:
        """Return the hash of a part.

        Raises:
            ModelFileError: if the model has none.
            CacheError: if it cannot be remembered: what is encoded could not be kept there either.
        """
        parts = self._source.component(component).values()
        files = sorted({part.file.path.resolve() for part in parts})
        key = "|".join([*map(_identity, files), component])
        known = self._known()
        if key not in known:
            known = {**self._known(), key: self._source.component_hash(component)}
            try:
                write_json_atomic(self._path, known, sync=False)
            except OSError as error:
                raise unwritable(self._path, error) from error
        return known[key]

    def _known(self) -> dict[str, str]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            # It only saves time; what cannot be read is made again.
            log.warning("%s cannot be read (%s); hashes are computed anew", self._path, error)
            return {}
        return known if isinstance(known, dict) else {}
