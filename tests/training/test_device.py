from __future__ import annotations

import pytest
import torch

from aozora.errors import AozoraError, OutOfMemory
from aozora.training.device import device_settings, out_of_memory

REFUSALS = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] data. DefaultCPUAllocator: not enough memory"
    ),
    OSError(22, "The paging file is too small for this operation to complete. (os error 1455)"),
    OSError("[WinError 1455] The paging file is too small for this operation to complete"),
    OSError("[WinError 8] Not enough memory resources are available to process this command"),
    MemoryError(),
]


def on_the_processor():
    return device_settings(torch.device("cpu"), deterministic=False)


@pytest.mark.parametrize("error", REFUSALS)
def test_main_memory_that_runs_out_is_no_bug(error):
    with pytest.raises(OutOfMemory, match="main memory ran out") as caught, on_the_processor():
        raise error
    assert "paging file" in caught.value.hint
    assert not caught.value.message.endswith((":", " "))


def test_an_allocation_nobody_can_serve_is_known_as_such():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    found = out_of_memory(caught.value)
    assert found is not None
    assert "main memory" in found.message


def test_a_card_that_runs_out_is_told_from_main_memory():
    found = out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert "the device ran out of memory: CUDA out of memory" in found.message
    assert "batch_size" in found.hint


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(2, "No such file"), AozoraError("x"), None]
)
def test_other_errors_stay_what_they_are(error):
    assert out_of_memory(error) is None
    if error is not None:
        with pytest.raises(type(error)) as caught, on_the_processor():
            raise error
        assert caught.value is error
