"""A device that is not there is one clear line, by whatever way it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import duihua
from duihua.errors import ConfigError
from duihua.models.bundle import load_bundle
from duihua.models.device import check_device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="unknown device"):
        check_device(device)


def test_a_gpu_that_torch_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no CUDA device") as found:
        check_device("cuda")
    assert "duihua doctor" in found.value.remedy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(ConfigError, match="has 2 CUDA devices"):
        check_device("cuda:2")


@pytest.mark.parametrize("opens", [load_bundle, duihua.load])
def test_a_bundle_is_not_opened_on_a_device_that_is_not_there(
    opens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, problem in (("cuda", "sees no CUDA device"), ("toaster", "unknown device")):
        with pytest.raises(ConfigError, match=problem):
            opens(tmp_path, device=device)
