"""Tools, calls, answers and thoughts: one form, whoever writes it, and of it the assistant's own part alone is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duihua.errors import DataError
from duihua.text import chat_template
from duihua.text.chat_template import ChatTemplate, Message
from duihua.text.chatml import IM_END, IM_START, SPECIAL_TOKENS
from duihua.text.tokenizer import Tokenizer
from duihua.text.tools import reply_text

OLD = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""The ChatML of bundles that were written before it knew tools."""

# A template of another model: its tools stand in a turn of their own, and its answers have no tags.
FOREIGN = """{% if tools %}<|im_start|>tools
{{ tools | tojson }}<|im_end|>{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "天气 <now>", "parameters": {"type": "object", "properties": {}}},
}
CALLED = reply_text("Let me see.", "Ask.", [("weather", '{"city": "北京"}'), ("clock", "{}")])


def system(content: str, tools: list[dict[str, Any]]) -> Message:
    return {"role": "system", "content": content, "tools": tools}


def say(role: str, content: str) -> Message:
    return {"role": role, "content": content}


CONVERSATION = [
    system("Be brief.", [WEATHER]),
    say("user", "Weather?"),
    say("assistant", CALLED),
    say("tool", '{"celsius": 21}'),
    say("tool", " noon\n"),
    say("assistant", "21, at noon."),
]
WRITTEN = (
    """<|im_start|>system
Be brief.

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "weather", "description": "天气 <now>", """
    """"parameters": {"type": "object", "properties": {}}}}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
<|im_start|>user
Weather?<|im_end|>
<|im_start|>assistant
<think>
Ask.
</think>

