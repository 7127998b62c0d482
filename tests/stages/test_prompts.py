"""Which ends of a prompt are tried before the whole of it."""

from __future__ import annotations

from duihua.data.records import Message
from duihua.stages.prompts import ends_of

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
