from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizers.chunk import QUANT_BLOCK
from optimizers.layout import SMALL_UNIT, lay_out

shapes = st.lists(st.integers(1, 5000), min_size=1, max_size=12)


@given(st.lists(shapes, min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 40))
def test_every_element_is_in_one_chunk_and_every_tensor_in_one_bucket(groups, chunk, bucket):
    named = {
        f"u{i}": {f"u{i}.{j}": torch.Size([size]) for j, size in enumerate(sizes)}
        for i, sizes in enumerate(groups)
    }
    units = lay_out(
        named,
        chunk_elements=chunk * QUANT_BLOCK,
        bucket_elements=bucket * QUANT_BLOCK,
        small_tensor=300,
    )
    seen = []
    for unit in units:
        covered = [0] * unit.numel
        for piece in unit.chunks:
            assert piece.start % QUANT_BLOCK == 0
            assert 0 < piece.numel <= max(chunk * QUANT_BLOCK, QUANT_BLOCK)
            for element in range(piece.start, piece.end):
                covered[element] += 1
        assert covered == [1] * unit.numel_trained
        for part in unit.buckets:
            seen += [place.name for place in part.tensors]
            assert sum(c.numel for c in part.chunks) == part.numel
        for place in unit.tensors:
            assert place.start % QUANT_BLOCK == 0
            assert (place.numel < 300) == (unit.name == SMALL_UNIT)
            parts = [c.part_of(place) for c in unit.chunks if place in c.tensors]
            outside = [i for _, outer in parts for i in range(outer.start, outer.stop)]
            assert outside == list(range(place.numel))
    assert sorted(seen) == sorted(name for group in named.values() for name in group)
    indices = [c.index for unit in units for c in unit.chunks]
    assert indices == list(range(len(indices)))


def test_where_an_element_stands_does_not_depend_on_how_units_are_cut():
    named = {"u": {f"u.{i}": torch.Size([7 * i + 300]) for i in range(9)}}
    cuts = [(1, 1), (3, 2), (1000, 1000)]
    places = [
        lay_out(named, chunk_elements=c * 128, bucket_elements=b * 128, small_tensor=0)[0].tensors
        for c, b in cuts
    ]
    assert places[0] == places[1] == places[2]


def test_frozen_tensors_stand_behind_the_trained_ones():
    (unit,) = lay_out(
        {"u": {"a": torch.Size([1000])}}, {"u": {"b": torch.Size([500])}}, small_tensor=0
    )
    assert unit.numel_trained == 1024
    assert unit.frozen[0].start == 1024
    assert unit.numel == 1024 + 512
    assert sum(c.numel for c in unit.chunks) == 1024


def test_whole_tensors_are_one_chunk_each():
    (unit,) = lay_out(
        {"u": {"a": torch.Size([100, 30]), "b": torch.Size([7])}},
        chunk_elements=128,
        small_tensor=0,
        whole_tensors=True,
    )
    assert [[p.name for p in c.tensors] for c in unit.chunks] == [["a"], ["b"]]
