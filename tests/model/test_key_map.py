from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aozora.errors import ModelFileError
from aozora.model.building import build_model, parameter_shapes
from aozora.model.key_map import (
    COMPONENTS,
    LOGIT_SCALE,
    PASSENGERS,
    file_tensors,
    map_file_key,
    map_name,
    shape_in_model,
    unet_file_key_to_name,
    unet_name_to_file_key,
)
from aozora.model.sizes import derive_config, standard_config
from aozora.model.synthetic import ModelSizes, configs_of


def model_shapes(component, shapes):
    return {
        mapping.model_name: shape_in_model(shape, mapping.transform)
        for key, shape in shapes.items()
        for mapping in map_file_key(component, key)
    }


def test_every_published_key_belongs_to_exactly_one_component(published_shapes):
    assert len(published_shapes) == 2514
    for key in published_shapes:
        owners = [c for c in COMPONENTS if map_file_key(c, key)]
        assert len(owners) == (0 if key in PASSENGERS else 1), key
    assert [key for key in published_shapes if key in PASSENGERS] == [LOGIT_SCALE]


def test_both_directions_of_the_table_agree(published_shapes):
    for key in published_shapes:
        for component in COMPONENTS:
            for mapping in map_file_key(component, key):
                assert map_name(component, mapping.model_name) == mapping


@pytest.mark.parametrize(
    ("component", "num_tensors", "num_params"),
    [
        ("unet", 1680, 2_567_463_684),
        ("te1", 196, 123_060_480),
        ("te2", 517, 694_659_840),
        ("vae", 248, 83_653_863),
    ],
)
def test_published_shapes_give_the_standard_configuration(
    published_shapes, component, num_tensors, num_params
):
    shapes = model_shapes(component, published_shapes)
    config = derive_config(component, shapes)
    standard = standard_config(component)
    assert {key: config[key] for key in standard} == standard
    wanted = parameter_shapes(component, config)
    assert wanted == shapes
    assert len(wanted) == num_tensors
    assert sum(torch.Size(shape).numel() for shape in wanted.values()) == num_params


@settings(deadline=None, max_examples=20)
@given(
    channels=st.tuples(
        st.sampled_from([32, 64, 96]), st.sampled_from([64, 128]), st.sampled_from([64, 192])
    ),
    depths=st.tuples(st.just(1), st.integers(1, 3), st.integers(1, 3)),
    layers=st.integers(1, 3),
)
def test_sizes_are_found_again_from_the_shapes(channels, depths, layers):
    sizes = ModelSizes(unet_channels=channels, unet_depths=depths, te1_layers=layers)
    for component, config in configs_of(sizes).items():
        if component != "vae":
            assert derive_config(component, parameter_shapes(component, config)) == config


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
        ("mid_block.resnets.1.conv_shortcut.bias", "middle_block.2.skip_connection.bias"),
        (
            "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj.weight",
            "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight",
        ),
    ],
)
def test_unet_names_of_note(name, key):
    file_key = f"model.diffusion_model.{key}"
    assert unet_name_to_file_key(name) == file_key
    assert unet_file_key_to_name(file_key) == name


def test_the_decoder_of_the_vae_counts_backwards():
    mapping = map_name("vae", "decoder.up_blocks.0.resnets.2.conv1.weight")
    assert mapping.file_key == "first_stage_model.decoder.up.3.block.2.conv1.weight"


def test_the_first_encoder_is_named_alike_by_old_and_new_transformers():
    new, old = (
        map_name("te1", f"{prefix}final_layer_norm.bias").file_key for prefix in ("", "text_model.")
    )
    assert new == old == "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias"


def test_an_unknown_name_is_refused_and_an_unknown_key_maps_to_nothing():
    with pytest.raises(KeyError):
        map_name("unet", "down_blocks.3.resnets.0.conv1.weight")
    assert map_file_key("unet", "model.diffusion_model.input_blocks.9.0.op.weight") == []
    assert unet_file_key_to_name("v_pred") is None


def test_file_tensors_fuses_transposes_and_gives_convolutions_their_dimensions():
    torch.manual_seed(0)
    te2 = build_model("te2", configs_of(ModelSizes(vocabulary=100))["te2"])
    parameters = dict(te2.named_parameters())
    tensors = file_tensors("te2", parameters)
    prefix = "conditioner.embedders.1.model."
    fused = tensors[prefix + "transformer.resblocks.1.attn.in_proj_weight"]
    layer = "text_model.encoder.layers.1.self_attn"
    thirds = [parameters[f"{layer}.{p}_proj.weight"] for p in "qkv"]
    assert torch.equal(fused, torch.cat(thirds))
    projection = tensors[prefix + "text_projection"]
    assert torch.equal(projection, parameters["text_projection.weight"].T)
    attention = "encoder.mid_block.attentions.0.to_out.0.weight"
    (convolution,) = file_tensors("vae", {attention: torch.ones(8, 8)}).values()
    assert convolution.shape == (8, 8, 1, 1)


def test_a_missing_tensor_that_decides_a_size_is_named_as_in_the_file(published_shapes):
    shapes = model_shapes("unet", published_shapes)
    del shapes["conv_in.weight"]
    with pytest.raises(ModelFileError, match=r"input_blocks\.0\.0\.weight .* is missing"):
        derive_config("unet", shapes)
