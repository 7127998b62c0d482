"""A held-out text is found whole, nearly whole, and quoted by half; other texts are not."""

from __future__ import annotations

import random

import pytest

from duihua.data.leakage import LONG, RUN, HeldOutTexts
from duihua.data.records import normalised

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def text(seed: int, words: int) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(LETTERS, k=draw.randint(2, 8))) for _ in range(words))


SHORT, MIDDLE, LENGTHY = "good book", text(1, 12), text(2, 400)
HELD_OUT = HeldOutTexts([("a", SHORT), ("b", MIDDLE), ("c", LENGTHY)])


@pytest.mark.parametrize(
    ("trained", "how", "name"),
    [
        (MIDDLE.upper() + "!", "equals", "b"),
        (LENGTHY.replace(" ", ", ", 5), "equals", "c"),
        (LENGTHY.replace("e", "E").replace(LENGTHY.split()[10].replace("e", "E"), "zzz", 1), "nearly equals", "c"),
        (f"{text(3, 50)} {MIDDLE} {text(4, 50)}", "holds", "b"),
        (f"{text(3, 900)} {LENGTHY} {text(4, 900)}", "holds", "c"),
        (f"{text(3, 50)} {LENGTHY[: len(LENGTHY) * 7 // 10]} {text(5, 50)}", "holds half of", "c"),
        ("Good - BOOK", "equals", "a"),
    ],
)
def test_what_stands_in_a_text_is_found_and_named(trained: str, how: str, name: str) -> None:
    occurrence = HELD_OUT.occurrence(trained)
    assert occurrence is not None
    assert (occurrence.how, occurrence.name) == (how, name)


@pytest.mark.parametrize(
    "trained",
    [
        text(9, 300),
        f"{text(3, 50)} {LENGTHY[: len(LENGTHY) * 3 // 10]}",
        "a good book that I read twice",  # too short to be a quotation
        MIDDLE[:12],
        "",
        "!!!",
    ],
)
def test_other_texts_are_not_taken_for_leaks(trained: str) -> None:
    assert HELD_OUT.occurrence(trained) is None


def test_a_plain_search_agrees_on_whole_texts() -> None:
    """The reference: `in`, over texts of every length around the ones where the rules change."""
    held = [text(100 + seed, words) for seed, words in enumerate([3, 5, 8, 30, 44, 48, 60, 200] * 4)]
    held = [each for each in held if len(normalised(each)) >= RUN]
    assert any(len(normalised(each)) - RUN + 1 < LONG for each in held)
    assert any(len(normalised(each)) - RUN + 1 > LONG for each in held)
    index = HeldOutTexts([("t", each) for each in held])
    for number, each in enumerate(held):
        around = text(500 + number, 40)
        assert index.occurrence(f"{around}. {each}? {around}") is not None
        assert not any(normalised(other) in normalised(around) for other in held)
        assert index.occurrence(around) is None


def test_nothing_is_found_where_nothing_is_held_out() -> None:
    assert HeldOutTexts([]).occurrence(MIDDLE) is None
