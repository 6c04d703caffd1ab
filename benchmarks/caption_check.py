"""Do captions matter? Train the demo's model longer, then ask.

Held-out loss with the true captions against captions of another class, and pictures sampled by
diffusers' own pipeline from the saved file against the mean picture of each class.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from aozora.api import RunControl, train
from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.console import ConsolePrinter
from aozora.data.batch_plan import PlannedBatch
from aozora.data.loader import BatchLoader
from aozora.demo.base_model import write_demo_base
from aozora.demo.pictures import BACKGROUNDS, CLASSES, COLOURS, class_of, draw_pictures
from aozora.demo.run import demo_config
from aozora.diffusion.timesteps import validation_grid
from aozora.events import CheckpointSaved, Event, StepCompleted
from aozora.model.config_folder import write_diffusers_config_folder
from aozora.model.loading import load_unet
from aozora.model.opening import open_model
from aozora.model.tokenizers import load_tokenizer
from aozora.training.batches import Dropout, validation_batch
from aozora.training.inputs import Encoders, Pictures, find_pictures
from aozora.training.objective_choice import choose_objective
from aozora.training.step import predict

SETTINGS = (
    "training.device=auto",
    "training.precision=bf16",
    "training.batch_size=48",
    "optimizer=adamw",
    "objective.prediction=v_prediction",
    "objective.zero_terminal_snr=on",
    "validation.pictures=32",
    "validation.every_steps=100000",
    'schedule.learning_rate=[[0, 1e-4, "log"], [0.05, 8e-4, "hold"],'
    ' [0.5, 8e-4, "cosine"], [1, 2e-5]]',
)
NUM_DRAWS = 32
GUIDANCES = (1.0, 2.0)
SAMPLER_STEPS = 40


def held_out_losses(
    config: TrainConfig, model: Path, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses by timestep with true captions and with captions of other classes."""
    config = apply_settings(config, [f"model.base={model}"])
    with open_model(model) as source:
        pictures = find_pictures(config)
        encoders = Encoders(config, source, device, lambda event: None, RunControl())
        encoders.encode_text(pictures)
        encoders.encode_pictures(pictures)
        objective = choose_objective(config.objective, source.facts.prediction).make()
        loader = encoders.loader(pictures.held_out)
        dropout = Dropout.of(config.captions, loader)
        unet = load_unet(source, torch.float32, device)
        grid = validation_grid(10)
        classes = [class_of(item.record.caption) for item in pictures.held_out]
        true, wrong = [], []
        for item in range(len(classes)):
            batch = validation_batch(loader.load, item, grid, objective, dropout, 0)
            others = [k for k in range(len(classes)) if classes[k] != classes[item]]
            other = loader.load(PlannedBatch(0, (others[item % len(others)],), 0))
            count = len(grid)
            swapped = replace(
                batch,
                prompt_embeds=other.prompt_embeds.expand(count, -1, -1),
                pooled_prompt_embeds=other.pooled_prompt_embeds.expand(count, -1),
            )
            with torch.no_grad():
                for losses, part in ((true, batch), (wrong, swapped)):
                    pred, target = predict(unet, part.to(device), objective, torch.float32)
                    losses.append(((pred - target) ** 2).flatten(1).mean(1).cpu())
    return torch.stack(true).mean(0), torch.stack(wrong).mean(0)


def class_means(loader: BatchLoader, pictures: Pictures, side: int) -> torch.Tensor:
    """Return the mean latents of each class over the square pictures, (classes, C, H, W)."""
    sums: dict[int, list[torch.Tensor]] = {}
    for index, item in enumerate(pictures.trained):
        if (item.fit.height, item.fit.width) == (side, side):
            latents = loader.load(PlannedBatch(0, (index,), 0)).latents[0]
            sums.setdefault(class_of(item.record.caption), []).append(latents)
    return torch.stack([torch.stack(sums[number]).mean(0) for number in range(len(CLASSES))])


