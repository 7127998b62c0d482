"""The doctor beside a training: each problem once, compared with the real beginning, and nothing that is learnt changes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import duihua.stages.live_doctor as module
from duihua.stages.diagnosis import Finding
from duihua.stages.live_doctor import LiveDoctor
from duihua.training.ranks import Ranks

HEALTHY = {
    "score": 0.0, "kl": 0.5, "entropy": 3.0, "eos_rate": 0.9, "length": 16.0, "repetition": 0.01, "explained_variance": 0.3,
    "gold_score": float("nan"), "sampler_difference": 1e-5,
}  # fmt: skip


def figures(iteration: int, **changes: float) -> dict[str, float]:
    return {**HEALTHY, "score": 0.1 * iteration, "iteration": float(iteration), **changes}


def train(folder: Path, doctor: LiveDoctor, rollouts: list[dict[str, float]]) -> None:
    """As a training does: the doctor looks at a rollout, then its two updates are logged."""
    for found in rollouts:
        iteration = int(found["iteration"])
        doctor.look(iteration, found)
        with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            for update in (1, 2):
                known = {name: value for name, value in found.items() if math.isfinite(value)}
                file.write(json.dumps({"step": 2 * iteration + update, **known, "clip_fraction": 0.1}) + "\n")


def warnings(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_each_problem_is_said_once_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    course = [figures(i, entropy=3.0 if i < 4 else 1.0, repetition=0.01 if i < 8 else 0.6) for i in range(12)]
    train(tmp_path, LiveDoctor("ppo", tmp_path), course)
    said = warnings(capsys)
    assert [line.split(": ")[:2] for line in said] == [["ppo, rollout 6", "entropy"], ["ppo, rollout 8", "repetition"]]
    assert "3.00 to 1.00 nats a token" in said[0] and "Raise kl_coefficient" in said[0]
    (tmp_path / "metrics.jsonl").unlink()
    for found in course:  # one that forgets what it said
        train(tmp_path, LiveDoctor("ppo", tmp_path), [found])
    assert len(warnings(capsys)) > 2


def test_a_healthy_run_and_one_with_notes_alone_are_left_in_peace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, LiveDoctor("grpo", tmp_path), [figures(i, score=0.0) for i in range(8)])
    assert warnings(capsys) == [], "that the score has not risen is a note"


def test_a_run_that_goes_on_is_compared_with_its_real_beginning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = [figures(i) for i in range(5)], [figures(i, entropy=0.2) for i in range(5, 9)]
    (tmp_path / "other").mkdir()
    train(tmp_path, LiveDoctor("ppo", tmp_path), before)
    train(tmp_path, LiveDoctor("ppo", tmp_path), after)
    assert [line.split(":")[1] for line in warnings(capsys)] == [" entropy"]
    train(tmp_path / "other", LiveDoctor("ppo", tmp_path / "other"), after)
    assert warnings(capsys) == [], "what came before is what shows the fall"


def test_only_the_first_rank_speaks_and_without_a_folder_nobody_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [figures(i, kl=90.0) for i in range(4)]
    LiveDoctor("ppo", None).look(3, bad[3])
    monkeypatch.setattr(module, "current", lambda: Ranks(1, 2))
    train(tmp_path, LiveDoctor("ppo", tmp_path), bad)
    assert warnings(capsys) == []
    monkeypatch.setattr(module, "current", lambda: Ranks(0, 2))
    LiveDoctor("ppo", tmp_path).look(4, figures(4, kl=90.0))
    assert len(warnings(capsys)) == 1


def test_it_looks_after_every_rollout_and_changes_nothing_that_is_learnt(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a training whose doctor finds the same problem each time stands one whose doctor does not look."""

    def trained(name: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        rollout = lab.rollout(lab.config(iterations=4, epochs=1), directory=tmp_path / name)
        lab.trainer(rollout, tmp_path / name).run()
        return [*rollout.network.state_dict().values(), torch.get_rng_state()]

    seen: list[int] = []

    def findings(rows: list[Any]) -> list[Finding]:
        seen.append(len(rows))
        return [Finding("entropy", "problem", "found", "meaning", "remedy")]

    monkeypatch.setattr(module, "findings_so_far", findings)
    looked = trained("looked")
    assert seen == [1, 3, 5, 7], "two updates of each rollout before, and the new one"
    assert [line for line in warnings(capsys) if "entropy" in line] == [
        "ppo, rollout 0: entropy: found. meaning. remedy."
    ]
    monkeypatch.setattr(LiveDoctor, "look", lambda *_: None)
    alone = trained("alone")
    assert all(torch.equal(one, other) for one, other in zip(looked, alone, strict=True))
    monkeypatch.setattr(LiveDoctor, "look", lambda *_: torch.rand(1))
    assert not torch.equal(trained("drawn")[-1], alone[-1]), "a doctor that draws a number is noticed"
