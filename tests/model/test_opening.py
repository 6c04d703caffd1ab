from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from aozora.errors import ModelFileError
from aozora.model.facts import PredictionFacts, prediction_of_scheduler
from aozora.model.key_map import FILE_PREFIXES
from aozora.model.opening import open_model
from aozora.model.tensor_file import TORCH_DTYPES

TE1, VAE, UNET = (FILE_PREFIXES[c] for c in ("te1", "vae", "unet"))
CONV_IN = UNET + "input_blocks.0.0.weight"


@pytest.fixture
def changed(tiny_base, tmp_path):
    """Return a function that writes the base with a change of its tensors."""

    def write(change, metadata=None, name="changed.safetensors"):
        tensors = load_file(tiny_base)
        change(tensors)
        save_file(tensors, tmp_path / name, metadata=metadata)
        return tmp_path / name

    return write


def renamed(tensors, old, new):
    for key in [key for key in tensors if key.startswith(old)]:
        tensors[new + key.removeprefix(old)] = tensors.pop(key)


def dropped(tensors, *prefixes):
    for key in [key for key in tensors if key.startswith(prefixes)]:
        del tensors[key]


def all_equal(first, second):
    for component in first.tensors:
        assert first.tensors[component].keys() == second.tensors[component].keys()
        for name in first.tensors[component]:
            assert torch.equal(first.read(component, name), second.read(component, name)), name


def test_facts_of_a_plain_base(tiny_base):
    facts = open_model(tiny_base).facts
    assert facts.layout == "single_file"
    assert facts.has_vae
    assert facts.has_te1
    assert facts.has_te2
    assert facts.prediction.prediction == "epsilon"
    assert facts.prediction.source == "none"
    assert facts.vae_scaling_factor == 0.13025
    assert facts.components["unet"].config["block_out_channels"] == [32, 64, 128]
    assert facts.components["unet"].config["attention_head_dim"] == [1, 1, 2]
    assert facts.components["unet"].config["transformer_layers_per_block"] == [1, 1, 2]
    assert facts.components["te2"].dtypes == {"F16": 37}
    assert facts.notes == ()


def test_other_spellings_of_keys_give_the_same_model(tiny_base, changed):
    def respell(tensors):
        renamed(tensors, TE1, "conditioner.embedders.0.transformer.")
        renamed(tensors, VAE, "vae.")
        for key in [key for key in tensors if ".attn_1." in key and key.endswith("weight")]:
            tensors[key] = tensors[key].reshape(tensors[key].shape[:2] if "norm" not in key else -1)
        projection = tensors.pop("conditioner.embedders.1.model.text_projection")
        key = "conditioner.embedders.1.model.text_projection.weight"
        tensors[key] = projection.T.contiguous()
        ids = "conditioner.embedders.0.transformer.embeddings.position_ids"
        tensors[ids] = torch.arange(77).reshape(1, 77)

    usual, other = open_model(tiny_base), open_model(changed(respell))
    all_equal(usual, other)
    assert other.facts.extra_keys == ()
    for component in ("vae", "te1", "te2"):
        assert usual.component_hash(component) == other.component_hash(component)


@pytest.mark.parametrize(
    ("markers", "metadata", "expected"),
    [
        ((), {}, ("epsilon", False, "none", 0)),
        (("v_pred",), {}, ("v_prediction", False, "markers", 0)),
        (("v_pred", "ztsnr"), {}, ("v_prediction", True, "markers", 0)),
        (("ztsnr",), {}, ("epsilon", False, "none", 1)),
        ((), {"modelspec.prediction_type": "v"}, ("v_prediction", False, "modelspec", 0)),
        ((), {"modelspec.prediction_type": "epsilon"}, ("epsilon", False, "modelspec", 0)),
        ((), {"modelspec.prediction_type": "flow"}, ("flow", False, "modelspec", 0)),
        ((), {"modelspec.prediction_type": "magic"}, ("epsilon", False, "none", 1)),
        ((), {"modelspec.prediction_type": "sd3"}, ("flow", False, "modelspec", 0)),
        ((), {"modelspec.prediction_type": "v-zsnr"}, ("v_prediction", True, "modelspec", 0)),
        ((), {"modelspec.prediction_type": "V_Pred"}, ("v_prediction", False, "modelspec", 0)),
        ((), {"modelspec.prediction_type": "eps-zsnr"}, ("epsilon", False, "none", 1)),
        ((), {"modelspec.predict_key": "v"}, ("v_prediction", False, "modelspec", 0)),
        ((), {"prediction_type": "velocity"}, ("v_prediction", False, "modelspec", 0)),
        (
            (),
            {"modelspec.prediction_type": "magic", "modelspec.predict_key": "v"},
            ("v_prediction", False, "modelspec", 1),
        ),
        (
            (),
            {"aozora.prediction": "epsilon", "modelspec.predict_key": "v"},
            ("epsilon", False, "modelspec", 0),
        ),
        (
            ("v_pred",),
            {"modelspec.prediction_type": "epsilon"},
            ("v_prediction", False, "markers", 1),
        ),
    ],
)
def test_the_prediction_is_read_and_markers_outrank_modelspec(changed, markers, metadata, expected):
    path = changed(lambda t: t.update({m: torch.empty(0) for m in markers}), metadata)
    facts = open_model(path, verify=False).facts
    found = facts.prediction
    counted = (found.prediction, found.zero_terminal_snr, found.source, len(found.notes))
    assert counted == expected
    assert facts.extra_keys == ()


