"""ChatML: the control tokens of our tokenizers, and the template that places them.

Why this form (OpenAI's ChatML, as Qwen2 writes it): a turn opens and closes with a token of its own, so that no text within
a message can end the turn, and inference programs know it under its name.
"""

from __future__ import annotations

import re

from duihua.text import tools

END_OF_TEXT, IM_START, IM_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, PAD)


def chatml(start: str = IM_START, end: str = IM_END) -> str:
    """The ChatML template as jinja source: one turn is <|im_start|>role, newline, trimmed content, <|im_end|>, newline.

    start, end: the control tokens around a turn, for a tokenizer that has others. Tools, calls, answers and reasoning in
    fields of their own become text as `tools.py` has it; a message without them is rendered as it ever was.
    """
    names = {"START": start, "END": end}
    names |= {name: text for name, text in vars(tools).items() if name.endswith(("_BEFORE", "_AFTER"))}
    return re.sub(r"\b[A-Z]+(?:_[A-Z]+)?\b", lambda found: _literal(names[found.group()]), _SOURCE)


def _literal(text: str) -> str:
    """A jinja string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


_SOURCE = r"""{%- set turns = messages %}
{%- if tools %}
{{- START + 'system\n' }}
{%- if messages[0]['role'] == 'system' %}
{%- set turns = messages[1:] %}
{%- set said = (messages[0]['content'] or '') | trim %}
{%- if said %}{{- said + '\n\n' }}{%- endif %}
{%- endif %}
{{- TOOLS_BEFORE }}
{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
{{- TOOLS_AFTER + END + '\n' }}
{%- endif %}
{%- for message in turns %}
{%- if message['role'] == 'tool' %}
{{- START + 'tool\n' + ANSWER_BEFORE + message['content'] | trim + ANSWER_AFTER + END + '\n' }}
{%- elif message['tool_calls'] or message['reasoning_content'] %}
{%- set said = (message['content'] or '') | trim %}
{{- START + message['role'] + '\n' }}
{%- if message['reasoning_content'] %}
{{- THOUGHT_BEFORE + message['reasoning_content'] | trim + THOUGHT_AFTER }}
{%- if said or message['tool_calls'] %}{{- '\n\n' }}{%- endif %}
{%- endif %}
{{- said }}
{%- for call in message['tool_calls'] or [] %}
{%- if call['function'] %}{%- set call = call['function'] %}{%- endif %}
{%- if said or not loop.first %}{{- '\n' }}{%- endif %}
{{- CALL_BEFORE + '{"name": ' }}{{- call['name'] | tojson }}{{- ', "arguments": ' }}
{%- if call['arguments'] is string %}{{- call['arguments'] }}{%- else %}{{- call['arguments'] | tojson }}{%- endif %}
{{- '}' + CALL_AFTER }}
{%- endfor %}
{{- END + '\n' }}
{%- else %}
{{- START + message['role'] + '\n' + message['content'] | trim + END + '\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- START + 'assistant\n' }}{%- endif %}"""
