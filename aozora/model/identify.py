"""Which model a file holds, told from the names and shapes of its tensors.

Trainers are handed every kind of .safetensors file as a base. Each kind that is not an SDXL base
model is named, with what to use instead, rather than failing later in some layer.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from aozora.errors import ModelFileError
from aozora.model.safetensors_header import Header

UNET = "model.diffusion_model."
_CONV_IN = UNET + "input_blocks.0.0.weight"
_CONV_OUT = UNET + "out.2.weight"
_LABEL_EMB = UNET + "label_emb.0.0.weight"
_LORA_MARKS = (
    ".lora_down.",
    ".lora_up.",
    ".lora_A.",
    ".lora_B.",
    ".hada_w1_a",
    ".lokr_w1",
    ".lokr_w2",
    ".dora_scale",
    ".oft_blocks",
)
_SDXL_CONTEXT = 2048
_SD2_CONTEXT = 1024


class ModelKind(Enum):
    """Kinds of model files; the value says what it is in a sentence."""

    SDXL = "an SDXL base model"
    SDXL_REFINER = "the SDXL refiner"
    SDXL_INPAINTING = "an SDXL inpainting model (9 input channels)"
    SDXL_OTHER_LATENTS = "an SDXL variant for another VAE"
    PLAYGROUND = "Playground 2.5 or another EDM model"
    EDM_V_PREDICTION = "an SDXL variant with EDM sigmas (as CosXL)"
    SD15 = "a Stable Diffusion 1.x model"
    SD2 = "a Stable Diffusion 2.x model"
    SD3 = "a Stable Diffusion 3 model"
    FLUX = "a Flux model"
    CASCADE = "a Stable Cascade model"
    OTHER_TRANSFORMER = "a diffusion transformer, not a UNet"
    LORA = "a LoRA"
    EMBEDDING = "a textual inversion embedding"
    CONTROLNET = "a ControlNet or adapter"
    DIFFUSERS_UNET = "a UNet alone in diffusers' naming"
    VAE = "a VAE alone"
    TEXT_ENCODER = "a text encoder alone"
    TRAINING_STATE = "a training state, not a model"
    UNKNOWN = "no model that is known here"


_BASE_NEEDED = "an SDXL base model is needed, such as sd_xl_base_1.0.safetensors"

_REMEDIES: dict[ModelKind, str] = {
    ModelKind.LORA: "use the base model that the LoRA was made for",
    ModelKind.VAE: "give it as model.vae, and an SDXL base model as model.base",
    ModelKind.TEXT_ENCODER: "an SDXL base model holds the UNet too; use one",
    ModelKind.DIFFUSERS_UNET: (
        "name the model's whole diffusers folder (the one with model_index.json) "
        "or a single-file version"
    ),
    ModelKind.SDXL_INPAINTING: "inpainting models are not supported yet; use the plain base model",
    ModelKind.SDXL_REFINER: "the refiner is not supported; use the base model",
    ModelKind.SDXL_OTHER_LATENTS: "only 4 latent channels are supported",
    ModelKind.PLAYGROUND: "EDM models are not supported yet",
    ModelKind.EDM_V_PREDICTION: "EDM models are not supported yet",
}


def refuse_kind(path: object, kind: ModelKind, detail: str = "") -> ModelFileError:
    """Return the error that says what ``path`` is instead of an SDXL base model."""
    extra = f" ({detail})" if detail else ""
    return ModelFileError(f"{path} is {kind.value}{extra}", _REMEDIES.get(kind, _BASE_NEEDED))


def identify(header: Header) -> ModelKind:
    """Return which kind of model the file of ``header`` holds."""
    keys = header.tensors.keys()
    if any(mark in key for key in keys for mark in _LORA_MARKS):
        return ModelKind.LORA
    if UNET + "input_blocks.0.0.weight" in keys:
        return _identify_unet(header)
    return _identify_without_unet(keys)


def unet_channels(header: Header) -> tuple[int, int]:
    """Return how many latent channels the UNet takes and gives (0 if unknown)."""
    conv_in, conv_out = header.tensors.get(_CONV_IN), header.tensors.get(_CONV_OUT)
    taken = conv_in.shape[1] if conv_in is not None and len(conv_in.shape) == 4 else 0
    given = conv_out.shape[0] if conv_out is not None and len(conv_out.shape) == 4 else 0
    return taken, given


def _starts(keys: Collection[str], *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for key in keys)


def _context_width(header: Header) -> int:
    for key, info in header.tensors.items():
        if key.startswith(UNET) and key.endswith("attn2.to_k.weight") and len(info.shape) == 2:
            return info.shape[1]
    return 0


def _identify_unet(header: Header) -> ModelKind:
    keys = header.tensors.keys()
    if _LABEL_EMB not in keys:
        return _identify_older(header)
    if _starts(keys, UNET + "input_blocks.9.", "conditioner.embedders.0.model."):
        return ModelKind.SDXL_REFINER
    if "edm_mean" in keys or "edm_std" in keys:
        return ModelKind.PLAYGROUND
    if _starts(keys, "edm_vpred."):
        return ModelKind.EDM_V_PREDICTION
    taken, given = unet_channels(header)
    if (taken, given) == (9, 4):
        return ModelKind.SDXL_INPAINTING
    if taken not in (0, 4) or given not in (0, 4):
        return ModelKind.SDXL_OTHER_LATENTS
    return ModelKind.SDXL


def _identify_older(header: Header) -> ModelKind:
    """Tell apart models whose UNet has no size conditioning."""
    keys = header.tensors.keys()
    if _starts(keys, "cond_stage_model.model."):
        return ModelKind.SD2
    if _starts(keys, "cond_stage_model.transformer."):
        return ModelKind.SD15
    if _starts(keys, "conditioner.") or _context_width(header) == _SDXL_CONTEXT:
        # An SDXL file that lost tensors: the missing ones are named when it is opened.
        return ModelKind.SDXL
    return ModelKind.SD2 if _context_width(header) == _SD2_CONTEXT else ModelKind.SD15


def _identify_without_unet(keys: Collection[str]) -> ModelKind:
    bare = [key.removeprefix(UNET).removeprefix("model.") for key in keys]
    rules: list[tuple[ModelKind, bool]] = [
        (ModelKind.CONTROLNET, _starts(keys, "control_model.", "controlnet_", "ip_adapter.")),
        (ModelKind.CONTROLNET, _starts(keys, "image_proj.", "controlnet_cond_embedding.")),
        (ModelKind.FLUX, _starts(bare, "double_blocks.", "single_transformer_blocks.")),
        (ModelKind.SD3, _starts(bare, "joint_blocks.")),
        (ModelKind.CASCADE, _starts(bare, "down_blocks.0.0.channelwise.", "clip_txt_mapper.")),
        (ModelKind.DIFFUSERS_UNET, "conv_in.weight" in keys and _starts(keys, "down_blocks.")),
        (ModelKind.SDXL, _starts(keys, UNET + "input_blocks.", UNET + "time_embed.")),
        (ModelKind.SDXL, _starts(keys, UNET + "middle_block.", UNET + "output_blocks.")),
        (ModelKind.OTHER_TRANSFORMER, _starts(bare, "transformer_blocks.", "blocks.0.")),
        (ModelKind.OTHER_TRANSFORMER, _starts(bare, "x_embedder.", "layers.0.attention.")),
        (ModelKind.VAE, _starts(keys, "first_stage_model.", "vae.", "encoder.conv_in.")),
        (ModelKind.TEXT_ENCODER, _starts(keys, "conditioner.", "cond_stage_model.", "text_model.")),
        (ModelKind.TEXT_ENCODER, _starts(keys, "transformer.resblocks.", "encoder.layers.")),
        (ModelKind.EMBEDDING, bool(keys) and all(k in _EMBEDDING_KEYS for k in keys)),
        (ModelKind.TRAINING_STATE, _starts(keys, "optimizer.", "exp_avg", "state.")),
    ]
    return next((kind for kind, holds in rules if holds), ModelKind.UNKNOWN)


_EMBEDDING_KEYS = ("clip_l", "clip_g", "emb_params")