@pytest.mark.parametrize(
    ("name", "sidecar", "metadata", "words"),
    [
        ("noobaiXL_vPred10Version", None, {}, "its name suggests"),
        ("noob-v-pred-1.0", None, {}, "its name suggests"),
        ("noob", 'model:\n  params:\n    parameterization: "v"\n', {}, "noob.yaml beside it says"),
        ("noob", 'model:\n  params:\n    parameterization: "eps"\n', {}, None),
        ("noob-vpred", None, {"modelspec.prediction_type": "epsilon"}, None),
        ("vprim", None, {}, None),
    ],
)
def test_what_only_suggests_v_prediction_is_told_and_decides_nothing(
    changed, tmp_path, name, sidecar, metadata, words
):
    path = changed(lambda tensors: None, metadata, name=f"{name}.safetensors")
    if sidecar is not None:
        (tmp_path / f"{name}.yaml").write_text(sidecar, encoding="utf-8")
    facts = open_model(path, verify=False).facts
    assert facts.prediction.prediction == "epsilon"
    assert facts.notes == facts.prediction.notes
    assert [words in note for note in facts.notes] == ([True] if words else [])


@pytest.mark.parametrize(
    ("metadata", "shift", "by_resolution"),
    [
        ({"aozora.flow_shift": "2.5", "aozora.flow_resolution_shift": "false"}, 2.5, False),
        ({"aozora.flow_shift": "2.5", "aozora.flow_resolution_shift": "true"}, 2.5, True),
        ({"aozora.flow_shift": "nan"}, None, None),
        ({"aozora.flow_shift": "-3"}, None, None),
        ({"aozora.flow_shift": "much"}, None, None),
        ({}, None, None),
    ],
)
def test_the_shift_of_a_flow_model_is_read(changed, metadata, shift, by_resolution):
    path = changed(lambda tensors: None, {"aozora.prediction": "flow", **metadata})
    found = open_model(path, verify=False).facts.prediction
    assert (found.flow_shift, found.flow_resolution_shift) == (shift, by_resolution)


FLOW_MATCH = {"_class_name": "FlowMatchEulerDiscreteScheduler"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, PredictionFacts("epsilon", False, "none")),
        ({"_class_name": "EulerDiscreteScheduler"}, PredictionFacts("epsilon", False, "scheduler")),
        (
            {"prediction_type": "epsilon", "rescale_betas_zero_snr": True},
            PredictionFacts("epsilon", False, "scheduler"),
        ),
        (FLOW_MATCH | {"shift": 2}, PredictionFacts("flow", False, "scheduler", flow_shift=2.0)),
        (
            FLOW_MATCH | {"shift": 2, "use_dynamic_shifting": True},
            PredictionFacts("flow", False, "scheduler"),
        ),
        (FLOW_MATCH, PredictionFacts("flow", False, "scheduler")),
    ],
)
def test_a_scheduler_says_what_it_says_and_no_more(config, expected):
    assert prediction_of_scheduler(config) == expected


def test_all_missing_and_misshapen_tensors_are_listed_by_file_key(changed):
    keys = [UNET + "time_embed.0.bias", UNET + "output_blocks.8.0.out_layers.3.weight"]

    def damage(tensors):
        for key in keys:
            del tensors[key]
        tensors[UNET + "out.0.bias"] = torch.zeros(7)

    with pytest.raises(ModelFileError) as caught:
        open_model(changed(damage))
    for text in (*keys, f"{UNET}out.0.bias: shape [7], [32] needed"):
        assert text in caught.value.message


def test_one_missing_text_encoder_tensor_is_refused(changed):
    key = TE1 + "encoder.layers.1.mlp.fc2.bias"
    with pytest.raises(ModelFileError, match=r"fc2\.bias"):
        open_model(changed(lambda tensors: tensors.pop(key)))


