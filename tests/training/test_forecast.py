"""The forecast is said once, from the first steps, and only where it is worth saying."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest
import torch

from duihua.training.forecast import GIB, Forecast
from duihua.training.memory import forget_peak, free_memory, own_peak_memory, peak_memory


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(capsys: pytest.CaptureFixture[str], steps: int, done: int = 0, each: float = 0.5) -> list[str]:
    clock = Clock()
    forecast = Forecast("pretrain", steps, done, clock=clock)
    for step in range(done + 1, steps + 1):
        clock.now += each
        forecast.look(step)
    return capsys.readouterr().out.splitlines()


def test_it_is_said_once_with_the_time_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, 760)  # half a second a step
    assert len(lines) == 1
    assert re.fullmatch(
        r"pretrain: about 6m20s for 760 steps, going by the first 8 \(2 a second\); memory so far \d\.\d\d GiB",
        lines[0],
    )
    assert "about 3m20s for 400 steps" in said(capsys, 760, done=360)[0]
    assert "the first 231 (76.9 a second)" in said(capsys, 2000, each=0.013)[0]  # three seconds at least
    assert said(capsys, 20) == []  # over in ten seconds


def test_the_peak_is_that_since_it_was_forgotten() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux forgets")
    block = mmap.mmap(-1, 200 << 20)  # past malloc, which may keep what is freed
    for place in range(0, len(block), 4096):
        block[place] = 1
    before = own_peak_memory()
    block.close()
    assert peak_memory("cpu") > before - (20 << 20)  # a control: freeing alone forgets nothing
    forget_peak("cpu")
    assert peak_memory("cpu") < before - (100 << 20)


def test_what_torch_keeps_of_tensors_that_are_gone_is_free_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring a network for the dial leaves its memory with torch's allocator: there is as much room as before."""
    held = {"mem_get_info": (24 * GIB, 24 * GIB), "memory_reserved": 0, "memory_allocated": 0}
    for name in tuple(held):
        monkeypatch.setattr(torch.cuda, name, lambda _, name=name: held[name])
    assert free_memory("cuda") == 24 * GIB
    held |= {"mem_get_info": (9 * GIB, 24 * GIB), "memory_reserved": 15 * GIB, "memory_allocated": 0}
    assert free_memory("cuda") == 24 * GIB
    held |= {"memory_allocated": 10 * GIB}  # a control: what is in use is not free
    assert free_memory("cuda") == 14 * GIB
