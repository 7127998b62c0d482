"""Records: the split depends on the record alone, and nothing left out goes uncounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from duihua.data.home import data_directory
from duihua.data.records import (
    Conversation,
    Document,
    LeftOut,
    Preference,
    detect_language,
    first_user_message,
    is_held_out,
    normalised,
    record_text,
)


def conversation(prompt: str, reply: str = "r") -> Conversation:
    return Conversation([{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}], "test", "en")


def test_normalised_takes_away_case_width_punctuation_and_spaces() -> None:
    assert normalised("Hello,  World!") == normalised("ｈｅｌｌｏ world") == "helloworld"
    assert normalised("你好！") == "你好"
    assert normalised("hello") != normalised("hallo")


def test_one_prompt_stands_on_one_side_whatever_its_punctuation_and_reply() -> None:
    for prompt in (f"question {index}" for index in range(200)):
        sides = {
            is_held_out(conversation(prompt)),
            is_held_out(conversation(prompt.upper() + "?!", "another reply")),
            is_held_out(Preference([{"role": "user", "content": prompt}], "a", "b", "s", "human", "en")),
        }
        assert len(sides) == 1


def test_a_twentieth_is_held_out_and_a_larger_share_holds_the_smaller() -> None:
    records = [Document(f"document {index}", "s", "en") for index in range(4000)]
    held = {record.text for record in records if is_held_out(record)}
    more = {record.text for record in records if is_held_out(record, 0.2)}
    assert 150 < len(held) < 250  # 200 expected, standard deviation 14
    assert 700 < len(more) < 900
    assert held < more
    assert not any(is_held_out(record, 0) for record in records)
    assert all(is_held_out(record, 1) for record in records)


def test_a_prompt_without_letters_still_has_a_side() -> None:
    sides = {is_held_out(conversation("?" * count), 0.5) for count in range(1, 40)}
    assert sides == {True, False}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello there", "en"),
        ("你好", "zh"),
        ("我用 Python 写程序", "zh"),
        ("The word 你好 means hello in Chinese", "en"),
        ("123 !?", "en"),
        ("", "en"),
    ],
)
def test_language_is_told_by_characters(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_left_out_keeps_counts_and_the_first_place() -> None:
    left_out = LeftOut()
    left_out.add("empty", "a:1")
    left_out.add("empty", "a:2", 2)
    left_out.add("bad", "b:1")
    assert left_out.to_mapping() == {
        "total": 4,
        "reasons": {"empty": {"count": 3, "first": "a:1"}, "bad": {"count": 1, "first": "b:1"}},
    }


def test_text_and_first_message_of_each_kind() -> None:
    preference = Preference(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "good", "bad", "t", "human", "en"
    )
    assert record_text(preference) == "s\nq\ngood\nbad"
    assert first_user_message(preference.prompt) == "q"
    assert record_text(conversation("q", "r")) == "q\nr"
    assert first_user_message([]) == ""
    tools = [{"type": "function", "function": {"name": "天气"}}]
    called = Conversation(
        [{"role": "system", "content": "s", "tools": tools}, *conversation("q", "r").messages], "t", "en"
    )
    assert record_text(called) == '{"type": "function", "function": {"name": "天气"}}\ns\nq\nr'


def test_data_directory_is_the_flag_then_the_environment_then_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUIHUA_HOME", "/somewhere")
    assert data_directory("here") == Path("here")
    assert data_directory() == Path("/somewhere")
    monkeypatch.delenv("DUIHUA_HOME")
    assert data_directory("") == Path.home() / ".cache" / "duihua"
