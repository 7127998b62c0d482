"""Columns: every public form gives the record it means, and every fault names its field."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from duihua.config import field_help
from duihua.data.columns import TRIED, plan_columns, to_record
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


WEATHER = {"name": "weather", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": WEATHER}
CALL = {"name": "weather", "arguments": {"city": "北京"}}
CALL_TEXT = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'
WITH_TOOLS = [
    {"role": "system", "content": "", "tools": [TOOL]},
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": f"<think>\nhm\n</think>\n\n{CALL_TEXT}"},
    {"role": "tool", "content": "21"},
    {"role": "assistant", "content": "r"},
]


def openai(**reply: Any) -> list[dict[str, Any]]:
    """A conversation with a call in OpenAI's form."""
    return [TURNS[0], {"role": "assistant", "content": None, **reply}, {"role": "tool", "content": "21"}, TURNS[1]]


def glaive(call: str, *, answers: int = 1) -> list[dict[str, str]]:
    """The same in Glaive's ShareGPT form."""
    answer = [{"from": "observation", "value": "21"}] * answers
    return [SHAREGPT[0], {"from": "function_call", "value": call}, *answer, SHAREGPT[1]]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": openai(tool_calls=[{"function": CALL}], reasoning_content="hm"), "tools": [TOOL]},
        {
            "messages": openai(
                tool_calls=[{"id": "1", "type": "function", "function": {**CALL, "arguments": '{"city": "北京"}'}}],
                reasoning_content="hm\n",
            ),
            "tools": json.dumps([WEATHER]),
        },
        {"conversations": glaive(f"<think>hm</think>{json.dumps(CALL)}"), "tools": json.dumps([WEATHER])},
        {"conversations": glaive(f"<think>\nhm\n</think>\n[{json.dumps(CALL)}]"), "tools": [WEATHER]},
        {
            "messages": [
                {"role": "system", "content": "", "tools": [TOOL]},
                TURNS[0],
                WITH_TOOLS[2],
                {"from": "tool", "value": "<tool_response>\n21\n</tool_response>"},
                TURNS[1],
            ]
        },
        {"messages": WITH_TOOLS},
    ],
)
def test_every_form_of_a_call_gives_the_same_messages(row: dict[str, Any]) -> None:
    found = record("conversations", row)
    assert isinstance(found, Conversation)
    assert found.messages == WITH_TOOLS


def test_tools_stand_in_the_systems_message_that_is_there() -> None:
    found = record("conversations", {"instruction": "q", "output": "r", "system": "Be exact.", "tools": [WEATHER]})
    assert isinstance(found, Conversation)
    assert found.messages == [{"role": "system", "content": "Be exact.", "tools": [TOOL]}, *TURNS]
    without = record("conversations", {"messages": TURNS, "tools": "[]"})
    assert isinstance(without, Conversation)
    assert without.messages == TURNS


def test_tools_and_system_are_found_in_rows_behind_a_first_one_without_them() -> None:
    plan = plan_columns("conversations", ColumnsConfig(), ["messages"], "f:1")
    found = to_record({"messages": TURNS, "tools": [WEATHER], "system": "s"}, plan, "test")
    assert isinstance(found, Conversation)
    assert found.messages[0] == {"role": "system", "content": "s", "tools": [TOOL]}
    assert to_record({"messages": TURNS}, plan, "test") == Conversation(TURNS, "test", "en")  # type: ignore[arg-type]


def test_calls_at_once_are_answered_in_turn_and_one_answer_too_many_is_a_fault() -> None:
    two = json.dumps([CALL, CALL])
    found = record("conversations", {"conversations": glaive(two, answers=2)})
    assert isinstance(found, Conversation)
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert found.messages[1]["content"] == f"{CALL_TEXT}\n{CALL_TEXT}"
    with pytest.raises(BadRecordError, match="a tool's answer without a call"):
        record("conversations", {"conversations": glaive(two, answers=3)})


