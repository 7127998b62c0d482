"""The chat template: a conversation becomes token ids and a loss mask. One object for training and for inference.

Why not render and tokenize the whole string, as is usual: a user who types `<|im_end|>` would then end his own turn and
could write the next one as the system. Here the template alone places control tokens. Before rendering, each control
string inside a message is replaced by a placeholder that occurs nowhere else; the template (a foreign one too: it sees
the real text otherwise, and may trim or split it) is rendered in jinja's sandbox; control strings are then looked for
in the result, where only the template can have put them; the placeholders are turned back, and each span between two
control tokens is encoded as one string with control tokens off.

What holds: for messages without control strings the ids equal those of transformers' `apply_chat_template`; with them,
ours stay plain text.

The loss mask marks, for each assistant turn, its content and the control token that ends it: what the model itself must
write. Where such a turn begins is read off the template's own generation prompt, so it works for foreign templates too.

Templates of models that think aloud (Qwen3's) are rendered with `enable_thinking=False`, in training and in generation:
conversations that people write hold no thoughts, and a short reply has no room for them. Such a template then writes an
empty thought, `<think>\n\n</think>\n\n`, at the end of its generation prompt and at the start of the last assistant turn.
There the template puts it, so it is not learnt; earlier turns stand without one, as they do when the model is used.
A thought that an assistant's message does hold is part of what the assistant writes, and learnt with it where the template
keeps it: ours always does, Qwen3's in the turns behind the user's last message.

What the assistant may call stands as `tools` in the system's message, so that it goes wherever the conversation goes. A
template that knows tools is given them in jinja's own `tools`; for one that does not (our ChatML of earlier bundles) they
are written into the system's words, in the same form. Calls are text of the assistant, and learnt; the tools and what they
gave back are read only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NotRequired, TypedDict

from jinja2 import TemplateError

from duihua.errors import BundleError, DataError
from duihua.text.chatml import IM_END, IM_START, chatml
from duihua.text.shield import Shield
from duihua.text.template_sandbox import sandbox
from duihua.text.tokenizer import Tokenizer
from duihua.text.tools import TOOL, ToolFormError, read_tools, to_json, written_out

ROLES = ("system", "user", "assistant", TOOL)
IN_CONTENT = ("tool_calls", "reasoning_content")
"""Fields of OpenAI's messages that are text here: the readers of data write them into the content."""
PROBE = {
    "type": "function",
    "function": {"name": "probe_of_tools", "description": "", "parameters": {"type": "object", "properties": {}}},
}


class Message(TypedDict):
    """One turn, as in the OpenAI API. role: system, user, assistant or tool.

    tools: what the assistant may call, JSON schemas in OpenAI's form; of a system message at the front alone, whose content
    may then be empty.
    """

    role: str
    content: str
    tools: NotRequired[list[dict[str, Any]]]


@dataclass(frozen=True)
class EncodedConversation:
    """ids: of the whole conversation. loss_mask: as long; true on the assistant's own words and their end token."""

    ids: list[int]
    loss_mask: list[bool]


@dataclass(frozen=True)
class _Piece:
    """Part of a rendered conversation: a control token, or the plain text between two of them."""

    text: str
    control: int | None


