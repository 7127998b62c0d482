"""summary.json holds exactly the promised keys, with the stages' values."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from duihua.errors import DuihuaError
from duihua.report.run_record import read_run
from duihua.report.summary import write_summary

build_fake_run = runpy.run_path(str(Path(__file__).with_name("fake_run.py")))["build_fake_run"]

PROMISED = {
    "minutes": 11.83,
    "peak_memory_gib": 2.41,
    "tokenizer": {"characters_per_token": {"en": 4.02, "zh": 1.43}},
    "pretrain": {"bits_per_byte": {"all": 1.931, "en": 2.104, "zh": 1.772}, "tokens_per_second": 3127.4},
    "reward": {"accuracy": {"value": 0.713, "low": 0.681, "high": 0.744}},
    "ppo": {"reward_gain": {"value": 0.531, "standard_error": 0.052}, "kl_nats": 3.04},
    "repetition_rate": {"base": 0.213, "sft": 0.061, "ppo": 0.048},
    "repetition_change": {"value": -0.013, "standard_error": 0.004},
    "bleu": {"value": 7.4, "signature": "nrefs:1|case:mixed|eff:no|tok:flores101|smooth:exp|version:2.5.1"},
    "versions": {"duihua": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "tokenizers": "0.22.1", "numpy": "2.3.4"},
    "command": "duihua run recipes/quickstart.yaml --directory runs/quickstart",
}


def test_summary_has_the_promised_keys_and_the_stages_values(tmp_path: Path) -> None:
    written = write_summary(build_fake_run(tmp_path))
    assert written == PROMISED
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == PROMISED


def test_a_classifier_is_in_the_summary_with_the_majority_beside_it(tmp_path: Path) -> None:
    stages = ("tokenizer", "pretrain", "sft", "reward", "ppo", "evaluate", "classify")
    found = write_summary(build_fake_run(tmp_path, stages=stages))
    assert found.pop("classify") == {"accuracy": {"value": 0.823, "low": 0.776, "high": 0.862}, "majority": 0.3667}
    assert found == PROMISED


def test_summary_reads_the_run_and_not_constants(tmp_path: Path) -> None:
    build_fake_run(tmp_path)
    path = tmp_path / "ppo" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"]["kl_nats"] = 12.5
    path.write_text(json.dumps(stored), encoding="utf-8")
    changed = write_summary(tmp_path)
    assert changed["ppo"]["kl_nats"] == 12.5
    assert changed != PROMISED


def test_partial_run_leaves_out_what_it_has_not_measured(tmp_path: Path) -> None:
    summary = write_summary(build_fake_run(tmp_path, stages=("tokenizer", "pretrain")))
    assert set(summary) == {"minutes", "peak_memory_gib", "tokenizer", "pretrain", "versions", "command"}


def test_number_that_is_not_finite_becomes_null_and_the_file_stays_json(tmp_path: Path) -> None:
    build_fake_run(tmp_path)
    path = tmp_path / "pretrain" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"]["bits_per_byte"]["all"] = float("nan")
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert write_summary(tmp_path)["pretrain"]["bits_per_byte"]["all"] is None

    def refuse(word: str) -> None:
        raise ValueError(word)

    json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    with pytest.raises(ValueError, match="NaN"):  # the same check does see a NaN
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_later_stage_of_one_kind_is_the_one_summarised(tmp_path: Path) -> None:
    build_fake_run(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    again = json.loads((tmp_path / "reward" / "result.json").read_text(encoding="utf-8"))
    again["metrics"]["accuracy"]["value"] = 0.9
    (tmp_path / "reward-2").mkdir()
    (tmp_path / "reward-2" / "result.json").write_text(json.dumps(again), encoding="utf-8")
    run["stages"].append({"name": "reward-2", "stage": "reward", "directory": "reward-2", "status": "finished"})
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert write_summary(tmp_path)["reward"]["accuracy"]["value"] == 0.9


def test_folder_that_is_no_run_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DuihuaError, match=r"run\.json"):
        write_summary(tmp_path)
    (tmp_path / "run.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DuihuaError, match="not the record of a run"):
        write_summary(tmp_path)


def test_line_cut_off_by_a_crash_costs_a_line_and_is_counted(tmp_path: Path) -> None:
    build_fake_run(tmp_path, stages=("pretrain",), steps=60)
    path = tmp_path / "pretrain" / "metrics.jsonl"
    whole = path.read_text(encoding="utf-8")
    assert read_run(tmp_path).stages[1].unreadable_lines == 0
    path.write_text(whole + '{"step": 61, "lo', encoding="utf-8")
    stage = read_run(tmp_path).stages[1]
    assert (len(stage.rows), stage.unreadable_lines) == (60, 1)


def test_step_that_a_resumed_run_wrote_again_counts_once_with_the_later_value(tmp_path: Path) -> None:
    build_fake_run(tmp_path, stages=("pretrain",), steps=60)
    path = tmp_path / "pretrain" / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 60, "loss": 1.5}\n', encoding="utf-8")
    rows = read_run(tmp_path).stages[1].rows
    assert len(rows) == 60
    assert rows[-1]["loss"] == 1.5
