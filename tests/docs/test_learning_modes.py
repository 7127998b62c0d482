"""The program of docs/learning-modes.md runs, and both languages show the same one."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

PAGES = Path(__file__).parents[2] / "docs"


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PAGES / name).read_text(encoding="utf-8"), re.DOTALL)


def test_the_program_runs_and_shows_each_modes_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "modes.py"
    file.write_text("".join(blocks("learning-modes.md")), encoding="utf-8")
    with torch.random.fork_rng():
        found = runpy.run_path(str(file))
    shown = capsys.readouterr().out
    for words in (
        "labels by hand",
        "0 labels: agreement",
        "with labels of its own",
        "['Beijing'] -> is",
        "labels from",
    ):
        assert words in shown, shown
    # the labels of each mode: of people, none, few and -1, and the text's own
    assert len(found["labels"]) == len(found["sentences"]) > 40
    assert (found["known"] >= 0).sum() == 4 and (found["known"] == -1).sum() == len(found["sentences"]) - 4
    assert int(found["weights"].sum()) == sum(len(row) - 1 for row in found["rows"])
    assert not set(found["train"]) & set(found["test"]) and set(found["few"]) <= set(found["train"])


def test_labels_that_mean_nothing_are_not_learnt(tmp_path: Path) -> None:
    """Control: with the labels shuffled, the same program ends at the first of its checks."""
    program = "".join(blocks("learning-modes.md")[:2])
    line = "order = numpy.random.default_rng(0)"
    assert program.count(line) == 1
    file = tmp_path / "shuffled.py"
    file.write_text(
        program.replace(line, f"labels = numpy.random.default_rng(5).permutation(labels)\n{line}"), encoding="utf-8"
    )
    with pytest.raises(AssertionError):
        runpy.run_path(str(file))


def test_both_languages_show_the_same_code() -> None:
    english, chinese = blocks("learning-modes.md"), blocks("learning-modes.zh.md")
    assert len(english) == 5 and chinese == english
