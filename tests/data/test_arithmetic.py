"""The sums: every answer is right, both languages ask, and no pair of numbers stands on both sides of the split."""

from __future__ import annotations

import re
from pathlib import Path

from duihua.data.arithmetic import Arithmetic, SmallArithmetic, is_held_out_sum
from duihua.data.records import Conversation
from duihua.data.source import SourceConfig, open_source


def numbers(record: object) -> tuple[int, int, int]:
    assert isinstance(record, Conversation)
    question, answer = (message["content"] for message in record.messages)
    first, second = map(int, re.findall(r"\d+", question))
    return first, second, int(answer)


def test_every_answer_is_the_sum_and_the_counts_are_those_stated() -> None:
    for source in (Arithmetic(Path()), SmallArithmetic(Path())):
        splits = [[numbers(record) for record in source.records(split)] for split in ("train", "heldout")]
        assert tuple(map(len, splits)) == tuple(source.counts)
        assert all(a + b == answer for split in splits for a, b, answer in split)
        assert sum(map(len, splits)) == 2 * (source.largest + 1) ** 2


def test_held_out_numbers_are_met_in_no_order_and_no_wording() -> None:
    source = open_source(SourceConfig(name="arithmetic-small"), Path())
    train = {frozenset(numbers(record)[:2]) for record in source.records("train")}
    heldout = {frozenset(numbers(record)[:2]) for record in source.records("heldout")}
    assert heldout and not train & heldout
    assert is_held_out_sum(3, 17) == is_held_out_sum(17, 3)


def test_any_first_part_has_both_languages_and_all_sizes() -> None:
    records = list(open_source(SourceConfig(name="arithmetic", limit=200), Path()).records("train"))
    assert {record.language for record in records} == {"en", "zh"}
    assert min(numbers(r)[2] for r in records) < 30 and max(numbers(r)[2] for r in records) > 150
    questions = [r.messages[0]["content"] for r in records if isinstance(r, Conversation)]
    assert len(set(questions)) == len(questions)
