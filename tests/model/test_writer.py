from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from aozora.errors import ModelFileError, NumericsError
from aozora.model.key_map import FILE_PREFIXES, LOGIT_SCALE, unet_name_to_file_key
from aozora.model.loading import load_text_encoders, load_unet, load_vae
from aozora.model.opening import open_model
from aozora.model.safetensors_header import read_header
from aozora.model.safetensors_writer import new_entry, write_entries
from aozora.model.synthetic import ModelSizes, write_random_base
from aozora.model.tensor_file import TensorFile
from aozora.model.writer import write_single_file

NAMES = [
    "conv_in.weight",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight",
    "up_blocks.2.resnets.1.conv_shortcut.weight",
    "conv_out.bias",
]
PLAIN = {"prediction": "epsilon", "zero_terminal_snr": False}


@pytest.fixture
def source(tiny_base):
    return open_model(tiny_base)


@pytest.fixture
def trained(source):
    """Trained values: their names, and float32 tensors that float16 cannot hold exactly."""
    torch.manual_seed(1)
    return {name: source.read("unet", name).float() + 0.1 * torch.rand(1) for name in NAMES}


def raw_tensors(path):
    with TensorFile(path) as file:
        infos = file.header.tensors
        return {
            key: (infos[key].dtype, b"".join(bytes(piece) for piece in file.read_pieces(key)))
            for key in infos
        }


def test_with_nothing_trained_the_file_is_the_base_byte_for_byte(source, tiny_base, tmp_path):
    written = write_single_file(source, {}, tmp_path / "out.safetensors", **PLAIN)
    data = tiny_base.read_bytes()
    assert (tmp_path / "out.safetensors").read_bytes() == data
    assert written.num_bytes == len(data)


def test_trained_tensors_land_and_all_others_keep_their_bytes(source, trained, tiny_base, tmp_path):
    target = tmp_path / "out.safetensors"
    write_single_file(source, trained, target, **PLAIN)
    before, after = raw_tensors(tiny_base), raw_tensors(target)
    assert list(before) == list(after)
    keys = {unet_name_to_file_key(name): name for name in NAMES}
    found = load_file(target)
    for key in before:
        if key in keys:
            assert found[key].dtype == torch.float16
            assert torch.equal(found[key], trained[keys[key]].half())
            assert before[key] != after[key]
        else:
            assert before[key] == after[key], key


def test_a_trained_value_can_be_a_function_asked_in_its_turn(source, trained, tmp_path):
    target = tmp_path / "out.safetensors"
    write_single_file(source, {n: (lambda n=n: trained[n]) for n in trained}, target, **PLAIN)
    unet = dict(load_unet(open_model(target), torch.float32).named_parameters())
    for name, value in trained.items():
        assert torch.equal(unet[name], value.half().float())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_trained_tensors_take_the_chosen_format_and_others_keep_theirs(
    source, trained, tmp_path, dtype
):
    target = tmp_path / "out.safetensors"
    write_single_file(source, trained, target, dtype=dtype, **PLAIN)
    found = load_file(target)
    wanted = getattr(torch, dtype)
    for name, value in trained.items():
        tensor = found[unet_name_to_file_key(name)]
        assert tensor.dtype == wanted
        assert torch.equal(tensor, value.to(wanted))
    assert {t.dtype for k, t in found.items() if "conditioner" in k} == {torch.float16}


def test_every_tensor_lies_at_a_multiple_of_its_number_size(tmp_path):
    """The library reads no float32 tensor behind an odd number of float16 values."""
    entries = [
        new_entry("odd", (3,), torch.float16, lambda: torch.ones(3).half()),
        new_entry("mask", (1,), torch.bool, lambda: torch.ones(1, dtype=torch.bool)),
        new_entry("wide", (2,), torch.float32, lambda: torch.full((2,), 2.0)),
    ]
    path = tmp_path / "m.safetensors"
    write_entries(path, entries, {})
    assert list(read_header(path).tensors) == ["odd", "mask", "wide"]
    found = load_file(path)
    assert torch.equal(found["wide"], torch.full((2,), 2.0))
    assert torch.equal(found["odd"], torch.ones(3).half())


def test_a_base_of_mixed_formats_keeps_them(tmp_path):
    base = tmp_path / "mixed.safetensors"
    sizes = ModelSizes(vocabulary=99)
    write_random_base(base, sizes, dtype=torch.bfloat16, vae_dtype=torch.float32)
    source = open_model(base)
    assert source.facts.components["vae"].dtypes.keys() == {"F32"}
    target = tmp_path / "out.safetensors"
    value = source.read("unet", "conv_out.bias").float() + 1
    write_single_file(source, {"conv_out.bias": value}, target, **PLAIN)
    before, after = load_file(base), load_file(target)
    assert {k: t.dtype for k, t in before.items()} == {k: t.dtype for k, t in after.items()}
    changed = [k for k in before if not torch.equal(before[k], after[k])]
    assert changed == [unet_name_to_file_key("conv_out.bias")]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("markers", [(), ("v_pred",), ("v_pred", "ztsnr")])