class ChatTemplate:
    """The template that comes with `tokenizer` (ChatML where it has none but knows its tokens).

    Raises BundleError when the tokenizer has neither, or when the template is broken.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        source = tokenizer.chat_template
        if source is None and {IM_START, IM_END} <= tokenizer.special_tokens.keys():
            source = chatml()
        if source is None:
            raise BundleError(
                "this model has no chat template",
                where="chat_template.jinja",
                remedy="Let `duihua import --chat-template` write one, or use the model for plain text generation",
            )
        self.tokenizer = tokenizer
        self.source: str = source
        """The jinja source, as written into bundles."""
        try:
            self._template = sandbox().from_string(source)
        except TemplateError as error:
            raise BundleError(
                f"broken chat template: {error}",
                where="chat_template.jinja",
                remedy="Mend chat_template.jinja, or let `duihua import --chat-template chatml` write one",
            ) from error
        longest_first = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._names = {
            role: tokenizer.token_name(role) for role in ("bos_token", "eos_token", "pad_token", "unk_token")
        }
        self._newline = tokenizer.encode("\n")  # stands after every turn of ChatML: half of all spans
        self._opening, self._prompt = self._assistant_opening()

    def validate(self, messages: Sequence[Message], where: str = "messages") -> None:
        """DataError naming the message when a conversation is empty or a message lacks a known role or text content."""
        if not messages:
            raise DataError("the conversation has no message", where=where, remedy="Begin with a message of the user")
        for number, message in enumerate(messages):
            place = f"{where}[{number}]"
            if not isinstance(message, dict):
                raise DataError(
                    f"a message must be an object, found {type(message).__name__}",
                    where=place,
                    remedy='Write {"role": "user", "content": "..."}',
                )
            if message.get("role") not in ROLES:
                raise DataError(
                    f"unknown role {message.get('role')!r}",
                    where=f"{place}.role",
                    remedy=f"Use one of {', '.join(ROLES)}",
                )
            for name in IN_CONTENT:
                if message.get(name):
                    raise DataError(
                        f"{name} is not read here",
                        where=f"{place}.{name}",
                        remedy="Write it into the content, as duihua.text.tools.reply_text does",
                    )
            if not isinstance(message.get("content"), str):
                raise DataError(
                    f"content must be text, found {type(message.get('content')).__name__}",
                    where=f"{place}.content",
                    remedy="Write the message as a string",
                )
            if "tools" in message:
                _validate_tools(message, number, f"{place}.tools")

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> EncodedConversation:
        """Ids and loss mask of `messages`; with add_generation_prompt the opening of the assistant's turn follows.

        The mask is false everywhere for a foreign template whose assistant turns do not begin as its own generation
        prompt does. Raises DataError for wrong messages and for those that the template itself refuses.
        """
        pieces = self._pieces(messages, add_generation_prompt)
        ids: list[int] = []
        mask: list[bool] = []
        for number, piece in enumerate(pieces):
            if piece.control is not None:
                ids.append(piece.control)
                # The end token of a turn whose content was just marked, be it empty.
                mask.append(self._header_bytes(pieces, number - 1) is not None)
                continue
            encoded = self._newline if piece.text == "\n" else self.tokenizer.encode(piece.text)
            header = self._header_bytes(pieces, number)
            last = number == len(pieces) - 1
            ids += encoded
            # A turn that nothing ends is the generation prompt, or cut off by the template: not for learning.
            mask += [False] * len(encoded) if header is None or last else self._after(encoded, header)
        return EncodedConversation(ids, mask)

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The conversation as text, for people to read; in it, a control string of a user looks like a real one."""
        return "".join(piece.text for piece in self._pieces(messages, add_generation_prompt))

    # -- rendering ------------------------------------------------------------------------------------------------

    def _pieces(self, messages: Sequence[Message], add_generation_prompt: bool) -> list[_Piece]:
        """Render and split at the template's own control tokens."""
        self.validate(messages)
        plain, tools = self._for_the_template(messages)
        shield = Shield(self._control, [*(message["content"] for message in plain), to_json(tools)])
        shielded = [{"role": message["role"], "content": shield.cover(message["content"])} for message in plain]
        try:
            text = self._render(shielded, shield.cover_all(tools), add_generation_prompt)
        except TemplateError as error:
            raise DataError(
                f"the chat template refuses this conversation: {error}",
                where="messages",
                remedy="Put the messages in the order that the template expects, which its message says",
            ) from error
        except Exception as error:  # a foreign template may fail in any way on input that it does not expect
            raise DataError(
                f"the chat template fails on this conversation: {error}",
                where="messages",
                remedy="Mend chat_template.jinja, or use a model with another template",
            ) from error
        pieces: list[_Piece] = []
        place = 0
        swallow = False
        for match in [*self._control.finditer(text), None]:
            span = text[place : match.start()] if match else text[place:]
            left, right = self.tokenizer.strips(match.group()) if match else (False, False)
            span = span.lstrip() if swallow else span
            span = span.rstrip() if left else span
            if span:
                pieces.append(_Piece(shield.uncover(span), None))
            if match:
                pieces.append(_Piece(match.group(), self.tokenizer.special_tokens[match.group()]))
                place, swallow = match.end(), right
        return pieces

    def _for_the_template(self, messages: Sequence[Message]) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
        """The messages with nothing but roles and text, and the tools that the template itself is to write."""
        tools = read_tools(messages[0].get("tools"))
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        if not tools and not any(message["role"] == TOOL for message in plain):
            return plain, []
        if not self._knows_tools:
            return written_out(plain, tools), []
        return plain[1:] if tools and not plain[0]["content"].strip() else plain, tools

    @cached_property
    def _knows_tools(self) -> bool:
        """Whether the template writes tools that it is given."""
        try:
            text = self._render([{"role": "user", "content": "?"}], [PROBE], add_generation_prompt=True)
        except Exception:  # as in `_pieces`: a foreign template may fail in any way
            return False
        return "probe_of_tools" in text

    def _render(self, messages: list[dict[str, str]], tools: Any, add_generation_prompt: bool) -> str:
        return self._template.render(
            messages=messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools or None,
            documents=None,
            enable_thinking=False,
            **self._names,
        )

    # -- where the assistant speaks -------------------------------------------------------------------------------

    def _assistant_opening(self) -> tuple[list[_Piece], str]:
        """What the template puts before an assistant's content: its generation prompt, up to the end of the line that
        names the role; and the last text of that prompt whole, which may go on with an empty thought. Empty when the
        template has no such prompt."""
        question: list[Message] = [{"role": "user", "content": "?"}]
        try:
            without, with_prompt = self._pieces(question, False), self._pieces(question, True)
        except DataError:
            return [], ""
        same = 0
        while same < len(without) and same < len(with_prompt) and without[same] == with_prompt[same]:
            same += 1
        opening = with_prompt[same:]
        if same < len(without):  # ChatML: the text after <|im_end|> and before the next <|im_start|> is one newline
            if same != len(without) - 1 or not opening or not opening[0].text.startswith(without[same].text):
                return [], ""
            opening = [_Piece(opening[0].text[len(without[same].text) :], None), *opening[1:]]
        if not any(piece.control is not None for piece in opening) or opening[-1].control is not None:
            return [], ""
        header = re.match(r"[^\n]*\n*", opening[-1].text)
        assert header is not None
        return [*opening[:-1], _Piece(header.group(), None)], opening[-1].text

    def _header_bytes(self, pieces: list[_Piece], number: int) -> int | None:
        """Bytes that the template itself puts at the start of text piece `number` when an assistant's turn begins there
        (the role, and the empty thought of its generation prompt where this turn has it); None otherwise."""
        opening = self._opening
        if not opening or number < len(opening) - 1 or pieces[number].control is not None:
            return None
        text = pieces[number].text
        if not text.startswith(opening[-1].text) or pieces[number - len(opening) + 1 : number] != opening[:-1]:
            return None
        put = self._prompt if text.startswith(self._prompt) else opening[-1].text
        return len(put.encode("utf-8"))

    def _after(self, ids: list[int], header: int) -> list[bool]:
        """True for each id whose bytes begin at or after byte `header`."""
        place = inside = 0
        while inside < len(ids) and place < header:
            place += len(self.tokenizer.token_bytes(ids[inside]))
            inside += 1
        return [False] * inside + [True] * (len(ids) - inside)


def _validate_tools(message: Message, number: int, place: str) -> None:
    """DataError for tools that stand elsewhere than in the system's message at the front, or that are none."""
    if number or message["role"] != "system":
        raise DataError(
            "tools stand in another message than the system's",
            where=place,
            remedy='Begin with {"role": "system", "content": "", "tools": [...]}',
        )
    try:
        read_tools(message["tools"])
    except ToolFormError as error:
        raise DataError(
            error.reason,
            where=f"{place}{error.part}",
            remedy='Write {"type": "function", "function": {"name": "...", "parameters": {...}}} for each tool',
        ) from error
