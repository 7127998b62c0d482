"""Replies spoilt in one way: what is cut short, and what has nothing shorter."""

from __future__ import annotations

import pytest

from duihua.data.pairs import Exchange
from duihua.data.records import LeftOut
from duihua.data.spoilt_replies import cut_short, cut_short_pairs, word_salad


def exchanges(*replies: str, language: str = "en") -> list[Exchange]:
    return [Exchange([{"role": "user", "content": f"hi {n}"}], reply, "s", language) for n, reply in enumerate(replies)]


@pytest.mark.parametrize(
    ("reply", "start"),
    [
        ("red blue dog cat sun fish", "red blue"),
        ("one two three", "one"),
        ("Well, no: it is not.", "Well, no"),
        ("abcdef", "ab"),
        ("好的，我知道了。", "好的"),
        ("好的，我现在已经知道了你说的事。", "好的，我现"),
        ("用Python写，两行 code 就够了。", "用Python写，"),
        ("我喜欢吃苹果", "我喜"),
    ],
)
def test_a_third_of_the_words_is_kept_or_of_the_characters_where_words_are_few(reply: str, start: str) -> None:
    (exchange,) = exchanges(reply)
    assert cut_short(exchange).strip() == start


def test_chinese_words_are_thrown_about_within_clauses_too() -> None:
    reply = "好的，我现在已经知道了你说的事。"
    (exchange,) = exchanges(reply, language="zh")
    salad = word_salad(exchange)
    assert sorted(salad) == sorted(reply) and "我现在已经知道了你说的事" not in salad


def test_pairs_of_a_reply_and_its_start_as_many_as_asked_for_and_the_others_counted() -> None:
    left_out = LeftOut()
    items = exchanges("red blue dog cat sun fish", "x", "one two three", "dog dog cat cat")
    pairs = cut_short_pairs(items, 2, left_out)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(items[0].reply, "red blue"), (items[2].reply, "one")]
    assert all(pair.kind == "cut short" and pair.prompt in [item.prompt for item in items] for pair in pairs)
    assert left_out.counts == {"reply too short to be cut short": 1}
    assert cut_short_pairs(items, 0, LeftOut()) == [], "none unless asked for"
