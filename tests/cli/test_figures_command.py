"""`duihua figures`: files where they were asked for, and one line where something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duihua.cli.main import WRONG, main


def test_list_names_every_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["pictures"]
    assert {"walk-through", "causal-mask", "model-sizes"} <= {row["name"] for row in rows}
    assert {row["name"] for row in rows if row["needs"] is None} >= {"causal-mask", "schedules"}
    assert main(["figures", "--list", "--language", "zh"]) == 0
    assert "得分、掩码" in capsys.readouterr().out


def test_pictures_and_their_numbers_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["figures", "--only", "causal-mask", "norm-axes", "--output", str(tmp_path), "--html", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["pictures"]] == ["causal-mask", "norm-axes"]
    for row in found["pictures"]:
        assert Path(row["file"]).read_bytes().startswith(b"<?xml")
        assert json.loads(Path(row["data"]).read_text(encoding="utf-8"))
    assert Path(found["page"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "causal-mask.json", "causal-mask.svg", "inside.html", "norm-axes.json", "norm-axes.svg"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "causal-maks"], "causal-mask"),
        (["--only", "attention"], "the folder of a language model"),
        (["nowhere", "--only", "attention"], "no such folder"),
        (["--formt", "png"], "--format"),
    ],
)
def test_faults_are_one_line_with_a_remedy(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["figures", *arguments, "--output", str(tmp_path)]) == WRONG
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
