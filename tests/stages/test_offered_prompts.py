"""Openings that are offered: of each language alike, from what was seen most often, and none that does not fit."""

from __future__ import annotations

from duihua.data.records import Conversation
from duihua.stages.offered_prompts import MOST_CHARACTERS, offered_prompts


def said(*openings: str, language: str = "en") -> list[Conversation]:
    return [
        Conversation([{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}], "made", language)
        for text in openings
    ]


def test_sources_come_by_weight_and_openings_by_frequency() -> None:
    often, seldom = said("A1", "A2", "A2", "A3"), said("B1")
    assert offered_prompts([(often, 10.0), (seldom, 6.0)], 3)[:2] == ("A2", "B1")  # 10, then 6 beside 10 / 2
    assert offered_prompts([(often, 10.0), (seldom, 4.0)], 2)[0] == "A2"
    assert offered_prompts([(often, 10.0), (seldom, 4.0)], 2)[1] in ("A1", "A3")  # 10 / 2 beside 4
    assert set(offered_prompts([(often, 1.0), (seldom, 1.0)], 9)) == {"A1", "A2", "A3", "B1"}


def test_languages_take_turns() -> None:
    both = [(said("one", "two", "three"), 1.0), (said("一", "二", "三", language="zh"), 9.0)]
    found = offered_prompts(both, 4)
    assert [text.isascii() for text in found] == [True, False, True, False]
    assert len(offered_prompts(both, 5)) == 5
    assert offered_prompts(both[:1], 2) == offered_prompts(both[:1], 3)[:2]


def test_what_does_not_fit_on_a_button_is_left_out() -> None:
    system = Conversation(
        [{"role": "system", "content": "Be brief."}, *said("after a system message")[0].messages], "made", "en"
    )
    conversations = [*said("x" * (MOST_CHARACTERS + 1), "two\nlines", "  ", " fits "), system]
    assert offered_prompts([(conversations, 1.0)], 9) == ("fits",)
    assert offered_prompts([(conversations, 1.0)], 0) == ()
    assert offered_prompts([], 9) == ()


def test_one_opening_of_two_sources_is_offered_once() -> None:
    assert offered_prompts([(said("Hi"), 2.0), (said("Hi", "Bye"), 1.0)], 9) == ("Hi", "Bye")