def test_a_closing_answer_of_a_tool_is_cut_and_counted() -> None:
    notes = LeftOut()
    row = {"conversations": glaive(json.dumps(CALL))[:-1]}
    found = to_record(row, plan_columns("conversations", ColumnsConfig(), row, ""), "test", notes=notes, place="f:7")
    assert isinstance(found, Conversation)
    assert found.messages[-1]["content"] == CALL_TEXT
    assert dict(notes.counts) == {"closing answer of a tool without a reply (the rest is kept)": 1}


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
        ("conversations", {"messages": TURNS, "tools": "[{"}, "tools that are not JSON", "tools"),
        ("conversations", {"messages": TURNS, "tools": '{"name": "f"}'}, "not a list", "tools"),
        ("conversations", {"messages": TURNS, "tools": [WEATHER, {"x": 1}]}, "a tool without a name", "tools[1]"),
        ("conversations", {"conversations": glaive("weather(Rome)")}, "not JSON", "conversations[1].value"),
        ("conversations", {"conversations": glaive('{"name": "f", "arguments": {"x": NaN}}')}, "not JSON", "conv"),
        ("conversations", {"conversations": glaive("[]")}, "is empty", "conversations[1].value"),
        ("conversations", {"conversations": glaive('{"arguments": {}}')}, "without a name", "conversations[1].value"),
        ("conversations", {"conversations": glaive('{"name": "f"}')}, "are not an object", "conversations[1].value"),
        ("conversations", {"conversations": [*SHAREGPT, *glaive("{}")[2:]]}, "without a call", "conversations[2]"),
        ("conversations", {"messages": openai(tool_calls=[{}])}, "without a name", "messages[1].tool_calls[0]"),
        (
            "conversations",
            {"messages": openai(tool_calls=[{"function": {"name": "f", "arguments": "x"}}])},
            "arguments are not JSON",
            "messages[1].tool_calls[0]",
        ),
        ("conversations", {"messages": openai()}, "missing", "messages[1].content"),
        ("conversations", {"messages": [TURNS[0], WITH_TOOLS[2], TURNS[1]]}, "out of order", "messages[2]"),
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
        "notes.csv:2: no column 'bdy'; the columns are: title, body. Did you mean 'body'? "
        "Set columns.text, on the command line --column text=body."
    )
    with pytest.raises(DataError, match=r"no column for preferences .*are: text"):
        plan_columns("preferences", ColumnsConfig(), ["text"], "x")


def test_a_named_column_wins_over_the_usual_one_and_language_is_detected() -> None:
    found = record("text", {"text": "no", "body": "是的，这是正文"}, ColumnsConfig(text="body"))
    assert found == Document("是的，这是正文", "test", "zh")


def test_the_help_of_each_column_names_all_that_are_tried() -> None:
    said = {
        part: set(re.findall(r"\w+", text.partition("Tried:")[2])) for part, text in field_help(ColumnsConfig).items()
    }
    assert {part: missing for part, tried in TRIED.items() if (missing := {*tried} - said[part])} == {}
    assert "completion" not in said["instruction"], "the reading of the help tells the columns apart"


@pytest.mark.parametrize(
    ("kind", "names", "remedy"),
    [
        (
            "text",
            ["prompt", "chosen", "rejected"],
            "They look like preferences: set `kind: preferences`, @ --kind preferences",
        ),
        ("text", ["messages"], "They look like conversations: set `kind: conversations`, @ --kind conversations"),
        (
            "preferences",
            ["question", "better", "worse"],
            "Name the right columns in columns.chosen and columns.rejected, @ --column chosen=NAME --column rejected=NAME",
        ),
        (
            "preferences",
            ["chosen", "unrejected"],
            "Name the right column in columns.rejected, @ --column rejected=NAME",
        ),
        (
            "preferences",
            ["chosen", "reject"],
            "Did you mean 'reject'? Set columns.rejected, @ --column rejected=reject",
        ),
    ],
)
def test_missing_columns_are_told_how_to_be_named_and_never_turn_a_pair_round(
    kind: Kind, names: list[str], remedy: str
) -> None:
    with pytest.raises(DataError) as caught:
        plan_columns(kind, ColumnsConfig(), names, "f:1")
    assert caught.value.remedy == remedy.replace("@", "on the command line")
