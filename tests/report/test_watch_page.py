"""The live page's content: figures by hand, runs side by side, both languages, text that tries to be HTML."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from duihua.report.watch_page import with_derived, write_content, write_page
from duihua.report.watching import derived, view_stage
from duihua.training.progress import read_plan, write_plan

PLAN = {
    "steps": 12,
    "ranks": 1,
    "bytes_per_token": 4.0,
    "operations_per_token": 1e6,
    "peak_operations_per_second": 4e9,
}


def stage(folder: Path, name: str = "pretrain", losses: tuple[float, ...] = (4.0, 3.0, 2.0), **plan: Any) -> Path:
    """A stage that has logged every second step, 5 seconds each and 1,000 tokens a second."""
    path = folder / name
    path.mkdir(parents=True)
    lines = [
        {
            "step": 2 * i, "tokens": 10_000 * i, "loss": loss, "tokens_per_second": 1000.0, "gradient_norm": 0.5,
            "seconds": 10.0 * i,
        }
        for i, loss in enumerate(losses, start=1)
    ]  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_plan(path, {**PLAN, **plan})
    return path


def text(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


def test_bits_per_byte_and_utilisation_follow_from_what_the_training_has_said(tmp_path: Path) -> None:
    view = view_stage(stage(tmp_path))
    assert view.figures["bits_per_byte"] == pytest.approx(2.0 / math.log(2) / 4.0), "2 nats a token of 4 bytes"
    assert view.figures["utilisation"] == pytest.approx(0.25), "1,000 tokens of 1e6 operations in 4e9 a second"
    assert (view.steps, view.seconds_left) == (12, pytest.approx(30.0))
    assert derived(view.figures, {**PLAN, "ranks": 2})["utilisation"] == pytest.approx(0.125), (
        "two ranks have two peaks"
    )
    assert derived(view.figures, {}) == {}, "nothing is guessed"


def test_the_plan_is_written_once_and_a_broken_one_is_none(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    before = (tmp_path / "progress.json").stat().st_mtime_ns
    write_plan(tmp_path, PLAN)
    assert (tmp_path / "progress.json").stat().st_mtime_ns == before
    write_plan(tmp_path, {**PLAN, "steps": 13})
    assert read_plan(tmp_path)["steps"] == 13
    (tmp_path / "progress.json").write_text('{"steps": ')
    assert read_plan(tmp_path) == {}


def test_one_run_has_cards_curves_and_its_place_in_both_languages(tmp_path: Path) -> None:
    stage(tmp_path / "run")
    html = write_content([tmp_path / "run"])
    words = text(html)
    assert "Step 6 of 12" in words and "第 6 步，共 12 步" in words
    assert "30 s 30 秒 left" in re.sub(r"\s+", " ", words) and "剩余" in words
    cards = dict(re.findall(r'data-figure="(\w+)".*?<b>(.*?)</b>', html))
    assert cards["utilisation"] == "25 %" and cards["tokens_per_second"] == "1,000"
    assert cards["bits_per_byte"] == "0.7213"
    assert 'style="width:50.0%"' in html
    assert html.count('<figure class="chart') >= 2 and 'class="run1"' not in html


def test_runs_side_by_side_share_their_charts(tmp_path: Path) -> None:
    stage(tmp_path / "one")
    stage(tmp_path / "two", losses=(4.0, 1.0))
    runs = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    html = write_content(runs)
    assert html.count('<i class="run1">') > 1 and 'class="run2"' in html
    assert "three: nothing has been logged yet" in html and "three：尚无记录" in html
    over_minutes = write_content(runs, axis="minutes")
    assert over_minutes != html and 'aria-current="true"><span class="en" lang="en">minutes' in over_minutes
    assert write_content(runs, axis="nonsense") == html
    assert 'class="run2"' not in write_content(runs[:1])


def test_a_run_without_the_chosen_stage_is_not_said_to_have_logged_nothing(tmp_path: Path) -> None:
    stage(tmp_path / "one")
    stage(tmp_path / "two")
    stage(tmp_path / "two", "sft")
    words = text(write_content([tmp_path / "one", tmp_path / "two"], "sft"))
    assert "one: no figures of sft so far" in words and "one：暂无 sft 的数据" in words
    assert "nothing has been logged" not in words
    assert "no figures" not in text(write_content([tmp_path / "one", tmp_path / "two"], "pretrain"))


def test_what_a_training_measured_at_its_end_stands_on_the_page_and_beside_that_of_others(tmp_path: Path) -> None:
    for name, bits in (("one", 1.625), ("two", 1.75)):
        path = stage(tmp_path, name)
        (path / "fingerprint.json").write_text(json.dumps({"parts": {"stage": "pretrain"}}))
        (path / "result.json").write_text(json.dumps({"metrics": {"bits_per_byte": {"all": bits}}}))
    runs = [tmp_path / "one", tmp_path / "two"]
    cards = dict(re.findall(r'data-figure="(\w+)".*?<b>(.*?)</b>', write_content(runs[:1])))
    assert cards["heldout_bits_per_byte"] == "1.625" and cards["bits_per_byte"] == "0.7213"
    words = text(write_content(runs))
    assert "每字节比特数（留出文本）" in words and "1.625" in words and "1.75" in words
    assert "Pre-training" in words, "a folder of another name does not hide what kind of training it holds"
    assert "one" not in re.findall(r"stage=(\w+)", write_content(runs)), "the other run has no stage of that name"
    (tmp_path / "two" / "result.json").write_text("{}")
    assert "heldout_bits_per_byte" not in view_stage(tmp_path / "two").figures


def test_an_evaluation_stands_at_the_tokens_of_its_step() -> None:
    rows = with_derived([{"step": 2, "tokens": 50, "seconds": 3.0}, {"step": 2, "heldout_loss": 1.0}])
    assert rows[1]["tokens"] == 50 and rows[1]["seconds"] == 3.0


def test_what_a_model_wrote_stays_text(tmp_path: Path) -> None:
    path = stage(tmp_path / "run<b>", "ppo")
    (path / "rollouts").mkdir()
    hostile = {"prompt": "<script>1</script>", "text": "<img src=x onerror=1>"}
    (path / "rollouts" / "00000.json").write_text(json.dumps({"samples": [hostile]}))
    html = write_page([tmp_path / "run<b>"])
    assert "&lt;img src=x onerror=1&gt;" in html and "<img" not in html and "run<b>" not in html
    assert html.count("<script") == 3, "the page's data and its two programs"


def test_the_page_may_ask_this_machine_and_nobody_else(tmp_path: Path) -> None:
    stage(tmp_path / "run")
    html = write_page([tmp_path / "run"], every=3.0)
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)[0]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert '{"every":3.0}' in html
    assert not re.findall(r"https?://", html)


def test_what_the_doctor_finds_stands_in_both_languages_and_for_each_run(tmp_path: Path) -> None:
    for name, entropy in (("bad", 0.1), ("good", 3.0)):
        path = stage(tmp_path / name, "ppo")
        rows = [
            {"step": i + 1, "iteration": i, "kl": 0.1, "score": 0.1 * i, "length": 9.0, "entropy": 3.0 if i < 3 else entropy}
            for i in range(6)
        ]  # fmt: skip
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad, good = (write_content([tmp_path / name]) for name in ("bad", "good"))
    words = re.sub(r"\s+", " ", text(bad))
    assert "What the figures warn of" in words and "数据中的警示" in words
    assert "problem 问题 entropy : 3.00 to 0.10 nats a token" in words
    assert "Raise kl_coefficient" in words and '<div class="check bad">' in bad
    assert 'class="check' not in good and "warn of" not in good
    assert write_content([tmp_path / "bad", tmp_path / "good"]).count('<div class="check bad">') == 1
