"""From folders of pictures to filled caches: what is trained, held out, and left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aozora.config.chance import chance_key
from aozora.config.schema import TrainConfig
from aozora.data.batch_plan import BatchPlan
from aozora.data.cache_build import CacheReport
from aozora.data.dataset import Dataset, DatasetItem, build_dataset, dataset_fingerprint
from aozora.data.latent_cache import build_latents
from aozora.data.loader import BatchLoader
from aozora.data.scan import SkippedItem, scan_folders
from aozora.data.scan_index import forget_files
from aozora.data.text_cache import build_text
from aozora.errors import DatasetError
from aozora.events import EventSink, ItemSkipped, Phase, Progressed, Warned
from aozora.model.image_encoding import encode_images
from aozora.model.loading import load_text_encoders, load_vae
from aozora.model.source import ModelSource
from aozora.model.text_encoding import encode_text
from aozora.training.cache_keys import CacheKeys, CaptionLengths, cache_root
from aozora.training.control import RunControl
from aozora.training.device import release_memory
from aozora.training.within_memory import WithinMemory

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTextModelWithProjection


log = logging.getLogger(__name__)


class StoppedEarly(Exception):
    """The run was asked to stop before training began."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a run.

    Attributes:
        trained: Those that are trained.
        held_out: Those the validation loss is measured on.
        warnings: What the user should know of them.
        skipped: Those that are left out from the start.
        left_out: Names of those that could not be encoded.
    """

    trained: tuple[DatasetItem, ...]
    held_out: tuple[DatasetItem, ...]
    warnings: tuple[str, ...]
    skipped: tuple[SkippedItem, ...]
    left_out: tuple[str, ...] = ()

    def without(self, names: Iterable[str]) -> Pictures:
        """Return the pictures less those of these names, which cannot be encoded.

        Raises:
            DatasetError: if nothing is left to train on.
        """
        left_out = dict.fromkeys((*self.left_out, *names))
        trained = tuple(i for i in self.trained if i.record.relative not in left_out)
        held_out = tuple(i for i in self.held_out if i.record.relative not in left_out)
        if not trained:
            raise DatasetError(
                "no picture could be encoded", "see the reasons listed above, or in the log"
            )
        return Pictures(trained, held_out, self.warnings, self.skipped, tuple(left_out))

    def fingerprint(self) -> str:
        """Return a hash of everything that decides what is trained."""
        return dataset_fingerprint(self.trained) + dataset_fingerprint(self.held_out)

    def plan(self, batch_size: int, seed: int) -> BatchPlan:
        """Return the order in which they are trained."""
        return BatchPlan(
            [(item.fit.height, item.fit.width) for item in self.trained],
            [item.record.relative for item in self.trained],
            [item.record.repeats for item in self.trained],
            batch_size,
            seed,
        )


def find_pictures(
    config: TrainConfig,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Pictures:
    """Scan the folders, give every picture its bucket, and hold some out.

    Raises:
        DatasetError: if a folder is missing or too few pictures are usable.
        StoppedEarly: if asked to stop.
    """
    report = scan_folders(
        [(Path(folder.path), folder.repeats) for folder in config.data.folders],
        recursive=config.data.recursive,
        max_pixels=config.data.max_megapixels * 1_000_000,
        index=_index_path(config),
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if report.stopped:
        raise StoppedEarly
    buckets = config.buckets
    dataset = build_dataset(
        report.records,
        area=buckets.resolution**2,
        min_side=buckets.min_side,
        max_side=buckets.max_side,
        step=buckets.step,
        upscale=buckets.upscale,
    )
    chosen, split_warnings = _held_out(dataset, config.validation.pictures, config.training.seed)
    return Pictures(
        trained=tuple(i for i in dataset.items if i.record.content_hash not in chosen),
        held_out=tuple(i for i in dataset.items if i.record.content_hash in chosen),
        warnings=(*report.warnings, *dataset.warnings, *split_warnings),
        skipped=(*report.skipped, *dataset.skipped),
    )


def _index_path(config: TrainConfig) -> Path:
    return cache_root(config) / "pictures.json"


def _held_out(dataset: Dataset, count: int, seed: int) -> tuple[set[str], list[str]]:
    """Return the contents of the pictures to hold out, and what is to be said of them.

    Chosen by content, so that no picture is trained whose copy is held out.
    """
    if count >= len(dataset.items):
        raise DatasetError(
            f"validation.pictures: {count} pictures are to be held out, but there are only"
            f" {len(dataset.items)}",
            "hold out fewer, or add pictures",
        )
    copies = Counter(item.record.content_hash for item in dataset.items)
    chosen: set[str] = set()
    missing = count
    for content in sorted(copies, key=lambda content: chance_key(seed, "validation", content)):
        if copies[content] <= missing:
            chosen.add(content)
            missing -= copies[content]
    if not missing:
        return chosen, []
    if not chosen:
        raise DatasetError(
            f"validation.pictures: {count} cannot be held out, since every picture is there at"
            f" least {min(copies.values())} times and copies stay together",
            "hold out more, or remove the copies",
        )
    return chosen, [
        f"validation.pictures: {count - missing} pictures are held out instead of {count}, since"
        " the others have copies, which stay together"
    ]


class Encoders:
    """Fills both caches, loading an encoder only when something is missing.

    Args:
        config: The run's settings.
        source: The opened model.
        device: Where to encode.
        emit: Receiver of events.
        control: Asked whether to stop.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: ModelSource,
        device: torch.device,
        emit: EventSink,
        control: RunControl,
    ) -> None:
        self._config = config
        self._source = source
        self._device = device
        self._emit = emit
        self._control = control
        self._lengths = CaptionLengths(config)
        self._keys = CacheKeys(config, source, self._lengths)

    def fingerprint(self) -> str:
        """Return what tells these encoders from others."""
        text, latent = self._keys.text_spec, self._keys.latent_spec
        return ":".join((latent.vae_hash, text.encoder_hash, text.encoder_2_hash))

    def encode_text(self, pictures: Pictures) -> CacheReport:
        """Encode every caption that is not in the cache.

        Raises:
            StoppedEarly: if asked to stop.
        """
        captions = [item.record.caption for item in (*pictures.trained, *pictures.held_out)]
        self._warn_of_cut_captions(captions)
        tokenizer = self._lengths.tokenizer

        def load(device: torch.device) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
            return load_text_encoders(self._source, torch.float32, device, warn=self._warn)

        def run(
            encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
            batch: list[str],
            device: torch.device,
        ) -> tuple[Tensor, Tensor]:
            count = self._lengths.num_chunks(batch[0])
            pairs = [tokenizer.encode_chunks(caption, count) for caption in batch]
            ids = torch.tensor([list(pair.ids) for pair in pairs], device=device)
            ids_2 = torch.tensor([list(pair.ids_2) for pair in pairs], device=device)
            return encode_text(*encoders, ids, ids_2)

        def join(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
            hidden, pooled = zip(*parts, strict=True)
            return _join_tensors(hidden), _join_tensors(pooled)

        def size_of(batch: list[str]) -> int:
            return self._lengths.num_chunks(batch[0])

        encode = WithinMemory(load, run, join, size_of, self._device, self._warn, "captions")

        report = build_text(
            captions,
            self._keys.texts,
            encode,
            self._keys.text_spec,
            count_chunks=self._lengths.num_chunks,
            batch_size=self._config.cache.text_batch,
            on_progress=self._progress("encode_text"),
            should_stop=lambda: self._control.should_stop,
        )
        encode.drop()
        return self._finished(report)

    def encode_pictures(self, pictures: Pictures) -> CacheReport:
        """Encode every picture that is not in the cache.

        Raises:
            StoppedEarly: if asked to stop.
        """

        def load(device: torch.device) -> AutoencoderKL:
            return load_vae(self._source, torch.float32, device, warn=self._warn)

        def run(vae: AutoencoderKL, pixels: Tensor, device: torch.device) -> Tensor:
            return encode_images(vae, pixels.to(device))

        def size_of(pixels: Tensor) -> int:
            return pixels.shape[2] * pixels.shape[3]

        encode = WithinMemory(
            load, run, _join_tensors, size_of, self._device, self._warn, "pictures"
        )

        report = build_latents(
            [*pictures.trained, *pictures.held_out],
            self._keys.latents,
            encode,
            self._keys.latent_spec,
            batch_size=self._config.cache.vae_batch,
            max_pixels=self._config.data.max_megapixels * 1_000_000,
            on_progress=self._progress("encode_pictures"),
            should_stop=lambda: self._control.should_stop,
        )
        encode.drop()
        self._forget(report.changed)
        return self._finished(report)

    def num_chunks(self, pictures: Pictures) -> int:
        """Return how many chunks the longest caption takes, the number in every batch of a run."""
        items = (*pictures.trained, *pictures.held_out)
        return max(self._lengths.num_chunks(item.record.caption) for item in items)

    def loader(self, items: tuple[DatasetItem, ...], num_chunks: int = 1) -> BatchLoader:
        """Return what reads batches of ``items``, with so many chunks at least, from the caches."""
        model = self._config.model
        return BatchLoader(
            items,
            self._keys.latents,
            self._keys.latent_spec,
            self._keys.texts,
            self._keys.text_spec,
            count_chunks=self._lengths.num_chunks,
            least_chunks=num_chunks,
            latent_shift=model.vae_shift,
            latent_scale=model.vae_scale or self._source.facts.vae_scaling_factor,
            # One who has the run end without a save loses nothing when a batch cannot be read.
            should_hurry=lambda: not self._control.should_save_at_stop,
        )

    def _forget(self, files: Iterable[Path]) -> None:
        index = _index_path(self._config)
        try:
            forget_files(index, files)
        except OSError as error:
            log.warning("Files that have changed stay in the index %s (%s)", index, error)

    def _finished(self, report: CacheReport) -> CacheReport:
        release_memory(self._device)
        for item in report.skipped:
            self._emit(ItemSkipped(path=item.path, reason=item.reason))
        if report.stopped:
            raise StoppedEarly
        return report

    def _warn(self, text: str) -> None:
        self._emit(Warned(text=text))

    def _progress(self, phase: Phase) -> Callable[[int, int], None]:
        def report(done: int, total: int) -> None:
            self._emit(Progressed(phase=phase, done=done, total=total))

        return report

    def _warn_of_cut_captions(self, captions: list[str]) -> None:
        cut = set(filter(self._lengths.is_cut, captions))
        if cut:
            longest = max(map(self._lengths.num_tokens, cut))
            self._emit(
                Warned(
                    text=f"{len(cut)} captions are longer than {self._lengths.limit} tokens and are"
                    f" cut (the longest has {longest}); captions.tokens sets the limit"
                )
            )


def _join_tensors(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.cpu() for part in parts])


def summarise(report: CacheReport) -> list[str]:
    """Return the counts of ``report`` in words."""
    words = [f"{report.built} new", f"{report.reused} from the cache"]
    if report.rebuilt:
        words.append(f"{report.rebuilt} damaged and made again")
    if report.skipped:
        words.append(f"{len(report.skipped)} left out")
    if report.kept_fp32:
        words.append(f"{report.kept_fp32} kept in fp32")
    return words


def require_encoders(source: ModelSource) -> None:
    """Refuse a model without VAE or text encoders, before any work is done.

    Raises:
        ModelFileError: naming what is missing and where to set it.
    """
    for component in ("vae", "te1", "te2"):
        source.component(component)
