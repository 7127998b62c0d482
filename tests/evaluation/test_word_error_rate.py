"""Edit distance against its definition by recursion, word error rates against worked examples and against jiwer."""

from __future__ import annotations

import functools
import random

import pytest

from duihua.errors import DataError
from duihua.evaluation.word_error_rate import characters, distance, error_rate, plain, words


def by_definition(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    @functools.cache
    def edits(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(edits(i - 1, j) + 1, edits(i, j - 1) + 1, edits(i - 1, j - 1) + (first[i - 1] != second[j - 1]))

    return edits(len(first), len(second))


def test_distance_equals_its_definition() -> None:
    draw = random.Random(0)
    differs = 0
    for _ in range(200):
        first, second = (tuple(draw.choice("abc") for _ in range(draw.randint(0, 9))) for _ in range(2))
        assert distance(first, second) == by_definition(first, second)
        differs += distance(first, second) != sum(a != b for a, b in zip(first, second, strict=False)) + abs(
            len(first) - len(second)
        )  # place by place, without alignment: the wrong way
    assert differs > 50


def test_rate_divides_all_edits_by_all_words() -> None:
    said = ["the cat sat on mat", "hello"]
    meant = ["the cat sat on the mat", "hello there world"]
    made = error_rate(said, meant)
    assert (made.edits, made.units) == (1 + 2, 6 + 3)
    assert made.rate.value == pytest.approx(3 / 9)
    mean_of_lines = (1 / 6 + 2 / 3) / 2
    assert made.rate.value != pytest.approx(mean_of_lines, abs=0.05)
    assert error_rate(["a b c d e"], ["x"]).rate.value == 5.0, "above 1 where much was added"


def test_rates_equal_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed")
    draw = random.Random(1)
    vocabulary = ["one", "two", "three", "four", "five", "我", "爱", "你"]
    meant = [" ".join(draw.choice(vocabulary) for _ in range(draw.randint(1, 12))) for _ in range(60)]
    said = [" ".join(draw.choice(vocabulary) for _ in range(draw.randint(1, 12))) for _ in range(60)]
    assert error_rate(said, meant).rate.value == pytest.approx(jiwer.wer(meant, said))
    no_spaces = [[line.replace(" ", "") for line in lines] for lines in (meant, said)]
    assert error_rate(said, meant, "character").rate.value == pytest.approx(jiwer.cer(*no_spaces))


def test_chinese_is_counted_in_characters() -> None:
    made = error_rate(["我爱他"], ["我 爱 你"], "character")
    assert (made.edits, made.units) == (1, 3)
    assert error_rate(["我爱他"], ["我爱你"]).rate.value == 1.0, "as one word all of it is wrong"


def test_normalising_takes_case_width_and_punctuation_and_says_so() -> None:
    assert plain("Don’t stop, ＯＫ? 3.5") == "don't stop  ok  3.5"
    assert words("Hello,  World!", normalise=True) == ["hello", "world"]
    assert characters("你好， 世界", normalise=True) == list("你好世界")
    strict, loose = (error_rate(["hello world"], ["Hello, world!"], normalise=each) for each in (False, True))
    assert strict.rate.value == 1.0
    assert loose.rate.value == 0.0
    assert loose.to_dict()["normalised"] is True


def test_missing_lines_and_empty_references_are_refused() -> None:
    with pytest.raises(DataError, match="1 hypotheses, 2 references"):
        error_rate(["a"], ["a", "b"])
    with pytest.raises(DataError, match="hold no word"):
        error_rate(["a"], [" "])
