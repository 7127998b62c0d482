import pytest

from duihua.evaluation.repetition import repeated_share, repetition_rate, units


def test_units_are_words_or_single_chinese_characters_without_punctuation() -> None:
    assert units("I'm fine, THANKS!") == ["i'm", "fine", "thanks"]
    assert units("你好，world 3号") == ["你", "好", "world", "3", "号"]


def test_share_of_repeated_four_grams_by_hand() -> None:
    # a b c d a b c d a: six 4-grams, abcd bcda cdab dabc abcd bcda, four distinct
    assert repeated_share("a b c d a b c d a") == pytest.approx(1 - 4 / 6)
    assert repeated_share("one two three four five six") == 0.0
    assert repeated_share("好好好好好") == pytest.approx(1 - 1 / 2)
    assert repeated_share("too short") == 0.0


def test_repeated_words_count_across_punctuation_and_case() -> None:
    assert repeated_share("I like tea very much. I LIKE tea, very much!") == pytest.approx(1 - 5 / 7)


def test_rate_is_the_mean_over_replies_not_over_pooled_n_grams() -> None:
    looping, fresh = "a b c d a b c d a", "one two three four five"
    assert repetition_rate([looping, fresh, fresh]) == pytest.approx((1 - 4 / 6) / 3)
    pooled = 1 - (4 + 2) / (6 + 2 + 2)  # the wrong way: what two replies share would count as repetition
    assert repetition_rate([looping, fresh, fresh]) != pytest.approx(pooled)


def test_no_replies_are_refused() -> None:
    with pytest.raises(ValueError, match="no replies"):
        repetition_rate([])
