"""Freed memory stays with the process: the kernel is not asked for the same pages again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from duihua.training.allocator import keep_freed_memory

BLOCKS = """
import resource, sys
import torch
from duihua.training.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    return [torch.ones(12_000_000).sum() for _ in range(3)], [torch.ones(3_000_000) for _ in range(4)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(way: str) -> int:
    """Of five steps that ask for the same 192 MB after three that already had them."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    told = subprocess.run([sys.executable, "-c", BLOCKS, way], env=plain, capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_step_like_the_ones_before_it_faults_few_pages_in() -> None:
    given_back = page_faults("given back")
    assert given_back > 50_000  # the control: 36 MB and more a block, 4 KiB a page
    assert (
        page_faults("kept") < given_back / 5
    )  # not none: blocks come to lie elsewhere, and the heap still grows a little


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_a_user_who_set_malloc_up_is_left_alone(name: str) -> None:
    assert not keep_freed_memory({name: "1"})


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory({})
