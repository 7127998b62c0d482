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


def test_a_clock_that_jumps_changes_nothing(lab: Any, name: str) -> None:
    """With a checkpoint each second by the clock: one that believed a jump would write at every step, or never again."""
    calm, _ = lab.undisturbed(name)
    output = lab.fresh(name)
    more = ["--set", "trainer.checkpoint_seconds=1000"]
    ended = lab.run(name, output, {"kind": "clock"}, *more)
    assert ended.code == 0, ended.said
    mine, theirs = result(output), result(calm)
    assert {key: mine[key] for key in ("steps", "loss") if key in mine} == {
        key: theirs[key] for key in ("steps", "loss") if key in theirs
    }
    assert 0 < mine["seconds"] < 600, "a span of time is measured by a clock that does not jump"
    for file in calm.glob("*.safetensors"):
        assert (output / file.name).read_bytes() == file.read_bytes()
    lab.survived("clock", name)
