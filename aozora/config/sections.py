"""The sections of a configuration. Each setting is declared here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aozora.config.choices.distributions import (
    Beta,
    Custom,
    HighNoise,
    LogitNormal,
    Uniform,
    Wave,
)
from aozora.config.choices.losses import Huber, Mse
from aozora.config.choices.predictions import AutoPrediction, Epsilon, Flow, VPrediction
from aozora.config.choices.weightings import MinSnr, NoWeighting
from aozora.config.fields import setting
from aozora.config.lr_schedule import LrSchedule
from aozora.config.ticket_segments import OnResume

Attention = Literal["auto", "sdpa", "flash", "xformers"]
Precision = Literal["bf16", "fp32", "fp16"]
Device = Literal["auto", "cuda", "cpu"]
StoredDtype = Literal["fp16", "fp32"]
FileDtype = Literal["base", "fp16", "bf16", "fp32"]
Switch = Literal["auto", "on", "off"]
LayerSet = Literal["all", "attention", "input_and_middle", "no_resnet_convs"]
NullCaption = Literal["empty", "zeros"]
Coverage = Literal["shuffled", "stratified"]
WeightPlace = Literal["auto", "resident", "streamed"]
Place = Literal["auto", "device", "host"]
Recompute = Literal["auto", "all", "none"]
SumFormat = Literal["float32", "bfloat16"]
Bins = Literal[10, 20, 25, 40, 50, 100]


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Which model is trained."""

    base: str = setting(
        "",
        label="Base model",
        help="SDXL model to fine-tune: a .safetensors file, or a folder in diffusers layout.",
        path="model",
    )
    vae: str = setting(
        "",
        label="VAE",
        help="File or folder to take the VAE from, also for the models that are saved; empty uses"
        " the one in the base model.",
        path="model",
    )
    text_encoders: str = setting(
        "",
        label="Text encoders",
        help="File or folder to take both text encoders from, also for the models that are saved;"
        " empty uses those in the base model.",
        path="model",
    )
    tokenizer: str = setting(
        "",
        label="Tokenizer folder",
        help="Folder with vocab.json and merges.txt; empty uses the installed standard vocabulary.",
        path="folder",
        expert=True,
    )
    vae_scale: float = setting(
        0.0,
        label="VAE scale",
        help="Factor that brings the VAE's latents to unit size; 0 takes the model's own, which is"
        " 0.13025 for every SDXL VAE.",
        minimum=0.0,
        maximum=10.0,
        expert=True,
    )
    vae_shift: float = setting(
        0.0,
        label="VAE shift",
        help="Value subtracted from latents before scaling; 0 for every standard SDXL VAE.",
        minimum=-10.0,
        maximum=10.0,
        expert=True,
    )
    attention: Attention = setting(
        "auto",
        label="Attention",
        help="Attention kernel. Auto takes PyTorch's own, which works on every card.",
        value_labels=(
            ("auto", "Automatic"),
            ("sdpa", "PyTorch SDPA"),
            ("flash", "FlashAttention 2 (RTX 30 and newer)"),
            ("xformers", "xFormers"),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """One folder of pictures."""

    path: str = setting(
        "", label="Folder", help="Folder with pictures and their captions.", path="folder"
    )
    repeats: int = setting(
        1,
        label="Repeats",
        help="How often each picture of this folder is drawn in an epoch.",
        minimum=1,
        maximum=10_000,
    )


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Where the pictures are."""

    folders: tuple[DataFolder, ...] = setting(
        (), label="Folders", help="Folders with pictures, each with its number of repeats."
    )
    recursive: bool = setting(
        True, label="Include subfolders", help="Also take pictures from folders inside."
    )
    background: str = setting(
        "#ffffff",
        label="Background",
        help="Colour put behind transparent pictures, as #rrggbb.",
    )
    max_megapixels: int = setting(
        250,
        label="Largest picture",
        help="Pictures with more pixels than this are left out and listed.",
        unit="megapixels",
        minimum=1,
        maximum=2000,
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class BucketsSection:
    """Sizes at which pictures are trained."""

    resolution: int = setting(
        1024,
        label="Resolution",
        help="Pictures are trained at about the area of a square with this side.",
        unit="px",
        minimum=64,
        maximum=4096,
    )
    min_side: int = setting(
        512,
        label="Shortest side",
        help="No bucket is narrower.",
        unit="px",
        minimum=64,
        maximum=4096,
    )
    max_side: int = setting(
        2048, label="Longest side", help="No bucket is longer.", unit="px", minimum=64, maximum=8192
    )
    step: int = setting(
        64,
        label="Side step",
        help="Bucket sides are multiples of this; 64 is what SDXL was trained with.",
        unit="px",
        minimum=32,
        maximum=256,
        expert=True,
    )
    upscale: bool = setting(
        False,
        label="Enlarge small pictures",
        help="Scale pictures below the resolution up instead of training them at their own size.",
    )


@dataclass(frozen=True, kw_only=True)
class CaptionsSection:
    """How captions condition the model."""

    tokens: Literal[75, 150, 225] = setting(
        75,
        label="Caption length",
        help="Longest caption that is read in full. Longer ones need more memory for the cache.",
        unit="tokens",
    )
    dropout: float = setting(
        0.1,
        label="Caption dropout",
        help="Share of samples trained without their caption, which guidance (CFG) relies on.",
        minimum=0.0,
        maximum=1.0,
    )
    null: NullCaption = setting(
        "empty",
        label="Dropped captions become",
        help="What stands in for a dropped caption. ComfyUI and Forge sample with the empty text.",
        value_labels=(("empty", "The empty text"), ("zeros", "Zeros (diffusers' default)")),
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class CacheSection:
    """Encoded pictures and captions kept on disk."""

    folder: str = setting(
        "",
        label="Cache folder",
        help="Where encoded pictures and captions are kept; empty uses your user cache folder.",
        path="folder",
    )
    latents: StoredDtype = setting(
        "fp16", label="Latents stored as", help="fp16 halves the size; fp32 is exact.", expert=True
    )
    text: StoredDtype = setting(
        "fp16",
        label="Text stored as",
        help="fp16 halves the size; fp32 is exact.",
        expert=True,
    )
    vae_batch: int = setting(
        1,
        label="Pictures encoded at once",
        help="More is faster while caching and needs more memory.",
        unit="pictures",
        minimum=1,
        maximum=64,
        expert=True,
    )
    text_batch: int = setting(
        8,
        label="Captions encoded at once",
        help="More is faster while caching and needs more memory.",
        unit="captions",
        minimum=1,
        maximum=256,
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class ObjectiveSection:
    """What the model learns to predict."""

    prediction: AutoPrediction | Epsilon | VPrediction | Flow = setting(
        AutoPrediction(),
        label="Prediction",
        help="What the model predicts. Automatic reads it from the base model.",
    )
    zero_terminal_snr: Switch = setting(
        "auto",
        label="Zero terminal SNR",
        help="Noise schedule that ends in pure noise. Automatic reads it from the base model.",
        value_labels=(("auto", "Automatic"), ("on", "On"), ("off", "Off")),
    )


@dataclass(frozen=True, kw_only=True)
class TimestepsSection:
    """How often each noise level is trained."""

    distribution: Uniform | LogitNormal | Beta | Wave | HighNoise | Custom = setting(
        Uniform(),
        label="Distribution",
        help="Relative share of the noise levels, from fine detail (0) to pure noise (999).",
    )
    bins: Bins = setting(
        20, label="Bars", help="Number of bars the noise levels are divided into.", unit="bins"
    )
    coverage: Coverage = setting(
        "stratified",
        label="Order of draws",
        help="Stratified spreads every bar evenly over the run; shuffled leaves it to chance.",
        value_labels=(("shuffled", "Shuffled"), ("stratified", "Stratified")),
    )
    on_resume: OnResume = setting(
        "rebuild",
        label="On resuming",
        help="What a run draws that is resumed with another pool or length: new tickets for the"
        " samples left, or first the tickets left of the pool it had.",
        value_labels=(("rebuild", "New tickets"), ("finish", "Finish the old pool first")),
    )
    minimum: int = setting(
        0,
        label="Lowest timestep",
        help="Noise levels below are not trained (before the shift of rectified flow).",
        minimum=0,
        maximum=999,
        expert=True,
    )
    maximum: int = setting(
        999,
        label="Highest timestep",
        help="Noise levels above are not trained (before the shift of rectified flow).",
        minimum=0,
        maximum=999,
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class LossSection:
    """How errors are counted."""

    function: Mse | Huber = setting(
        Mse(), label="Loss", help="How the difference between prediction and target is measured."
    )
    weighting: NoWeighting | MinSnr = setting(
        NoWeighting(), label="Weighting", help="How much each noise level counts."
    )


@dataclass(frozen=True, kw_only=True)
class ScheduleSection:
    """The learning rate over the run."""

    learning_rate: LrSchedule = setting(
        LrSchedule(),
        label="Learning-rate curve",
        help="Points (place in the run 0 to 1, learning rate, shape to the next point); shapes are"
        " log, linear, cosine and hold.",
    )


@dataclass(frozen=True, kw_only=True)
class TargetsSection:
    """Which layers are trained."""

    layers: LayerSet = setting(
        "all",
        label="Layers",
        help="Named set of UNet layers to train.",
        value_labels=(
            ("all", "All layers"),
            ("attention", "Attention only"),
            ("input_and_middle", "Input and middle blocks"),
            ("no_resnet_convs", "All but the resnet convolutions"),
        ),
    )
    blocks: tuple[str, ...] = setting(
        (),
        label="Blocks",
        help="Only these blocks, such as down_blocks.1 or mid_block; empty means every block.",
        expert=True,
    )
    include: tuple[str, ...] = setting(
        (),
        label="Also train",
        help="Patterns of parameter names to add; * stands for anything.",
        expert=True,
    )
    exclude: tuple[str, ...] = setting(
        (),
        label="Do not train",
        help="Patterns of parameter names to leave out; * stands for anything.",
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSection:
    """The run itself."""

    seed: int = setting(
        42,
        label="Seed",
        help="Decides order, noise and every other chance of the run.",
        minimum=0,
        maximum=2**53,
    )
    steps: int = setting(
        2000,
        label="Steps",
        help="Length of the run in optimizer steps; not used when epochs are set.",
        unit="steps",
        minimum=1,
        maximum=100_000_000,
    )
    epochs: float = setting(
        0.0,
        label="Epochs",
        help="Length of the run in passes over the pictures; 0 uses steps.",
        unit="epochs",
        minimum=0.0,
        maximum=1_000_000.0,
    )
    batch_size: int = setting(
        1,
        label="Batch size",
        help="Samples trained at once.",
        unit="samples",
        minimum=1,
        maximum=256,
    )
    accumulation_steps: int = setting(
        4,
        label="Accumulation",
        help="Batches whose gradients are added up before the weights move.",
        unit="batches",
        minimum=1,
        maximum=4096,
    )
    clip_norm: float = setting(
        1.0,
        label="Gradient clipping",
        help="Largest norm of all gradients together; 0 turns clipping off.",
        minimum=0.0,
        maximum=1_000_000.0,
    )
    precision: Precision = setting(
        "bf16",
        label="Precision",
        help="Number format of the model on the device. Weights learn in exact float32 either way.",
        value_labels=(
            ("bf16", "bf16 (RTX 30 and newer)"),
            ("fp16", "fp16 (RTX 20)"),
            ("fp32", "fp32"),
        ),
    )
    device: Device = setting(
        "auto",
        label="Device",
        help="Where the model is trained. Automatic takes the graphics card when there is one.",
        value_labels=(("auto", "Automatic"), ("cuda", "Graphics card"), ("cpu", "Processor")),
        expert=True,
    )
    max_skipped_steps: int = setting(
        5,
        label="Bad steps before stopping",
        help="The run stops after this many steps in a row without finite numbers.",
        unit="steps",
        minimum=1,
        maximum=1000,
        expert=True,
    )
    prefetch_batches: int = setting(
        4,
        label="Batches prepared ahead",
        help="Batches read and prepared in the background.",
        unit="batches",
        minimum=1,
        maximum=64,
        expert=True,
    )
    deterministic: bool = setting(
        False,
        label="Same bits on a graphics card",
        help="Uses only kernels that repeat exactly; about a quarter slower. On the processor a run"
        " always repeats exactly.",
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class MemorySection:
    """Where everything lives while training; what fits is found out by itself."""

    vram_limit: float = setting(
        0.0,
        label="Graphics memory",
        help="Most graphics memory to use, all of it counted; 0 takes what the card has.",
        unit="GiB",
        minimum=0.0,
        maximum=1024.0,
    )
    ram_limit: float = setting(
        0.0,
        label="Main memory",
        help="Most main memory to use; 0 takes what the computer has.",
        unit="GiB",
        minimum=0.0,
        maximum=65_536.0,
    )
    pinned_limit: float = setting(
        0.0,
        label="Page-locked memory",
        help="Most main memory to lock for fast copies; 0 takes 40% of it on Windows, which allows"
        " no more than half, and 70% elsewhere.",
        unit="GiB",
        minimum=0.0,
        maximum=65_536.0,
        expert=True,
    )
    weights: WeightPlace = setting(
        "auto",
        label="Weights",
        help="Streamed weights wait in main memory and pass through the card block by block.",
        value_labels=(
            ("auto", "Automatic"),
            ("resident", "On the card"),
            ("streamed", "Streamed from main memory"),
        ),
        expert=True,
    )
    gradients: Place = setting(
        "auto",
        label="Gradients",
        help="Where gradients wait until the weights move.",
        value_labels=(("auto", "Automatic"), ("device", "On the card"), ("host", "Main memory")),
        expert=True,
    )
    states: Place = setting(
        "auto",
        label="Optimizer states",
        help="Where the optimizer's states live. Automatic keeps as many on the card as fit.",
        value_labels=(("auto", "Automatic"), ("device", "On the card"), ("host", "Main memory")),
        expert=True,
    )
    recompute: Recompute = setting(
        "auto",
        label="Recomputation",
        help="Computing activations twice saves most of their memory and costs up to a quarter of"
        " the time. Automatic stores as many as fit.",
        value_labels=(
            ("auto", "Automatic"),
            ("all", "Everything (smallest)"),
            ("none", "Nothing (fastest)"),
        ),
        expert=True,
    )
    sum_format: SumFormat = setting(
        "float32",
        label="Gradient sums",
        help="Format of gradients parked between batches. bfloat16 halves their main memory and"
        " traffic, with an error of 0.3 to 0.7% at 4 to 32 batches.",
        value_labels=(("float32", "float32"), ("bfloat16", "bfloat16 (half the memory)")),
    )
    clip_by_last_norm: bool = setting(
        False,
        label="Clip by the previous step's norm",
        help="Moves each layer as soon as its gradient is there, which needs no room for gradients"
        " at all. Clipping goes by the norm of the step before, so the first step is not clipped;"
        " the true norm is still recorded. Needs an accumulation of 1.",
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class CheckpointsSection:
    """When the model and the state of the run are saved."""

    every_steps: int = setting(
        500,
        label="Save every",
        help="Optimizer steps between saves; 0 turns this off.",
        unit="steps",
        minimum=0,
        maximum=100_000_000,
    )
    every_epochs: float = setting(
        0.0,
        label="Save every",
        help="Epochs between saves; 0 turns this off.",
        unit="epochs",
        minimum=0.0,
        maximum=100_000.0,
    )
    keep_last: int = setting(
        3,
        label="Keep",
        help="Newest saves that stay; older ones of this run are deleted. 0 keeps all.",
        unit="saves",
        minimum=0,
        maximum=10_000,
    )
    dtype: FileDtype = setting(
        "base",
        label="File format",
        help="Number format of trained weights in the model file; base keeps the base model's.",
        value_labels=(
            ("base", "As in the base model"),
            ("fp16", "fp16"),
            ("bf16", "bf16"),
            ("fp32", "fp32"),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class ValidationSection:
    """Measuring the loss on pictures that are not trained."""

    pictures: int = setting(
        0,
        label="Held-out pictures",
        help="Pictures kept out of training to measure the loss on; 0 turns validation off.",
        unit="pictures",
        minimum=0,
        maximum=10_000,
    )
    every_steps: int = setting(
        250,
        label="Measure every",
        help="Optimizer steps between measurements; also done at the start and the end.",
        unit="steps",
        minimum=1,
        maximum=100_000_000,
    )
    timesteps: int = setting(
        10,
        label="Noise levels",
        help="Number of noise levels each held-out picture is measured at.",
        minimum=1,
        maximum=100,
        expert=True,
    )


@dataclass(frozen=True, kw_only=True)
class OutputSection:
    """Where results go."""

    folder: str = setting(
        "output",
        label="Output folder",
        help="Folder for saved models (checkpoints) and run records (runs).",
        path="folder",
    )
    name: str = setting(
        "aozora", label="Name", help="Beginning of the names of everything this run writes."
    )


@dataclass(frozen=True, kw_only=True)
class LoggingSection:
    """What is recorded beside the event log every run has."""

    tensorboard: bool = setting(
        True, label="TensorBoard files", help="Write TensorBoard files into the run's folder."
    )
    wandb: Literal["off", "offline", "online"] = setting(
        "off",
        label="Weights & Biases",
        help="Also record to Weights & Biases (needs the wandb package).",
        value_labels=(("off", "Off"), ("offline", "Offline"), ("online", "Online")),
        expert=True,
    )
    diagnostics_every: int = setting(
        0,
        label="Optimizer diagnostics every",
        help="Optimizer steps between reports on how far the weights move; 0 turns them off.",
        unit="steps",
        minimum=0,
        maximum=1_000_000,
        expert=True,
    )
