"""Rows to records: which column holds what, and what makes a row unusable.

The common forms of public data are known: a text column; messages in OpenAI form (role, content) or ShareGPT form (from,
value); Alpaca's instruction, input and output; preferences with prompt, chosen and rejected; and transcripts in the form
of Anthropic's HH data (turns that begin with "Human:" and "Assistant:"; Bai et al. 2022, arXiv:2204.05862), where the
prompt is what both transcripts share; labelled texts, pairs and multiple choice (`labelled_columns.py`). `plan_columns`
settles the columns once, on the first row, so that a wrong name is one clear error and not a million silent misses;
`to_record` then turns each row into a record or raises `BadRecordError`, which readers count and the checker lists.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from duihua.data.labelled_columns import choice, labelled
from duihua.data.records import (
    ASSISTANT,
    SYSTEM,
    USER,
    BadRecordError,
    Conversation,
    Document,
    Kind,
    LeftOut,
    Message,
    Parallel,
    Preference,
    Record,
    detect_language,
)
from duihua.data.source import ColumnsConfig
from duihua.errors import DataError

HUMAN = "human"
"""Kind of a preference that came with the data: a person, or a strong model in his place, judged between the replies."""

TRIED = {
    "text": ("text", "content", "document", "article"),
    "messages": ("messages", "conversations", "conversation", "dialog"),
    "system": ("system",),
    "instruction": ("instruction", "question", "query", "prompt"),
    "input": ("input", "context"),
    "output": ("output", "response", "answer", "reply", "completion"),
    "prompt": ("prompt", "instruction", "question", "conversations", "messages"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "text_b": ("text_b", "sentence2", "hypothesis", "question2"),
    "label": ("label", "class", "category", "labels"),
    "context": ("context", "ctx", "question", "query", "goal", "premise"),
    "options": ("options", "choices", "endings"),
    "answer": ("answer", "gold", "label", "answerKey", "answer_key"),
    "first": ("source", "src", "sentence1"),
    "second": ("target", "tgt", "sentence2"),
}
"""Names tried for each part where the config names no column."""

TRIED_LABELLED = {"text": (*TRIED["text"], "sentence", "review", "sentence1", "premise", "question1")}
"""What is tried instead where the records are labelled."""

NEEDED: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "text": (("text",),),
    "conversations": (("messages",), ("instruction", "output")),
    "preferences": (("chosen", "rejected"),),
    "labelled": (("text", "label"),),
    "choices": (("context", "options", "answer"),),
    "parallel": (("first", "second"),),
}
"""Parts that a record of each kind cannot do without, one alternative after the other."""

KEPT: dict[tuple[str, ...], tuple[str, ...]] = {
    ("messages",): ("system",),
    ("instruction", "output"): ("system", "input"),
    ("chosen", "rejected"): ("prompt", "system"),
    ("text", "label"): ("text_b",),
}
"""Parts that are used beside the needed ones where they are there."""

ROLE_NAMES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "bot": ASSISTANT,
    "model": ASSISTANT,
}
"""What public data calls the three roles."""


@dataclass(frozen=True)
class ColumnPlan:
    """The settled columns: part ("text", "messages", "chosen", ...) -> the column's name."""

    kind: Kind
    columns: Mapping[str, str]

    def get(self, row: Mapping[str, Any], part: str) -> Any:
        """The row's value for a part; None where the plan or the row has none."""
        column = self.columns.get(part)
        return None if column is None else row.get(column)


def plan_columns(kind: Kind, config: ColumnsConfig, available: Iterable[str], where: str) -> ColumnPlan:
    """Settle the columns for rows that have the columns `available`.

    Raises DataError naming `where` (file and line), the available columns and the nearest to the one missing.
    """
    names = [name for name in available if isinstance(name, str)]
    found: dict[str, str] = {}
    usual_of = {**TRIED, **TRIED_LABELLED} if kind == "labelled" else TRIED
    for part, tried in usual_of.items():
        asked = getattr(config, part)
        if asked:
            if asked not in names:
                raise _no_column(f"no column {asked!r}", asked, names, where, f"columns.{part}")
            found[part] = asked
        else:
            usual = next((name for name in tried if name in names), None)
            if usual is not None:
                found[part] = usual
    needed = NEEDED[kind]
    for parts in needed:
        if all(part in found for part in parts):
            return ColumnPlan(kind, {part: found[part] for part in (*parts, *KEPT.get(parts, ())) if part in found})
    missing = [part for part in needed[0] if part not in found]
    usual_names = " or ".join(" + ".join(parts) for parts in needed)
    raise _no_column(f"no column for {kind} ({usual_names})", missing[0], names, where, f"columns.{missing[0]}")