def test_tensors_that_sdxl_does_not_have_are_refused(changed):
    key = UNET + "input_blocks.9.0.op.weight"
    with pytest.raises(ModelFileError, match="no SDXL model has") as caught:
        open_model(changed(lambda t: t.update({UNET + "extra_block.weight": torch.zeros(3)})))
    assert "extra_block" in caught.value.message
    with pytest.raises(ModelFileError, match="refiner"):
        open_model(changed(lambda tensors: tensors.update({key: torch.zeros(3)})))


def test_a_deeper_model_than_its_sizes_say_is_refused(changed):
    def deepen(tensors):
        stem = UNET + "middle_block.1.transformer_blocks."
        for key in [key for key in tensors if key.startswith(stem + "1.")]:
            tensors[key.replace(stem + "1.", stem + "2.")] = tensors[key].clone()

    with pytest.raises(ModelFileError, match=r"unexpected: .*middle_block"):
        open_model(changed(deepen))


def test_unknown_tensors_and_averages_are_kept_and_noted(changed):
    extra = {"some.plugin": torch.arange(3), "model_ema.decay": torch.zeros(1)}
    facts = open_model(changed(lambda tensors: tensors.update(extra))).facts
    assert set(facts.extra_keys) == set(extra)
    assert any("some.plugin" in note for note in facts.notes)
    assert any("model_ema" in note for note in facts.notes)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantised_weights_are_refused_by_name(changed, dtype):
    def quantise(tensors):
        for key in [key for key in tensors if key.startswith(UNET)]:
            tensors[key] = tensors[key].to(dtype)

    with pytest.raises(ModelFileError, match=r"UNet are in the format (F8_E4M3|I8)"):
        open_model(changed(quantise))


def test_quantised_weights_with_scales_are_refused_as_such_not_as_another_architecture(changed):
    def quantise(tensors):
        fp8 = torch.float8_e4m3fn
        key = UNET + "time_embed.0.weight"
        tensors[key] = tensors[key].to(fp8)
        tensors[key.replace(".weight", ".scale_weight")] = torch.ones(())
        tensors[UNET + "scaled_fp8"] = torch.empty(2, dtype=fp8)

    with pytest.raises(ModelFileError, match="UNet are in the format F8_E4M3") as caught:
        open_model(changed(quantise))
    assert "quantised" in caught.value.hint


def test_missing_components_are_noted_and_named_when_needed(changed):
    source = open_model(changed(lambda tensors: dropped(tensors, VAE, "conditioner.")))
    assert not source.facts.has_vae
    assert source.facts.notes[0].startswith("missing: VAE, first text encoder")
    with pytest.raises(ModelFileError, match="has no VAE") as caught:
        source.component("vae")
    assert "model.vae" in caught.value.hint


def test_components_can_come_from_another_file(tiny_base, changed):
    bare = changed(lambda tensors: dropped(tensors, VAE, "conditioner."))
    source = open_model(bare, vae=str(tiny_base), text_encoders=tiny_base)
    assert source.facts.path == bare
    assert source.facts.components["vae"].path == tiny_base
    all_equal(source, open_model(tiny_base))


@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model."])
def test_a_vae_alone_is_read_in_every_spelling(tiny_base, tmp_path, prefix):
    tensors = {
        prefix + key.removeprefix(VAE): tensor
        for key, tensor in load_file(tiny_base).items()
        if key.startswith(VAE)
    }
    save_file(tensors, tmp_path / "vae.safetensors")
    source = open_model(tiny_base, vae=tmp_path / "vae.safetensors")
    assert source.component_hash("vae") == open_model(tiny_base).component_hash("vae")


def test_a_vae_of_other_latents_is_refused(changed, tiny_base):
    def widen(tensors):
        tensors[VAE + "decoder.conv_in.weight"] = torch.zeros(64, 32, 3, 3)

    with pytest.raises(ModelFileError, match="32 latent channels"):
        open_model(tiny_base, vae=changed(widen))


def test_text_encoders_of_another_width_are_refused(tiny_base, tmp_path):
    from aozora.model.synthetic import ModelSizes, write_random_base

    wide = tmp_path / "wide.safetensors"
    write_random_base(wide, ModelSizes(te1_width=192, vocabulary=200))
    with pytest.raises(ModelFileError, match="320 wide together, the UNet takes 192"):
        open_model(tiny_base, text_encoders=wide)


