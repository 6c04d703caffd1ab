"""One optimizer pass over the whole UNet, beside passes that copy tensor by tensor.

R is the least time that the bytes moved need at the best duplex rate of this very link, over the
time that was taken.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aozora.memory.units import unit_of
from benchmarks.common import (
    full_shapes,
    link_rates,
    machine_facts,
    median_seconds,
    table,
    write_results,
)
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.lion import LionRule
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.rule import Moments, UpdateRule
from optimizers.streamed import StreamedOptimizer
from optimizers.velo_rms import VeloRMSRule

Place = Literal["device", "host"]
LR = 1e-5


def random_parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator("cuda").manual_seed(0)
    return {
        name: nn.Parameter(
            torch.randn(shape, device="cuda", generator=generator).mul_(0.02).bfloat16()
        )
        for name, shape in full_shapes().items()
    }


def ours(rule: UpdateRule, moments: Moments, gradients: Place) -> dict[str, Any]:
    """Time the streamed pass; gradients are those of a single backward, in bfloat16."""
    device = torch.device("cuda")
    parameters = random_parameters()
    engine = Engine(
        parameters,
        rule,
        moments=moments,
        placement=Placement(
            units={name: unit_of(name) for name in parameters},
            gradients=gradients,
            pin_bytes=64 * 2**30,
        ),
        device=device,
    )
    sums = GradientSums(engine)
    optimizer = StreamedOptimizer(engine, seed=0)
    generator = torch.Generator("cuda").manual_seed(1)

    def gradient(parameter: nn.Parameter) -> Tensor:
        noise = torch.randn(parameter.shape, device=device, generator=generator)
        return noise.mul_(1e-3).bfloat16()

    sums.put({name: gradient(parameter) for name, parameter in parameters.items()})
    torch.cuda.synchronize()
    scale = torch.ones((), device=device)
    before = (engine.transfers.bytes_in, engine.transfers.bytes_out)

    def step() -> None:
        optimizer.step(sums, LR, scale)
        optimizer.wait_all()

    step()
    torch.cuda.synchronize()
    moved_in = engine.transfers.bytes_in - before[0]
    moved_out = engine.transfers.bytes_out - before[1]
    seconds = median_seconds(step)
    finite = bool(torch.isfinite(optimizer.largest_weight()))
    result = {
        "seconds": seconds,
        "bytes_in": moved_in,
        "bytes_out": moved_out,
        "ring_mib": engine.ring.num_bytes / 2**20,
        "host_bytes": optimizer.bytes_on_host(),
        "pinned_bytes": engine.host.pinned_bytes,
        "weights_finite": finite,
        "update": type(optimizer._apply).__name__,
    }
    sums.close()
    return result


def per_tensor(kind: Literal["adamw", "velo"], dtype: torch.dtype) -> dict[str, Any]:
    """Time a pass in which each tensor's states pass through ordinary memory, one by one."""
    parameters = random_parameters()
    planes = 3 if kind == "velo" else 2
    states = {
        name: [torch.zeros(p.shape, dtype=dtype) for _ in range(planes)]
        for name, p in parameters.items()
    }
    if kind == "velo":
        for name, parameter in parameters.items():
            states[name][2].copy_(parameter.detach())
    generator = torch.Generator("cuda").manual_seed(1)
    gradients = {
        name: torch.randn(p.shape, device="cuda", generator=generator).mul_(1e-3).bfloat16()
        for name, p in parameters.items()
    }

    update = _adamw if kind == "adamw" else _velo

    def step() -> None:
        with torch.no_grad():
            for name, parameter in parameters.items():
                update(parameter, gradients[name], states[name])

    seconds = median_seconds(step, repeats=2, warm_up=1)
    torch.cuda.empty_cache()
    return {"seconds": seconds}


