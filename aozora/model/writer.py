"""Saving a trained model: the base as template, trained tensors in place of the old ones.

What was not trained is copied byte for byte in small pieces, so nothing of it can change and
little memory is needed. A VAE or text encoders from elsewhere take the place of the base's. A base
that is a diffusers folder is composed into a full single file.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from functools import reduce
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from aozora.errors import ModelFileError, NumericsError
from aozora.model.facts import Prediction
from aozora.model.key_map import (
    COMPONENTS,
    LOGIT_SCALE,
    Component,
    file_tensors,
    is_passenger,
    map_name,
)
from aozora.model.metadata import saved_metadata
from aozora.model.safetensors_header import Header
from aozora.model.safetensors_writer import (
    Entry,
    WrittenFile,
    copied_entry,
    new_entry,
    write_entries,
)
from aozora.model.single_file import (
    MARKERS,
    V_PREDICTION_MARKER,
    ZERO_TERMINAL_SNR_MARKER,
    canonical_key,
    component_of,
)
from aozora.model.source import ModelSource
from aozora.model.tensor_file import TORCH_DTYPES, StoredTensor, TensorFile
from aozora.runtime import atomic_path

SaveDtype = Literal["base", "float16", "bfloat16", "float32"]
Trained = Mapping[str, Tensor | Callable[[], Tensor]]

SAVE_FORMATS: Mapping[SaveDtype, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
LOGIT_SCALE_VALUE = 4.6052


def write_single_file(
    source: ModelSource,
    trained: Trained,
    target: Path,
    *,
    prediction: Prediction,
    zero_terminal_snr: bool,
    dtype: SaveDtype = "base",
    metadata: Mapping[str, str] | None = None,
) -> WrittenFile:
    """Save the model of ``source`` with ``trained`` UNet parameters in place of the base's.

    When nothing was trained and nothing else differs, the file is the base byte for byte.

    Args:
        source: The opened base.
        trained: UNet parameters by model name, or functions that return them when their turn
            comes. Any float format, any device.
        target: The file to write; replaced only when all is written and reads back.
        prediction: What the UNet predicts now; markers and metadata are made to say so.
        zero_terminal_snr: Whether its last timestep is pure noise.
        dtype: Number format of the trained tensors; ``base`` for each one's own of the base.
        metadata: Further free text entries.

    Raises:
        ModelFileError: if the base changed since it was opened, is the target itself, or the
            file cannot be written.
        NumericsError: if a trained tensor is not finite or too large for the format.
    """
    _refuse_own_base(source, target)
    source.check_unchanged()
    unknown = [name for name in trained if name not in source.component("unet")]
    if unknown:
        raise ValueError(f"not parameters of the UNet: {unknown[:5]}")
    markers = _markers(prediction, zero_terminal_snr)
    template = source.template
    found_markers = [m for m in MARKERS if template is not None and m in template.header.tensors]
    entries = _entries(source, trained, markers, dtype)
    own = dict(metadata or {})
    if trained or own or template is None or found_markers != markers:
        texts = saved_metadata(
            source.facts.metadata,
            prediction,
            target.stem,
            own,
            zero_terminal_snr=zero_terminal_snr,
            has_own_vae="vae" not in _replaced(source),
        )
    else:
        texts = dict(source.facts.metadata)
    keys = [_file_key(source, name) for name in trained]
    probes = {*keys[:1], *keys[-1:]}
    try:
        with source, atomic_path(target) as path:
            written = write_entries(
                path,
                entries,
                texts,
                data_order=_data_order(template, entries),
                like=template.header if template else None,
                checksums_of=probes,
            )
            _check_reads_back(path, written)
    except OSError as error:
        raise ModelFileError(
            f"{target} cannot be written: {error.strerror}",
            "free space on the disk or save elsewhere; the old file, if any, is unharmed",
        ) from error
    return written


def _refuse_own_base(source: ModelSource, target: Path) -> None:
    base = source.facts.path
    if target.exists() and base.exists() and target.samefile(base):
        raise ModelFileError(
            f"{target} is the base model itself", "save under another name or in another folder"
        )


def _markers(prediction: Prediction, zero_terminal_snr: bool) -> list[str]:
    # Only v-prediction has markers that programs read; on other models they would mislead.
    if prediction != "v_prediction":
        return []
    return [V_PREDICTION_MARKER] + ([ZERO_TERMINAL_SNR_MARKER] if zero_terminal_snr else [])


def _file_key(source: ModelSource, name: str) -> str:
    """Return the key that the UNet parameter ``name`` has in the file to be written."""
    if source.template is not None:
        return source.component("unet")[name].key
    return map_name("unet", name).file_key


def _entries(
    source: ModelSource, trained: Trained, markers: list[str], dtype: SaveDtype
) -> list[Entry]:
    template = source.template
    entries = _composed(source, COMPONENTS) if template is None else _with_parts(source, template)
    for name, value in trained.items():
        stored = source.component("unet")[name]
        key = _file_key(source, name)
        entries[key] = _trained_entry(key, name, value, stored, dtype)
    for marker in MARKERS:
        if marker not in markers:
            entries.pop(marker, None)
        elif marker not in entries:
            entries[marker] = new_entry(marker, (0,), torch.float32, lambda: torch.empty(0))
    return list(entries.values())


def _with_parts(source: ModelSource, template: TensorFile) -> dict[str, Entry]:
    """Return the entries of the base, with the VAE and encoders that were trained with.

    A UNet gives what it has learned only with the parts that it has learned with.
    """
    others = _replaced(source)
    kept = {
        key: copied_entry(template, key)
        for key in template.header.tensors
        if is_passenger(canonical_key(key)) or component_of(canonical_key(key)) not in others
    }
    return _composed(source, others) | kept


def _replaced(source: ModelSource) -> list[Component]:
    """Return the components that come from elsewhere than a base that is a single file."""
    return [
        component
        for component, held in source.tensors.items()
        if next(iter(held.values())).file is not source.template
    ]


def _trained_entry(
    key: str,
    name: str,
    value: Tensor | Callable[[], Tensor],
    stored: StoredTensor,
    dtype: SaveDtype,
) -> Entry:
    wanted = TORCH_DTYPES[stored.dtype] if dtype == "base" else SAVE_FORMATS[dtype]
    shape = stored.shape

    def make() -> Tensor:
        tensor = value() if callable(value) else value
        return _converted(name, tensor, wanted)

    return new_entry(key, shape, wanted, make)


def _converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # To the host first: saving must not need memory on the device.
    found = tensor.detach().cpu()
    converted = found.to(dtype)
    if bool(torch.isfinite(converted).all()):
        return converted
    if bool(torch.isfinite(found).all()):
        raise NumericsError(
            f"{name} has values up to {float(found.abs().max()):.4g}, too large for {dtype}",
            "save in bfloat16 or float32 (checkpoints.dtype)",
        )
    raise NumericsError(
        f"{name} has values that are not finite; the model was not saved",
        "go back to the last checkpoint and train with a lower learning rate",
    )


def _composed(source: ModelSource, components: Collection[Component]) -> dict[str, Entry]:
    """Return entries for components of a single file, wherever their parameters lie."""
    entries: dict[str, Entry] = {}
    for component in components:
        held = source.tensors.get(component, {})
        groups: dict[str, dict[str, StoredTensor]] = {}
        for name, stored in held.items():
            groups.setdefault(map_name(component, name).file_key, {})[name] = stored
        for key, group in groups.items():
            entries[key] = _composed_entry(component, key, group)
    if "te2" in components and "te2" in source.tensors:
        token_embedding = source.tensors["te2"]["text_model.embeddings.token_embedding.weight"]
        dtype = TORCH_DTYPES[token_embedding.dtype]
        scale = torch.tensor(LOGIT_SCALE_VALUE, dtype=dtype)
        entries[LOGIT_SCALE] = new_entry(LOGIT_SCALE, (), dtype, lambda: scale)
    return dict(sorted(entries.items()))


def _composed_entry(component: Component, key: str, group: Mapping[str, StoredTensor]) -> Entry:
    dtype = reduce(torch.promote_types, [TORCH_DTYPES[s.dtype] for s in group.values()])
    empty = {name: torch.empty(stored.shape, device="meta") for name, stored in group.items()}
    (shape,) = [tuple(tensor.shape) for tensor in file_tensors(component, empty).values()]

    def make() -> Tensor:
        parameters = {name: stored.read().to(dtype) for name, stored in group.items()}
        (tensor,) = file_tensors(component, parameters).values()
        return tensor

    return new_entry(key, shape, dtype, make)


def _data_order(template: TensorFile | None, entries: list[Entry]) -> list[str]:
    """Return the keys in the order of the base's data, new ones at the end."""
    if template is None:
        return [entry.key for entry in entries]
    header: Header = template.header
    keys = {entry.key for entry in entries}
    placed = sorted(header.tensors.values(), key=lambda info: (info.start, info.end))
    known = [info.key for info in placed if info.key in keys]
    return known + [entry.key for entry in entries if entry.key not in header.tensors]


def _check_reads_back(path: Path, written: WrittenFile) -> None:
    """Read the tensors with a checksum again, the first and last trained one, and compare."""
    with TensorFile(path) as file:
        for key, wanted in written.tensor_crc32.items():
            found = reduce(lambda value, piece: zlib.crc32(piece, value), file.read_pieces(key), 0)
            if found != wanted:
                raise ModelFileError(
                    f"{path}: {key} reads back differently from what was written",
                    "check the disk, then save again",
                )
