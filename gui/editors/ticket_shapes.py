"""The ready-made distributions as the strip of the page offers them.

Those with a formula stay formulas in the configuration (their numbers can be changed later); the
others become bars.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from aozora.config.choices.distributions import DISTRIBUTIONS
from aozora.config.choices.predictions import Flow, VPrediction
from aozora.config.fields import info_of
from aozora.config.flow_shift import flow_timestep
from aozora.config.ticket_pool import TIMESTEPS
from gui.editors.preset_strip import PresetEntry, PresetNumber
from gui.editors.ticket_view import TicketView
from gui.words import tr

# SDXL's noise schedule: the square roots of its betas rise evenly.
_BETA_START, _BETA_END = 0.00085, 0.012


def shape_entries() -> list[PresetEntry]:
    """Return the ready-made distributions with the numbers they ask for."""
    uniform, logit, beta, wave, high = (
        _family_entry(kind) for kind in ("uniform", "logit_normal", "beta", "wave", "high_noise")
    )
    strength = PresetNumber(
        "strength", tr("Strength"), "1", 0.0, 4.0, help=tr("0 is uniform; more is more lopsided.")
    )
    gamma = PresetNumber("gamma", tr("Gamma"), "5", 0.1, 100.0, help=tr("As in min-SNR."))
    return [
        uniform,
        logit,
        beta,
        wave,
        PresetEntry("detail", tr("Detail (low timesteps)"), (strength,)),
        PresetEntry("structure", tr("Structure (high timesteps)"), (strength,)),
        PresetEntry("ends", tr("Both ends"), (strength,)),
        high,
        PresetEntry("min_snr", tr("Like min-SNR"), (gamma,)),
    ]


def _family_entry(kind: str) -> PresetEntry:
    """Return the entry of a registered distribution; its numbers are its settings."""
    cls = DISTRIBUTIONS[kind]
    numbers = []
    for field in dataclasses.fields(cls):
        info = info_of(field)
        assert info.minimum is not None
        assert info.maximum is not None
        whole = isinstance(field.default, int)
        numbers.append(
            PresetNumber(
                field.name,
                tr(info.label),
                f"{field.default:g}",
                info.minimum,
                info.maximum,
                info.unit,
                whole=whole,
                help=tr(info.help),
            )
        )
    return PresetEntry(kind, tr(DISTRIBUTIONS.label(kind)), tuple(numbers))


def shaped(key: str, numbers: Mapping[str, float], view: TicketView) -> dict[str, Any]:
    """Return the distribution ``key`` with its numbers, as it stands in a configuration.

    Args:
        key: Key of the entry.
        numbers: Values of its numbers.
        view: The pool it is for: its number of bars, and what is trained.
    """
    if key in ("detail", "structure", "ends"):
        return _sloped(key, numbers["strength"])
    if key == "min_snr":
        weights = [round(w, 4) for w in min_snr_weights(numbers["gamma"], view)]
        return {"kind": "custom", "weights": weights}
    whole = {f.name for f in dataclasses.fields(DISTRIBUTIONS[key]) if isinstance(f.default, int)}
    values = {name: int(v) if name in whole else v for name, v in numbers.items()}
    return {"kind": key, **values}


def _sloped(key: str, strength: float) -> dict[str, Any]:
    """Return a beta distribution that favours one end, or both."""
    if key == "ends":
        side = round(1.0 / (1.0 + strength), 4)
        return {"kind": "beta", "a": side, "b": side}
    low, high = 1.0, 1.0 + strength
    a, b = (low, high) if key == "detail" else (high, low)
    return {"kind": "beta", "a": a, "b": b}


def bar_weights(distribution: Mapping[str, Any], bins: int) -> tuple[float, ...]:
    """Return the bars of a distribution as it stands in a configuration.

    Raises:
        ValueError: if it gives no bars.
    """
    options = {name: value for name, value in distribution.items() if name != "kind"}
    if "weights" in options:
        options["weights"] = tuple(options["weights"])
    weights: tuple[float, ...] = DISTRIBUTIONS[distribution["kind"]](**options).bin_weights(bins)
    return weights


def signal_to_noise(*, zero_terminal: bool = False) -> list[float]:
    """Return the signal-to-noise ratio of SDXL's timesteps, as `aozora.diffusion.schedule` does."""
    roots = (math.sqrt(_BETA_START), math.sqrt(_BETA_END))
    kept, signals = 1.0, []
    for timestep in range(TIMESTEPS):
        root = roots[0] + (roots[1] - roots[0]) * timestep / (TIMESTEPS - 1)
        kept *= 1.0 - root * root
        signals.append(math.sqrt(kept))
    if zero_terminal:
        first, last = signals[0], signals[-1]
        signals = [(signal - last) * first / (first - last) for signal in signals]
    return [signal * signal / (1.0 - signal * signal) for signal in signals]


def min_snr_weights(gamma: float, view: TicketView) -> list[float]:
    """Return bars as min-SNR weighs the loss of what ``view`` trains, mean 1.

    The weight of each ticket is the trainer's (`aozora.diffusion.weightings`), which the window
    cannot call without torch. Noise prediction stands for what is not known yet.
    """
    weights, width = _ticket_weights(gamma, view), TIMESTEPS // view.bins
    means = [math.fsum(weights[i * width : (i + 1) * width]) / width for i in range(view.bins)]
    whole = math.fsum(means) / view.bins
    return [mean / whole for mean in means]


def _ticket_weights(gamma: float, view: TicketView) -> list[float]:
    """Return the weight of each ticket; with several flow shifts, its mean over the samples."""
    if isinstance(view.prediction, Flow):
        shifts = view.shifts or {1.0: 1.0}
        whole = math.fsum(shifts.values())
        return [
            math.fsum(part * _flow_weight(gamma, n, shift) for shift, part in shifts.items())
            / whole
            for n in range(TIMESTEPS)
        ]
    if isinstance(view.prediction, VPrediction):
        ratios = signal_to_noise(zero_terminal=view.has_zero_terminal_snr)
        return [min(ratio, gamma) / (ratio + 1.0) for ratio in ratios]
    return [min(ratio, gamma) / ratio for ratio in signal_to_noise()]


def _flow_weight(gamma: float, ticket: int, shift: float) -> float:
    u = flow_timestep(ticket, shift) / TIMESTEPS
    return min(((1.0 - u) / u) ** 2, gamma) * u * u