def test_markers_and_metadata_say_what_was_trained(
    tmp_path, tiny_small, trained_bias, prediction, zero_snr, markers
):
    tensors = load_file(tiny_small) | {marker: torch.empty(0) for marker in markers}
    base, target = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    stale = ("modelspec.hash_sha256", "modelspec.predict_key", "prediction_type")
    old = {"keep": "me", **dict.fromkeys(stale, "old")}
    old |= {"modelspec.prediction_type": "v", "modelspec.vae_dtype": "fp16"}
    old |= {"aozora.flow_shift": "9.0", "aozora.flow_resolution_shift": "false"}
    save_file(tensors, base, metadata=old)
    own = {"aozora.flow_shift": "2.5"} if prediction == "flow" else {}
    write_single_file(
        open_model(base, verify=False),
        trained_bias,
        target,
        prediction=prediction,
        zero_terminal_snr=zero_snr,
        metadata=own,
    )
    is_v = prediction == "v_prediction"
    wanted = {"v_pred"} if is_v else set()
    wanted |= {"ztsnr"} if is_v and zero_snr else set()
    header = read_header(target)
    assert {m for m in ("v_pred", "ztsnr") if m in header.tensors} == wanted
    assert all(load_file(target)[marker].shape == (0,) for marker in wanted)
    metadata = header.metadata
    words = {"epsilon": "epsilon", "v_prediction": "v-zsnr" if zero_snr else "v", "flow": None}
    assert metadata.get("modelspec.prediction_type") == words[prediction]
    assert metadata["aozora.prediction"] == prediction
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert metadata["modelspec.title"] == "out"
    assert metadata["keep"] == "me"
    assert metadata["modelspec.vae_dtype"] == "fp16"
    assert not metadata.keys() & {*stale, "aozora.flow_resolution_shift"}
    assert metadata.get("aozora.flow_shift") == own.get("aozora.flow_shift")
    found = open_model(target, verify=False).facts.prediction
    assert (found.prediction, found.zero_terminal_snr) == (prediction, is_v and zero_snr)
    assert found.notes == ()


def test_of_a_vae_from_elsewhere_the_metadata_of_the_base_is_not_kept(
    tmp_path, tiny_small, tiny_base, trained_bias
):
    base, target = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    save_file(load_file(tiny_small), base, metadata={"modelspec.vae_dtype": "fp16"})
    source = open_model(base, vae=tiny_base, verify=False)
    write_single_file(source, trained_bias, target, **PLAIN)
    assert "modelspec.vae_dtype" not in read_header(target).metadata


def test_computed_buffers_come_through_byte_for_byte(tmp_path, tiny_small):
    base, target = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    te2 = FILE_PREFIXES["te2"]
    ids = te2 + "transformer.text_model.embeddings.position_ids"
    buffers = {ids: torch.arange(77)[None], te2 + "attn_mask": torch.zeros(77, 77)}
    save_file(load_file(tiny_small) | buffers, base)
    source = open_model(base)
    assert source.facts.extra_keys == ()
    write_single_file(source, {}, target, **PLAIN)
    assert target.read_bytes() == base.read_bytes()


@pytest.fixture(scope="module")
def tiny_small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    write_random_base(path, ModelSizes(vocabulary=99))
    return path


@pytest.fixture
def trained_bias():
    return {"conv_out.bias": torch.full((4,), 0.25)}


