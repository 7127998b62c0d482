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
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from duihua.errors import BundleError, DataError
from duihua.text.chatml import IM_END, IM_START, chatml
from duihua.text.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn, as in the OpenAI API. role: system, user or assistant."""

    role: str
    content: str


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
            self._template = _environment().from_string(source)
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
            if not isinstance(message.get("content"), str):
                raise DataError(
                    f"content must be text, found {type(message.get('content')).__name__}",
                    where=f"{place}.content",
                    remedy="Write the message as a string",
                )

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
        shield = _Shield(self._control, (message["content"] for message in messages))
        shielded = [{"role": message["role"], "content": shield.cover(message["content"])} for message in messages]
        try:
            text = self._template.render(
                messages=shielded,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                enable_thinking=False,
                **self._names,
            )
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


class _Shield:
    """Replaces control strings in messages by placeholders that occur in none of them, and back."""

    def __init__(self, control: re.Pattern[str], contents: Iterable[str]) -> None:
        self._control = control
        self._found: list[str] = []
        contents = list(contents)
        number = 0
        while any(f"\ue000{number}." in content for content in contents):
            number += 1
        self._key = number
        self._mark = re.compile(f"\ue000{number}\\.(\\d+)\ue001")

    def cover(self, content: str) -> str:
        return self._control.sub(self._take, content)

    def uncover(self, text: str) -> str:
        return self._mark.sub(lambda match: self._found[int(match.group(1))], text) if self._found else text

    def _take(self, match: re.Match[str]) -> str:
        self._found.append(match.group())
        return f"\ue000{self._key}.{len(self._found) - 1}\ue001"


# -- the sandbox ------------------------------------------------------------------------------------------------------


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: some templates mark the assistant's words so. Rendered as is."""

    tags = {"generation"}  # noqa: RUF012  (jinja's own interface)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as model templates expect it: no access to Python's internals, nothing can be changed."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
