"""The forecast is said once, from the first steps, and only where it is worth saying."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest

from duihua.training.forecast import Forecast
from duihua.training.memory import forget_peak, own_peak_memory, peak_memory


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
