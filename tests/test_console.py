from __future__ import annotations

import json

import pytest

from duihua import console


def test_under_json_only_the_object_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with console.json_output():
        console.say("for people")
        console.table("numbers", ["a"], [[1]])
        with console.progress(2, "step", "work") as bar:
            bar.advance(2)
        console.emit_json({"字": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"字": 1}
    assert "for people" in err
    assert "work: 2/2 step" in err
    console.say("plain again")
    assert capsys.readouterr().out == "plain again\n"


def test_json_mode_ends_with_its_block_and_nests() -> None:
    assert not console.json_mode()
    with console.json_output(), console.json_output(False):
        assert console.json_mode()
    assert not console.json_mode()


def test_columns_stand_under_each_other_with_chinese_text() -> None:
    text = console.format_table("", ["name", "n"], [["对话", 1], ["abcdef", 1000]])
    lines = text.splitlines()
    assert [console.display_width(line) for line in lines] == [13, 13, 13, 13]
    assert lines[2].endswith("    1")
    assert "1,000" in lines[3]


def test_a_cell_cannot_steer_the_terminal() -> None:
    text = console.format_table("", ["title"], [["\x1b]0;owned\x07\x1b[2Jhello\u202e"]])
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text and "hello" in text


def test_progress_tells_total_rate_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(None, "reply", "sampling") as bar:
        bar.advance(3, loss=0.25)
    assert "sampling: 3 reply" in (shown := capsys.readouterr().out)
    assert "loss 0.25" in shown
    assert "\x1b" not in shown


def test_what_an_earlier_run_has_done_counts_for_no_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 10.0, 20.0, 21.0, 30.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress(1000, "step", "train", 900) as bar:
        bar.advance(20)
    assert "train: 920/1,000 step, 2 step/s, 40s left" in capsys.readouterr().out
    with console.progress(1000, "step", "train") as bar:  # a control: as if all of it had been done now
        bar.advance(920)
    assert "train: 920/1,000 step, 92 step/s" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "text"), [(1.24, "1.2s"), (42, "42s"), (75, "1m15s"), (3700, "1h01m")])
def test_durations(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_one_thing_is_no_plural() -> None:
    assert [console.counted(number, "prompt") for number in (0, 1, 2000)] == ["0 prompts", "1 prompt", "2,000 prompts"]
