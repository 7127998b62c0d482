"""Is my loss normal? The verdict follows the numbers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from duihua.report.run_record import read_run
from duihua.report.texts import TEXTS
from duihua.report.verdict import checks, loss_verdict

build_fake_run = runpy.run_path(str(Path(__file__).with_name("fake_run.py")))["build_fake_run"]


def change(run: Path, stage: str, **values: Any) -> Path:
    path = run / stage / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"].update(values)
    path.write_text(json.dumps(stored), encoding="utf-8")
    return run


def words(run: Path) -> dict[str, str]:
    """Status by the English text of each check."""
    return {str(check.text): check.status for check in checks(read_run(run))}


@pytest.mark.parametrize(
    ("value", "status", "start"),
    [
        (1.93, "good", "Yes."),
        (2.2, "watch", "Higher than usual"),
        (2.9, "bad", "Higher than usual"),
        (1.2, "watch", "Lower than usual"),
        (float("nan"), "bad", "No."),
    ],
)
def test_verdict_by_the_held_out_loss(tmp_path: Path, value: float, status: str, start: str) -> None:
    run = change(build_fake_run(tmp_path), "pretrain", bits_per_byte={"all": value, "en": 2.0, "zh": 2.0})
    verdict = loss_verdict(read_run(run))
    assert verdict is not None
    assert verdict.status == status
    assert f'lang="en">{start}' in verdict.text


def test_where_nothing_is_held_out_nothing_is_said_of_the_loss(tmp_path: Path) -> None:
    run = change(build_fake_run(tmp_path), "pretrain", heldout_bytes=0)
    path = run / "pretrain" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    bits = stored["metrics"].pop("bits_per_byte")
    path.write_text(json.dumps(stored), encoding="utf-8")
    verdict = loss_verdict(read_run(run))
    assert verdict is not None and verdict.status == "watch"
    assert TEXTS["normal.unmeasured"].zh in verdict.text
    diverged = loss_verdict(read_run(change(run, "pretrain", heldout_bytes=9, bits_per_byte=bits | {"all": None})))
    assert diverged is not None and TEXTS["normal.unmeasured"].zh not in diverged.text


def test_without_a_stated_range_there_is_no_yes(tmp_path: Path) -> None:
    verdict = loss_verdict(read_run(build_fake_run(tmp_path, expected=False)))
    assert verdict is not None
    assert verdict.status == "watch"
    assert TEXTS["normal.no_range"].zh.format(value="1.931") in verdict.text


def test_healthy_run_has_only_good_checks(tmp_path: Path) -> None:
    found = words(build_fake_run(tmp_path))
    assert len(found) == 12
    assert set(found.values()) == {"good"}


@pytest.mark.parametrize(
    ("stage", "values", "status", "sentence"),
    [
        ("ppo", {"kl_nats": 14.0}, "bad", "14.00 nats away"),
        ("ppo", {"reward_gain": {"value": 0.05, "standard_error": 0.04, "n": 128}}, "watch", "fewer than two"),
        (
            "evaluate",
            {
                "repetition_rate": {"sft": 0.05, "ppo": 0.2},
                "repetition_change": {"value": 0.15, "standard_error": 0.01},
            },
            "watch",
            "more than before",
        ),
        ("reward", {"accuracy": {"value": 0.52, "low": 0.47, "high": 0.57, "n": 300}}, "bad", "may be chance"),
        ("ppo", {"length": {"before": 19.7, "after": 9.3}}, "watch", "much shorter (19.7 to 9.3"),
        ("ppo", {"length": {"before": 9.0, "after": 30.0}}, "watch", "much longer (9.0 to 30.0"),
        (
            "reward",
            {"probes": {"cut_short": {"value": 0.38}, "longer": {"value": 0.6}}},
            "watch",
            'First third of the reply</span><span class="zh" lang="zh-CN">只取回复的前三分之一</span>” (0.380)',
        ),
        ("evaluate", {"bleu_by_stage": {"sft": {"value": 7.6}, "ppo": {"value": 4.0}}}, "watch", "fell (7.6 to 4.0)"),
        (
            "evaluate",
            {"greetings_by_stage": {"sft": {"en": [16, 20], "zh": [19, 20]}, "ppo": {"en": [14, 20], "zh": [20, 20]}}},
            "watch",
            "16 to 14 of 20",
        ),
        ("sft", {"heldout_loss": 3.4}, "watch", "learns by heart"),
        ("pretrain", {"skipped_steps": 3}, "watch", "was not a number: 3"),
        (
            "pretrain",
            {"expected": {"first_loss": 5.0}, "settings": {"vocabulary_size": 148}},
            "watch",
            "worse than guessing",
        ),
        (
            "pretrain",
            {"expected": {"first_loss": 8.8}, "settings": {"vocabulary_size": 8192}},
            "good",
            "near 8.80, that of the counted bigrams",
        ),
        (
            "pretrain",
            {"expected": {"first_loss": 6.3}, "settings": {"vocabulary_size": 8192}},
            "watch",
            "training has unlearnt them",
        ),
    ],
)
def test_each_fault_is_named(tmp_path: Path, stage: str, values: dict[str, Any], status: str, sentence: str) -> None:
    found = words(change(build_fake_run(tmp_path), stage, **values))
    assert [seen for text, seen in found.items() if sentence in text] == [status]


def test_a_rise_of_repetition_within_chance_is_told_from_a_real_one(tmp_path: Path) -> None:
    run = change(build_fake_run(tmp_path), "evaluate", repetition_rate={"sft": 0.0010, "ppo": 0.0011})
    change(run, "evaluate", repetition_change={"value": 0.0001, "standard_error": 0.0005, "n": 186})
    assert [status for text, status in words(run).items() if "paired standard error is 0.0005" in text] == ["good"]
    change(run, "evaluate", repetition_change={"value": 0.0001, "standard_error": 0.00004, "n": 186})
    assert [status for text, status in words(run).items() if "more than before" in text] == ["watch"]


def test_without_an_evaluation_ppo_tells_of_repetition_itself(tmp_path: Path) -> None:
    run = change(build_fake_run(tmp_path), "ppo", repetition_rate={"before": 0.05, "after": 0.2})
    change(run, "evaluate", repetition_change=None)
    assert [status for text, status in words(run).items() if "more than before" in text] == ["watch"]


def test_figures_inside_the_limits_stay_good(tmp_path: Path) -> None:
    run = change(build_fake_run(tmp_path), "ppo", length={"before": 10.0, "after": 7.1})
    change(run, "reward", probes={"cut_short": {"value": 0.5}})
    change(run, "evaluate", bleu_by_stage={"sft": {"value": 7.6}, "ppo": {"value": 6.7}})
    assert set(words(run).values()) == {"good"}


@pytest.mark.parametrize(
    ("after", "status", "english", "chinese"),
    [
        (3.4, "good", "did not fall (3.3 to 3.4)", "没有下降"),
        (2.4, "good", "fell by no more than a point (3.3 to 2.4)", "下降不超过一分"),
        (2.2, "watch", "fell (3.3 to 2.2)", "下降了"),
    ],
)
def test_a_fall_of_bleu_within_the_tolerance_is_called_a_fall(
    tmp_path: Path, after: float, status: str, english: str, chinese: str
) -> None:
    run = change(build_fake_run(tmp_path), "evaluate", bleu_by_stage={"sft": {"value": 3.3}, "ppo": {"value": after}})
    assert [seen for text, seen in words(run).items() if english in text and chinese in text] == [status]


def test_a_length_inside_the_limit_is_not_called_kept(tmp_path: Path) -> None:
    run = change(build_fake_run(tmp_path), "ppo", length={"before": 19.1, "after": 13.6})
    assert [seen for text, seen in words(run).items() if "no more than three tenths (19.1 to 13.6" in text] == ["good"]


def judged(value: float, low: float, high: float, n: int = 118) -> dict[str, Any]:
    return {"human": {"value": value, "low": low, "high": high, "n": n}}


def test_judged_pairs_at_chance_are_said_though_the_mean_is_above(tmp_path: Path) -> None:
    run = change(build_fake_run(tmp_path), "reward", kinds=judged(0.475, 0.387, 0.564))
    found = [(text, seen) for text, seen in words(run).items() if "118 held-out pairs" in text]
    assert [seen for _, seen in found] == ["watch"]
    assert "0.475 [0.387, 0.564]" in found[0][0] and "118 个由人工（或强模型）评判的留出偏好对" in found[0][0]


@pytest.mark.parametrize(
    "kinds", [judged(0.6, 0.51, 0.69), {"human": {"value": None, "low": 0.0, "high": 1.0, "n": 0}}, {}]
)
def test_judged_pairs_above_chance_and_none_at_all_need_no_word(tmp_path: Path, kinds: dict[str, Any]) -> None:
    run = change(build_fake_run(tmp_path), "reward", kinds=kinds)
    assert not [text for text in words(run) if "a strong model judged" in text]


def test_rising_and_broken_and_jumping_curves_are_seen(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("pretrain",))
    rows = [{"step": step, "loss": 5.0 - 0.01 * min(step, 150) + 0.02 * max(0, step - 150)} for step in range(200)]
    rows[170]["loss"] += 8.0
    rows[40]["loss"] = float("nan")
    (run / "pretrain" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = " ".join(words(run))
    assert "rose by" in found and "above the curve: 1" in found and "not numbers: 1" in found


@pytest.mark.parametrize(("majority", "status"), [(0.37, "good"), (0.775, "good"), (0.8, "watch")])
def test_a_classifier_must_beat_the_most_frequent_class_by_its_interval(
    tmp_path: Path, majority: float, status: str
) -> None:
    run = build_fake_run(tmp_path, stages=("tokenizer", "classify"))
    change(run, "classify", baseline={"accuracy": {"value": majority}})
    found = {text: status for text, status in words(run).items() if "Classification" in text}
    assert list(found.values()) == [status]
