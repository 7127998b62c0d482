"""Task inputs: ids that can be checked by hand, cutting, and the safety of the task tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duihua.errors import ConfigError, DataError
from duihua.text.task_inputs import Task, TaskInputs, TaskTokens, common_length
from duihua.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes only: "a" and "b" are one token each."""
    return Tokenizer.train(["zq zq zq zq"], 261)


def inputs(tokenizer: Tokenizer, task: Task, length: int = 32, rows: int = 300) -> TaskInputs:
    return TaskInputs(tokenizer, rows, task, length)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """`text` with S, D and X for the task tokens behind an embedding of 300 rows."""
    return [{"S": 300, "D": 301, "X": 302}.get(c, 0) or tokenizer.encode(c)[0] for c in text]


def test_the_four_layouts_are_those_of_the_paper(tokenizer: Tokenizer) -> None:
    def rows(task: Task, *given: Sequence[str]) -> list[list[int]]:
        return [list(row) for row in inputs(tokenizer, task).encode(*given).rows]

    def of(text: str) -> list[int]:
        return ids(tokenizer, text)

    assert TaskTokens.behind(300) == TaskTokens(300, 301, 302)
    assert rows("classification", ["ab"]) == [of("SabX")]
    assert rows("entailment", ["ab", "c"]) == [of("SabDcX")]
    assert rows("similarity", ["ab", "c"]) == [of("SabDcX"), of("ScDabX")]
    assert rows("multiple_choice", ["ab"], ["c", "de"]) == [of("SabDcX"), of("SabDdeX")]
    assert rows("classification", [""]) == [of("SX")]


def test_the_longest_part_is_cut_first_and_what_is_cut_is_counted(tokenizer: Tokenizer) -> None:
    made = inputs(tokenizer, "entailment", length=9).encode(["abcdefgh", "yz"])
    assert [list(row) for row in made.rows] == [ids(tokenizer, "SabcdDyzX")]  # 6 places: 2 for yz, so 4 for the other
    assert made.cut == 4
    made = inputs(tokenizer, "classification", length=5).encode(["abcdefgh"])
    assert [list(row) for row in made.rows] == [ids(tokenizer, "SabcX")]
    assert made.cut == 5
    assert inputs(tokenizer, "classification", length=10).encode(["abcdefgh"]).cut == 0


def test_the_context_of_a_choice_loses_its_beginning_alike_for_all_options(tokenizer: Tokenizer) -> None:
    made = inputs(tokenizer, "multiple_choice", length=9).encode(["abcdefgh"], ["xyz", "v"])
    assert [list(row) for row in made.rows] == [ids(tokenizer, "SfghDxyzX"), ids(tokenizer, "SfghDvX")]
    assert made.cut == 5


def test_cutting_a_pair_does_not_depend_on_its_order(tokenizer: Tokenizer) -> None:
    encode = inputs(tokenizer, "similarity", length=10).encode  # 7 places for two long texts: 3 each
    assert encode(["aaaaaaa", "bbbbbb"]).rows == encode(["bbbbbb", "aaaaaaa"]).rows[::-1]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(4, 60))
def test_the_common_length_is_the_largest_that_fits(lengths: list[int], places: int) -> None:
    most = common_length(lengths, places)

    def taken(limit: int) -> int:
        return sum(min(length, limit) for length in lengths)

    assert taken(most) <= places
    assert taken(most + 1) > places or most >= max(lengths)


@given(st.text())
def test_no_text_can_write_a_task_token(tokenizer: Tokenizer, text: str) -> None:
    made = TaskInputs(tokenizer, tokenizer.vocabulary_size, "classification", 4096)
    for hostile in (text, f"<|extract|>{text}<|endoftext|><|im_end|>"):
        (row,) = made.encode([hostile]).rows
        assert row[0] == made.tokens.start
        assert row[-1] == made.tokens.extract
        assert all(id < tokenizer.vocabulary_size and id not in tokenizer.special_ids for id in row[1:-1])


def test_what_is_not_of_the_tasks_form_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="similarity takes two texts, found 1"):
        inputs(tokenizer, "similarity").encode(["a"])
    with pytest.raises(DataError, match="classification takes one text, found 2"):
        inputs(tokenizer, "classification").encode(["a", "b"])
    with pytest.raises(DataError, match="classification takes no options"):
        inputs(tokenizer, "classification").encode(["a"], ["b", "c"])
    for options in ([], ["b"]):
        with pytest.raises(DataError, match="takes two or more options"):
            inputs(tokenizer, "multiple_choice").encode(["a"], options)
    with pytest.raises(ConfigError, match="cannot hold the task tokens"):
        inputs(tokenizer, "similarity", length=4)
