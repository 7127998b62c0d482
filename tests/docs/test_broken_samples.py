"""Every check of docs/broken-samples.md rejects the broken code and accepts the corrected one, in both languages alike.

The blocks are our own page's: they are written to a file and run as a module, as a reader would run them.
"""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

PAGES = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```python (given|broken|check|right)(?: (\w+))?\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Sample:
    """One section. error: the exception that the broken code ends with; an AssertionError must be the check's own."""

    title: str
    given: str
    broken: str
    check: str
    right: str
    error: str = "AssertionError"


def samples(text: str) -> list[Sample]:
    """The sections of a page that have code."""
    found = []
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        blocks = {kind: code for kind, _, code in BLOCK.findall(section)}
        errors = [error for kind, error, _ in BLOCK.findall(section) if kind == "broken" and error]
        title = section.splitlines()[0]
        assert sorted(blocks) == ["broken", "check", "given", "right"], f"{title}: {sorted(blocks)}"
        assert len(BLOCK.findall(section)) == section.count("```python") == 4, title
        found.append(Sample(title, **blocks, error=errors[0] if errors else "AssertionError"))
    return found


ENGLISH = samples((PAGES / "broken-samples.md").read_text(encoding="utf-8"))


def fault(sample: Sample, part: str, folder: Path) -> str:
    """The name of the exception that `given`, a part and `check` end with, "" for none. An AssertionError from elsewhere
    than the check is "not the check"."""
    before = sample.given + part
    file = folder / "sample.py"
    file.write_text(before + sample.check, encoding="utf-8")
    try:
        runpy.run_path(str(file))
    except Exception as error:  # whatever the sample raises is the answer
        if isinstance(error, AssertionError):
            lines = [
                frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
            ]
            return "AssertionError" if lines and lines[-1] > before.count("\n") else "not the check"
        return type(error).__name__
    return ""


@pytest.fixture(autouse=True)
def own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("sample", ENGLISH, ids=lambda sample: sample.title)
def test_the_check_rejects_the_broken_sample_and_accepts_the_corrected_one(sample: Sample, tmp_path: Path) -> None:
    assert fault(sample, sample.broken, tmp_path) == sample.error
    assert fault(sample, sample.right, tmp_path) == ""


def test_a_sample_without_fault_and_a_fault_outside_the_check_are_noticed(tmp_path: Path) -> None:
    [sample] = [sample for sample in ENGLISH if sample.title == "Perplexity as the mean of batch means"]
    assert fault(sample, sample.broken, tmp_path) == "AssertionError"
    assert fault(sample, sample.right, tmp_path) == ""
    assert fault(sample, "assert False\n", tmp_path) == "not the check"
    assert fault(sample, "perplexity = 1 / 0\n", tmp_path) == "ZeroDivisionError"


def test_both_languages_show_the_same_code() -> None:
    chinese = samples((PAGES / "broken-samples.zh.md").read_text(encoding="utf-8"))
    assert [(s.given, s.broken, s.check, s.right, s.error) for s in chinese] == [
        (s.given, s.broken, s.check, s.right, s.error) for s in ENGLISH
    ]
    assert all(re.search(r"[一-鿿]", sample.title) for sample in chinese)
    assert len({sample.title for sample in ENGLISH}) == len(ENGLISH) == 30
