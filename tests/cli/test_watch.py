"""`duihua watch`: figures of a training out of its files, by hand-checkable numbers, and handed on to other programs."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from duihua.cli.watch import main
from duihua.cli.watch_dashboard import dashboard
from duihua.errors import ConfigError, DataError
from duihua.report.watching import Tail, by_source, sparkline, view_stage
from duihua.training.progress import write_plan
from duihua.training.sinks import open_sink


def stage(folder: Path, name: str = "pretrain", losses: tuple[float, ...] = (4.0, 3.0, 2.0)) -> Path:
    """A stage of 12 steps that has logged every second one: 5 seconds a step."""
    path = folder / name
    path.mkdir(parents=True)
    lines = [
        {
            "step": 2 * (i + 1),
            "loss": loss,
            "tokens_per_second": 800.0 + i,
            "learning_rate": 0.1,
            "seconds": 10.0 * (i + 1),
        }
        for i, loss in enumerate(losses)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + '{"step": 8, "loss": 1.')
    parts = {"stage": name, "config": {"steps": 12}}
    (path / "fingerprint.json").write_text(json.dumps({"fingerprint": "x", "parts": parts}))
    return path


def test_step_and_remaining_time_are_read_from_the_files(tmp_path: Path) -> None:
    path = stage(tmp_path)
    now = (path / "metrics.jsonl").stat().st_mtime
    view = view_stage(path, now=now)
    assert (view.step, view.steps, view.state) == (6, 12, "running")
    assert view.seconds_left == pytest.approx(30.0), "six more steps of 5 seconds"
    assert view.losses == (4.0, 3.0, 2.0), "the line that is half written is left out"
    assert view_stage(path, now=now + 1000).state == "still"
    (path / "result.json").write_text("{}")
    assert view_stage(path, now=now + 1000).state == "finished"
    assert view_stage(path, now=now).seconds_left is None


def test_a_stage_whose_config_does_not_say_its_steps_has_no_remaining_time(tmp_path: Path) -> None:
    path = stage(tmp_path)
    (path / "fingerprint.json").unlink()
    view = view_stage(path)
    assert (view.steps, view.seconds_left) == (None, None)


def test_the_course_is_drawn_from_low_to_high() -> None:
    assert sparkline((1.0, 2.0, 3.0)) == "▁▅█"
    assert sparkline((3.0, 3.0)) == "▁▁"
    assert sparkline(()) == ""
    assert sparkline((1.0, 1.0, 9.0, 9.0), 2) == "▁█"


def test_once_prints_the_latest_stage_with_its_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage(tmp_path / "run")
    path = stage(tmp_path / "run", "ppo", (0.5, 0.25))
    os.utime(tmp_path / "run" / "pretrain" / "metrics.jsonl", (1, 1))
    (path / "rollouts").mkdir()
    (path / "rollouts" / "00000.json").write_text(json.dumps({"samples": [{"prompt": "hi", "text": "hello"}]}))
    (path / "rollouts" / "00001.json").write_text('{"samples": [')
    assert main([str(tmp_path / "run"), "--once"]) == 0
    said = capsys.readouterr().out
    assert "run, ppo" in said and "loss 0.5 -> 0.25" in said
    assert "> hi\nhello" in said, "the newest rollout that can be read"
    assert main([str(tmp_path / "run"), "--once", "--stage", "pretrain"]) == 0
    assert "step 6 of 12" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no figures of 'sft'"):
        main([str(tmp_path / "run"), "--once", "--stage", "sft"])


def test_several_runs_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage(tmp_path / "one")
    stage(tmp_path / "two", losses=(4.0, 1.0))
    assert main([str(tmp_path / "one"), str(tmp_path / "two"), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["one", "two"]
    assert main([str(tmp_path / "one"), str(tmp_path / "two"), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["figures"]["loss"] for run in runs] == [2.0, 1.0]


def test_held_out_bits_per_byte_of_a_finished_training_are_shown_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = stage(tmp_path / "one"), stage(tmp_path / "two")
    write_plan(one, {"steps": 12, "bytes_per_token": 4.0})
    (one / "result.json").write_text(json.dumps({"metrics": {"bits_per_byte": {"all": 1.625}}}))
    assert main([str(tmp_path / "one"), "--once"]) == 0
    said = capsys.readouterr().out
    assert "heldout bits per byte 1.625" in said and "bits per byte of the training text 0.72135" in said
    assert main([str(tmp_path / "one"), str(tmp_path / "two"), "--once"]) == 0
    assert "heldout_bits_per_byte" in capsys.readouterr().out
    views = [view_stage(one, "one"), view_stage(two, "two")]
    assert "1.625" in drawn(views, "en", 200) and "留出文本" in drawn(views[:1], "zh")


def drawn(views: list[Any], language: Any, width: int = 90) -> str:
    screen = Console(width=width, record=True, file=io.StringIO())
    screen.print(dashboard(views, language))
    return screen.export_text()


def test_the_dashboard_shows_figures_remaining_time_and_sample_in_both_languages(tmp_path: Path) -> None:
    path = stage(tmp_path / "run", "ppo")
    plan = {"steps": 12, "operations_per_token": 1e6, "peak_operations_per_second": 2e9, "bytes_per_token": 4.0}
    write_plan(path, plan)
    (path / "rollouts").mkdir()
    (path / "rollouts" / "00000.json").write_text(json.dumps({"samples": [{"prompt": "hi", "text": "[bold]hello"}]}))
    view = view_stage(path, "run")
    said = drawn([view], "en")
    assert "Step 6 of 12 · 30s so far · 30s left" in said and "running" in said
    assert "4 → 2  █▅▁" in said, "the bar ends its line"
    assert "40%" in said, "802 tokens a second of 1e6 operations, of 2e9"
    assert "0.72135" in said, "2 nats a token of 4 bytes"
    assert "> hi" in said and "[bold]hello" in said, "what a model wrote is no markup"
    assert "第 6 步，共 12 步" in drawn([view], "zh") and "剩余 30s" in drawn([view], "zh")
    both = drawn([view, view_stage(stage(tmp_path / "other"), "other")], "en", 200)
    assert "run " in both and "other " in both and "6 / 12" in both and "Left" in both


def test_a_terminal_waits_for_a_training_that_has_not_logged_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "pretrain").mkdir(parents=True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        (run / "pretrain").rmdir()
        (stage(run) / "result.json").write_text('{"metrics": {}}')

    monkeypatch.setattr("duihua.cli.watch.time.sleep", sleep)
    assert main([str(run)]) == 0 and naps == [2.0]
    said = capsys.readouterr().out
    assert "run: nothing has been logged yet" in said and "finished" in said
    with pytest.raises(DataError, match="no such folder"):
        main([str(tmp_path / "missing")])
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "result.json").write_text("{}")
    with pytest.raises(DataError, match="nothing has been logged"):
        main([str(tmp_path / "tokenizer")])
    assert "尚无记录" in drawn_waiting("zh")


def drawn_waiting(language: Any) -> str:
    screen = Console(width=90, record=True, file=io.StringIO())
    screen.print(dashboard([], language, waiting=["run"]))
    return screen.export_text()


def test_the_losses_of_each_source_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stage(tmp_path / "run", "sft")
    lines = [
        {"step": 2, "loss": 3.0, "learning_rate": 0.1},
        {
            "step": 2,
            "heldout_loss": 5.0,
            "heldout_loss/mine/chats": 5.25,
            "train_loss/mine/chats": 1.5,
            "train_loss/few": 0.5,
        },
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    view = view_stage(path, "run")
    assert by_source(view.figures) == {"mine/chats": (1.5, 5.25), "few": (0.5, None)}
    assert main([str(path), "--once"]) == 0
    said = capsys.readouterr().out
    assert "mine/chats: loss 1.5 on training conversations, 5.25 held out" in said
    assert "few: loss 0.5 on training conversations, – held out" in said
    shown = [line.split() for line in drawn([view], "en").splitlines()]
    assert ["│", "mine/chats", "1.5", "5.25", "│"] in shown and ["│", "few", "0.5", "–", "│"] in shown
    assert "各来源的损失" in drawn([view], "zh")
    assert "Loss by source" not in drawn([view_stage(stage(tmp_path / "other"), "other")], "en")


def test_a_folder_without_figures_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing has been logged"):
        main([str(tmp_path), "--once"])
    with pytest.raises(DataError, match="no such folder"):
        main([str(tmp_path / "none"), "--once"])


def test_lines_come_once_and_only_when_they_are_whole(tmp_path: Path) -> None:
    path = stage(tmp_path) / "metrics.jsonl"
    tail = Tail(path)
    assert [row["step"] for row in tail.read()] == [2, 4, 6]
    assert tail.read() == []
    with open(path, "a") as file:
        file.write("5}\n")
    assert [row["loss"] for row in tail.read()] == [1.5]
    path.write_text('{"step": 2, "loss": 9}\n')
    assert [row["loss"] for row in tail.read()] == [9], "a run that went back is read again"


def fake(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[Any]) -> None:
    module = ModuleType(name)
    present: list[str] = []

    class Run:
        def __init__(self, name: str) -> None:
            self.name = name

        def log(self, figures: Any, step: int) -> None:
            assert self.name in present, "a run that another init has ended"
            calls.append((step, figures))

        def finish(self) -> None:
            present.remove(self.name)
            calls.append("finish")

    def init(**words: Any) -> Run:
        if words.get("reinit") != "create_new":
            present.clear()
        present.append(words["name"])
        calls.append(("init", words))
        return Run(words["name"])

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_figures_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    calls: list[Any] = []
    fake(monkeypatch, kind, calls)
    stage(tmp_path / "run")
    assert main([str(tmp_path / "run"), "--to", kind, "--once"]) == 0
    assert calls[0][0] == "init" and calls[0][1].items() >= {"project": "duihua", "name": "run/pretrain"}.items()
    assert [step for step, _ in calls[1:4]] == [2, 4, 6]
    assert calls[1][1]["loss"] == 4.0 and "step" not in calls[1][1]
    assert calls[-1] == "finish"


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_figures_of_several_stages_go_to_runs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Both packages end the present run when the next begins; figures went to the wrong one, or an error ended it all."""
    calls: list[Any] = []
    fake(monkeypatch, kind, calls)
    for run in ("one", "two"):
        stage(tmp_path / run)
    assert main([str(tmp_path / "one"), str(tmp_path / "two"), "--to", kind, "--once"]) == 0
    names = [words["name"] for what, words in (call for call in calls if call[0] == "init")]
    assert names == ["one/pretrain", "two/pretrain"] and calls.count("finish") == 2
    for run in ("one", "two"):
        (tmp_path / run / "pretrain" / "result.json").write_text("{}", encoding="utf-8")
    calls.clear()
    both = [str(tmp_path / "one"), str(tmp_path / "two"), "--to", kind]
    if kind == "trackio":
        with pytest.raises(ConfigError, match="one training at a time"):
            main(both)
    else:
        assert main(both) == 0 and calls.count("finish") == 2


