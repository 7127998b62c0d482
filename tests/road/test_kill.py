"""kill -9, Ctrl-C and SIGTERM at any moment: the same command goes on, and the last byte is what it would have been."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

KILLS = 5
OFTEN = [f"{stage}.trainer.checkpoint_seconds=0.3" for stage in ("pretrain", "sft", "reward", "ppo")]
"""So that there is something to go on from in the middle of stages of two seconds; it must change no byte either."""


def command(road: Any, output: str, *more: str) -> list[str]:
    """The recipe with checkpoints in the middle of its stages."""
    found: list[str] = road.recipe(output, *(word for setting in OFTEN for word in ("--set", setting)), *more)
    return found


def measured(run: Path) -> dict[str, Any]:
    """All that the stages measured but the clock: in PPO also rewards and replies, which no bundle holds."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if "second" not in key}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    results = sorted(run.glob("*/result.json"))
    return {path.parent.name: timeless(json.loads(path.read_bytes())["metrics"]) for path in results}


@pytest.mark.slow
def test_kill_9_at_five_random_moments_gives_the_same_bytes(road: Any, tiny_run: Any) -> None:
    chance = random.Random(20)
    whole = tiny_run.finished.seconds
    moments = [whole * 0.9 * (number + chance.random()) / KILLS for number in range(KILLS)]
    waits = [later - earlier for earlier, later in zip([0.0, *moments], moments, strict=False)]
    runs = [road.folder / "killed-1"]
    killed, went_on = 0, ""
    while killed < KILLS:
        attempt = road.run(command(road, runs[-1].name), signal.SIGKILL, waits[killed])
        went_on += attempt.out
        if attempt.code == 0:  # faster than the run that was measured: this one has had its kills, on with another
            runs.append(road.folder / f"killed-{len(runs) + 1}")
            assert len(runs) <= KILLS, "five runs ended before they could be killed"
            continue
        assert attempt.code == -signal.SIGKILL, attempt.out + attempt.err
        killed += 1
    if runs[-1].exists():
        last = road.run(command(road, runs[-1].name))
        assert last.code == 0, last.out + last.err
        went_on += last.out
    assert "going on" in went_on
    for run in runs:
        if run.exists():
            assert road.bundles(run) == road.bundles(tiny_run.directory)
            assert measured(run) == measured(tiny_run.directory)
            assert not (run / "old").exists()


@pytest.mark.slow
def test_ctrl_c_and_sigterm_leave_with_130_and_say_how_to_go_on(road: Any, tiny_run: Any) -> None:
    argv = command(road, "stopped")
    seconds = tiny_run.finished.seconds
    for number, share in ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.15)):
        stopped = road.run(argv, number, seconds * share)
        assert stopped.code == 130, (number, stopped.out, stopped.err)
        assert stopped.out.count("Go on with the same command: duihua run ") == 1
        assert stopped.out.rstrip().endswith("--set ppo.trainer.checkpoint_seconds=0.3")
        assert "Traceback" not in stopped.err
    again = road.run(argv)
    assert again.code == 0, again.out + again.err
    assert road.bundles(road.folder / "stopped") == road.bundles(tiny_run.directory)


def test_the_comparison_sees_another_seed(road: Any, tiny_run: Any) -> None:
    """Control: the bytes that are compared do depend on chance and on every step."""
    other = road.run(command(road, "other", "--seed", "2", "--until", "pretrain", "--set", "pretrain.steps=2"))
    assert other.code == 0, other.err
    shutil.copytree(tiny_run.directory, road.folder / "mixed")
    shutil.copy(road.folder / "other/pretrain/model.safetensors", road.folder / "mixed/pretrain/model.safetensors")
    before, after = road.bundles(tiny_run.directory), road.bundles(road.folder / "mixed")
    assert {name for name in before if before[name] != after[name]} == {"pretrain/model.safetensors"}


def test_the_same_command_again_skips_all_and_touches_no_bundle(tiny_run: Any) -> None:
    files = [path for path in tiny_run.directory.glob("*/*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    again = tiny_run.road.run([*tiny_run.road.recipe("tiny"), "--json"])
    assert again.code == 0, again.err
    assert set(json.loads(again.out)["stages"].values()) == {"skipped"}
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
