"""How far weights go when moments are kept in fewer bits, against float32: python -m ... [--out F].

Every profile is fed the same gradients for the same number of steps at a learning rate of 1e-6,
without weight decay. The displacement error is the norm of the difference to where float32 states
and float32 weights go, over the norm of the way there. Gradients come from two sources:

* ``heavy_tailed``: every element has a scale of its own, lognormal with sigma 1 even between
  neighbours; gradients have a lognormal size on top, partly common to all elements of a step, and a
  mean of a tenth of their deviation. Harder than what networks give.
* ``network``: the gradients of a small UNet with cross-attention on its way down from random
  weights, predicting noise.

Runs on a CPU in a quarter of an hour. With ``--full-size``, on a card with about 80 GB, gradients
are those of the full UNet at 1024 px: of every tensor the first 131,072 elements are followed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizers.chunk import QUANT_BLOCK, Chunk, StatePlane, StepScalars
from optimizers.chunk_update import EagerUpdate
from optimizers.lion import LionRule
from optimizers.precision import (
    BLOCK_FORMATS,
    STORAGE_DTYPES,
    join_fp32,
    noise_key,
    split_fp32,
)
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.rule import Moments, UpdateRule
from optimizers.velo_rms import VeloRMSRule

LR = 1e-6
MARKS = (200, 2000)
_ADAMW = RavenAdamWRule(weight_decay=0.0)
RULES: dict[str, UpdateRule] = {
    "raven_adamw": _ADAMW,
    "velo_rms": VeloRMSRule(weight_decay=0.0),
    "lion": LionRule(weight_decay=0.0),
}
MOMENTS: tuple[Moments, ...] = ("float32", "16bit", "8bit")


class Kept:
    """bfloat16 weights with their low bits, and states in the formats of ``moments``."""

    def __init__(self, rule: UpdateRule, moments: Moments, weights: Tensor) -> None:
        device = weights.device
        self.update = EagerUpdate(rule, device, weights.numel())
        self.weight, self.low = split_fp32(weights)
        self.planes = {}
        self.magnitude = torch.zeros((), device=device)
        num = weights.numel()
        for name, state_format in rule.formats(moments).items():
            values = torch.zeros(num, dtype=STORAGE_DTYPES[state_format], device=device)
            is_block = state_format in BLOCK_FORMATS
            scales = torch.zeros(num // QUANT_BLOCK, device=device) if is_block else None
            self.planes[name] = StatePlane(values, scales, state_format)

    def exact(self) -> Tensor:
        return join_fp32(self.weight, self.low)

    def state_bytes(self) -> float:
        """Return the bytes of all states, one weight."""
        planes = self.planes.values()
        scales = [plane.scales for plane in planes if plane.scales is not None]
        parts = [*(plane.values for plane in planes), *scales]
        return sum(part.nbytes for part in parts) / self.weight.numel()

    def step(self, gradient: Tensor, t: int) -> None:
        keys = {name: noise_key(0, t, name, "weights") for name in self.planes}
        scale = torch.ones((), device=gradient.device)
        scalars = StepScalars(lr=LR, t=t, gradient_scale=scale, noise_keys=keys)
        chunk = Chunk(
            weight=self.weight, master=self.low, gradient=gradient, states=self.planes, start=0
        )
        self.update(chunk, scalars, self.magnitude)


class Plain:
    """What happens without any of this: bfloat16 weights, rounded, and torch's own AdamW."""

    def __init__(self, weights: Tensor, *, narrow_moments: bool) -> None:
        self.weight = weights.bfloat16()
        self.moments = [torch.zeros_like(weights) for _ in range(2)]
        self.narrow_moments = narrow_moments

    def exact(self) -> Tensor:
        return self.weight.float()

    def state_bytes(self) -> float:
        return 4.0 if self.narrow_moments else 8.0

    def step(self, gradient: Tensor, t: int) -> None:
        weight = self.weight.float()
        first, second = self.moments
        _ADAMW.update(
            weight,
            gradient.clone(),
            {"exp_avg": first, "exp_avg_sq": second},
            torch.empty_like(weight),
            lr=LR,
            t=t,
        )
        self.weight.copy_(weight)
        if self.narrow_moments:
            for moment in self.moments:
                moment.copy_(moment.bfloat16())


