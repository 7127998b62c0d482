"""Columns: every public form gives the record it means, and every fault names its field."""

from __future__ import annotations

from typing import Any

import pytest

from duihua.data.columns import plan_columns, to_record
from duihua.data.records import BadRecordError, Conversation, Document, Kind, LeftOut, Preference, Record
from duihua.data.source import ColumnsConfig
from duihua.errors import DataError


def record(kind: Kind, row: dict[str, Any], columns: ColumnsConfig = ColumnsConfig()) -> Record:  # noqa: B008
    return to_record(row, plan_columns(kind, columns, row, "f:1"), "test")


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"conversations": SHAREGPT},
        {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]'},
        {"instruction": "q", "input": "", "output": "r"},
        {"question": "q", "answer": "r"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": " q "}]}, TURNS[1]]},
    ],
)
def test_every_conversation_form_gives_the_same_messages(row: dict[str, Any]) -> None:
    found = record("conversations", row)
    assert isinstance(found, Conversation)
    assert found.messages == TURNS


def test_input_stands_below_the_instruction_and_system_in_front() -> None:
    found = record("conversations", {"instruction": "Add", "input": "1 2", "output": "3", "system": "Be exact."})
    assert isinstance(found, Conversation)
    assert [message["content"] for message in found.messages] == ["Be exact.", "Add\n1 2", "3"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {
            "conversations": [SHAREGPT[0]],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {
            "chosen": [TURNS[0], {"role": "assistant", "content": "good"}],
            "rejected": [TURNS[0], {"role": "assistant", "content": "bad"}],
        },
        {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
    ],
)
def test_every_preference_form_gives_the_same_pair(row: dict[str, Any]) -> None:
    found = record("preferences", row)
    assert isinstance(found, Preference)
    assert (found.prompt, found.chosen, found.rejected) == ([TURNS[0]], "good", "bad")


def test_a_transcript_of_many_turns_keeps_what_both_share_as_prompt() -> None:
    start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "
    found = record("preferences", {"chosen": start + "x: y\n\nz", "rejected": start + "w"})
    assert isinstance(found, Preference)
    assert [message["content"] for message in found.prompt] == ["a", "b", "c"]
    assert (found.chosen, found.rejected) == ("x: y\n\nz", "w")


@pytest.mark.parametrize(
    ("kind", "row", "reason", "field"),
    [
        ("text", {"text": "  "}, "empty text", "text"),
        ("text", {"text": 3}, "not a text", "text"),
        ("conversations", {"messages": [{"role": "usr", "content": "q"}]}, "unknown role", "messages[0].role"),
        (
            "conversations",
            {"messages": [TURNS[0], {"role": "assistant", "content": ""}]},
            "empty message",
            "messages[1]",
        ),
        ("conversations", {"messages": [TURNS[0], TURNS[0]]}, "roles out of order", "messages[1]"),
        ("conversations", {"messages": [TURNS[1]]}, "roles out of order", "messages[0]"),
        ("conversations", {"messages": [TURNS[0]]}, "no reply", "messages"),
        ("conversations", {"messages": [{"role": "system", "content": "s"}]}, "no user message", "messages"),
        ("conversations", {"messages": "[{"}, "bad JSON", "messages"),
        ("conversations", {"messages": ["q"]}, "not an object", "messages[0]"),
        ("conversations", {"messages": []}, "not a list", "messages"),
        ("conversations", {"instruction": "q", "output": None}, "missing", "output"),
        ("preferences", {"prompt": "q", "chosen": "a", "rejected": "a "}, "are the same", "chosen"),
        ("preferences", {"chosen": "a", "rejected": "b"}, "share no prompt", "chosen"),
        ("preferences", {"prompt": TURNS, "chosen": "a", "rejected": "b"}, "does not end with a user", "prompt"),
        ("preferences", {"prompt": "q", "chosen": [TURNS[0]], "rejected": "b"}, "does not end with a reply", "chosen"),
        ("preferences", {"chosen": "Human: a", "rejected": "\n\nHuman: b"}, "does not end with a reply", "chosen"),
        ("preferences", {"prompt": "q", "chosen": ["a"], "rejected": "b"}, "not an object", "chosen"),
    ],
)
def test_every_fault_names_reason_and_field(kind: Kind, row: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(BadRecordError) as caught:
        record(kind, row)
    assert reason in caught.value.reason
    assert caught.value.field.startswith(field)


def test_a_closing_user_message_is_cut_and_counted() -> None:
    notes = LeftOut()
    row = {"messages": [*TURNS, TURNS[0]]}
    found = to_record(row, plan_columns("conversations", ColumnsConfig(), row, ""), "test", notes=notes, place="f:7")
    assert isinstance(found, Conversation)
    assert found.messages == TURNS
    assert notes.to_mapping()["reasons"] == {
        "closing user message without a reply (the rest is kept)": {"count": 1, "first": "f:7"}
    }


def test_a_wrong_column_names_place_columns_and_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        plan_columns("text", ColumnsConfig(text="bdy"), ["title", "body"], "notes.csv:2")
    assert str(caught.value) == (
        "notes.csv:2: no column 'bdy'; the columns are: title, body. Did you mean 'body'? Set columns.text."
    )
    with pytest.raises(DataError, match=r"no column for preferences .*are: text"):
        plan_columns("preferences", ColumnsConfig(), ["text"], "x")


def test_a_named_column_wins_over_the_usual_one_and_language_is_detected() -> None:
    found = record("text", {"text": "no", "body": "是的，这是正文"}, ColumnsConfig(text="body"))
    assert found == Document("是的，这是正文", "test", "zh")
