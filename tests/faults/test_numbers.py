"""Numbers that are none, gradients that are far too large, memory that is too small, clocks that jump."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file


def result(run: Path) -> dict[str, Any]:
    """What a run measured."""
    found: dict[str, Any] = json.loads((run / "result.json").read_bytes())["metrics"]
    return found


def losses(run: Path) -> list[float]:
    """The training losses in the order of their steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "learning_rate" in line]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_gradient_that_is_no_number_is_skipped_and_counted_and_changes_no_weight(
    lab: Any, name: str, value: str
) -> None:
    output = lab.fresh(name)
    ended = lab.run(name, output, {"kind": "gradient", "steps": [4, 9], "value": value})
    assert ended.code == 0, ended.said
    assert ended.said.count(" skipped: ") == 2
    assert f"{name}: step 4 skipped: " in ended.said
    assert result(output)["skipped_steps"] == 2
    for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        assert all(math.isfinite(x) for x in json.loads(line).values() if isinstance(x, float)), line
    for file in output.glob("*.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(file).values())
    lab.survived(value, name)


def test_a_run_that_skips_one_step_after_the_other_stops_with_advice_and_keeps_its_checkpoint(
    lab: Any, name: str
) -> None:
    output = lab.fresh(name)
    steps = list(range(4, 40))
    broken = {"kind": "gradient", "steps": steps, "value": "nan"}
    ended = lab.run(name, output, broken)
    assert ended.code == 2, ended.said
    assert "10 steps in a row could not be taken" in ended.said.splitlines()[-1]
    assert "Lower the learning rates, or check the data" in ended.said.splitlines()[-1]
    again = lab.run(name, output, broken)  # and not ten steps further with each call
    assert again.code == 2, again.said
    lab.survived("stopped", name)


def test_too_little_memory_halves_the_micro_batch_and_changes_nothing_that_is_learnt(lab: Any, name: str) -> None:
    calm, _ = lab.undisturbed(name)
    rows = lab.family(name).rows
    cramped = {"kind": "memory", "rows": rows // 2}
    output = lab.fresh(name)
    ended = lab.run(name, output, cramped)
    assert ended.code == 0, ended.said
    assert "out of memory (CUDA out of memory. Tried to...); the step is done again in" in ended.said
    assert "The effective batch stays" in ended.said
    most = 3 if name == "translate" else 2  # its batches are so many tokens: a later one can have more rows
    assert ended.said.count("the step is done again in") <= most, "once the size is found, it is kept"
    if name not in ("classify", "translate", "recurrent"):  # these draw dropout, and draw it for other rows then
        mine, theirs = (losses(run)[: 2 if name in ("ppo", "grpo") else None] for run in (output, calm))
        assert mine == pytest.approx(theirs, rel=1e-3)  # numbers added in another order, through all steps
    assert result(output)["steps"] == lab.steps(name)
    if name != "dpo":  # whose pairs are laid out anew, with fewer pads
        assert result(output).get("tokens") == result(calm).get("tokens")
    lab.survived("memory", name)


def test_a_cramped_run_that_was_interrupted_ends_with_the_bytes_of_a_cramped_run(lab: Any, name: str) -> None:
    """The number of cuts is in the checkpoint: the second half begins with the small micro-batches of the first."""
    cramped = {"kind": "memory", "rows": lab.family(name).rows // 2}
    whole, parts = lab.fresh(name), lab.fresh(name)
    assert lab.run(name, whole, cramped).code == 0
    killed = lab.run(name, parts, {**cramped, "then": {"kind": "kill_event", "event": 60}})
    assert killed.code == -signal.SIGKILL, killed.said
    assert lab.run(name, parts, cramped).code == 0
    assert lab.same(whole, parts)


def test_memory_for_less_than_one_example_stops_with_advice(lab: Any) -> None:
    ended = lab.run("sft", lab.fresh("sft"), {"kind": "memory", "rows": 0, "python": True})
    assert ended.code == 2, ended.said
    last = ended.said.splitlines()[-1]
    assert "the memory does not hold a micro-batch of 1 x 48 tokens" in last
    assert "Make the micro-batch, the rows or the model smaller" in last


def checkpoints(run: Path) -> list[int]:
    """The steps of which a run has checkpoints."""
    return sorted(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*"))


def due(calm: Path, interval: int) -> list[int]:
    """The steps of which a run whose clock does not jump has them, all kept: with an interval of 0 seconds every step, with one
    that is longer than the run those of its evaluations and the last."""
    steps = result(calm)["steps"]
    lines = [json.loads(line) for line in (calm / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluated = {line["step"] for line in lines if "learning_rate" not in line}
    return sorted({*evaluated, steps} if interval else range(1, steps + 1))


def timed(interval: int) -> list[str]:
    """Checkpoints by the clock and not by the number of steps, all of which stay."""
    settings = {"checkpoint_seconds": interval, "checkpoint_steps": 0, "keep_checkpoints": 99}
    return [word for name, value in settings.items() for word in ("--set", f"trainer.{name}={value}")]


JUMPS = pytest.mark.parametrize(("days", "interval"), [(10, 1000), (-10, 0)], ids=["forward", "back"])
"""Each with the interval at which believing the jump would show: it would write at every step, or never again."""


@JUMPS
def test_a_clock_that_jumps_changes_no_byte_and_no_checkpoint(lab: Any, name: str, days: int, interval: int) -> None:
    calm, _ = lab.undisturbed(name)
    output = lab.fresh(name)
    ended = lab.run(name, output, {"kind": "clock", "days": days}, *timed(interval))
    assert ended.code == 0, ended.said
    assert checkpoints(output) == due(calm, interval)
    mine, theirs = result(output), result(calm)
    assert {key: mine[key] for key in ("steps", "loss") if key in mine} == {
        key: theirs[key] for key in ("steps", "loss") if key in theirs
    }
    assert 0 < mine["seconds"] < 600, "a span of time is measured by a clock that does not jump"
    for file in calm.glob("*.safetensors"):
        assert (output / file.name).read_bytes() == file.read_bytes()
    lab.survived("clock", name)


@JUMPS
def test_checkpoints_by_the_clock_that_jumps_are_noticed(lab: Any, days: int, interval: int) -> None:
    """The control: a Trainer that asks `time.time` writes at every step where it should not, and none where it should."""
    calm, _ = lab.undisturbed("sft")
    output = lab.fresh("sft")
    ended = lab.run("sft", output, {"kind": "wall_clock", "then": {"kind": "clock", "days": days}}, *timed(interval))
    assert ended.code == 0, ended.said
    assert checkpoints(output) == due(calm, 1000 - interval) != due(calm, interval)
