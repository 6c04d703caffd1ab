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
from aozora.config.fields import info_of
from aozora.config.ticket_pool import TIMESTEPS
from gui.editors.preset_strip import PresetEntry, PresetNumber
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


def shaped(key: str, numbers: Mapping[str, float], bins: int) -> dict[str, Any]:
    """Return the distribution ``key`` with its numbers, as it stands in a configuration."""
    if key in ("detail", "structure", "ends"):
        return _sloped(key, numbers["strength"])
    if key == "min_snr":
        weights = [round(w, 4) for w in min_snr_weights(numbers["gamma"], bins)]
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


def signal_to_noise() -> list[float]:
    """Return the signal-to-noise ratio of SDXL's timesteps."""
    roots = (math.sqrt(_BETA_START), math.sqrt(_BETA_END))
    kept, ratios = 1.0, []
    for timestep in range(TIMESTEPS):
        root = roots[0] + (roots[1] - roots[0]) * timestep / (TIMESTEPS - 1)
        kept *= 1.0 - root * root
        ratios.append(kept / (1.0 - kept))
    return ratios


def min_snr_weights(gamma: float, bins: int) -> list[float]:
    """Return bars as min-SNR weighs the loss of noise prediction: min(SNR, gamma) / SNR, mean 1."""
    weights = [min(ratio, gamma) / ratio for ratio in signal_to_noise()]
    width = TIMESTEPS // bins
    means = [math.fsum(weights[i * width : (i + 1) * width]) / width for i in range(bins)]
    whole = math.fsum(means) / bins
    return [mean / whole for mean in means]