def test_the_hash_of_the_vae_is_that_of_its_encoder(changed, tiny_base):
    def touch(part):
        def change(tensors):
            tensors[VAE + part] = tensors[VAE + part] + 1

        return open_model(changed(change)).component_hash("vae")

    own = open_model(tiny_base).component_hash("vae")
    assert touch("decoder.conv_out.bias") == own
    assert touch("encoder.conv_in.bias") != own
    assert touch("quant_conv.bias") != own


def test_fingerprints_tell_models_apart(changed, tiny_base):
    def train(tensors):
        tensors[CONV_IN] = tensors[CONV_IN] * 1.01

    own = open_model(tiny_base).fingerprint()
    assert own == open_model(tiny_base).fingerprint()
    assert open_model(changed(train)).fingerprint() != own


@pytest.fixture(scope="module")
def folder(tiny_base, tmp_path_factory):
    """The base as diffusers and transformers save it, the UNet in several files."""
    from aozora.model.loading import load_text_encoders, load_unet, load_vae
    from aozora.model.sizes import packaged_config

    path = tmp_path_factory.mktemp("folder")
    source = open_model(tiny_base)
    half = torch.float16
    load_unet(source, half).save_pretrained(path / "unet", max_shard_size="5MB")
    load_vae(source, half).save_pretrained(path / "vae")
    te1, te2 = load_text_encoders(source, half)
    te1.save_pretrained(path / "text_encoder")
    te2.save_pretrained(path / "text_encoder_2")
    index = packaged_config("model_index.json")
    (path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    (path / "scheduler").mkdir()
    scheduler = packaged_config("scheduler_config.json")
    scheduler |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    text = json.dumps(scheduler)
    (path / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
    assert (path / "unet" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    return path


def test_a_diffusers_folder_is_the_same_model(folder, tiny_base):
    source = open_model(folder)
    assert source.facts.layout == "diffusers"
    assert source.facts.prediction.prediction == "v_prediction"
    assert source.facts.prediction.zero_terminal_snr
    all_equal(source, open_model(tiny_base))
    assert source.component_hash("te2") == open_model(tiny_base).component_hash("te2")


def test_the_vae_of_a_folder_can_be_used(folder, tiny_base):
    for path in (folder, folder / "vae"):
        source = open_model(tiny_base, vae=path)
        assert source.facts.components["vae"].path == path


def test_parts_from_elsewhere_are_not_part_of_a_folder_as_base(folder, tiny_base):
    plain = open_model(folder)
    source = open_model(folder, vae=tiny_base, text_encoders=tiny_base)
    assert source.fingerprint() == plain.fingerprint()
    assert source.facts.num_bytes == plain.facts.num_bytes
    assert source.facts.header_hash == plain.facts.header_hash
    assert plain.facts.num_bytes == sum(
        path.stat().st_size for path in folder.rglob("*.safetensors")
    )


def test_the_names_of_old_folders_are_read(folder, tmp_path, tiny_base):
    """Earlier releases wrote text_model. for encoder 1, and other names of the VAE's attention."""
    import shutil

    old = tmp_path / "old"
    shutil.copytree(folder, old)
    path = old / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(path).items()}
    save_file(tensors, path)
    path = old / "vae" / "diffusion_pytorch_model.safetensors"
    words = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }
    tensors = {}
    for key, tensor in load_file(path).items():
        for new, word in words.items():
            key = key.replace(new, word)
        tensors[key] = tensor
    save_file(tensors, path)
    all_equal(open_model(old), open_model(tiny_base))


def test_a_folder_that_points_outside_or_holds_pickles_is_refused(folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    index = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../vae/x.safetensors"}}), encoding="utf-8")
    with pytest.raises(ModelFileError, match="not a file beside it"):
        open_model(copy)
    index.unlink()
    for path in (copy / "unet").glob("*.safetensors"):
        path.unlink()
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"only \.bin files"):
        open_model(copy)
    with pytest.raises(ModelFileError, match=r"no model_index\.json"):
        open_model(copy / "unet")


@pytest.mark.parametrize("name", ["EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"])
def test_a_folder_whose_scheduler_is_an_edm_one_is_refused_by_name(
    folder, tmp_path, tiny_base, name
):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    scheduler = json.dumps({"_class_name": name, "prediction_type": "epsilon"})
    (copy / "scheduler" / "scheduler_config.json").write_text(scheduler, encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"Playground 2\.5 or another EDM model") as caught:
        open_model(copy)
    assert str(copy) in caught.value.message
    assert "not supported" in caught.value.hint
    # Its other parts are SDXL's own.
    all_equal(open_model(tiny_base, text_encoders=copy), open_model(tiny_base))


def test_every_readable_format_has_a_torch_dtype():
    assert {"F16", "BF16", "F32"} <= TORCH_DTYPES.keys()
