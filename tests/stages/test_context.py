from __future__ import annotations

from pathlib import Path

import pytest

from duihua.errors import ConfigError
from duihua.stages.context import StageContext, StageResult


def test_a_missing_input_names_those_that_are_there(tmp_path: Path) -> None:
    context = StageContext(directory=tmp_path, inputs={"policy": tmp_path / "sft"})
    assert context.input("policy") == tmp_path / "sft"
    with pytest.raises(ConfigError, match="needs the input 'reward', and was given: policy"):
        context.input("reward")


def test_a_result_is_read_back_after_the_run_was_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    StageResult(old / "best", {"loss": 1.5}).save(old)
    old.rename(new)
    assert StageResult.load(new) == StageResult(new / "best", {"loss": 1.5})


def test_a_stage_that_only_measures_has_no_bundle(tmp_path: Path) -> None:
    StageResult(None, {}).save(tmp_path)
    assert StageResult.load(tmp_path).bundle is None


def test_data_is_looked_for_where_the_command_line_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUIHUA_HOME", str(tmp_path / "home"))
    assert StageContext(tmp_path).data_directory == tmp_path / "home"
    assert StageContext(tmp_path, data_directory=tmp_path / "other").data_directory == tmp_path / "other"
