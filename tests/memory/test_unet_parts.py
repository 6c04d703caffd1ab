from __future__ import annotations

import pytest

from aozora.memory.activation_bytes import parts_of
from aozora.memory.unet_parts import parts_from_shapes
from aozora.model.building import empty_unet
from aozora.model.sizes import standard_config
from aozora.model.synthetic import ModelSizes, configs_of


@pytest.mark.parametrize("size", ["full", "small"])
def test_shapes_tell_the_same_parts_as_the_modules(size):
    config = standard_config("unet")
    if size == "small":
        config = configs_of(ModelSizes(unet_channels=(32, 64, 64)))["unet"]
    unet = empty_unet(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in unet.named_parameters()}
    told = sorted(parts_from_shapes(shapes), key=lambda part: part.path)
    assert told == sorted(parts_of(unet), key=lambda part: part.path)
    assert size == "small" or len(told) == 100
