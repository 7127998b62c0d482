"""Rows to conversations and preferences: the forms in which public sets write who said what.

Messages come in OpenAI form (role, content) or ShareGPT form (from, value), or as Alpaca's instruction, input and output;
preferences with prompt, chosen and rejected, or as two transcripts in the form of Anthropic's HH data (turns that begin with
"Human:" and "Assistant:"; Bai et al. 2022, arXiv:2204.05862), where the prompt is what both share. Roles are normalised,
and must stand in turn, the user's first.

Tools come in OpenAI form (`tool_calls` and `reasoning_content` beside the content, answers of the role tool) or in Glaive's
ShareGPT form (function_call, observation); either way calls and thoughts become text of the assistant (text/tools.py), and
the tools of a row stand in its system message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from duihua.data.records import (
    ASSISTANT,
    SYSTEM,
    TOOL,
    USER,
    BadRecordError,
    Conversation,
    DifferentPromptsError,
    EqualSidesError,
    LeftOut,
    Message,
    NoReplyError,
    Preference,
    detect_language,
)
from duihua.text.tools import ToolFormError, bare_answer, call_reply, count_calls, read_calls, read_tools, reply_text

T = TypeVar("T")

HUMAN = "human"
"""Kind of a preference that came with the data: a person, or a strong model in his place, judged between the replies."""

ROLE_NAMES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "bot": ASSISTANT,
    "model": ASSISTANT,
    "function_call": ASSISTANT,
    "tool_call": ASSISTANT,
    "tool": TOOL,
    "observation": TOOL,
    "function": TOOL,
    "tool_response": TOOL,
}
"""What public data calls the four roles."""

CALLS = ("function_call", "tool_call")
"""Roles whose whole message is the call, as JSON."""


def conversation(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    source: str,
    language: str = "",
    notes: LeftOut | None = None,
    place: str = "",
) -> Conversation:
    """The row's conversation; columns: messages, or instruction and output, perhaps input, system and tools -> their names in
    the row.

    A closing question, or a closing answer of a tool, without a reply is left out and counted in `notes`. Raises
    BadRecordError.
    """
    messages = _with_tools(row, columns, _messages(row, columns))
    if messages[-1]["role"] == TOOL:
        while messages[-1]["role"] == TOOL:
            messages = messages[:-1]
        if notes is not None:
            notes.add("closing answer of a tool without a reply (the rest is kept)", place)
    if messages[-1]["role"] == USER and len(messages) > 1 and messages[-2]["role"] == ASSISTANT:
        messages = messages[:-1]
        if notes is not None:
            notes.add("closing user message without a reply (the rest is kept)", place)
    if messages[-1]["role"] != ASSISTANT:
        raise BadRecordError("no reply of the assistant", columns.get("messages", "output"))
    return Conversation(messages, source, language or _language(messages))


def preference(row: Mapping[str, Any], columns: Mapping[str, str], source: str, language: str = "") -> Preference:
    """The row's preference; columns: chosen, rejected and perhaps prompt and system -> their names in the row.

    Raises EqualSidesError, NoReplyError, DifferentPromptsError, or BadRecordError for any other fault.
    """
    alone = "prompt" not in columns
    (chosen, before_chosen), (rejected, before_rejected) = (
        _reply(_get(row, columns, part), columns[part], alone) for part in ("chosen", "rejected")
    )
    if before_chosen != before_rejected and None not in (before_chosen, before_rejected):
        raise DifferentPromptsError("chosen and rejected answer different prompts", columns["chosen"])
    prompt_value = _get(row, columns, "prompt")
    if prompt_value is None:
        if before_chosen is None or before_rejected is None:
            raise DifferentPromptsError("chosen and rejected share no prompt", columns["chosen"])
        prompt = before_chosen
    elif isinstance(prompt_value, list):
        prompt = parse_messages(prompt_value, columns["prompt"])
    elif isinstance(prompt_value, str) and prompt_value.lstrip().startswith("Human:"):
        prompt = parse_messages(parse_transcript(_opened(prompt_value), columns["prompt"]), columns["prompt"])
    else:
        prompt = [{"role": USER, "content": _text(prompt_value, columns["prompt"])}]
    if prompt_value is not None and before_chosen is not None and before_chosen[-1] != prompt[-1]:
        raise DifferentPromptsError("the replies answer another prompt than the row's", columns["prompt"])
    prompt = _with_system(row, columns, prompt)
    if prompt[-1]["role"] != USER:
        raise BadRecordError("the prompt does not end with a user message", columns.get("prompt", "chosen"))
    if chosen == rejected:
        raise EqualSidesError("chosen and rejected are the same", columns["chosen"])
    return Preference(prompt, chosen, rejected, source, HUMAN, language or _language(prompt))


def _opened(transcript: str) -> str:
    """A transcript whose end leaves the word to the assistant, as a prompt does, without those last words."""
    text = transcript.rstrip()
    return text.removesuffix("Assistant:") if text.endswith("\n\nAssistant:") else text


def parse_messages(value: Any, field: str) -> list[Message]:
    """A list of messages in OpenAI or ShareGPT form (or its JSON), roles normalised and in order; else BadRecordError."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRecordError("bad JSON in a messages column", field) from error
    if not isinstance(value, list) or not value:
        raise BadRecordError("missing or not a list of messages", field)
    messages = [_message(item, f"{field}[{index}]") for index, item in enumerate(value)]
    check_order(messages, field)
    return messages


