"""Which ends of a prompt are tried before the whole of it, and which sources a stage takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from duihua.data.records import Message
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.stages.prompts import ends_of, open_sources

ROLE = {"s": "system", "u": "user", "a": "assistant"}


def prompt(turns: str) -> list[Message]:
    """Messages whose content is their place: "sua" is a system message, a user's and an assistant's."""
    return [{"role": ROLE[turn], "content": str(place)} for place, turn in enumerate(turns)]


def places(turns: str) -> list[str]:
    return ["".join(message["content"] for message in part) for part in ends_of(prompt(turns))]


def test_a_long_prompt_is_tried_by_its_last_message_its_last_few_and_whole() -> None:
    assert places("uauauau") == ["6", "23456", "0123456"]


def test_the_system_message_stands_before_every_end() -> None:
    assert places("suauauau") == ["07", "034567", "01234567"]


def test_every_end_begins_with_a_user() -> None:
    assert places("auaauau") == ["6", "456", "0123456"]  # five from the end is an assistant's message


def test_a_short_prompt_is_tried_once_and_whole() -> None:
    assert places("u") == ["0"]
    assert places("su") == ["01"]
    assert places("au") == ["1", "01"]
    assert list(ends_of(prompt("suau")))[-1] == prompt("suau")


def test_own_pairs_without_a_kind_are_told_to_say_it(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "say", "chosen": "red", "rejected": "blue"}\n')
    with pytest.raises(ConfigError, match=r"read as text until it says what it holds.*Add `kind: preferences`"):
        open_sources([SourceConfig(path=str(pairs))], tmp_path, "preferences", "reward.preferences")
    with pytest.raises(ConfigError, match="tiny-chat holds conversations"):
        open_sources([SourceConfig(name="tiny-chat")], tmp_path, "preferences", "reward.preferences")


def test_a_source_with_a_name_and_a_path_is_named_by_its_place(tmp_path: Path) -> None:
    configs = [SourceConfig(name="tiny-preferences"), SourceConfig(name="dpo-en", path="pairs.jsonl")]
    with pytest.raises(ConfigError, match=r"reward\.preferences\.1: .* given: name, path"):
        open_sources(configs, tmp_path, "preferences", "reward.preferences")
