"""What stands in the data word for word: runs against Python's own sequence matcher, copied groups by hand."""

from __future__ import annotations

import difflib

from hypothesis import given
from hypothesis import strategies as st

from duihua.evaluation.memorisation import copied_shares, longest_run

LETTERS = st.lists(st.integers(0, 3), max_size=12)


def subsequence(said: list[int], meant: list[int]) -> int:
    """The wrong measure: the longest common subsequence, whose tokens may stand apart."""
    before = [0] * (len(meant) + 1)
    for token in said:
        row = [0]
        for place, other in enumerate(meant):
            row.append(before[place] + 1 if token == other else max(row[-1], before[place + 1]))
        before = row
    return before[-1]


@given(LETTERS, LETTERS)
def test_the_longest_run_is_that_of_pythons_sequence_matcher(said: list[int], meant: list[int]) -> None:
    match = difflib.SequenceMatcher(None, said, meant, autojunk=False).find_longest_match()
    assert longest_run(said, meant) == match.size


def test_a_run_is_in_one_piece() -> None:
    said, meant = [1, 2, 9, 3, 4], [1, 2, 3, 4]
    assert longest_run(said, meant) == 2
    assert subsequence(said, meant) == 4  # the wrong measure would call the whole reference copied
    assert longest_run([], meant) == longest_run(said, []) == 0


def test_copied_is_the_share_of_groups_of_four_that_stand_in_a_training_text() -> None:
    training = ["the cat sat on the mat", "a dog slept"]
    # the cat sat on | cat sat on a | sat on a dog: one of three
    assert copied_shares(["The cat sat on a dog."], training) == [1 / 3]
    # every word stands in the training texts, and no group of them does
    assert copied_shares(["mat the on sat cat the"], training) == [0.0]
    words = {word for text in training for word in text.split()}
    assert all(word in words for word in ["mat", "the", "on", "sat", "cat"])  # single words would call it copied


def test_a_short_reply_counts_as_one_group_and_chinese_by_characters() -> None:
    training = ["我很好，谢谢你", "a dog slept"]
    assert copied_shares(["挺好", "很好", "Dog slept!", "slept dog", ""], training) == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert copied_shares(["我很好，谢谢大家"], training) == [2 / 4]  # 我很好谢 and 很好谢谢, not 好谢谢大 and 谢谢大家