def _message(item: Any, here: str) -> Message:
    """One message in OpenAI or ShareGPT form, its calls and thoughts written into its content."""
    if not isinstance(item, Mapping):
        raise BadRecordError("a message is not an object", here)
    role_key, content_key = ("from", "value") if "from" in item else ("role", "content")
    name = str(item.get(role_key, "")).lower()
    role = ROLE_NAMES.get(name)
    if role is None:
        raise BadRecordError("unknown role", f"{here}.{role_key}")
    content, at = item.get(content_key), f"{here}.{content_key}"
    if role == ASSISTANT:
        return {"role": role, "content": _said(item, name, content, here, at)}
    tools = _formed(read_tools, item.get("tools"), f"{here}.tools") if role == SYSTEM else []
    if tools:
        return {"role": role, "content": "" if _blank(content) else _text(content, at), "tools": tools}
    text = _text(content, at)
    return {"role": role, "content": bare_answer(text) if role == TOOL else text}


def _said(item: Mapping[str, Any], name: str, content: Any, here: str, at: str) -> str:
    """The assistant's content, with its thought and its calls; a message with either needs no words."""
    if name in CALLS:
        return _formed(call_reply, content, at)
    calls_key = next((key for key in ("tool_calls", "function_call") if item.get(key)), "")
    given = item.get("reasoning_content")
    reasoning = given if isinstance(given, str) else ""
    if not calls_key and not reasoning.strip():
        return _text(content, at)
    calls = _formed(read_calls, item[calls_key], f"{here}.{calls_key}") if calls_key else []
    return reply_text("" if _blank(content) else _text(content, at), reasoning, calls)


def _formed(read: Callable[[Any], T], value: Any, field: str) -> T:
    """What `read` makes of tools or calls; BadRecordError where they are none."""
    try:
        return read(value)
    except ToolFormError as error:
        raise BadRecordError(error.reason, field + error.part) from error


def check_order(messages: list[Message], field: str) -> None:
    """Raise BadRecordError unless: at most one system message, at the front; then user and assistant in turn, user first,
    and after an assistant's calls at most as many answers of tools, before the assistant goes on."""
    turns = messages[1:] if messages and messages[0]["role"] == SYSTEM else messages
    offset = len(messages) - len(turns)
    before, calls = ASSISTANT, 0
    for index, message in enumerate(turns):
        role = message["role"]
        if role == TOOL:
            if not calls:
                raise BadRecordError("a tool's answer without a call", f"{field}[{index + offset}]")
            calls -= 1
        elif role == (USER if before == ASSISTANT else ASSISTANT):
            calls = count_calls(message["content"]) if role == ASSISTANT else 0
        else:
            raise BadRecordError("roles out of order", f"{field}[{index + offset}]")
        before = role
    if not turns:
        raise BadRecordError("no user message", field)


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


def _messages(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Message]:
    if "messages" in columns:
        return _with_system(row, columns, parse_messages(_get(row, columns, "messages"), columns["messages"]))
    question = _text(_get(row, columns, "instruction"), columns["instruction"])
    given = _get(row, columns, "input")
    if isinstance(given, str) and given.strip():
        question = f"{question}\n{given.strip()}"
    reply = _text(_get(row, columns, "output"), columns["output"])
    return _with_system(row, columns, [{"role": USER, "content": question}, {"role": ASSISTANT, "content": reply}])


def _with_tools(row: Mapping[str, Any], columns: Mapping[str, str], messages: list[Message]) -> list[Message]:
    """The messages with the row's tools in their system message, which may have no words of its own."""
    tools = _formed(read_tools, _get(row, columns, "tools"), columns.get("tools", ""))
    if not tools:
        return messages
    own = messages[0]["content"] if messages[0]["role"] == SYSTEM else ""
    turns = messages[1:] if messages[0]["role"] == SYSTEM else messages
    return [{"role": SYSTEM, "content": own, "tools": tools}, *turns]


def _with_system(row: Mapping[str, Any], columns: Mapping[str, str], messages: list[Message]) -> list[Message]:
    system = _get(row, columns, "system")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != SYSTEM:
        return [{"role": SYSTEM, "content": system.strip()}, *messages]
    return messages


def _reply(value: Any, column: str, may_be_transcript: bool) -> tuple[str, list[Message] | None]:
    """(the reply, the messages before it where the value has them) of one side of a preference."""
    if may_be_transcript and isinstance(value, str) and value.lstrip().startswith("Human:"):
        value = parse_transcript(value, column)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        if isinstance(value, str) and not value.strip():
            raise NoReplyError("empty message", column)
        return _text(value, column), None
    last = value[-1] if value else None
    here = f"{column}[{len(value) - 1}]"
    if not isinstance(last, Mapping):
        raise BadRecordError("a message is not an object", here if value else column)
    role_key = "from" if "from" in last else "role"
    if ROLE_NAMES.get(str(last.get(role_key, "")).lower()) != ASSISTANT:
        raise NoReplyError("does not end with a reply of the assistant", f"{here}.{role_key}")
    before = parse_messages(value[:-1], column) if len(value) > 1 else None
    return _message(last, here)["content"], before


def _blank(content: Any) -> bool:
    return content is None or content == [] or (isinstance(content, str) and not content.strip())


def _text(value: Any, field: str) -> str:
    """A message's content: text, or OpenAI content parts of type text; trimmed, as the chat template trims it."""
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise BadRecordError("missing or not a text", field)
    if not value.strip():
        raise BadRecordError("empty message", field)
    return value.strip()


def _language(messages: list[Message]) -> str:
    return detect_language("\n".join(message["content"] for message in messages))


def _get(row: Mapping[str, Any], columns: Mapping[str, str], part: str) -> Any:
    """The row's value for a part; None where the columns or the row have none."""
    return row.get(columns[part]) if part in columns else None
