"""Where the parts of a training run live. It changes speed and memory, never a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RING_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What goes where.

    Attributes:
        units: Unit of each parameter, by name; parameters that are missing are their own unit.
        streamed: Units whose weights live on the host.
        gradients: Where sums of gradients wait for the optimizer; "nowhere" when each is used as
            soon as it is there, which is possible with a single backward a step.
        sums: What gradients are summed in on the host.
        device_record_bytes: Records stay on the device up to that many bytes.
        ring_bytes: Device memory through which everything passes.
        pin_bytes: Most host memory to page-lock.
        chunk_elements: Most elements updated at once; 0 for the usual number.
        bucket_elements: Most elements of gradients that travel as one; 0 for the usual number.
        small_tensor: Tensors with fewer elements stay on the device; -1 for the usual number.
    """

    units: Mapping[str, str] = field(default_factory=dict)
    streamed: frozenset[str] = frozenset()
    gradients: Literal["device", "host", "nowhere"] = "host"
    sums: Literal["float32", "bfloat16"] = "float32"
    device_record_bytes: int = 0
    ring_bytes: int = RING_BYTES
    pin_bytes: int = 0
    chunk_elements: int = 0
    bucket_elements: int = 0
    small_tensor: int = -1
