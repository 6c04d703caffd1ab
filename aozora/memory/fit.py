"""Which settings make a run fit a computer: formats of states and sums, batch size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from aozora.memory.accounting import GIB, UNetFacts
from aozora.memory.machine import USUAL_CONTEXT_BYTES, USUAL_RATES, Machine, pin_share
from aozora.memory.memory_plan import MemoryPlan, plan_memory

_MOMENTS = ("float32", "16bit", "8bit")
_SUMS = ("float32", "bfloat16")
_LARGEST_BATCH = 16
# A change of batch size must be worth it: pictures of one size are trained together then.
_WORTH_SECONDS = 0.95
# What the system itself and other programs take.
_SYSTEM_BYTES = 3 * GIB


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Settings for a computer.

    Attributes:
        settings: What to change, as ``section.field=value``; empty if nothing needs to.
        fits: Whether the run fits then.
        plan: What it comes to with these settings.
        sentence: The same in plain words.
    """

    settings: tuple[str, ...]
    fits: bool
    plan: MemoryPlan
    sentence: str

    def to_plain(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "settings": list(self.settings),
            "fits": self.fits,
            "sentence": self.sentence,
            "forecast": asdict(self.plan.predicted),
            "shortfalls": [asdict(problem) for problem in self.plan.shortfalls],
        }

    def to_text(self) -> str:
        """Return the result for a terminal."""
        lines = [self.sentence, *(f"  --set {setting}" for setting in self.settings)]
        lines.append(f"{self.plan.sentence} About {self.plan.predicted.seconds:.2g} s a step.")
        lines += [str(problem) for problem in self.plan.shortfalls]
        return "\n".join(lines)


def fit(config: TrainConfig, facts: UNetFacts, machine: Machine) -> FitResult:
    """Return settings with which ``config`` fits ``machine``.

    The formats are those with the least rounding that fit, none finer than asked for. Among batch
    sizes with the same number of samples a step, the fastest is taken.

    Args:
        config: What is wanted.
        facts: Of the model and what is trained of it.
        machine: Where it is to run.
    """
    plan = plan_memory(config, facts, machine)
    chosen: tuple[str, ...] = ()
    for formats in _formats(config):
        chosen, plan = _fastest_batch(config, formats, facts, machine)
        if not plan.shortfalls:
            break
    fits = not plan.shortfalls
    return FitResult(settings=chosen, fits=fits, plan=plan, sentence=_sentence(chosen, fits))


def with_memory(machine: Machine, vram: float | None, ram: float | None) -> Machine:
    """Return a computer like ``machine`` with another card or other main memory.

    Where there is no card, the speeds of a usual one are assumed.

    Args:
        machine: The computer that is there.
        vram: Memory of the card in GiB; that of ``machine`` if None.
        ram: Main memory in GiB; that of ``machine`` if None.
    """
    if vram is not None:
        machine = replace(
            machine,
            device=machine.device or f"a card with {vram:g} GiB",
            vram_total=int(vram * GIB),
            vram_free=int(vram * GIB),
            context_bytes=machine.context_bytes or USUAL_CONTEXT_BYTES,
            rates=machine.rates if machine.has_card else USUAL_RATES,
        )
    if ram is not None:
        total = int(ram * GIB)
        machine = replace(
            machine,
            ram_total=total,
            ram_free=max(0, total - _SYSTEM_BYTES),
            pin_limit=int(pin_share() * total),
        )
    return machine


def _formats(config: TrainConfig) -> Iterator[tuple[str, ...]]:
    """Yield changes of formats, from none to the smallest."""
    moments = getattr(config.optimizer, "moments", None)  # Adafactor has none
    narrower = _MOMENTS[_MOMENTS.index(moments) :] if moments is not None else (None,)
    sums = _SUMS[_SUMS.index(config.memory.sum_format) :]
    if config.training.accumulation_steps == 1:
        sums = sums[:1]  # a single gradient is not summed
    for states in narrower:
        for sum_format in sums:
            changes = []
            if states != moments:
                changes.append(f"optimizer.moments={states}")
            if sum_format != config.memory.sum_format:
                changes.append(f"memory.sum_format={sum_format}")
            yield tuple(changes)


def _fastest_batch(
    config: TrainConfig, formats: tuple[str, ...], facts: UNetFacts, machine: Machine
) -> tuple[tuple[str, ...], MemoryPlan]:
    training = config.training
    samples = training.batch_size * training.accumulation_steps
    best = plan_memory(apply_settings(config, formats), facts, machine)
    chosen = formats
    for size in range(1, min(samples, _LARGEST_BATCH) + 1):
        if samples % size or size == training.batch_size:
            continue
        if config.memory.clip_by_last_norm and size < samples:
            continue  # it cannot accumulate
        changes = (
            *formats,
            f"training.batch_size={size}",
            f"training.accumulation_steps={samples // size}",
        )
        plan = plan_memory(apply_settings(config, changes), facts, machine)
        if _is_better(plan, best):
            chosen, best = changes, plan
    return chosen, best


def _is_better(plan: MemoryPlan, best: MemoryPlan) -> bool:
    if plan.shortfalls:
        return False
    is_faster = plan.predicted.seconds < _WORTH_SECONDS * best.predicted.seconds
    return bool(best.shortfalls) or is_faster


def _sentence(settings: tuple[str, ...], fits: bool) -> str:
    if not fits:
        return "The run does not fit this computer; train fewer layers or smaller pictures."
    if not settings:
        return "The run fits as it is."
    return "The run fits this computer with these settings:"
