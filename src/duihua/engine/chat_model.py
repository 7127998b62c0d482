"""The model that one talks to: what `duihua.load` returns.

It joins a bundle, its chat template and an engine. The rule for a conversation that has outgrown the context, the same
in the library, the terminal and the server: the oldest turns are left out whole (a user's message with the replies to
it), the system message and the last turn always stay, and the reply says how many turns were left out. Room for the
reply is kept free: max_new_tokens, or a quarter of the context where that is less. Only a system message and last turn
that alone do not fit are an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

from duihua.engine.engine import Engine
from duihua.engine.randomness import fresh_seed
from duihua.engine.request import Completion, FinishReason, Request, TokenEvent
from duihua.engine.settings import SamplingSettings
from duihua.errors import BundleError, DuihuaError, GenerationError
from duihua.files import read_json
from duihua.models.bundle import Bundle, load_bundle
from duihua.text.chat_template import ChatTemplate, Message
from duihua.text.tokenizer import AbsentTokenizer, Tokenizer

CHAT_DEFAULTS = SamplingSettings(temperature=0.7, top_p=0.9, repetition_penalty=1.05, max_new_tokens=256)
"""For chat, where the bundle's generation_config.json names nothing else."""

FROM_GENERATION_CONFIG = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens")
DISPLAYED_SEED_BITS = 32  # a seed that people copy, and that JavaScript can hold exactly


@dataclass(frozen=True)
class PreparedChat:
    """A conversation ready for the engine: ids (generation prompt included), the turns left out of it, the messages kept."""

    ids: list[int]
    dropped_turns: int
    messages: list[Message]


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompt, of those the ones found in the cache, and of the completion (end token included)."""

    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Reply:
    """A reply with its circumstances. finish_reason: "stop", or "length" at max_new_tokens or the end of the context."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    dropped_turns: int
    seed: int
    completion: Completion


class ReplyStream(Iterator[str]):
    """The pieces of a reply's text as they come. `close` (or leaving it to be collected) stops the reply.

    After the last piece `reply()` has the whole; before, what there is so far, as cancelled.
    """

    def __init__(self, engine: Engine, prepared: PreparedChat, settings: SamplingSettings) -> None:
        assert settings.seed is not None
        self.prepared, self._seed = prepared, settings.seed
        self.request: Request
        self.request, self._events = engine.open(prepared.ids, settings)

    def events(self) -> Iterator[TokenEvent]:
        """The events themselves, one a token, instead of the texts."""
        return self._events

    def __iter__(self) -> ReplyStream:
        return self

    def __next__(self) -> str:
        for event in self._events:
            if event.text:
                return event.text
        raise StopIteration

    def close(self) -> None:
        """Stop; the slot is free for others."""
        self._events.close()

    def reply(self) -> Reply:
        """The reply as it stands."""
        request = self.request
        completion = request.completion()
        usage = Usage(len(request.prompt), len(request.ids), request.reused)
        return Reply(
            completion.text, completion.finish_reason, usage, self.prepared.dropped_turns, self._seed, completion
        )