def _no_column(problem: str, asked: str, names: list[str], where: str, setting: str) -> DataError:
    near = difflib.get_close_matches(asked, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? Set {setting}" if near else f"Name the right column in {setting}"
    return DataError(f"{problem}; the columns are: {', '.join(names) or 'none'}", where=where, remedy=hint)


def to_record(
    row: Mapping[str, Any],
    plan: ColumnPlan,
    source: str,
    language: str = "",
    notes: LeftOut | None = None,
    place: str = "",
) -> Record:
    """The row's record; BadRecordError where it gives none. A part left out of a usable record is counted in `notes`."""
    if plan.kind == "text":
        text = plan.get(row, "text")
        if not isinstance(text, str):
            raise BadRecordError("missing or not a text", plan.columns["text"])
        if not text.strip():
            raise BadRecordError("empty text", plan.columns["text"])
        return Document(text, source, language or detect_language(text))
    if plan.kind == "labelled":
        return labelled(row, plan.columns, source, language)
    if plan.kind == "choices":
        return choice(row, plan.columns, source, language)
    if plan.kind == "parallel":
        return _parallel(row, plan, source, language)
    if plan.kind == "conversations":
        messages = _conversation(row, plan)
        if messages[-1]["role"] == USER and len(messages) > 1 and messages[-2]["role"] == ASSISTANT:
            messages = messages[:-1]
            if notes is not None:
                notes.add("closing user message without a reply (the rest is kept)", place)
        if messages[-1]["role"] != ASSISTANT:
            raise BadRecordError("no reply of the assistant", plan.columns.get("messages", "output"))
        return Conversation(messages, source, language or _language(messages))
    return _preference(row, plan, source, language)


def _parallel(row: Mapping[str, Any], plan: ColumnPlan, source: str, language: str) -> Parallel:
    """language: both, as "fr-en"."""
    texts = []
    for part in ("first", "second"):
        text = plan.get(row, part)
        if not isinstance(text, str):
            raise BadRecordError("missing or not a text", plan.columns[part])
        if not text.strip():
            raise BadRecordError("empty side", plan.columns[part])
        texts.append(" ".join(text.split()))
    first, _, second = language.partition("-")
    return Parallel((texts[0], texts[1]), (first, second), source)


def _language(messages: list[Message]) -> str:
    return detect_language("\n".join(message["content"] for message in messages))


def _text(value: Any, field: str) -> str:
    """A message's content: text, or OpenAI content parts of type text; trimmed, as the chat template trims it."""
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise BadRecordError("missing or not a text", field)
    if not value.strip():
        raise BadRecordError("empty message", field)
    return value.strip()


def parse_messages(value: Any, field: str) -> list[Message]:
    """A list of messages in OpenAI or ShareGPT form (or its JSON), roles normalised and in order; else BadRecordError."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRecordError("bad JSON in a messages column", field) from error
    if not isinstance(value, list) or not value:
        raise BadRecordError("missing or not a list of messages", field)
    messages: list[Message] = []
    for index, item in enumerate(value):
        here = f"{field}[{index}]"
        if not isinstance(item, Mapping):
            raise BadRecordError("a message is not an object", here)
        role_key, content_key = ("from", "value") if "from" in item else ("role", "content")
        role = ROLE_NAMES.get(str(item.get(role_key, "")).lower())
        if role is None:
            raise BadRecordError("unknown role", f"{here}.{role_key}")
        messages.append({"role": role, "content": _text(item.get(content_key), f"{here}.{content_key}")})
    check_order(messages, field)
    return messages


def check_order(messages: list[Message], field: str) -> None:
    """Raise BadRecordError unless: at most one system message, at the front; then user and assistant in turn, user first."""
    turns = messages[1:] if messages and messages[0]["role"] == SYSTEM else messages
    offset = len(messages) - len(turns)
    for index, message in enumerate(turns):
        if message["role"] != (USER if index % 2 == 0 else ASSISTANT):
            raise BadRecordError("roles out of order", f"{field}[{index + offset}]")
    if not turns:
        raise BadRecordError("no user message", field)


def _with_system(row: Mapping[str, Any], plan: ColumnPlan, messages: list[Message]) -> list[Message]:
    system = plan.get(row, "system")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != SYSTEM:
        return [{"role": SYSTEM, "content": system.strip()}, *messages]
    return messages


def _conversation(row: Mapping[str, Any], plan: ColumnPlan) -> list[Message]:
    if "messages" in plan.columns:
        return _with_system(row, plan, parse_messages(plan.get(row, "messages"), plan.columns["messages"]))
    question = _text(plan.get(row, "instruction"), plan.columns["instruction"])
    given = plan.get(row, "input")
    if isinstance(given, str) and given.strip():
        question = f"{question}\n{given.strip()}"
    reply = _text(plan.get(row, "output"), plan.columns["output"])
    return _with_system(row, plan, [{"role": USER, "content": question}, {"role": ASSISTANT, "content": reply}])


def _reply(value: Any, column: str, may_be_transcript: bool) -> tuple[str, list[Message] | None]:
    """(the reply, the messages before it where the value has them) of one side of a preference."""
    if may_be_transcript and isinstance(value, str) and value.lstrip().startswith("Human:"):
        value = parse_transcript(value, column)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return _text(value, column), None
    last = value[-1] if value else None
    here = f"{column}[{len(value) - 1}]"
    if not isinstance(last, Mapping):
        raise BadRecordError("a message is not an object", here if value else column)
    role_key, content_key = ("from", "value") if "from" in last else ("role", "content")
    if ROLE_NAMES.get(str(last.get(role_key, "")).lower()) != ASSISTANT:
        raise BadRecordError("does not end with a reply of the assistant", f"{here}.{role_key}")
    before = parse_messages(value[:-1], column) if len(value) > 1 else None
    return _text(last.get(content_key), f"{here}.{content_key}"), before


def _preference(row: Mapping[str, Any], plan: ColumnPlan, source: str, language: str) -> Preference:
    alone = "prompt" not in plan.columns
    (chosen, before_chosen), (rejected, before_rejected) = (
        _reply(plan.get(row, part), plan.columns[part], alone) for part in ("chosen", "rejected")
    )
    prompt_value = plan.get(row, "prompt")
    if prompt_value is None:
        if before_chosen is None or before_chosen != before_rejected:
            raise BadRecordError("chosen and rejected share no prompt", plan.columns["chosen"])
        prompt = before_chosen
    elif isinstance(prompt_value, list):
        prompt = parse_messages(prompt_value, plan.columns["prompt"])
    else:
        prompt = [{"role": USER, "content": _text(prompt_value, plan.columns["prompt"])}]
    prompt = _with_system(row, plan, prompt)
    if prompt[-1]["role"] != USER:
        raise BadRecordError("the prompt does not end with a user message", plan.columns.get("prompt", "chosen"))
    if chosen == rejected:
        raise BadRecordError("chosen and rejected are the same", plan.columns["chosen"])
    return Preference(prompt, chosen, rejected, source, HUMAN, language or _language(prompt))


_TURN = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")


def parse_transcript(text: str, field: str) -> list[dict[str, str]]:
    """An HH transcript as a list of messages, not yet checked."""
    pieces = _TURN.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise BadRecordError("not a transcript of Human and Assistant", field)
    roles, contents = pieces[1::2], pieces[2::2]
    return [
        {"role": USER if role == "Human" else ASSISTANT, "content": content.strip()}
        for role, content in zip(roles, contents, strict=True)
    ]
