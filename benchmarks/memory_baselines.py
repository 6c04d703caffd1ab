"""Other ways to train the whole UNet, each at the memory that it needs.

Written from their descriptions, or the library's own code where it is installed; bare of data and
files, like the cases they are compared with.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import GIB, DeviceUsed, fill_randomly, full_unet_config

Step = Callable[[list[nn.Parameter]], None]


def made_unet() -> Any:
    from aozora.model.building import empty_unet

    unet: Any = empty_unet(full_unet_config())
    unet.to_empty(device="cuda").to(torch.bfloat16)
    fill_randomly(dict(unet.named_parameters()))
    unet.enable_gradient_checkpointing()
    return unet.train()


def made_inputs() -> dict[str, Tensor]:
    return {
        "latents": torch.randn(1, 4, 128, 128, device="cuda").bfloat16(),
        "target": torch.randn(1, 4, 128, 128, device="cuda"),
        "prompt": torch.randn(1, 77, 2048, device="cuda").bfloat16(),
        "pooled": torch.randn(1, 1280, device="cuda").bfloat16(),
        "ids": torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]], device="cuda"),
    }


def backward(unet: Any, inputs: dict[str, Tensor], micro_steps: int) -> None:
    (predicted,) = unet(
        inputs["latents"],
        torch.tensor([500], device="cuda"),
        encoder_hidden_states=inputs["prompt"],
        added_cond_kwargs={"text_embeds": inputs["pooled"], "time_ids": inputs["ids"]},
        return_dict=False,
    )
    loss = torch.nn.functional.mse_loss(predicted.float(), inputs["target"]) / micro_steps
    loss.backward()


def per_tensor_adamw(dtype: torch.dtype, micro_steps: int) -> dict[str, Any]:
    """Gradients on the card; states in ordinary main memory, copied tensor by tensor."""
    states: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(parameters: list[nn.Parameter]) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for parameter in parameters:
            if parameter not in states:
                shape = parameter.shape
                states[parameter] = (
                    torch.zeros(shape, dtype=dtype),
                    torch.zeros(shape, dtype=dtype),
                )
            kept = states[parameter]
            m, v = (state.to("cuda").float() for state in kept)
            assert parameter.grad is not None
            gradient, weight = parameter.grad.float(), parameter.float()
            m.lerp_(gradient, 0.1)
            v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            weight.mul_(1 - 1e-8).addcdiv_(m, v.sqrt().add_(1e-8), value=-1e-6)
            parameter.copy_(weight)
            for state, value in zip(kept, (m, v), strict=True):
                state.copy_(value.to(dtype))
            parameter.grad = None

    return _measure(step, micro_steps)


def torch_adamw(micro_steps: int) -> dict[str, Any]:
    """Everything on the card, moments in bfloat16: fast, large, and most updates are lost."""
    made: list[torch.optim.Optimizer] = []

    def step(parameters: list[nn.Parameter]) -> None:
        if not made:
            made.append(torch.optim.AdamW(parameters, lr=1e-6, fused=True))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        made[0].step()
        made[0].zero_grad(set_to_none=True)

    return _measure(step, micro_steps)


def adafactor_in_backward() -> dict[str, Any]:
    """transformers' Adafactor, each parameter stepped as its gradient appears: no accumulation."""
    from transformers.optimization import Adafactor

    with DeviceUsed() as used:
        unet = made_unet()
        optimizers: dict[Tensor, Any] = {}
        for parameter in unet.parameters():
            optimizers[parameter] = Adafactor(
                [parameter], lr=1e-6, relative_step=False, scale_parameter=False
            )

        def step(parameter: nn.Parameter) -> None:
            optimizers[parameter].step()
            parameter.grad = None

        for parameter in unet.parameters():
            parameter.register_post_accumulate_grad_hook(step)
        inputs = made_inputs()
        return _timed(lambda: backward(unet, inputs, 1), used, 5)


def torchao_offload(micro_steps: int) -> dict[str, Any]:
    """The library's own, without clipping, which it does not offer: gradients leave in backward."""
    from torchao.optim import CPUOffloadOptimizer

    made: list[Any] = []

    def step(parameters: list[nn.Parameter]) -> None:
        made[0].step()
        made[0].zero_grad()

    def prepare(parameters: list[nn.Parameter]) -> None:
        made.append(CPUOffloadOptimizer(parameters, torch.optim.AdamW, fused=True, lr=1e-6))

    return _measure(step, micro_steps, prepare)


def bitsandbytes_adamw8bit(micro_steps: int) -> dict[str, Any]:
    import bitsandbytes

    made: list[Any] = []

    def step(parameters: list[nn.Parameter]) -> None:
        if not made:
            made.append(bitsandbytes.optim.AdamW8bit(parameters, lr=1e-6))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        made[0].step()
        made[0].zero_grad()

    return _measure(step, micro_steps)


def _measure(step: Step, micro_steps: int, prepare: Step | None = None) -> dict[str, Any]:
    with DeviceUsed() as used:
        unet = made_unet()
        parameters = list(unet.parameters())
        if prepare:
            prepare(parameters)
        inputs = made_inputs()

        def whole() -> None:
            for _ in range(micro_steps):
                backward(unet, inputs, micro_steps)
            step(parameters)

        return _timed(whole, used, 3 if micro_steps > 1 else 4)


def _timed(work: Callable[[], None], used: DeviceUsed, rounds: int) -> dict[str, Any]:
    times = []
    for number in range(rounds + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if number:
            times.append(time.perf_counter() - started)
    return {
        "seconds_a_step": statistics.median(times),
        "device_used_peak_gib": round(used.peak / GIB, 3),
        "allocated_peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 3),
        "reserved_peak_gib": round(torch.cuda.max_memory_reserved() / GIB, 3),
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "baseline per tensor bf16, accumulation 1": lambda: per_tensor_adamw(torch.bfloat16, 1),
    "baseline per tensor bf16, accumulation 8": lambda: per_tensor_adamw(torch.bfloat16, 8),
    "baseline per tensor fp32, accumulation 1": lambda: per_tensor_adamw(torch.float32, 1),
    "baseline torch AdamW on the card, accumulation 1": lambda: torch_adamw(1),
    "baseline torch AdamW on the card, accumulation 8": lambda: torch_adamw(8),
    "baseline Adafactor in backward, accumulation 1": adafactor_in_backward,
    "baseline torchao CPUOffload, accumulation 1": lambda: torchao_offload(1),
    "baseline torchao CPUOffload, accumulation 8": lambda: torchao_offload(8),
    "baseline bitsandbytes AdamW8bit, accumulation 1": lambda: bitsandbytes_adamw8bit(1),
    "baseline bitsandbytes AdamW8bit, accumulation 8": lambda: bitsandbytes_adamw8bit(8),
}
