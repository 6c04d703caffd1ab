from __future__ import annotations

import pytest

from aozora.errors import ModelFileError
from aozora.model.identify import ModelKind, identify
from aozora.model.opening import open_model
from aozora.model.safetensors_header import Header, TensorInfo

UNET = "model.diffusion_model."
CONV_IN = UNET + "input_blocks.0.0.weight"
CONV_OUT = UNET + "out.2.weight"
LABEL = UNET + "label_emb.0.0.weight"
CONTEXT = UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
SDXL = {CONV_IN: (320, 4, 3, 3), CONV_OUT: (4, 320, 3, 3), LABEL: (1280, 2816)}


def header_of(shapes):
    infos = {key: TensorInfo(key, "F16", tuple(shape), 0, 0) for key, shape in shapes.items()}
    return Header(infos, {}, b"", 0)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        (ModelKind.SDXL, SDXL),
        (ModelKind.SDXL_INPAINTING, {**SDXL, CONV_IN: (320, 9, 3, 3)}),
        (
            ModelKind.SDXL_OTHER_LATENTS,
            {**SDXL, CONV_IN: (320, 32, 3, 3), CONV_OUT: (32, 320, 3, 3)},
        ),
        (ModelKind.SDXL_OTHER_LATENTS, {**SDXL, CONV_IN: (320, 8, 3, 3)}),
        (ModelKind.SDXL_REFINER, {**SDXL, UNET + "input_blocks.9.0.op.weight": (8,)}),
        (ModelKind.PLAYGROUND, {**SDXL, "edm_mean": (1, 4), "edm_std": (1, 4)}),
        (ModelKind.EDM_V_PREDICTION, {**SDXL, "edm_vpred.sigma_max": ()}),
        (
            ModelKind.SD15,
            {CONV_IN: (320, 4, 3, 3), "cond_stage_model.transformer.text_model.x": (1,)},
        ),
        (ModelKind.SD15, {CONV_IN: (320, 4, 3, 3), CONTEXT: (320, 768)}),
        (ModelKind.SD2, {CONV_IN: (320, 4, 3, 3), CONTEXT: (320, 1024)}),
        (ModelKind.SD2, {CONV_IN: (320, 4, 3, 3), "cond_stage_model.model.ln_final.bias": (4,)}),
        (ModelKind.FLUX, {"double_blocks.0.img_attn.qkv.weight": (4, 4)}),
        (ModelKind.FLUX, {UNET + "double_blocks.0.img_attn.qkv.weight": (4, 4)}),
        (ModelKind.SD3, {UNET + "joint_blocks.0.context_block.attn.qkv.weight": (4, 4)}),
        (ModelKind.LORA, {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": (4, 64)}),
        (ModelKind.LORA, {"unet.down_blocks.1.attn.to_q.lora_A.weight": (4, 64)}),
        (ModelKind.LORA, {"lora_unet_x.hada_w1_a": (4, 64)}),
        (ModelKind.CONTROLNET, {"control_model.input_blocks.0.0.weight": (4,)}),
        (ModelKind.DIFFUSERS_UNET, {"conv_in.weight": (4,), "down_blocks.0.x": (4,)}),
        (ModelKind.VAE, {"first_stage_model.encoder.conv_in.weight": (4,)}),
        (ModelKind.VAE, {"encoder.conv_in.weight": (4,), "decoder.conv_in.weight": (4,)}),
        (ModelKind.TEXT_ENCODER, {"text_model.embeddings.token_embedding.weight": (4,)}),
        (ModelKind.EMBEDDING, {"clip_l": (1, 768), "clip_g": (1, 1280)}),
        (ModelKind.OTHER_TRANSFORMER, {"transformer_blocks.0.attn.to_q.weight": (4,)}),
        (ModelKind.UNKNOWN, {"something": (4,)}),
        (ModelKind.UNKNOWN, {}),
    ],
)
def test_each_kind_of_file_is_told_by_its_tensors(kind, shapes):
    assert identify(header_of(shapes)) is kind


def test_the_published_model_is_sdxl(published_shapes):
    assert identify(header_of(published_shapes)) is ModelKind.SDXL


def test_a_lora_as_base_is_named_and_refused(tmp_path):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "style.safetensors"
    save_file({"lora_unet_mid_block.lora_up.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(ModelFileError, match=r"style\.safetensors is a LoRA") as caught:
        open_model(path)
    assert "base model that the LoRA was made for" in caught.value.hint