class ChatModel:
    """A policy bundle or Hugging Face directory, ready to talk.

    tokenizer, config, network (the torch module: `network(token_ids)` gives logits (batch, time, vocabulary)),
    directory, stage ("ppo", "sft", ...; empty for a directory from elsewhere), prompts (openings that it was taught to answer),
    learnt_from (the names of its sources), defaults (its sampling settings), engine. Several threads may use one model at once.
    """

    def __init__(self, bundle: Bundle, slots: int = 4) -> None:
        self.network = bundle.policy
        self._tokenizer = bundle.tokenizer
        self.config = bundle.config
        self.directory = bundle.directory
        self.stage = _stage(bundle.directory)
        self.prompts = bundle.prompts
        self.learnt_from = tuple(terms["name"] for terms in bundle.terms)
        self.defaults = _defaults(bundle.directory)
        self.engine = Engine(self.network, self._tokenizer, slots, reuse_prefix=True)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", slots: int = 4) -> ChatModel:
        """Open a directory. slots: replies at once. Raises BundleError when it is not a model, or a reward model."""
        try:
            bundle = load_bundle(path, device=device)
        except BundleError as error:
            chats = _chat_models_in(Path(path))
            if not chats:
                raise
            raise BundleError(
                "is no model itself",
                where=str(path),
                remedy=f"Name a chat model inside it: {', '.join(map(str, chats))}",
            ) from error
        return cls(bundle, slots)

    @property
    def name(self) -> str:
        """The directory's own name, with its parent's where that tells more: `quickstart/ppo`."""
        directory = self.directory.resolve()
        return f"{directory.parent.name}/{directory.name}" if self.stage and directory.parent.name else directory.name

    @property
    def context(self) -> int:
        """Most tokens of conversation and reply together."""
        return self.engine.context

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; BundleError where the directory has none that is read. All that needs no text works without."""
        if isinstance(self._tokenizer, AbsentTokenizer):
            raise self._tokenizer.error
        return self._tokenizer

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template; BundleError where the model has none."""
        return ChatTemplate(self.tokenizer)

    # -- talking --------------------------------------------------------------------------------------------------

    @overload
    def chat(self, messages: Sequence[Message], stream: Literal[False] = False, **sampling: Any) -> str: ...

    @overload
    def chat(self, messages: Sequence[Message], stream: Literal[True], **sampling: Any) -> ReplyStream: ...

    def chat(self, messages: Sequence[Message], stream: bool = False, **sampling: Any) -> str | ReplyStream:
        """The assistant's next message: its text, or with stream an iterator over pieces of it.

        messages: `[{"role": "user", "content": "..."}]`. sampling: fields of SamplingSettings, over the model's
        defaults.
        """
        pieces = self.stream(messages, **sampling)
        return pieces if stream else "".join(pieces)

    def reply(self, messages: Sequence[Message], **sampling: Any) -> Reply:
        """As `chat`, with finish reason, usage, dropped turns, seed, ids and log-probabilities."""
        pieces = self.stream(messages, **sampling)
        for _ in pieces:
            pass
        return pieces.reply()

    def stream(self, messages: Sequence[Message], **sampling: Any) -> ReplyStream:
        """As `chat` with stream; its `reply()` has the details at the end."""
        settings = self.settings(**sampling)
        return ReplyStream(self.engine, self.prepare(messages, settings), settings)

    def generate(self, text: str, **sampling: Any) -> str:
        """What the model writes after `text`, without any chat template. GenerationError when it fills the context."""
        return self.continuation(text, **sampling).text

    def continuation(self, text: str, **sampling: Any) -> Reply:
        """As `generate`, with the details."""
        ids = self.tokenizer.encode(text) or [self.tokenizer.end_of_text_id]
        pieces = ReplyStream(self.engine, PreparedChat(ids, 0, []), self.settings(**sampling))
        for _ in pieces:
            pass
        return pieces.reply()

    # -- what a server needs too ----------------------------------------------------------------------------------

    def settings(self, **sampling: Any) -> SamplingSettings:
        """The model's defaults with `sampling` over them, and a seed in any case. GenerationError for unknown names."""
        known = [field.name for field in fields(SamplingSettings)]
        for name in sampling:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise GenerationError(
                    "no such sampling setting",
                    where=name,
                    remedy=f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}",
                )
        if "max_new_tokens" not in sampling and "min_new_tokens" in sampling:
            sampling["max_new_tokens"] = max(self.defaults.max_new_tokens, sampling["min_new_tokens"])
        settings = replace(self.defaults, **sampling)
        return (
            settings
            if settings.seed is not None
            else replace(settings, seed=fresh_seed() >> (63 - DISPLAYED_SEED_BITS))
        )

    def prepare(self, messages: Sequence[Message], settings: SamplingSettings) -> PreparedChat:
        """Ids of a conversation that fits the context, by the rule at the top of this module.

        Raises DataError for wrong messages, GenerationError when system message and last turn alone do not fit.
        """
        messages = list(messages)
        self.template.validate(messages)
        system = [m for m in messages[:1] if m["role"] == "system"]
        rest = messages[len(system) :]
        starts = [0, *(index for index, message in enumerate(rest) if message["role"] == "user" and index)]
        room = self.context - min(settings.max_new_tokens, self.context // 4)
        read: dict[int, list[int]] = {}

        def fits(dropped: int) -> bool:
            if dropped not in read:
                read[dropped] = self._ids(system + rest[starts[dropped] :])
            return len(read[dropped]) <= room

        dropped = fewest_left_out(len(starts) - 1, fits)
        kept, ids = system + rest[starts[dropped] :], read[dropped]
        if len(ids) >= self.context:
            raise GenerationError(
                f"system message and last turn have {len(ids)} tokens, the model's context is {self.context}",
                where="messages",
                remedy="Shorten them or use a model with a longer context",
            )
        return PreparedChat(ids, dropped, kept)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        return self.template.encode(messages, add_generation_prompt=True).ids


def fewest_left_out(most: int, fits: Callable[[int], bool]) -> int:
    """The fewest turns to leave out, from 0 to `most`, so that the rest fits; `most` where nothing does.

    Leaving out one turn after the other reads a conversation of n turns n times. Here what is read is all of it, once,
    then its end in doubling steps, then halves between the last that fitted and the first that did not: no more than the
    logarithm of what fits. It holds as long as a conversation gets no longer by leaving turns out; with a template for
    which that is not so, what is found fits all the same, and with one turn more it would not.
    """
    if fits(0) or not most:
        return 0
    if not fits(most):
        return most
    too_few, enough, step = 0, most, 1
    while enough - too_few > 1:
        tried = max(enough - step, (too_few + enough) // 2)
        if fits(tried):
            enough, step = tried, 2 * step
        else:
            too_few, step = tried, most  # from here on halves
    return enough


def _optional(directory: Path, name: str) -> dict[str, Any]:
    path = directory / name
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except DuihuaError as error:
        raise BundleError(error.problem, where=error.where, remedy=error.remedy) from error
    return value if isinstance(value, dict) else {}


def _stage(directory: Path) -> str:
    ours = _optional(directory, "config.json").get("duihua")
    return str(ours.get("stage", "")) if isinstance(ours, dict) else ""


def _defaults(directory: Path) -> SamplingSettings:
    """The defaults for chat, with what generation_config.json says over them (do_sample false there means greedy)."""
    stored = _optional(directory, "generation_config.json")
    named = {name: stored[name] for name in FROM_GENERATION_CONFIG if stored.get(name) is not None}
    if stored.get("do_sample") is False and "temperature" not in named:
        named["temperature"] = 0.0
    try:
        return replace(CHAT_DEFAULTS, **named)
    except (GenerationError, TypeError) as error:
        problem = error.problem if isinstance(error, GenerationError) else str(error)
        where = f"{directory / 'generation_config.json'} {getattr(error, 'where', '')}".rstrip()
        raise BundleError(problem, where=where, remedy="Mend or remove the value") from error


def _chat_models_in(folder: Path) -> list[Path]:
    """The folders with a chat model right below a folder that has none itself, such as a run's: no tokenizer and no reward
    model, the most aligned first. Empty where the folder is a model."""
    if (folder / "config.json").is_file():
        return []
    found = []
    for path in folder.glob("*/config.json"):
        try:
            config = read_json(path)
        except DuihuaError:
            continue
        names = config.get("architectures") if isinstance(config, dict) else None
        if isinstance(names, list) and any(str(name).endswith("ForCausalLM") for name in names):
            found.append(path.parent)
    order = ("pretrain", "sft")  # what stands behind these was made from them
    places = {name: len(order) - place for place, name in enumerate(order)}
    return sorted(found, key=lambda each: (places.get(each.name, 0), each.name))
