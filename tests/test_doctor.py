from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest
import torch

from aozora import doctor
from aozora.memory import machine

SETUP = "python3 bootstrap.py setup"


def test_optional_kernels_are_installed_by_setup_and_not_by_pip(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    remedies = {finding.topic: finding.remedy for finding in doctor._attention()}
    for kernel in ("flash", "xformers"):
        remedy = remedies[f"Attention: {kernel}"]
        assert f"{SETUP} --attention {kernel}" in remedy
        assert f"setup.bat --attention {kernel}" in remedy
        assert "pip" not in remedy
    # Windows gets it from a wheel alone.
    assert "--wheel FILE" in remedies["Attention: flash"]
    assert "--wheel" not in remedies["Attention: xformers"]


def test_what_only_setup_can_mend_names_setup(monkeypatch):
    def is_missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(importlib.metadata, "version", is_missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (card,) = doctor._graphics_card()
    assert "NVIDIA driver" in card.remedy
    for finding in (card, doctor._package("diffusers"), doctor._vocabulary()):
        assert SETUP in finding.remedy, finding
        assert "pip" not in finding.remedy


@pytest.mark.parametrize(("promised", "mark"), [(None, None), (9 * 2**30, "ok"), (2**30, "note")])
def test_a_paging_file_that_keeps_memory_from_being_used_is_named(monkeypatch, promised, mark):
    monkeypatch.setattr(machine, "commit_free", lambda: promised)
    found = doctor._promised_memory(8 * 2**30)
    assert [finding.mark for finding in found] == ([mark] if mark else [])
    if mark == "note":
        assert "1.0 GiB" in found[0].text
        assert "paging file" in found[0].remedy
