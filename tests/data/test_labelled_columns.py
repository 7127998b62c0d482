"""Rows become labelled examples and choices in the forms that public sets use, and nothing ambiguous is guessed."""

from __future__ import annotations

from typing import Any

import pytest

from duihua.data.columns import plan_columns, to_record
from duihua.data.records import BadRecordError, Choice, Kind, Labelled, Record
from duihua.data.source import ColumnsConfig
from duihua.errors import DataError


def record(kind: Kind, row: dict[str, Any], columns: ColumnsConfig = ColumnsConfig()) -> Record:  # noqa: B008
    return to_record(row, plan_columns(kind, columns, row, "f:1"), "test")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": " good book ", "label": "pos"}, Labelled(("good book",), "pos", "test", "en")),
        ({"review": "好书，很喜欢", "category": 1}, Labelled(("好书，很喜欢",), "1", "test", "zh")),
        ({"sentence1": "a b", "sentence2": "c d", "label": 0}, Labelled(("a b", "c d"), "0", "test", "en")),
        ({"premise": "p", "hypothesis": "h", "label": "neutral"}, Labelled(("p", "h"), "neutral", "test", "en")),
        ({"text": "a", "label": True}, Labelled(("a",), "1", "test", "en")),
        ({"text": "a", "label": 2.0}, Labelled(("a",), "2", "test", "en")),
    ],
)
def test_labelled_forms(row: dict[str, Any], expected: Labelled) -> None:
    assert record("labelled", row) == expected


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"context": "q", "options": ["x", "y"], "answer": 1}, 1),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}, 1),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"}, 0),
        ({"ctx": "q", "endings": '["x", "y"]', "label": "1"}, 1),
        ({"query": "q", "choices": ["x", "y"], "gold": 0}, 0),
        ({"query": "q", "choices": ["x", "y"], "answer": "y"}, 1),
        ({"query": "q", "choices": ["x", "y"], "answer": "A"}, 0),
        ({"query": "q", "choices": ["2", "1"], "answer": "1"}, 1),  # the text of an option comes before an index
    ],
)
def test_choice_forms(row: dict[str, Any], answer: int) -> None:
    found = record("choices", row)
    assert isinstance(found, Choice)
    assert found.context == "q"
    assert found.answer == answer


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("labelled", {"text": "a", "label": None}, "label is missing"),
        ("labelled", {"text": "a", "label": 0.5}, "neither a text nor a whole number"),
        ("labelled", {"text": "a", "label": " "}, "empty label"),
        ("labelled", {"text": " ", "label": "x"}, "empty text"),
        ("labelled", {"text": "a", "text_b": None, "label": "x"}, "missing or not a text"),
        ("choices", {"context": "q", "options": ["x"], "answer": 0}, "two or more options"),
        ("choices", {"context": "q", "options": ["x", "y"], "answer": 2}, "beyond the options"),
        ("choices", {"context": "q", "options": ["x", "y"], "answer": -1}, "beyond the options"),
        ("choices", {"context": "q", "options": ["x", "y"], "answer": "z"}, "neither an index nor one"),
        ("choices", {"context": "q", "options": ["x", "x"], "answer": 0}, "right option stands twice"),
        ("choices", {"context": "q", "options": ["x", ""], "answer": 0}, "empty text"),
        ("choices", {"context": "q", "options": "[1", "answer": 0}, "bad JSON"),
        ("choices", {"context": "q", "options": {"text": ["x", "y"], "label": ["A"]}, "answer": 0}, "differ in number"),
        ("choices", {"context": "q", "options": ["x", "y"], "answer": True}, "neither an index nor one"),
    ],
)
def test_what_gives_no_record_says_why(kind: Kind, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecordError, match=reason):
        record(kind, row)


def test_a_wrong_option_may_stand_twice() -> None:
    found = record("choices", {"context": "q", "options": ["x", "y", "y"], "answer": 0})
    assert isinstance(found, Choice)
    assert found.options == ("x", "y", "y")


def test_columns_can_be_named_and_a_missing_one_gets_the_nearest() -> None:
    row = {"body": "a", "other": "b", "mark": "x"}
    columns = ColumnsConfig(text="body", text_b="other", label="mark")
    assert record("labelled", row, columns) == Labelled(("a", "b"), "x", "test", "en")
    with pytest.raises(DataError, match="no column for labelled"):
        record("labelled", {"text": "a", "labl": "x"})
    with pytest.raises(DataError, match=r"no column for choices \(context \+ options \+ answer\)"):
        record("choices", {"context": "a", "options": ["x", "y"]})


def test_names_tried_for_labelled_texts_are_not_tried_for_documents() -> None:
    with pytest.raises(DataError, match="no column for text"):
        record("text", {"sentence": "a", "label": "x"})
