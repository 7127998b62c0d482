"""The doctor of PPO runs: each fault has a mark in the figures, and healthy figures have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.main import main
from duihua.errors import DataError
from duihua.stages.configs.doctors import PPODoctorConfig
from duihua.stages.ppo_doctor import examine, findings_so_far
from duihua.stages.ppo_log import by_rollout, correlation, read_metrics
from duihua.training import metrics_file

HEALTHY: dict[str, Any] = {
    "ratio": 1.0, "approximate_kl": 0.0, "clip_fraction": 0.05, "sampler_difference": 1e-5, "entropy": 3.0, "eos_rate": 0.9,
    "length": 16.0, "repetition": 0.01, "explained_variance": 0.3, "score": 0.0, "kl": 0.0,
}  # fmt: skip


def run(**last: Any) -> list[dict[str, float]]:
    """Eight rollouts of two updates; each named figure moves in a straight line to its last value, the score to 1."""
    rows = []
    for step in range(16):
        place = (step // 2) / 7
        row = {"step": step + 1.0, "iteration": float(step // 2)}
        for name, first in HEALTHY.items():
            end = {"score": 1.0, "kl": 2.0, **last}.get(name, first)
            row[name] = first + (end - first) * place
        if "gold_score" in last:
            row["gold_score"] = last["gold_score"] * place
        rows.append(row)
    return rows


def problems(rows: list[dict[str, float]]) -> list[str]:
    return [finding.check for finding in examine(rows, PPODoctorConfig()).problems]


def test_a_healthy_run_is_fit() -> None:
    found = examine(run(), PPODoctorConfig())
    assert found.fit and found.to_mapping()["why_not"] == []
    assert found.measured["rollouts"] == 8


@pytest.mark.parametrize(
    ("last", "check"),
    [
        ({"kl": -1.0}, "divergence from the reference"),
        ({"kl": 60.0}, "divergence from the reference"),
        ({"length": 40.0}, "length"),
        ({"length": 6.0}, "length"),
        ({"entropy": 0.4}, "entropy"),
        ({"eos_rate": 0.5}, "ends"),
        ({"repetition": 0.3}, "repetition"),
        ({"gold_score": -1.0}, "gold score"),
    ],
)
def test_each_fault_is_named_and_nothing_else(last: dict[str, float], check: str) -> None:
    assert problems(run(**last)) == [check]
    finding = examine(run(**last), PPODoctorConfig()).problems[0]
    assert finding.meaning and finding.remedy and not finding.remedy.endswith(".")


def test_a_first_ratio_other_than_one_is_a_problem_and_a_later_one_is_not() -> None:
    rows = run()
    rows[0]["ratio"] = 1.02
    assert problems(rows) == ["ratio at the start"]
    rows[0]["ratio"], rows[1]["ratio"] = 1.0, 1.02
    assert problems(rows) == []


def test_length_that_does_not_go_with_the_score_is_no_hacking() -> None:
    """The same growth, but the score falls: nothing was gained by it."""
    assert problems(run(length=40.0, score=-1.0)) == []
    states = {f.check: f.state for f in examine(run(length=40.0, score=-1.0), PPODoctorConfig()).findings}
    assert (states["length"], states["score"]) == ("note", "note")


def test_thresholds_are_settings() -> None:
    assert problems(run(eos_rate=0.5)) == ["ends"]
    assert examine(run(eos_rate=0.5), PPODoctorConfig(largest_eos_fall=0.6)).fit


def test_replies_that_never_end_are_told_apart() -> None:
    rows = run(eos_rate=0.0)
    for row in rows:
        row["eos_rate"] = 0.0
    found = examine(rows, PPODoctorConfig()).problems
    assert [finding.check for finding in found] == ["ends"]
    assert "stop token" in found[0].meaning


def test_figures_of_a_rollout_are_counted_once() -> None:
    rows = run()
    rows[1]["clip_fraction"] = 0.15
    rollouts = by_rollout(rows)
    assert len(rollouts) == 8
    assert rollouts[0]["clip_fraction"] == pytest.approx(0.1), "the mean of 0.05 and 0.15"


def test_correlation_of_lines_and_constants() -> None:
    assert correlation([1, 2, 3], [6, 4, 2]) == pytest.approx(-1.0)
    assert correlation([1, 2, 3], [5, 5, 5]) == 0.0
    assert correlation([1, 2], [1, 2]) == 0.0, "two points lie on a line whatever they are"


def test_the_command_says_what_is_wrong_and_leaves_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows in (("good", run()), ("bad", run(entropy=0.1))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["doctor", "ppo", str(tmp_path / "good")]) == 0
    assert "A healthy run." in capsys.readouterr().out
    assert main(["doctor", "ppo", str(tmp_path / "bad"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["fit"] and found["why_not"][0].startswith("entropy:")
    assert main(["doctor", "ppo", str(tmp_path / "bad"), "--least-entropy-share", "0.01"]) == 0


def test_folders_without_figures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no metrics"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    with pytest.raises(DataError, match="no figures of PPO"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{broken\n")
    with pytest.raises(DataError, match="no JSON"):
        read_metrics(tmp_path)


def test_a_last_line_that_a_crash_cut_is_left_out_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({**row, "said": "你好"}, ensure_ascii=False) for row in run()[:3]]
    whole = "".join(line + "\n" for line in lines[:2]).encode()
    last = lines[2].encode()
    for length in range(len(last)):
        path.write_bytes(whole + last[:length])
        assert [row["step"] for row in read_metrics(tmp_path)] == [1.0, 2.0]
        assert [row["step"] for row in metrics_file.read_metrics(path)] == [1.0, 2.0], "as the training itself reads it"
    path.write_bytes(whole + last)
    assert len(read_metrics(tmp_path)) == 3, "a whole line that only lacks its end is one"


def test_a_broken_line_before_the_last_is_named_with_its_place(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in run()[:3]]
    for broken in (1, 2):
        cut = [line[:-9] if number == broken else line for number, line in enumerate(lines, start=1)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(cut))
        with pytest.raises(DataError, match="no JSON") as caught:
            read_metrics(tmp_path)
        assert caught.value.where == f"{tmp_path / 'metrics.jsonl'}:{broken}"
    (tmp_path / "metrics.jsonl").write_text("\n".join(cut[:2]) + "\n")  # the last one, but with its end
    with pytest.raises(DataError, match="no JSON"):
        read_metrics(tmp_path)


def test_of_a_run_that_goes_on_only_what_is_not_as_it_should_be_is_told() -> None:
    assert findings_so_far(run()) == []
    found = findings_so_far(run(entropy=0.1, clip_fraction=0.9))
    assert [(finding.state, finding.check) for finding in found] == [("problem", "entropy"), ("note", "step size")]
    assert findings_so_far(run(entropy=0.1), PPODoctorConfig(least_entropy_share=0.01)) == []


def test_before_the_third_rollout_nothing_is_told_and_of_other_trainings_never() -> None:
    silent = run(eos_rate=0.0)
    for row in silent:
        row["eos_rate"] = 0.0
    assert findings_so_far(silent[:4]) == []
    assert [finding.check for finding in findings_so_far(silent[:6])] == ["ends"]
    assert findings_so_far([{"step": float(i), "loss": 2.0, "entropy": 1.0 / (i + 1)} for i in range(9)]) == []
    assert findings_so_far([]) == []


def test_three_rollouts_have_not_two_ends_and_say_nothing_of_a_gain() -> None:
    checks = [[f.check for f in examine(run(score=-1.0)[: 2 * count], PPODoctorConfig()).findings] for count in (3, 4)]
    assert "score" not in checks[0] and "score" in checks[1]


def test_figures_that_are_not_finite_are_passed_over() -> None:
    rows = run()
    for name in ("kl", "score", "length"):
        rows[6][name] = float("nan")
        rows[8].pop(name)
    assert findings_so_far(rows) == []


@pytest.mark.parametrize("rollouts", [2, 3])
def test_a_run_of_few_rollouts_is_not_compared_with_itself(
    rollouts: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the start and the end differs, for they are the same rollouts: that is no sign of health."""
    rows = run(entropy=0.1)[: 2 * rollouts]
    (note,) = [finding for finding in examine(rows, PPODoctorConfig()).findings if finding.state != "ok"]
    assert note.check == "start and end" and "too few rollouts" in note.meaning
    assert findings_so_far(rows) == []
    (tmp_path / "ppo").mkdir()
    (tmp_path / "ppo" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["doctor", "ppo", str(tmp_path)]) == 0, "a run's folder stands for its stage"
    shown = capsys.readouterr().out
    assert "too few rollouts" in shown and "A healthy run." not in shown
