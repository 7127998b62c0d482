"""The study's shortcut changes nothing: a budget that branches off the common part ends as a run of its own."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield importlib.import_module("scaling")
    for name in ("scaling", "scaling_plot"):
        sys.modules.pop(name, None)


def run(scaling: Any, monkeypatch: pytest.MonkeyPatch, work: Path, *more: str) -> list[dict[str, Any]]:
    words = ["--sources", "tiny-text", "--vocabulary", "300", "--data", str(work.parent / "data")]
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--work", str(work), *words, *more])
    assert scaling.main() in (0, 2)  # one size or two are too few for a law
    rows: list[dict[str, Any]] = scaling.read_rows(work / "cells.jsonl")
    return rows


def test_a_branch_ends_as_a_run_of_its_own_and_a_study_goes_on(
    scaling: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = run(scaling, monkeypatch, tmp_path / "both", "--sizes", "1", "--tokens", "24K", "40K")
    assert [row["steps"] for row in both] == [12, 20] and [row["tokens"] for row in both] == [24576, 40960]
    alone = run(scaling, monkeypatch, tmp_path / "alone", "--sizes", "1", "--tokens", "40K")
    assert alone[0]["bits_per_byte"] == both[1]["bits_per_byte"] != both[0]["bits_per_byte"]
    assert "sizes and" in capsys.readouterr().err
    lines = (tmp_path / "both" / "cells.jsonl").read_text().splitlines()
    (tmp_path / "both" / "cells.jsonl").write_text(lines[0] + "\n" + lines[1][:20])  # killed while it wrote
    again = run(scaling, monkeypatch, tmp_path / "both", "--sizes", "1", "--tokens", "24K")
    assert again[0] == both[0]


def test_the_fit_writes_constants_with_where_they_come_from(
    scaling: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = tmp_path / "study"
    work.mkdir()
    with open(work / "cells.jsonl", "w", encoding="utf-8") as file:
        for size, weights in ((1, 5e5), (2, 1.4e6), (3, 2.7e6)):
            for steps in (40, 80, 160):
                tokens = 2048 * steps
                bits = 0.6 + 0.4 * (weights / 1e6) ** -0.3 + 0.9 * (tokens / 1e6) ** -0.3
                row = {"size": size, "steps": steps, "seed": 1, "tokens": tokens, "multiplying_weights": weights}
                row |= {"bits_per_byte": bits, "heldout_bytes": 1000, "processor_seconds": 6.0}
                file.write(json.dumps(row) + "\n")
    law = work / "law.json"
    run(
        scaling,
        monkeypatch,
        work,
        "--fit",
        "--write",
        "--law",
        str(law),
        "--plot",
        str(work / "law.svg"),
        "--commit",
        "abc",
    )
    found = json.loads(law.read_text())
    assert found["curve"]["data_exponent"] == pytest.approx(0.3, rel=1e-3)
    assert found["about"]["sources"] == ["tiny-text"] and found["about"]["vocabulary_size"] == 300
    assert found["about"]["commit"] == "abc" and found["about"]["sizes"] == [1, 2, 3]
    assert len(found["about"]["cells"]) == 9 and found["about"]["processor_minutes"] == 0.9
    picture = (work / "law.svg").read_text(encoding="utf-8")
    assert "<svg" in picture and "词元数" in picture and "size 3" in picture
