"""Sizes that are forecast against those of the engine itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from aozora.memory.accounting import MIB, UNetFacts, in_pages, reserved, sizes_of
from aozora.memory.units import is_transformer_block, unit_of
from optimizers.adafactor import AdafactorRule
from optimizers.chunk_update import update_for
from optimizers.engine import Engine
from optimizers.gradient_sums import GradientSums
from optimizers.host_memory import HostMemory
from optimizers.placement import Placement
from optimizers.raven_adamw import RavenAdamWRule
from optimizers.record_store import RecordStore

CPU = torch.device("cpu")
PLACES = ("device", "host", "nowhere")
DTYPES = (torch.float16, torch.float32)
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.{}."
SHAPES = {
    "conv_in.weight": (32, 4, 3, 3),
    "time_embedding.linear_1.weight": (300, 320),
    "down_blocks.0.resnets.0.conv1.weight": (90, 90, 3, 3),
    "down_blocks.0.resnets.0.conv1.bias": (90,),
    **{
        BLOCK.format(number) + name: shape
        for number in range(3)
        for name, shape in {
            "attn1.to_q.weight": (290, 290),
            "attn1.to_q.bias": (290,),
            "ff.net.0.proj.weight": (1100, 290),
            "ff.net.2.weight": (290, 1101),
        }.items()
    },
    "up_blocks.0.resnets.0.conv1.weight": (3000, 320, 3, 3),
}
BLOCKS = [name for name in dict.fromkeys(map(unit_of, SHAPES)) if is_transformer_block(name)]
TRAINED = [name for name in SHAPES if "resnets" not in name or "up" in name]
TRAINED = [name for name in TRAINED if name != BLOCK.format(1) + "ff.net.2.weight"]
RULES = {
    "raven": RavenAdamWRule(),
    "centralizing": RavenAdamWRule(centralization=1.0),
    "adafactor": AdafactorRule(),
}


def make_engine(rule, dtype, moments, placement, micro_steps):
    named = {
        name: nn.Parameter(torch.full(shape, 0.01, dtype=dtype)) for name, shape in SHAPES.items()
    }
    return Engine(
        {name: named[name] for name in TRAINED},
        rule,
        moments=moments,
        placement=placement,
        device=CPU,
        frozen={name: named[name] for name in SHAPES if name not in TRAINED},
        micro_steps=micro_steps,
    )


CASES = [
    *itertools.product(
        ["raven"], ["16bit"], [torch.bfloat16], [1, 4], ["float32", "bfloat16"], PLACES
    ),
    *itertools.product(
        ["raven"], ["8bit", "float32"], [torch.bfloat16], [2], ["float32"], ["host"]
    ),
    *itertools.product(["raven"], ["16bit"], DTYPES, [1], ["bfloat16"], PLACES),
    *itertools.product(RULES, ["float32"], [torch.bfloat16], [4], ["float32"], ["host"]),
]


@pytest.mark.parametrize(
    ("rule", "moments", "dtype", "micro_steps", "sums", "gradients"), dict.fromkeys(CASES)
)
def test_sizes_are_those_of_the_engine(rule, moments, dtype, micro_steps, sums, gradients):
    streamed = frozenset(BLOCKS[:2])
    facts = UNetFacts(shapes=SHAPES, trained=TRAINED, rule=RULES[rule])
    sizes = sizes_of(facts, dtype, moments, micro_steps=micro_steps, sums=sums)
    placement = Placement(
        units={name: unit_of(name) for name in SHAPES},
        streamed=streamed,
        gradients=gradients,
        sums=sums,
        device_record_bytes=2_000_000,
        ring_bytes=1000,
    )
    engine = make_engine(RULES[rule], dtype, moments, placement, micro_steps)
    store, summed = RecordStore(engine), GradientSums(engine)

    assert sizes.record_bytes + sizes.small_records == engine.record_bytes()
    on_device = sum(sizes.records_on_device(2_000_000))
    assert on_device + sizes.small_records == store.bytes_on_device()
    assert sizes.record_bytes - on_device == store.bytes_on_host()
    on_host = sizes.sum_bytes("host") if gradients == "host" else 0
    assert on_host == summed.bytes_on_host()
    resident = sizes.sum_bytes("device") if gradients == "device" else 0
    assert resident + sizes.small_sums(gradients) == summed.bytes_on_device()
    assert sizes.ring_bytes(1000, gradients) == engine.ring.num_bytes
    host_weights = sum(engine.weights[name].nbytes for name in streamed)
    assert sum(u.streamed for u in sizes.units if u.name in streamed) == host_weights
    weights = sum(
        flat.nbytes for name, flat in engine.weights.items() if name not in streamed
    ) + sum(
        torch.Size(shape).numel() * dtype.itemsize
        for name, shape in SHAPES.items()
        if name not in TRAINED and name not in engine.frozen
    )
    assert sum(sizes.weight_bytes(streamed)) == weights
    assert sizes.bounce_bytes(gradients) == (max(map(engine._chunk_bytes, engine.chunks())),) * 6


@pytest.mark.parametrize("rule", RULES)
def test_the_work_space_is_that_of_the_update(rule):
    facts = UNetFacts(shapes=SHAPES, trained=TRAINED, rule=RULES[rule])
    sizes = sizes_of(facts, torch.bfloat16, "16bit", micro_steps=2, sums="float32")
    update = update_for(RULES[rule], CPU)
    if RULES[rule].needs_shape:
        update._grow(3000 * 320 * 9)
    assert sizes.scratch == update.scratch_bytes


def test_host_blocks_take_whole_pages():
    blocks = [60_000, 30_000, 9_999, 250_000, 10, 99_000]
    memory = HostMemory(CPU, 0)
    assert [memory.allocate(size).memory.numel() for size in blocks] == blocks
    assert sum(in_pages(blocks)) == memory.num_bytes


def test_blocks_above_ten_mebibytes_have_segments_of_their_own():
    assert reserved([11 * MIB, 11 * MIB]) == 24 * MIB
    assert reserved([5 * MIB] * 4) == 20 * MIB
    assert reserved([5 * MIB] * 5) == 40 * MIB
    assert reserved([100, 600, MIB]) == 2 * MIB
    assert reserved([100, MIB, MIB]) == 4 * MIB
    assert reserved([]) == 0
