from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.errors import ConfigError
from duihua.files import read_json
from duihua.stages import STAGES, Stage, find_stage
from duihua.stages.context import StageContext, StageResult
from duihua.stages.execution import CONFIG_FILE, execute, is_finished


@dataclass(frozen=True)
class Nothing:
    size: int = 2
    """A number."""


class Drawing(Stage):
    """Draws from each generator that a stage might use."""

    def run(self, config: Any, context: StageContext) -> StageResult:
        return StageResult(None, {"drawn": [random.random(), torch.rand(1).item()], "threads": torch.get_num_threads()})


DRAWING = Drawing("drawing", "draw", "", "", {})


def test_a_stage_draws_the_same_whatever_ran_before(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    first = execute(DRAWING, Nothing(), StageContext(tmp_path / "a", seed=5, threads=1))
    random.random(), torch.rand(3)
    second = execute(DRAWING, Nothing(), StageContext(tmp_path / "b", seed=5, threads=1))
    other = execute(DRAWING, Nothing(), StageContext(tmp_path / "c", seed=6, threads=1))
    assert first.metrics == second.metrics
    assert first.metrics["drawn"] != other.metrics["drawn"]
    assert first.metrics["threads"] == 1
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_settings_are_kept_and_leftovers_of_a_kill_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.safetensors.77.part").write_bytes(b"half")
    execute(DRAWING, Nothing(3), StageContext(tmp_path))
    assert read_json(tmp_path / CONFIG_FILE) == {"size": 3}
    assert not list(tmp_path.glob(".*.part"))


def test_finished_means_result_and_bundle_stand(tmp_path: Path) -> None:
    assert not is_finished(tmp_path)
    StageResult(tmp_path, {}).save(tmp_path)
    assert is_finished(tmp_path)
    (tmp_path / "result.json").write_text('{"bundle": "gone", "metrics": {}}')
    assert not is_finished(tmp_path)
    (tmp_path / "result.json").write_text('{"bund')
    assert not is_finished(tmp_path)


def test_every_stage_of_the_table_exists_with_defaults() -> None:
    for name, stage in STAGES.items():
        assert stage.name == name
        assert stage.config_class()() is not None
        kinds = {kind for wanted in stage.inputs.values() for kind in wanted.stages}
        assert kinds <= set(list(STAGES)[: list(STAGES).index(name)])
    with pytest.raises(ConfigError, match="nearest known name is 'reward'"):
        find_stage("rewards")