def heavy_tailed(num: int = 1 << 15) -> tuple[Tensor, Iterator[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def gradients() -> Iterator[Tensor]:
        scale, mean = 1e-4 * torch.exp(normal(num)), 0.1 * normal(num)
        while True:
            common = torch.exp(0.5 * normal())
            yield scale * common * (normal(num) * torch.exp(0.5 * normal(num)) + mean)

    return 0.02 * normal(num), gradients()


def flat(tensors: Iterable[Tensor], most_of_a_tensor: int) -> Tensor:
    """Return the beginning of every tensor, each padded to whole blocks, as one in float32."""
    parts = []
    for tensor in tensors:
        kept = tensor.detach().reshape(-1)[:most_of_a_tensor].float()
        padding = -kept.numel() % QUANT_BLOCK
        parts.append(torch.nn.functional.pad(kept, (0, padding)))
    return torch.cat(parts)


def network(most_of_a_tensor: int = 1024) -> tuple[Tensor, Iterator[Tensor]]:
    """Return weights and gradients of the beginning of every tensor of a small UNet."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def gradients() -> Iterator[Tensor]:
        prompts = torch.randn(8, 4, 32)
        pictures = torch.nn.functional.interpolate(torch.randn(8, 4, 4, 4), 16, mode="bicubic")
        while True:
            chosen = torch.randint(8, (2,))
            noise, level = torch.randn(2, 4, 16, 16), torch.rand(2)
            angle = (level * torch.pi / 2).view(-1, 1, 1, 1)
            noisy = pictures[chosen] * angle.cos() + noise * angle.sin()
            predicted = unet(noisy, (level * 999).long(), prompts[chosen]).sample
            optimizer.zero_grad()
            (predicted - noise).square().mean().backward()
            yield flat([parameter.grad for parameter in parameters], most_of_a_tensor)
            optimizer.step()

    return flat(parameters, most_of_a_tensor), gradients()


def full_size(most_of_a_tensor: int = 1 << 17) -> tuple[Tensor, Iterator[Tensor]]:
    """Return the same of the full UNet, which learns four noisy latents meanwhile, in bfloat16."""
    from benchmarks.memory_baselines import backward, made_inputs, made_unet

    torch.manual_seed(0)
    unet = made_unet()
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    inputs = [made_inputs() for _ in range(4)]

    def gradients() -> Iterator[Tensor]:
        step = 0
        while True:
            optimizer.zero_grad()
            backward(unet, inputs[step % len(inputs)], 1)
            yield flat([parameter.grad for parameter in parameters], most_of_a_tensor)
            optimizer.step()
            step += 1

    return flat(parameters, most_of_a_tensor), gradients()


def measure(
    weights: Tensor, gradients: Iterator[Tensor], steps: int, kinds: Sequence[str] = tuple(RULES)
) -> dict[str, Any]:
    """Return what became of every profile."""
    runs: dict[str, Kept | Plain] = {
        f"{kind} {moments}": Kept(RULES[kind], moments, weights)
        for kind in kinds
        for moments in MOMENTS
    }
    runs["bfloat16 weights, AdamW"] = Plain(weights, narrow_moments=False)
    runs["bfloat16 weights and moments, AdamW"] = Plain(weights, narrow_moments=True)
    starts = {name: run.exact() for name, run in runs.items()}
    reference = torch.nn.Parameter(weights.clone())
    adamw = torch.optim.AdamW([reference], lr=LR, weight_decay=0.0, foreach=False)
    result: dict[str, Any] = {
        name: {"bytes": run.state_bytes(), "largest_update": 0.0} for name, run in runs.items()
    }
    for t in range(1, steps + 1):
        gradient = next(gradients)
        reference.grad = gradient.clone()
        adamw.step()
        for name, run in runs.items():
            before = run.exact()
            run.step(gradient, t)
            largest = (run.exact() - before).abs().max().item() / LR
            result[name]["largest_update"] = max(result[name]["largest_update"], largest)
        if t not in MARKS and t != steps:
            continue
        for name, run in runs.items():
            kind = name.split()[0]
            exact = runs[f"{kind} float32"].exact() if kind in RULES else reference.detach()
            if name == "raven_adamw float32":
                exact = reference.detach()
            way, ours = (exact - weights).double(), (run.exact() - starts[name]).double()
            result[name][f"error_{t}"] = ((ours - way).norm() / way.norm()).item()
            result[name][f"gain_{t}"] = (ours.dot(way) / way.dot(way)).item()
    return result


def show(source: str, table: dict[str, Any]) -> None:
    columns = list(next(iter(table.values())))
    print(f"\n{source}\n{'':38}" + "".join(f"{column:>16}" for column in columns))
    for name, row in table.items():
        cells = [
            f"{100 * row[column]:.3f}%" if column.startswith("error") else f"{row[column]:.3f}"
            for column in columns
        ]
        print(f"{name:38}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=max(MARKS))
    parser.add_argument("--full-size", action="store_true", help="200 steps of the full UNet")
    parser.add_argument("--out", type=Path, help="where to write the tables as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables, steps = {}, min(options.steps, MARKS[0]) if options.full_size else options.steps
    if options.full_size:
        tables["full_size"] = measure(*full_size(), steps, ["raven_adamw"])
        show("full_size", tables["full_size"])
    else:
        for source in (heavy_tailed, network):
            tables[source.__name__] = measure(*source(), steps)
            show(source.__name__, tables[source.__name__])
    if options.out is not None:
        report = {"torch": torch.__version__, "steps": steps, "lr": LR, "tables": tables}
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
