import pytest

from duihua.evaluation.greetings import greetings_report, matches, normalise


@pytest.mark.parametrize(
    ("reply", "reference"),
    [
        ("Hello!", "hello"),
        ("I'm doing well. How about you?", "I’m doing well, how about you"),
        ("ＨＥＬＬＯ，　Ｗｏｒｌｄ！", "hello world"),
        ("你好！", "你好。"),
        ("我 很好, 谢谢", "我很好，谢谢！"),
        ("  hi\n there ", "hi there"),
    ],
)
def test_case_width_punctuation_and_space_do_not_matter(reply: str, reference: str) -> None:
    assert reply != reference  # a comparison without normalisation would reject it
    assert matches(reply, ["something else", reference])


@pytest.mark.parametrize(
    ("reply", "reference"),
    [
        ("hello there", "hello"),  # more than the reference
        ("hell", "hello"),  # less
        ("1+1", "11"),  # symbols carry meaning
        ("我很好", "你很好"),
        ("", "hello"),
        ("?!", "..."),  # nothing left on either side is not a match
    ],
)
def test_other_words_do_not_match(reply: str, reference: str) -> None:
    assert not matches(reply, [reference])


def test_normalisation_keeps_accents_and_chinese() -> None:
    assert normalise("Ça va？ 好的～") == "çava好的~"


def test_report_counts_items_in_order() -> None:
    report = greetings_report(["Hi", "你好"], ["Hello.", "再见"], [["hello"], ["你好"]])
    assert (report["matched"], report["total"]) == (1, 2)
    assert report["items"] == [
        {"prompt": "Hi", "reply": "Hello.", "matched": True},
        {"prompt": "你好", "reply": "再见", "matched": False},
    ]
