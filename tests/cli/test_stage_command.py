from __future__ import annotations

import json
from pathlib import Path

import pytest

from duihua.cli.main import main
from duihua.cli.stage import read_config, read_inputs
from duihua.errors import ConfigError
from duihua.stages import STAGES, find_stage

TINY = ["--sources.0.name", "tiny-text", "--megabytes", "0.1", "--vocabulary-size", "300"]


def test_settings_come_from_file_then_set_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "pretrain.yaml"
    file.write_text("steps: 5\nrows: 3\nlength: 64\noptimizer: {kind: adamw}\n", encoding="utf-8")
    config = read_config(STAGES["pretrain"], str(file), ["rows=4", "length=32"], ["--length", "16"])
    assert (config.steps, config.rows, config.length, config.optimizer.kind) == (5, 4, 16, "adamw")
    named = tmp_path / "named.yaml"
    named.write_text("pretrain:\n  steps: 6\n", encoding="utf-8")
    assert read_config(STAGES["pretrain"], str(named), [], []).steps == 6


def test_a_wrong_key_in_the_file_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("steps: 5\nrowz: 3\n", encoding="utf-8")
    assert main(["pretrain", "--config", str(file), "--output", str(tmp_path / "out")]) == 2
    assert f"{file}:2: pretrain.rowz: unknown key 'rowz'. The nearest known name is 'rows'." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inputs_are_checked_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    good = f"policy={tmp_path / 'bundle'}"
    assert read_inputs(STAGES["sft"], [good]) == {"policy": tmp_path / "bundle"}
    assert read_inputs(STAGES["sft"], [str(tmp_path / "bundle")]) == {"policy": tmp_path / "bundle"}
    assert read_inputs(STAGES["tokenizer"], []) == {}
    for stage, given, message in [
        ("sft", [], "sft needs a policy to start from"),
        ("ppo", [good], "ppo needs a reward to start from"),
        ("evaluate", [], "evaluate needs a bundle"),
        ("sft", [f"polcy={tmp_path / 'bundle'}"], "nearest known name is 'policy'"),
        ("sft", [f"policy={tmp_path / 'none'}"], "no such folder"),
        ("sft", [f"policy={tmp_path / 'empty'}"], "is not a bundle"),
        ("ppo", ["somewhere"], "is not of the form role=DIR"),
        ("tokenizer", ["policy=x"], "takes no input"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_inputs(STAGES[stage], given)


def test_a_stage_runs_from_the_command_line_and_a_second_time_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tokenizer", *TINY, "--output", str(tmp_path / "tokenizer"), "--data", str(tmp_path / "data"), "--json"]
    assert main(command) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["stage"] == "tokenizer"
    assert outcome["config"]["vocabulary_size"] == 300
    assert outcome["metrics"]["vocabulary_size"] == 300
    assert Path(outcome["bundle"]) == tmp_path / "tokenizer"
    before = (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns
    assert main(command) == 0
    assert "done already" in capsys.readouterr().err
    assert (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tokenizer", *TINY, "--output", str(tmp_path / "tokenizer"), "--data", str(tmp_path / "data")]
    assert main(command) == 0
    kept = (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()
    assert main([*command, "--set", "vocabulary_size=301", "--seed", "3"]) == 2
    assert "holds something else (seed: 0 -> 3)" in capsys.readouterr().err  # the flag 300 goes over --set
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == kept


def test_a_finished_stage_whose_data_has_changed_names_it_and_the_ways_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "a.txt"
    text.write_text("the cat and the dog sing and run and run and sing", encoding="utf-8")
    made = tmp_path / "tokenizer"
    command = ["tokenizer", "--sources.0.path", str(text), "--vocabulary-size", "262", "--output", str(made)]
    command += ["--data", str(tmp_path / "data")]
    assert main(command) == 0
    text.write_text("the cat and the dog sing and run and run and sing and eat", encoding="utf-8")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"holds what was made of other data: {text} changed" in said and "--accept-changed-data to keep" in said
    assert main([*command, "--accept-changed-data"]) == 0
    assert "done already" in capsys.readouterr().out
    assert main([*command, "--vocabulary-size", "261"]) == 2
    assert "holds something else (config.vocabulary_size: 262 -> 261" in capsys.readouterr().err


def test_ones_own_source_in_a_default_list_is_told_what_else_stands_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str, settings: tuple[str, ...] = ()) -> str:
        read_config(find_stage("sft"), "", settings, words)
        return capsys.readouterr().err

    others = "beside yours the default's other sources stay: chatterbot-zh, identity"
    assert others in said("--sources.0.path", "chats.jsonl", "--sources.0.kind", "conversations")
    assert others in said("--sources.0.path=chats.jsonl", "--sources.0.kind=conversations")
    assert said("--sources.0.weight", "2") == said("--steps", "3") == ""
    alone = ("sources=[{path: chats.jsonl, kind: conversations}]",)
    assert said(settings=alone) == said("--sources.0.path", "other.jsonl", settings=alone) == ""


def test_a_rate_that_the_optimizer_does_not_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str, settings: tuple[str, ...] = ()) -> str:
        read_config(find_stage("pretrain"), "", settings, words)
        return capsys.readouterr().err

    unused = "pretrain.optimizer.learning_rate has no effect: an optimizer of kind muon uses matrix_learning_rate, "
    assert unused in said("--optimizer.learning-rate", "0.001")
    assert unused in said(settings=("optimizer.learning_rate=0.001",))
    other = said("--optimizer.kind", "adamw", "--optimizer.head-learning-rate=0.1")
    assert "head_learning_rate has no effect: an optimizer of kind adamw uses learning_rate" in other
    assert said("--optimizer.kind", "adamw", "--optimizer.learning-rate", "0.001") == ""
    assert said("--optimizer.matrix-learning-rate", "0.01", "--optimizer.adapter-learning-rate", "0.01") == ""
    everything = ("--optimizer.learning-rate", "0.001", "--optimizer.matrix-learning-rate", "0.01")
    assert said(*everything) == ""  # as in settings that a program has written


def test_without_output_the_stage_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer"]) == 2
    assert "Add --output DIR" in capsys.readouterr().err