def _adamw(parameter: Tensor, gradient: Tensor, states: list[Tensor]) -> None:
    m, v = (state.to("cuda").float() for state in states)
    g = gradient.float()
    weight = parameter.float()
    weight.mul_(1 - LR * 0.01)
    m.lerp_(g, 0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    weight.addcdiv_(m, v.sqrt().add_(1e-8), value=-LR)
    parameter.copy_(weight)
    for state, value in zip(states, (m, v), strict=True):
        state.copy_(value.to(state.dtype))


def _velo(parameter: Tensor, gradient: Tensor, states: list[Tensor]) -> None:
    velocity, rms, master = (state.to("cuda").float() for state in states)
    g = gradient.float()
    rms.mul_(0.99).addcmul_(g, g, value=0.01)
    velocity.mul_(0.86).add_(g / (rms.sqrt() + 1e-8), alpha=0.14)
    master.mul_(1 - LR * 0.01).add_(velocity, alpha=-LR)
    parameter.copy_(master)
    for state, value in zip(states, (velocity, rms, master), strict=True):
        state.copy_(value)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--short", action="store_true", help="fewer cases of ours")
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of names of cases")
    options = parser.parse_args()
    link = link_rates()
    ours_cases: list[tuple[str, UpdateRule, Moments, Place]] = [
        ("RavenAdamW B, 16-bit moments", RavenAdamWRule(), "16bit", "device"),
        ("RavenAdamW B, gradients parked", RavenAdamWRule(), "16bit", "host"),
        ("RavenAdamW A, float32 moments", RavenAdamWRule(), "float32", "device"),
        ("RavenAdamW C, 8-bit moments", RavenAdamWRule(), "8bit", "device"),
        ("RavenAdamW C, gradients parked", RavenAdamWRule(), "8bit", "host"),
        ("VeloRMS, 16 bits", VeloRMSRule(), "16bit", "device"),
        ("VeloRMS, gradients parked", VeloRMSRule(), "16bit", "host"),
        ("Lion, 16 bits", LionRule(), "16bit", "device"),
    ]
    theirs: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("per tensor, AdamW, bf16 states", lambda: per_tensor("adamw", torch.bfloat16)),
        ("per tensor, AdamW, fp32 states", lambda: per_tensor("adamw", torch.float32)),
        ("per tensor, VeloRMS, fp32 states", lambda: per_tensor("velo", torch.float32)),
    ]
    if options.short:
        ours_cases = [ours_cases[number] for number in (0, 1, 4, 5)]
    ours_cases = [case for case in ours_cases if case[0].startswith(tuple(options.only))]
    theirs = [case for case in theirs if case[0].startswith(tuple(options.only))]
    passes = {}
    for name, rule, moments, place in ours_cases:
        passes[name] = result = ours(rule, moments, place)
        gc.collect()
        torch.cuda.empty_cache()
        floor = max(result["bytes_in"], result["bytes_out"]) / link["duplex"]
        result["R"] = floor / result["seconds"]
        print(f"{name}: {result['seconds']:.3f} s, R {result['R']:.2f}", flush=True)
    baselines = {}
    for name, work in theirs:
        baselines[name] = work()
        print(f"{name}: {baselines[name]['seconds']:.3f} s", flush=True)
    rows = [["pass over all weights", "seconds", "R", "GB in", "GB out", "times faster than"]]
    for name, result in passes.items():
        kind = "velo" if name.startswith("Velo") else "adamw"
        faster = ", ".join(
            f"{other['seconds'] / result['seconds']:.1f} ({label.split('AdamW, ')[-1]})"
            for label, other in baselines.items()
            if ("VeloRMS" in label) == (kind == "velo")
        )
        sizes = [f"{result[key] / 1e9:.1f}" for key in ("bytes_in", "bytes_out")]
        rows.append([name, f"{result['seconds']:.3f}", f"{result['R']:.2f}", *sizes, faster])
    rows += [[name, f"{r['seconds']:.3f}", "", "", "", ""] for name, r in baselines.items()]
    print("\n".join(table(rows)))
    result = {"machine": machine_facts(), "link": link, "passes": passes, "baselines": baselines}
    write_results("optimizer_pass", result, options.out)


if __name__ == "__main__":
    main()
