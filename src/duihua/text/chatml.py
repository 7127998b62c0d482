"""ChatML: the control tokens of our tokenizers, and the template that places them.

Why this form (OpenAI's ChatML, as Qwen2 writes it): a turn opens and closes with a token of its own, so that no text within
a message can end the turn, and inference programs know it under its name.
"""

from __future__ import annotations

END_OF_TEXT, IM_START, IM_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, PAD)


def chatml(start: str = IM_START, end: str = IM_END) -> str:
    """The ChatML template as jinja source: one turn is <|im_start|>role, newline, trimmed content, <|im_end|>, newline.

    start, end: the control tokens around a turn, for a tokenizer that has others.
    """
    start, end = (token.replace("\\", "\\\\").replace("'", "\\'") for token in (start, end))
    return (
        "{%- for message in messages %}"
        "{{- '" + start + "' + message['role'] + '\\n' + message['content'] | trim + '" + end + "\\n' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '" + start + "assistant\\n' }}{%- endif %}"
    )
