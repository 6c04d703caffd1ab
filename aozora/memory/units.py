"""The parts of a UNet that are moved as one: each transformer block, each resnet, each sampler.

A unit is named after its module, so ``unet.get_submodule(name)`` is what must wait for its weights;
what belongs to no larger part is in the unit of the UNet itself, whose name is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_UNIT = re.compile(
    r"^(.*\.transformer_blocks\.\d+|.*\.resnets\.\d+|.*\.(?:down|up)samplers\.\d+|.*\.attentions\.\d+)\."
)
_TRANSFORMER_BLOCK = re.compile(r"\.transformer_blocks\.\d+$")


def unit_of(parameter: str) -> str:
    """Return the unit of a parameter: the innermost part it stands in."""
    found = _UNIT.match(parameter)
    return found.group(1) if found else ""


def group_by_unit(parameters: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameters of each unit, in the order given."""
    units: dict[str, list[str]] = {}
    for name in parameters:
        units.setdefault(unit_of(name), []).append(name)
    return units


def is_transformer_block(unit: str) -> bool:
    """Return whether a unit is a transformer block; these can be streamed."""
    return _TRANSFORMER_BLOCK.search(unit) is not None