def test_tensorboard_gets_a_scalar_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            written.append(folder)

        def add_scalar(self, *words: Any) -> None:
            written.append(words)

        def close(self) -> None:
            written.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    sink = open_sink("tensorboard", "run", tmp_path)
    sink.write(3, {"loss": 1.5})
    sink.close()
    assert written == [str(tmp_path), ("loss", 1.5, 3), "closed"]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "trackio"])
def test_what_is_not_installed_is_said_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if kind == "tensorboard" else kind, None)
    with pytest.raises(ConfigError, match=f"pip install {kind}"):
        open_sink(kind, "run", tmp_path)
    with pytest.raises(ConfigError, match="there is no 'paper'"):
        open_sink("paper", "run", tmp_path)


def rollouts(folder: Path, name: str = "ppo", **last: float) -> Path:
    """A PPO stage of eight rollouts, one update each, whose figures named move in a straight line to their last value."""
    path = folder / name
    path.mkdir(parents=True)
    first = {"score": 0.0, "kl": 0.0, "entropy": 3.0, "eos_rate": 0.9, "length": 16.0, "repetition": 0.01, "loss": 0.1}
    ends = {**first, "score": 1.0, "kl": 2.0, **last}
    rows = [
        {"step": i + 1, "iteration": i, **{key: first[key] + (ends[key] - first[key]) * i / 7 for key in first}}
        for i in range(8)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "metrics.jsonl").write_text(text + '{"step": 9, "iteration": 8, "kl"')
    return path


