"""Every setting does something: turned alone, the plan, an event or a written byte is another.

Settings are turned one at a time on a small run. What `check` says is looked at first, on a made-up
computer with a card; where it says the same, the run is made and everything it reports and writes
is compared, but for times, names and the settings themselves.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from aozora import api
from aozora.config.codec import apply_settings
from aozora.config.describe import iterate_settings
from aozora.errors import AozoraError
from aozora.memory.accounting import GIB
from aozora.memory.fit import with_memory
from aozora.memory.machine import measure
from aozora.model.synthetic import ModelSizes, write_random_base
from aozora.training import check as check_room
from aozora.training.checkpointing import read_state
from aozora.training.state_file import FileTensor

pytestmark = pytest.mark.slow

EXCEPTIONS = {
    "cache.vae_batch": "how many pictures are encoded at once changes the time it takes, and by"
    " design nothing of what is encoded",
    "cache.text_batch": "the same for captions",
    "training.prefetch_batches": "batches are prepared ahead in their own order: only the waiting"
    " changes",
    "memory.weights": "the blocks of so small a model hold nothing large enough to be streamed;"
    " that it decides is tested on the full size in tests/memory/test_memory_plan.py",
    "timesteps.on_resume": "matters to a resumed run only; tested in test_resume.py",
    "training.deterministic": "chooses CUDA's kernels; a run on the processor always repeats",
}

OPTIMIZERS = {
    "raven_adamw": {
        "beta1": 0.5,
        "beta2": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.5,
        "debias_strength": 0.3,
        "centralization": 1.0,
        "moments": "float32",
    },
    "velo_rms": {
        "momentum": 0.5,
        "leak": 0.5,
        "eps": 1e-3,
        "weight_decay": 0.5,
        "moments": "float32",
    },
    "adamw": {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.5, "moments": "float32"},
    "lion": {"beta1": 0.5, "beta2": 0.5, "weight_decay": 0.5, "moments": "float32"},
    "adafactor": {
        "decay_power": 0.5,
        "clip_threshold": 0.2,
        "weight_decay": 0.5,
        "scale_parameter": True,
    },
}
# So many samples that bars next to each other get other counts.
MANY = "training.steps=200"
# Setting, its new value, and what else has to be so for it to matter.
TURNED = [
    ("model.base", "{other}"),
    ("model.vae", "{other}"),
    ("model.text_encoders", "{other}"),
    ("model.tokenizer", "{nowhere}"),
    ("model.vae_scale", 0.5),
    ("model.vae_shift", 0.5),
    ("model.attention", "xformers"),
    ("data.folders", [{"path": "{inner}"}]),
    ("data.folders[].path", [{"path": "{inner}"}]),
    ("data.folders[].repeats", [{"path": "{pictures}", "repeats": 3}]),
    ("data.recursive", False),
    (
        "data.background",
        "#000000",
        'data.folders=[{"path": "{inner}"}]',
    ),
    ("data.max_megapixels", 1),
    ("buckets.resolution", 64),
    ("buckets.min_side", 128, "buckets.max_side=256"),
    ("buckets.max_side", 128),
    ("buckets.step", 32),
    ("buckets.upscale", True),
    ("captions.tokens", 150),
    ("captions.dropout", 1.0),
    ("captions.null", "zeros", "captions.dropout=1"),
    ("cache.folder", "{elsewhere}"),
    ("cache.latents", "fp32"),
    ("cache.text", "fp32"),
    ("objective.prediction", "v_prediction"),
    ("objective.prediction.shift", 1.5, "objective.prediction=flow"),
    (
        "objective.prediction.resolution_shift",
        False,
        "objective.prediction=flow",
    ),
    ("objective.zero_terminal_snr", "on", "objective.prediction=v_prediction"),
    ("timesteps.distribution", "beta"),
    ("timesteps.distribution.mean", -2.0, "timesteps.distribution=logit_normal"),
    ("timesteps.distribution.sd", 0.2, "timesteps.distribution=logit_normal", MANY),
    ("timesteps.distribution.a", 9.0, "timesteps.distribution=beta"),
    ("timesteps.distribution.b", 9.0, "timesteps.distribution=beta"),
    ("timesteps.distribution.frequency", 3.0, "timesteps.distribution=wave", MANY),
    ("timesteps.distribution.phase", 0.5, "timesteps.distribution=wave"),
    ("timesteps.distribution.amplitude", 1.0, "timesteps.distribution=wave", MANY),
    ("timesteps.distribution.start", 900, "timesteps.distribution=high_noise"),
    ("timesteps.distribution.weights", [0, 0, 1, 3], "timesteps.distribution=custom"),
    ("timesteps.bins", 10),
    ("timesteps.coverage", "shuffled"),
    ("timesteps.minimum", 500),
    ("timesteps.maximum", 400, MANY),
    ("loss.function", "huber"),
    ("loss.function.c", 0.9, "loss.function=huber"),
    ("loss.weighting", "min_snr"),
    ("loss.weighting.gamma", 0.5, "loss.weighting=min_snr"),
    ("loss.weighting.floor", 0.9, "loss.weighting=min_snr"),
    ("optimizer", "lion"),
    *[
        (f"optimizer.{name}", value, f"optimizer={kind}")
        for kind, options in OPTIMIZERS.items()
        for name, value in options.items()
    ],
    ("schedule.learning_rate", [[0, 1e-4], [1, 1e-4]]),
    ("targets.layers", "attention"),
    ("targets.blocks", ["mid_block"]),
    ("targets.include", ["conv_in.*"], "targets.layers=attention"),
    ("targets.exclude", ["conv_in.*"]),
    ("training.seed", 7),
    ("training.steps", 3),
    ("training.epochs", 2.0),
    ("training.batch_size", 2),
    ("training.accumulation_steps", 2),
    ("training.clip_norm", 1e-4),
    ("training.precision", "bf16"),
    ("training.device", "cuda"),
    ("training.max_skipped_steps", 2, "model.base={broken}", "training.steps=4"),
    ("memory.vram_limit", 0.5),
    ("memory.ram_limit", 0.5),
    ("memory.pinned_limit", 0.001, "memory.states=host"),
    ("memory.gradients", "host"),
    ("memory.states", "host"),
    ("memory.recompute", "all"),
    ("memory.sum_format", "bfloat16", "training.accumulation_steps=2", "memory.gradients=host"),
    ("memory.clip_by_last_norm", True),
    ("checkpoints.every_steps", 1),
    ("checkpoints.every_epochs", 0.25, "training.steps=4"),
    ("checkpoints.keep_last", 1),
    ("checkpoints.dtype", "bf16"),
    ("validation.pictures", 1),
    ("validation.every_steps", 1, "validation.pictures=1"),
    ("validation.timesteps", 3, "validation.pictures=1"),
    ("output.folder", "{elsewhere}"),
    ("output.name", "renamed"),
    ("logging.tensorboard", True),
    ("logging.wandb", "offline"),
    ("logging.diagnostics_every", 1),
]
# Of an event, what is of the time, or named after it or after a folder.
OF_TIME = {"seconds", "data_wait_seconds", "stall_seconds", "expected_step_seconds"}
OF_TIME |= {"folder", "run_id", "state", "model"}
BY_THE_CLOCK = ("MemorySampled", "Progressed", "PhaseFinished")


@dataclass(frozen=True)
class Workshop:
    """Files that a setting can name.

    Attributes:
        names: Paths by the word that stands for them in `TURNED`.
    """

    names: dict[str, str]

    def filled(self, value):
        """Return ``value`` with paths in the place of their words."""
        text = value if isinstance(value, str) else json.dumps(value)
        for word, path in self.names.items():
            text = text.replace(f"{{{word}}}", path)
        return text


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    root = tmp_path_factory.mktemp("workshop")
    pictures = root / "pictures"
    inner = pictures / "inner"
    inner.mkdir(parents=True)
    generator = np.random.default_rng(1)
    shapes = [("plain", 128, 128), ("small", 96, 64), ("long", 320, 96), ("large", 1250, 900)]
    for name, width, height in shapes:
        pixels = generator.integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(pictures / f"{name}.png")
        words = "a picture of many words " * (30 if name == "long" else 1)
        (pictures / f"{name}.txt").write_text(words, encoding="utf-8")
    clear = generator.integers(0, 255, (128, 128, 4), dtype=np.uint8)
    Image.fromarray(clear).save(inner / "clear.png")
    other, broken = root / "other.safetensors", root / "broken.safetensors"
    write_random_base(other, ModelSizes(unet_channels=(32, 64, 64)), seed=9)
    # Finite as a weight, but not once it is squared in a loss.
    write_random_base(broken, ModelSizes(unet_channels=(32, 64, 64)), dtype=torch.float32)
    weights = load_file(broken)
    bias = "model.diffusion_model.out.2.bias"
    weights[bias] = torch.full_like(weights[bias], 1e30)
    save_file(weights, broken)
    names = {"pictures": pictures, "inner": inner, "other": other, "broken": broken}
    names |= {"nowhere": root / "nowhere", "elsewhere": root / "elsewhere"}
    names |= {"output": root / "output", "user_cache": root / "user-cache"}
    return Workshop({word: str(path) for word, path in names.items()})


@pytest.fixture(scope="module")
def seen_before():
    """What was observed of the runs in which nothing is turned yet."""
    return {}


@pytest.fixture
def make(make_config, workshop, monkeypatch):
    """Return a function that makes the run in which settings are turned."""
    here = measure(torch.device("cpu"))
    machine = replace(with_memory(here, 8, 64), ram_free=60 * GIB)
    monkeypatch.setenv("XDG_CACHE_HOME", workshop.names["user_cache"])
    monkeypatch.setattr(check_room, "measure", lambda device: machine)

    def with_settings(*assignments):
        folders = json.dumps([{"path": workshop.names["pictures"]}])
        output = f"output.folder={workshop.names['output']}"
        short = ("training.steps=2", "training.accumulation_steps=1", "checkpoints.keep_last=3")
        return make_config(f"data.folders={folders}", output, *short, *assignments)

    return with_settings


def planned(config):
    """Return what `check` says."""
    report = api.check(config).to_plain()
    if report["summary"] is not None:
        report["summary"].pop("disk_free")
    return report


def observed(config, root):
    """Run ``config`` afresh; return what it reported, how it ended, and what it wrote."""
    output = Path(config.output.folder)
    for folder in (output, root):
        shutil.rmtree(folder, ignore_errors=True)
    events = []
    try:
        api.train(config, events.append, api.RunControl())
        end = ""
    except AozoraError as error:
        end = error.message
    reported = [
        (type(event).__name__, {k: v for k, v in asdict(event).items() if k not in OF_TIME})
        for event in events
        if type(event).__name__ not in BY_THE_CLOCK
    ]
    saves = sorted(output.glob("checkpoints/*_step_*"))
    written = {str(path): digest(path) for path in saves}
    kinds = sorted(p.name.split(".")[0] for p in output.glob("runs/*/*"))
    caches = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    return json.dumps([reported, end, written, kinds, caches], default=str)


def digest(path):
    """Return a digest of the tensors in a saved file; its times and settings are left aside."""
    result = hashlib.sha256()
    if path.suffix == ".safetensors":
        for name, tensor in sorted(load_file(path).items()):
            add_tensor(result, name, tensor)
    elif path.suffix == ".pt":
        add(result, {k: v for k, v in read_state(path).items() if k in ("weights", "optimizer")})
    return result.hexdigest()


def add(result, value):
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            result.update(str(key).encode())
            add(result, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            add(result, item)
    elif isinstance(value, FileTensor):
        add_tensor(result, "", value.read())
    else:
        result.update(repr(value).encode())


def add_tensor(result, name, tensor):
    result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    result.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def cases():
    return [
        pytest.param(path, value, needed, id=f"{path}-{number}")
        for number, (path, value, *needed) in enumerate(TURNED)
    ]


def test_every_setting_is_turned_or_excused():
    kinds = {(row.path, row.kind) for row in iterate_settings()}
    turned = set()
    for path, _, *needed in TURNED:
        chosen = dict(n.split("=", 1) for n in needed)
        kind = chosen.get(path.rpartition(".")[0], "") if (path, "") not in kinds else ""
        turned.add((path, kind))
    excused = {(path, "") for path in EXCEPTIONS}
    assert turned | excused == kinds
    assert not turned & excused


@pytest.mark.parametrize(("path", "value", "needed"), cases())
def test_a_turned_setting_shows(make, workshop, seen_before, path, value, needed):
    before = [workshop.filled(setting) for setting in needed]
    if path == "cache.folder":
        before.append("cache.folder=")
    turned = f"{path.split('[')[0]}={workshop.filled(value)}"
    first = make(*before)
    second = apply_settings(first, [turned])
    assert first != second
    if planned(first) != planned(second):
        return
    root = Path(workshop.names["user_cache"])
    key = tuple(before)
    if key not in seen_before:
        seen_before[key] = observed(first, root)
    assert observed(second, root) != seen_before[key]


@pytest.mark.parametrize("needed", [[], ["optimizer=adafactor", "training.precision=bf16"]])
def test_the_same_settings_look_the_same_again(make, workshop, needed):
    """Or a difference would prove nothing."""
    config, root = make(*needed), Path(workshop.names["user_cache"])
    assert planned(config) == planned(config)
    assert observed(config, root) == observed(config, root)
