"""What a stage does not use is said while it runs, not only stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duihua.data.source import SourceConfig
from duihua.files import read_json
from duihua.stages import tokenizer
from duihua.stages.configs.tokenizer import TokenizerConfig
from duihua.stages.context import StageContext
from duihua.stages.left_out import say_left_out


def test_each_reason_is_a_line_with_its_count(capsys: pytest.CaptureFixture[str]) -> None:
    say_left_out("sft", "mine.jsonl", {"empty message": 2, "left out: one turn is longer than a row": 1300})
    assert capsys.readouterr().out.splitlines() == [
        "sft: left out of mine.jsonl: 1,300 x one turn is longer than a row",
        "sft: left out of mine.jsonl: 2 x empty message",
    ]
    say_left_out("sft", "mine.jsonl", {})
    assert capsys.readouterr().out == ""


def test_a_stage_says_and_stores_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"text": f"Text number {number}. 第{number}段文字。" * 6}) for number in range(40)]
    lines[3] = json.dumps({"text": " "})
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    config = TokenizerConfig(sources=(SourceConfig(path=str(file)),), vocabulary_size=270)
    tokenizer.run(config, StageContext(tmp_path / "made", data_directory=tmp_path))
    assert f"tokenizer: left out of {file}: 1 x empty text" in capsys.readouterr().out
    stored = read_json(tmp_path / "made" / "result.json")["metrics"]["left_out"][str(file)]
    assert stored["reasons"] == {"empty text": {"count": 1, "first": f"{file}:4: text"}}