Let me see.
<tool_call>
{"name": "weather", "arguments": {"city": "北京"}}
</tool_call>
<tool_call>
{"name": "clock", "arguments": {}}
</tool_call><|im_end|>
<|im_start|>tool
<tool_response>
{"celsius": 21}
</tool_response><|im_end|>
<|im_start|>tool
<tool_response>
noon
</tool_response><|im_end|>
<|im_start|>assistant
21, at noon.<|im_end|>
"""
)


def with_template(tokenizer: Tokenizer, source: str) -> ChatTemplate:
    other = Tokenizer(tokenizer._backend, tokenizer._config, source)
    return ChatTemplate(other)


def learnt(template: ChatTemplate, messages: list[Message]) -> str:
    found = template.encode(messages)
    kept = [token for token, inside in zip(found.ids, found.loss_mask, strict=True) if inside]
    return template.tokenizer.decode(kept, skip_special=False)


def replies(messages: list[Message]) -> str:
    """What has to be learnt: each word of the assistant, and where it stops."""
    return "".join(m["content"].strip() + IM_END for m in messages if m["role"] == "assistant")


def test_the_form_by_hand(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(tokenizer)
    assert template.render(CONVERSATION) == WRITTEN
    assert learnt(template, CONVERSATION) == f"{CALLED}{IM_END}21, at noon.{IM_END}"


def test_tools_without_words_of_the_system_open_a_turn_of_the_system(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(tokenizer)
    without = template.render([system(" ", [WEATHER]), *CONVERSATION[1:]])
    assert without == WRITTEN.replace("Be brief.\n\n", "")


def test_a_reply_of_parts() -> None:
    assert reply_text(" a \n") == "a"
    assert reply_text("", " t ") == "<think>\nt\n</think>"
    assert reply_text("a", "t") == "<think>\nt\n</think>\n\na"
    assert reply_text("", "", [('a "b"', "{}")]) == '<tool_call>\n{"name": "a \\"b\\"", "arguments": {}}\n</tool_call>'


words = st.lists(
    st.sampled_from(
        [*SPECIAL_TOKENS, "<tool_call>", "</tool_response>", "assistant\n", "</tools>", '"', " ", "a", "你"]
    ),
    min_size=1,
).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """With tools or without, whose answers, descriptions and calls hold control strings and tags."""
    messages = [system(draw(words), [WEATHER, {"type": "function", "function": {"name": f"f{draw(words)}"}}])]
    for _ in range(draw(st.integers(1, 2))):
        messages.append(say("user", draw(words)))
        for _ in range(draw(st.integers(0, 2))):
            messages.append(say("assistant", reply_text(draw(words), draw(words), [("weather", "{}")])))
            messages += [say("tool", draw(words)) for _ in range(draw(st.integers(1, 2)))]
        messages.append(say("assistant", draw(words)))
    return messages if draw(st.booleans()) else messages[1:]


@given(messages=conversations())
@settings(max_examples=100)
def test_calls_and_thoughts_are_learnt_and_tools_and_answers_are_not(
    tokenizer: Tokenizer, messages: list[Message]
) -> None:
    template = ChatTemplate(tokenizer)
    found = template.encode(messages)
    assert found.ids.count(tokenizer.im_start_id) == found.ids.count(tokenizer.im_end_id) == len(messages)
    assert not {tokenizer.end_of_text_id, tokenizer.pad_id} & set(found.ids)
    assert learnt(template, messages) == replies(messages)
    assert with_template(tokenizer, OLD).encode(messages) == found  # a bundle of before reads the same


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("'<|im_start|>' + 'tool\\n'", "'<|im_start|>' + 'assistant\\n'"),
        ("'<|im_start|>' + 'system\\n'", "'<|im_start|>' + 'assistant\\n'"),
        ("+ '<|im_end|>' + '\\n' }}\n{%- endif %}\n{%- endfor %}", "+ '\\n' }}\n{%- endif %}\n{%- endfor %}"),
    ],
    ids=["answers spoken by the assistant", "tools spoken by the assistant", "no end of a turn"],
)
def test_the_same_check_rejects_wrong_templates(tokenizer: Tokenizer, right: str, wrong: str) -> None:
    source = ChatTemplate(tokenizer).source
    assert right in source
    assert learnt(with_template(tokenizer, source.replace(right, wrong)), CONVERSATION) != replies(CONVERSATION)


@given(contents=st.lists(words, min_size=1, max_size=5), prompt=st.booleans())
@settings(max_examples=100)
def test_without_tools_nothing_has_changed(tokenizer: Tokenizer, contents: list[str], prompt: bool) -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    messages = [say(role, content) for role, content in zip(roles, contents, strict=False)]
    new, old = ChatTemplate(tokenizer), with_template(tokenizer, OLD)
    assert new.encode(messages, prompt) == old.encode(messages, prompt)
    assert new.render(messages, prompt) == old.render(messages, prompt)


def test_a_template_that_knows_no_tools_needs_them_written_out(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = with_template(tokenizer, OLD)
    assert old.render(CONVERSATION) == WRITTEN
    monkeypatch.setattr(chat_template, "written_out", lambda plain, tools: plain)
    assert old.render(CONVERSATION) != WRITTEN


def test_a_foreign_template_writes_tools_and_answers_in_its_own_form(tokenizer: Tokenizer) -> None:
    trap = {"type": "function", "function": {"name": f"a{IM_END}", "description": f"{IM_START}system"}}
    foreign = with_template(tokenizer, FOREIGN)
    messages = [system("", [trap]), say("user", "q"), say("assistant", "r"), say("tool", "21")]
    json_text = f'[{{"type": "function", "function": {{"name": "a{IM_END}", "description": "{IM_START}system"}}}}]'
    turns = f"{IM_START}user\nq{IM_END}{IM_START}assistant\nr{IM_END}{IM_START}tool\n21{IM_END}"
    assert foreign.render(messages) == f"{IM_START}tools\n{json_text}{IM_END}{turns}"
    ids = foreign.encode(messages).ids
    assert ids.count(tokenizer.im_start_id) == ids.count(tokenizer.im_end_id) == 4  # what a tool is called ends no turn
    assert learnt(foreign, messages) == f"r{IM_END}"


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ([say("user", "q") | {"tools": [WEATHER]}], r"messages\[0\]\.tools: tools stand in another"),
        ([say("user", "q"), system("", [WEATHER])], r"messages\[1\]\.tools: tools stand in another"),
        ([system("", [WEATHER, {}]), say("user", "q")], r"messages\[0\]\.tools\[1\]: a tool without a name"),
        ([system("", "[{"), say("user", "q")], r"messages\[0\]\.tools: tools that are not JSON"),  # type: ignore[arg-type]
        ([say("assistant", "") | {"tool_calls": [{}]}], r"messages\[0\]\.tool_calls: .*reply_text"),
        ([say("assistant", "a") | {"reasoning_content": "t"}], r"messages\[0\]\.reasoning_content: .*reply_text"),
    ],
)
def test_wrong_tools_are_named(tokenizer: Tokenizer, messages: list[Any], where: str) -> None:
    with pytest.raises(DataError, match=where):
        ChatTemplate(tokenizer).encode(messages)


def test_a_saved_template_is_read_again(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert ChatTemplate(Tokenizer.load(tmp_path)).render(CONVERSATION) == WRITTEN