def test_what_the_doctor_finds_stands_beside_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = view_stage(rollouts(tmp_path / "run", length=40.0, score=-1.0, repetition=0.6), "run")
    assert [(finding.state, finding.check) for finding in view.findings] == [
        ("problem", "repetition"), ("note", "score"), ("note", "length"),
    ]  # fmt: skip
    english, chinese = (drawn([view], language, 200) for language in ("en", "zh"))
    assert "problem" in english and "repetition" in english and "of 4-grams are repeated" in english
    assert "raise kl_coefficient." in english
    assert "问题" in chinese and "提示" in chinese and "of 4-grams are repeated" in chinese
    assert main([str(tmp_path / "run"), "--once"]) == 0
    assert "problem: repetition: " in capsys.readouterr().out
    assert main([str(tmp_path / "run"), "--json"]) == 0
    (found, *_) = json.loads(capsys.readouterr().out)["runs"][0]["findings"]
    assert set(found) == {"check", "state", "found", "meaning", "remedy"} and found["check"] == "repetition"


def test_a_healthy_run_and_other_trainings_have_no_findings(tmp_path: Path) -> None:
    assert view_stage(rollouts(tmp_path)).findings == ()
    assert view_stage(stage(tmp_path)).findings == ()
    assert "problem" not in drawn([view_stage(stage(tmp_path / "other"))], "en")


def test_a_file_is_not_called_a_folder_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}")
    with pytest.raises(DataError, match="is a file, not a folder"):
        main([str(tmp_path / "pairs.jsonl"), "--once"])
    with pytest.raises(DataError, match="no such folder"):
        main([str(tmp_path / "none"), "--once"])
