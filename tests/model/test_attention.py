from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from aozora.errors import AozoraError
from aozora.model.attention import (
    KernelProcessor,
    attention_in_use,
    available_kernels,
    use_attention,
)
from aozora.model.building import build_model
from aozora.model.synthetic import ModelSizes, configs_of


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return build_model("unet", configs_of(ModelSizes())["unet"])


def predict(unet):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    prompt = torch.randn(1, 77, 192, generator=generator)
    added = {"text_embeds": torch.ones(1, 128), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        return unet(latents, torch.tensor([500]), prompt, added_cond_kwargs=added).sample


def plain_kernel(query, key, value):
    swapped = (t.transpose(1, 2) for t in (query, key, value))
    return scaled_dot_product_attention(*swapped).transpose(1, 2)


@pytest.mark.parametrize("wanted", ["auto", "sdpa"])
def test_auto_is_pytorchs_own_and_says_so(unet, wanted):
    assert use_attention(unet, wanted) == "sdpa"
    assert attention_in_use(unet) == "sdpa"


def test_our_processor_computes_what_diffusers_computes(unet):
    use_attention(unet, "sdpa")
    expected = predict(unet)
    calls = []

    def kernel(query, key, value):
        calls.append(query.shape)
        return plain_kernel(query, key, value)

    unet.set_attn_processor(KernelProcessor(kernel, "flash"))
    torch.testing.assert_close(predict(unet), expected, atol=1e-5, rtol=1e-5)
    assert len(calls) == len(unet.attn_processors)
    assert all(shape[0] == 1 and shape[3] == 64 for shape in calls)
    assert attention_in_use(unet) == "flash"


def test_a_mixture_of_kernels_is_not_reported_as_one(unet):
    use_attention(unet, "sdpa")
    first = next(iter(unet.attn_processors))
    processors = dict(unet.attn_processors)
    processors[first] = KernelProcessor(plain_kernel, "xformers")
    unet.set_attn_processor(processors)
    with pytest.raises(AozoraError, match="different attention kernels"):
        attention_in_use(unet)


@pytest.mark.parametrize(("wanted", "module"), [("flash", "flash_attn"), ("xformers", "xformers")])
def test_a_kernel_that_is_not_installed_is_an_error_with_a_remedy(
    unet, monkeypatch, wanted, module
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AozoraError, match=r"model\.attention asks for") as caught:
        use_attention(unet, wanted)
    assert f"python3 bootstrap.py setup --attention {wanted}" in caught.value.hint
    assert "pip" not in caught.value.hint
    assert "sdpa" in caught.value.hint


def test_an_installed_kernel_that_does_not_fit_the_device_is_refused(unet, monkeypatch):
    fake = SimpleNamespace(flash_attn_func=plain_kernel)
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    with pytest.raises(AozoraError, match="NVIDIA cards only"):
        use_attention(unet, "flash")


def test_cards_before_compute_capability_8_get_no_flash_attention(monkeypatch):
    from aozora.model.attention import _flash_kernel

    fake = SimpleNamespace(flash_attn_func=plain_kernel)
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(AozoraError, match="does not support this card"):
        _flash_kernel(cuda, torch.float16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(AozoraError, match="bf16 and fp16 only"):
        _flash_kernel(cuda, torch.float32)
    assert _flash_kernel(cuda, torch.bfloat16) is plain_kernel


def test_the_doctor_can_list_kernels_with_reasons(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setitem(sys.modules, "xformers", None)
    found = available_kernels(torch.device("cpu"))
    assert found["sdpa"] == ""
    assert "FlashAttention" in found["flash"]
    assert "xformers" in found["xformers"]
