"""An opened model: what it is, and where each of its parameters lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from types import TracebackType

from torch import Tensor

from aozora.errors import ModelFileError
from aozora.model.building import parameter_shapes
from aozora.model.diffusers_folder import SUBFOLDERS
from aozora.model.facts import ModelFacts
from aozora.model.key_map import Component, map_name
from aozora.model.single_file import Stored
from aozora.model.tensor_file import TensorFile, bytes_of

_MAX_LISTED = 20

COMPONENT_NAMES: dict[Component, str] = {
    "unet": "UNet",
    "vae": "VAE",
    "te1": "first text encoder (CLIP-L)",
    "te2": "second text encoder (CLIP-G)",
}
_SETTINGS: dict[Component, str] = {
    "unet": "model.base",
    "vae": "model.vae",
    "te1": "model.text_encoders",
    "te2": "model.text_encoders",
}


class ModelSource:
    """Where every parameter of a model lies; made by `opening.open_model`.

    Attributes:
        facts: What is known without reading weights.
        tensors: By component and model name.
        template: The base if it is a single file.

    Args:
        files: All files that are read from.
        base_files: Those of the base itself.
    """

    def __init__(
        self,
        facts: ModelFacts,
        tensors: Mapping[Component, Stored],
        files: Iterable[TensorFile],
        template: TensorFile | None,
        base_files: Iterable[TensorFile],
    ) -> None:
        self.facts = facts
        self.tensors = tensors
        self.template = template
        self._files = list(files)
        self._base_files = list(base_files)

    def __enter__(self) -> ModelSource:
        """Keep all files open to the end of the block, for many reads."""
        for file in self._files:
            file.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all files; reading still works, each read opens its file."""
        for file in self._files:
            file.close()

    def check_unchanged(self) -> None:
        """Raise ModelFileError if a file is no longer the one that was opened."""
        for file in self._files:
            file.check_unchanged()

    def component(self, component: Component) -> Stored:
        """Return where the parameters of a component lie.

        Raises:
            ModelFileError: if the model has no such component.
        """
        if component not in self.tensors:
            raise ModelFileError(
                f"{self.facts.path} has no {COMPONENT_NAMES[component]}",
                f"name a file that has it in {_SETTINGS[component]}",
            )
        return self.tensors[component]

    def read(self, component: Component, name: str) -> Tensor:
        """Return a parameter on the CPU, in the number format of its file."""
        return self.component(component)[name].read()

    def unet_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every UNet parameter by model name, without building a UNet."""
        return {name: stored.shape for name, stored in self.component("unet").items()}

    def verify(self, component: Component) -> None:
        """Compare names and shapes of a component with the model that its sizes ask for.

        Raises:
            ModelFileError: lists all tensors that are missing, unexpected or of a wrong shape.
        """
        tensors = self.component(component)
        facts = self.facts.components[component]
        wanted = parameter_shapes(component, facts.config)
        faults = [f"missing: {self._key(component, n)}" for n in wanted if n not in tensors]
        faults += [f"unexpected: {s.key}" for n, s in tensors.items() if n not in wanted]
        faults += [
            f"{s.key}: shape {list(s.shape)}, {list(wanted[n])} needed"
            for n, s in tensors.items()
            if n in wanted and s.shape != wanted[n]
        ]
        if faults:
            raise ModelFileError(
                f"{facts.path}: the {COMPONENT_NAMES[component]} is not SDXL's or incomplete:\n  "
                + listed(faults),
                "get the file again from its source, or use another one",
            )

    def _key(self, component: Component, name: str) -> str:
        if self.facts.layout == "diffusers":
            return f"{SUBFOLDERS[component]}/{name}"
        return f"{map_name(component, name).file_key} ({name})"

    def fingerprint(self) -> str:
        """Return a hash of the base that tells it from others (see `TensorFile.fingerprint`)."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self._base_files:
            digest.update(file.fingerprint().encode())
        return digest.hexdigest()

    def component_hash(self, component: Component) -> str:
        """Return a hash over all that encodes with a component; a key for caches.

        The same weights in another file or layout hash the same. Of the VAE only the encoder
        counts. Reads every byte: a second for the VAE, some seconds for the text encoders.

        Raises:
            ModelFileError: if the component is missing or cannot be read.
        """
        digest = hashlib.blake2b(digest_size=16)
        with self:
            for name, stored in sorted(self.component(component).items()):
                if component == "vae" and not name.startswith(("encoder.", "quant_conv.")):
                    continue
                digest.update(f"{name}:{stored.dtype}:{stored.shape};".encode())
                digest.update(bytes_of(stored.read()))
        return digest.hexdigest()


def listed(faults: list[str]) -> str:
    """Return ``faults`` one a line, cut where the list grows long."""
    shown = faults[:_MAX_LISTED]
    if len(faults) > _MAX_LISTED:
        shown.append(f"and {len(faults) - _MAX_LISTED} more")
    return "\n  ".join(shown)
