"""Preferences: the forms that are read and refused, repetitions and leaks across sources, choices and ratings as pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duihua.data.columns import plan_columns, to_record
from duihua.data.home import data_directory
from duihua.data.preference_sets import (
    PROMPT_HELD_OUT,
    REPEATED,
    REPLY_HELD_OUT,
    TURNED,
    distinct,
    prompts_by_source,
    without_leaks,
)
from duihua.data.preference_views import ChoicePreferences, preference
from duihua.data.records import (
    BadRecordError,
    Choice,
    DifferentPromptsError,
    EqualSidesError,
    LeftOut,
    NoReplyError,
    Preference,
)
from duihua.data.source import ColumnsConfig, SourceConfig, Terms, open_source
from duihua.data.starter.chitchat_ratings import ChitchatRatings
from duihua.errors import DataError


def pair(prompt: str, chosen: str, rejected: str, source: str = "a") -> Preference:
    return Preference([{"role": "user", "content": prompt}], chosen, rejected, source, "human", "en")


def read(row: dict[str, Any]) -> Any:
    return to_record(row, plan_columns("preferences", ColumnsConfig(), row, "row"), "s")


USER, GOOD, BAD = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}, {
    "role": "assistant", "content": "no",
}  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " yes", "rejected": " no"},
        {"prompt": "hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": BAD},
    ],
    ids=["transcript as prompt", "prompt said twice", "transcripts", "messages"],
)
def test_the_usual_forms_give_the_same_pair(row: dict[str, Any]) -> None:
    found = read(row)
    assert (found.prompt, found.chosen, found.rejected) == ([USER], "yes", "no")


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": "hi", "chosen": "yes", "rejected": "yes "}, EqualSidesError),
        ({"prompt": "hi", "chosen": "", "rejected": "no"}, NoReplyError),
        ({"prompt": "hi", "chosen": [USER], "rejected": [USER, BAD]}, NoReplyError),
        ({"chosen": [USER, GOOD], "rejected": [{"role": "user", "content": "ho"}, BAD]}, DifferentPromptsError),
        ({"prompt": "ho", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, DifferentPromptsError),
        ({"chosen": "yes", "rejected": "no"}, DifferentPromptsError),
    ],
    ids=["equal sides", "empty reply", "no reply", "two prompts", "another prompt than the row's", "no prompt at all"],
)
def test_what_is_no_preference_has_an_error_of_its_own(row: dict[str, Any], error: type[BadRecordError]) -> None:
    with pytest.raises(error):
        read(row)


def test_a_file_in_which_all_sides_are_equal_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "hi", "chosen": "yes", "rejected": "yes"}) + "\n")
    with pytest.raises(DataError, match="chosen and rejected are the same"):
        list(open_source(SourceConfig(path=str(file), kind="preferences"), tmp_path).records("train"))


def test_a_pair_is_taken_once_and_its_contradiction_not_at_all() -> None:
    left_out = LeftOut()
    pairs = [pair("Hi!", "a", "b"), pair("hi", "A.", "b"), pair("hi", "b", "a", "b"), pair("hi", "a", "c")]
    assert distinct(pairs, left_out) == [pairs[0], pairs[3]]
    assert dict(left_out.counts) == {REPEATED: 1, TURNED: 1}
    assert distinct(pairs[:1], LeftOut()) == pairs[:1]


def test_training_pairs_that_give_a_held_out_one_away_are_left_out() -> None:
    """Of another source the prompt is enough; of the same one, whose split is by reply, the same reply to it."""
    heldout = [pair("write a review", "fine", "bad", "reviews"), pair("who are you", "me", "you", "b")]
    train = [
        pair("write a review", "great", "awful", "reviews"),
        pair("write a review", "Fine!", "awful", "reviews"),
        pair("Write a review.", "great", "awful", "other"),
        pair("what is red", "a color", "no", "b"),
    ]
    left_out = LeftOut()
    assert without_leaks(train, heldout, left_out) == [train[0], train[3]]
    assert dict(left_out.counts) == {REPLY_HELD_OUT: 1, PROMPT_HELD_OUT: 1}
    assert without_leaks(train, [], LeftOut()) == train, "nothing held out gives nothing away"
    assert prompts_by_source(train) == {"reviews": 1, "other": 1, "b": 1}


def test_the_wrong_option_is_the_one_nearest_in_length() -> None:
    record = Choice("boil an egg", ("in water", "in a bag of sand and stones", "in cheese", "In Water!"), 0, "s", "en")
    found = preference(record)
    assert found is not None
    assert (found.chosen, found.rejected, found.kind) == ("in water", "in cheese", "choice")
    assert preference(Choice("q", ("same", "Same."), 0, "s", "en")) is None, "options that read alike prefer nothing"


class Choices:
    """A source of two choices, one of which cannot be a pair."""

    name, kind, language, terms = "two", "choices", "en", Terms("x", "y", "z")
    left_out = LeftOut()

    def records(self, split: str) -> Iterator[Choice]:
        yield Choice("boil an egg", ("in water", "in sand"), 0, self.name, "en")
        yield Choice("same", ("one", "One"), 1, self.name, "en")

    def fingerprint(self) -> str:
        return "two"


def test_choices_read_as_preferences_count_what_gives_no_pair() -> None:
    source = ChoicePreferences(Choices())  # type: ignore[arg-type]
    found = list(source.records("train"))
    assert source.kind == "preferences" and len(found) == 1
    assert source.left_out.total == 1
    assert source.fingerprint() != "two", "stages built on the choices must not be taken for these"


def conversation(first: str, reply: str, rating: int, number: int) -> dict[str, Any]:
    turns = [[{"text": first, "sender": "p"}], [{"text": reply, "sender": "q"}], [{"text": str(number), "sender": "p"}]]
    return {"messages": turns, "ratings": {"witty": rating, "upbeat": rating, "interesting": rating}}


def test_the_better_rated_of_two_conversations_that_began_alike_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ("Hello there you!", "good one", 9), ("hello there, you", "bad one", 2), ("hello there you", "middling", 6),
        ("hello there you", "unrated", 5), ("something else", "alone", 10),
    ]  # fmt: skip
    dataset = {str(i): conversation(*row, i) for i, row in enumerate(rows)}
    monkeypatch.setattr(ChitchatRatings, "check_archives", lambda self: None)
    monkeypatch.setattr(ChitchatRatings, "member", lambda self, package, ending: json.dumps(dataset).encode())
    source = ChitchatRatings(tmp_path)
    found = [record for split in ("train", "heldout") for record in source.records(split)]  # type: ignore[arg-type]
    assert [(one.chosen, one.rejected) for one in found if isinstance(one, Preference)] == [("good one", "bad one")]
    assert source.left_out.counts["not rated"] == 1


HOME = data_directory()


def test_piqa_is_a_source_of_preferences() -> None:
    try:
        source = open_source(SourceConfig(name="piqa", kind="preferences", limit=50), HOME)
        found = list(source.records("heldout"))
    except DataError as error:
        pytest.skip(str(error))
    assert len(found) == 50
    assert all(isinstance(one, Preference) and one.kind == "choice" for one in found)
