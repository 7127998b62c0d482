"""Tools, calls, answers and thoughts as plain text: the one form in which a model reads and writes them.

Why plain text and no control tokens: a tokenizer that exists has no room for new ones, and every tokenizer spells these tags.
The form is the one of Hermes and Qwen, which inference programs parse. The tools stand in the system's turn, one JSON schema
a line, in Qwen's words; a call is JSON between tags in the assistant's turn, a thought stands in front of it; what a tool
gave back stands in a turn of its own, as in Hermes. (Qwen puts it into a turn of the user, who could then write one himself.)

The template in `chatml.py` writes the same for programs that hold calls and reasoning in fields of their own; a test keeps the
two equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

TOOL = "tool"
"""The role of a message that is what a tool gave back."""

TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
CALL_BEFORE, CALL_AFTER = "<tool_call>\n", "\n</tool_call>"
ANSWER_BEFORE, ANSWER_AFTER = "<tool_response>\n", "\n</tool_response>"
THOUGHT_BEFORE, THOUGHT_AFTER = "<think>\n", "\n</think>"

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)


class ToolFormError(ValueError):
    """What is no list of tools or no call: why, and in which part of the value ("[1].arguments")."""

    def __init__(self, reason: str, part: str = "") -> None:
        super().__init__(reason)
        self.reason, self.part = reason, part


# -- writing ----------------------------------------------------------------------------------------------------------


def to_json(value: Any) -> str:
    """As templates write JSON: on one line, other scripts as they are."""
    return json.dumps(value, ensure_ascii=False)


def tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """What the system's turn says of the tools."""
    return TOOLS_BEFORE + "".join("\n" + to_json(tool) for tool in tools) + TOOLS_AFTER


def answer_text(content: str) -> str:
    """What a tool gave back, between its tags."""
    return ANSWER_BEFORE + content.strip() + ANSWER_AFTER


def reply_text(content: str, reasoning: str = "", calls: Sequence[tuple[str, str]] = ()) -> str:
    """The assistant's content: its thought, its words and its calls (name, arguments as JSON)."""
    spans = [content.strip()]
    spans += [
        f'{CALL_BEFORE}{{"name": {to_json(name)}, "arguments": {arguments}}}{CALL_AFTER}' for name, arguments in calls
    ]
    said = "\n".join(filter(None, spans))
    if not reasoning.strip():
        return said
    thought = THOUGHT_BEFORE + reasoning.strip() + THOUGHT_AFTER
    return f"{thought}\n\n{said}" if said else thought


def written_out(messages: Sequence[dict[str, str]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages with nothing but roles and text, for a template that knows no tools: they stand in the system's words, and
    what they gave back in its tags."""
    plain = list(messages)
    if tools:
        own = plain.pop(0)["content"].strip() if plain[0]["role"] == "system" else ""
        plain.insert(0, {"role": "system", "content": "\n\n".join(filter(None, (own, tools_text(tools))))})
    return [
        {"role": TOOL, "content": answer_text(message["content"])} if message["role"] == TOOL else message
        for message in plain
    ]


# -- reading ----------------------------------------------------------------------------------------------------------


def read_tools(value: Any) -> list[dict[str, Any]]:
    """A list of JSON schemas, or its JSON, in OpenAI's form (type, function); empty for none. Raises ToolFormError."""
    if isinstance(value, str):
        value = _parsed(value, "tools that are not JSON") if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise ToolFormError("tools that are not a list")
    tools = []
    for index, tool in enumerate(value):
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
            raise ToolFormError("a tool without a name", f"[{index}]")
        bare = inner is tool
        schema = {key: part for key, part in inner.items() if not (bare and key == "type")}
        tools.append({"type": "function", "function": schema} if bare else dict(tool))
    return tools


def read_calls(value: Any) -> list[tuple[str, str]]:
    """(name, arguments as JSON) of one call or a list of calls, or their JSON: OpenAI's `tool_calls`, or name and arguments
    alone. Arguments that come as JSON stay as they are written, as templates have it. Raises ToolFormError."""
    if isinstance(value, str):
        value = _parsed(value, "a call that is not JSON")
    calls = []
    for index, call in enumerate(value if isinstance(value, list) else [value]):
        part = f"[{index}]" if isinstance(value, list) else ""
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
            raise ToolFormError("a call without a name", part)
        arguments = read = inner.get("arguments")
        if isinstance(arguments, str):
            read = _parsed(arguments, "a call whose arguments are not JSON", part)
        if not isinstance(read, Mapping):
            raise ToolFormError("a call whose arguments are not an object", part)
        calls.append((inner["name"], arguments if isinstance(arguments, str) else to_json(arguments)))
    if not calls:
        raise ToolFormError("a list of calls that is empty")
    return calls


def call_reply(value: Any) -> str:
    """The assistant's content of a message that is calls and nothing else (ShareGPT's function_call), perhaps behind a
    thought. Raises ToolFormError."""
    thought = _THOUGHT.match(value) if isinstance(value, str) else None
    if thought is None:
        return reply_text("", "", read_calls(value))
    return reply_text("", thought.group(1), read_calls(value[thought.end() :]))


def bare_answer(content: str) -> str:
    """What a tool gave back, without the tags that some public sets write around it."""
    return content.strip().removeprefix(ANSWER_BEFORE.strip()).removesuffix(ANSWER_AFTER.strip()).strip()


def count_calls(content: str) -> int:
    """How many calls the assistant's content holds."""
    return content.count(CALL_BEFORE.strip())


def _parsed(text: str, reason: str, part: str = "") -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ToolFormError(reason, part) from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