def sample(
    model: Path, folder: Path, device: torch.device, side: int
) -> dict[float, list[tuple[int, torch.Tensor]]]:
    """Return by guidance the classes and latents that diffusers draws from the saved file."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    with open_model(model) as source:
        write_diffusers_config_folder(source, folder / "pipeline", load_tokenizer())
    pipeline = StableDiffusionXLPipeline.from_single_file(
        str(model), config=str(folder / "pipeline"), torch_dtype=torch.float32
    ).to(device)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    facts = pipeline.scheduler.config
    assert facts.prediction_type == "v_prediction", facts
    assert facts.rescale_betas_zero_snr, facts
    assert facts.timestep_spacing == "trailing", facts
    pipeline.set_progress_bar_config(disable=True)
    tones, colours, shapes = list(BACKGROUNDS), list(COLOURS), ("circle", "square")
    captions = [
        f"a {colours[number // 2 % 4]} {shapes[number // len(CLASSES) % 2]}"
        f" on a {tones[number % 2]} background"
        for number in range(NUM_DRAWS)
    ]
    drawn = {}
    for guidance in GUIDANCES:
        latents = pipeline(
            captions,
            negative_prompt=[""] * NUM_DRAWS,
            height=side,
            width=side,
            original_size=(264, 264),
            num_inference_steps=SAMPLER_STEPS,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(n) for n in range(NUM_DRAWS)],
            output_type="latent",
        ).images
        with torch.no_grad():
            images = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        save_grid(images.cpu(), folder / f"samples_{guidance:g}.png")
        classes = [class_of(caption) for caption in captions]
        drawn[guidance] = list(zip(classes, latents.float().cpu(), strict=True))
    return drawn


def save_grid(images: torch.Tensor, path: Path) -> None:
    from PIL import Image

    rows = [torch.cat(list(images[first : first + 8]), dim=2) for first in range(0, len(images), 8)]
    grid = ((torch.cat(rows, dim=1).clamp(-1, 1) + 1) * 127.5).byte()
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path)


def compact(values: torch.Tensor) -> str:
    return " ".join(f"{value:.4f}" for value in values.tolist())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, default=Path("caption-check"))
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    options = parser.parse_args()
    folder: Path = options.dir
    write_demo_base(folder / "base.safetensors")
    draw_pictures(folder / "pictures", options.pictures)
    settings = [*SETTINGS, f"training.steps={options.steps}", *options.assignments]
    config = apply_settings(demo_config(folder), settings)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    events: list[Event] = []
    printer = ConsolePrinter()

    def receive(event: Event) -> None:
        events.append(event)
        printer(event)

    started = time.monotonic()
    train(config, receive, RunControl())
    seconds = time.monotonic() - started
    model = Path([e for e in events if isinstance(e, CheckpointSaved)][-1].model)
    true, shuffled = held_out_losses(config, model, device)
    side = config.buckets.resolution
    with open_model(model) as source:
        pictures = find_pictures(config)
        encoders = Encoders(config, source, device, lambda event: None, RunControl())
        encoders.encode_text(pictures)
        means = class_means(encoders.loader(pictures.trained), pictures, side)
    drawn = sample(model, folder, device, side)
    found = {}
    for guidance, pictures_drawn in drawn.items():
        nearest = [
            (want, int(((means - latents) ** 2).flatten(1).sum(1).argmin()))
            for want, latents in pictures_drawn
        ]
        hits = sum(want == got for want, got in nearest)
        found[f"guidance {guidance:g}"] = {
            "nearest_right_class_mean": hits,
            "share": hits / NUM_DRAWS,
            "nearest": " ".join(f"{want}>{got}" for want, got in nearest),
        }
    losses = [e.loss for e in events if isinstance(e, StepCompleted)]
    result = {
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "steps": options.steps,
        "train_seconds": round(seconds, 1),
        "mean_loss_of_last_20_steps": sum(losses[-20:]) / len(losses[-20:]),
        "settings": settings,
        "held_out_loss_true_captions": true.mean().item(),
        "held_out_loss_shuffled_captions": shuffled.mean().item(),
        "ratio": (shuffled.mean() / true.mean()).item(),
        "by_timestep_true": compact(true),
        "by_timestep_shuffled": compact(shuffled),
        "draws": NUM_DRAWS,
        "sampler_steps": SAMPLER_STEPS,
        **found,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