def test_values_too_large_for_float16_are_refused_and_the_old_file_stays(source, tmp_path):
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"old")
    large = {"conv_out.bias": torch.full((4,), 1e5)}
    with pytest.raises(NumericsError, match=r"conv_out\.bias has values up to 1e\+05"):
        write_single_file(source, large, target, **PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_never_saved(source, tmp_path, value):
    bad = {"conv_out.bias": torch.full((4,), value)}
    with pytest.raises(NumericsError, match="not finite"):
        write_single_file(source, bad, tmp_path / "out.safetensors", **PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_changed_or_vanished_is_refused(tiny_small, trained_bias, tmp_path):
    base = tmp_path / "base.safetensors"
    base.write_bytes(tiny_small.read_bytes())
    source = open_model(base, verify=False)
    save_file(load_file(base), base, metadata={"new": "header"})
    with pytest.raises(ModelFileError, match="was changed"):
        write_single_file(source, trained_bias, tmp_path / "out.safetensors", **PLAIN)
    base.unlink()
    with pytest.raises(ModelFileError, match="does not exist"):
        write_single_file(source, trained_bias, tmp_path / "out.safetensors", **PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_the_base_is_never_overwritten(tiny_small, trained_bias, tmp_path):
    base = tmp_path / "base.safetensors"
    base.write_bytes(tiny_small.read_bytes())
    with pytest.raises(ModelFileError, match="the base model itself"):
        write_single_file(open_model(base, verify=False), trained_bias, base, **PLAIN)
    assert base.read_bytes() == tiny_small.read_bytes()


def test_a_name_that_is_no_parameter_and_a_wrong_shape_are_bugs(source, tmp_path):
    for trained in ({"no.such": torch.zeros(1)}, {"conv_out.bias": torch.zeros(5)}):
        with pytest.raises(ValueError, match=r"not parameters|instead of"):
            write_single_file(source, trained, tmp_path / "out.safetensors", **PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_extra_tensors_and_trailing_bytes(tiny_small, trained_bias, tmp_path):
    base, target = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    save_file(load_file(tiny_small) | {"some.plugin": torch.arange(3)}, base)
    base.write_bytes(base.read_bytes() + b"tail")
    write_single_file(open_model(base), trained_bias, target, **PLAIN)
    assert torch.equal(load_file(target)["some.plugin"], torch.arange(3))
    assert read_header(target).trailing_bytes == 0


def test_a_vae_and_encoders_from_elsewhere_take_the_place_of_the_bases(
    tiny_small, trained_bias, tmp_path
):
    """The UNet has learned with them; a base may have none of its own."""
    other, bare = tmp_path / "other.safetensors", tmp_path / "bare.safetensors"
    write_random_base(other, seed=1, vae_dtype=torch.float32)
    unet = FILE_PREFIXES["unet"]
    save_file({k: t for k, t in load_file(tiny_small).items() if k.startswith(unet)}, bare)
    for base in (tiny_small, bare):
        target = tmp_path / "out.safetensors"
        source = open_model(base, vae=other, text_encoders=other)
        write_single_file(source, trained_bias, target, **PLAIN)
        found, parts = load_file(target), load_file(other)
        assert found.keys() == parts.keys()
        for key, tensor in found.items():
            if not key.startswith(unet):
                assert tensor.dtype == parts[key].dtype
                assert torch.equal(tensor, parts[key]), key
        assert open_model(target).facts.components.keys() == source.facts.components.keys()


def test_a_diffusers_folder_is_composed_into_a_full_single_file(source, trained, tmp_path):
    """Untrained tensors are equal in value; the fused and transposed ones come back in place."""
    import json

    from aozora.model.sizes import packaged_config

    folder = tmp_path / "folder"
    load_unet(source, torch.float16).save_pretrained(folder / "unet")
    load_vae(source, torch.float16).save_pretrained(folder / "vae")
    te1, te2 = load_text_encoders(source, torch.float16)
    te1.save_pretrained(folder / "text_encoder")
    te2.save_pretrained(folder / "text_encoder_2")
    index = json.dumps(packaged_config("model_index.json"))
    (folder / "model_index.json").write_text(index, encoding="utf-8")

    target = tmp_path / "out.safetensors"
    write_single_file(open_model(folder), trained, target, **PLAIN)
    before, after = load_file(source.facts.path), load_file(target)
    assert before.keys() == after.keys()
    keys = {unet_name_to_file_key(name) for name in NAMES}
    assert {k for k in before if not torch.equal(before[k], after[k])} == keys
    assert {k for k in before if before[k].shape != after[k].shape} == set()
    assert after[LOGIT_SCALE].item() == pytest.approx(4.6052, abs=1e-3)
    assert after[FILE_PREFIXES["vae"] + "encoder.mid.attn_1.q.weight"].ndim == 4


def test_the_file_can_be_read_by_others(source, trained_bias, tmp_path):
    import os
    import stat

    target = tmp_path / "out.safetensors"
    write_single_file(source, trained_bias, target, **PLAIN)
    (tmp_path / "plain").write_bytes(b"")
    if os.name == "posix":
        modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in (target.name, "plain")]
        assert modes[0] == modes[1]


def test_the_same_seed_writes_the_same_base(tiny_small, tmp_path):
    for seed in (0, 1):
        write_random_base(tmp_path / f"{seed}.safetensors", ModelSizes(vocabulary=99), seed=seed)
    assert (tmp_path / "0.safetensors").read_bytes() == tiny_small.read_bytes()
    assert (tmp_path / "1.safetensors").read_bytes() != tiny_small.read_bytes()
