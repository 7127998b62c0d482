"""What the server asks of a model, and how a bundle with the engine gives it.

Why a protocol between them: routes, queues and streams are tested with a scripted model that answers in microseconds and
fails on demand, and a later kind of model (a translation model, a remote engine) joins without a change to the routes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from duihua.engine.request import TokenEvent
from duihua.engine.settings import SamplingSettings
from duihua.text.chat_template import Message

if TYPE_CHECKING:
    from duihua.engine.chat_model import ChatModel
    from duihua.models.decoder import Decoder
    from duihua.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ServedCard:
    """What the API and the page say about a model. defaults: its sampling settings where a request names none. prompts:
    openings that it was taught to answer. learnt_from: the names of its sources."""

    name: str
    parameters: int
    context_length: int
    vocabulary_size: int
    defaults: SamplingSettings
    created: int = field(default_factory=lambda: int(time.time()))
    prompts: tuple[str, ...] = ()
    learnt_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """Token ids ready for the engine. dropped_turns: the oldest ones, left out because they did not fit."""

    ids: list[int]
    dropped_turns: int = 0


class Sample(Protocol):
    """One reply in the making: its events, the last with a finish_reason; an error is raised to the reader."""

    @property
    def reused_tokens(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[TokenEvent]: ...

    def cancel(self) -> None: ...


class ServedModel(Protocol):
    """One model behind the API. Every method may be called from any thread; `submit` returns at once."""

    @property
    def card(self) -> ServedCard: ...

    def settings(self, **sampling: Any) -> SamplingSettings:
        """The model's defaults with these over them, and a seed in any case."""

    def chat_prompt(self, messages: Sequence[Message], settings: SamplingSettings) -> Prompt:
        """Ids of a conversation up to the assistant's turn; the oldest turns are left out where it does not fit."""

    def text_prompt(self, text: str) -> Prompt:
        """Ids of plain text to go on from."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, for log-probabilities; of a control token its name."""

    def is_control(self, token_id: int) -> bool:
        """True for tokens that are not text, such as the end of a turn."""

    def submit(self, prompt: Prompt, settings: SamplingSettings, samples: int) -> Sequence[Sample]:
        """Queue as many replies to one prompt. EngineBusy when they do not all fit into the queue."""

    def opened(self) -> tuple[Decoder, Tokenizer]:
        """The network as a twin over the same tensors, whose modules may be hooked and must not be trained; the tokenizer."""

    def close(self, drain_seconds: float) -> None:
        """Take nothing more, let what runs end within the time, stop."""


class EngineModel:
    """A bundle behind its own engine thread."""

    def __init__(self, name: str, chat_model: ChatModel, most_waiting: int) -> None:
        from duihua.engine.service import EngineService

        self._chat = chat_model
        self._service = EngineService(chat_model.engine, most_waiting).start()
        self._card = ServedCard(
            name=name,
            parameters=sum(weight.numel() for weight in chat_model.network.parameters()),
            context_length=chat_model.context,
            vocabulary_size=chat_model.config.vocabulary_size,
            defaults=chat_model.defaults,
            prompts=chat_model.prompts,
            learnt_from=chat_model.learnt_from,
        )

    @property
    def card(self) -> ServedCard:
        return self._card

    def settings(self, **sampling: Any) -> SamplingSettings:
        return self._chat.settings(**sampling)

    def chat_prompt(self, messages: Sequence[Message], settings: SamplingSettings) -> Prompt:
        prepared = self._chat.prepare(messages, settings)
        return Prompt(prepared.ids, prepared.dropped_turns)

    def text_prompt(self, text: str) -> Prompt:
        tokenizer = self._chat.tokenizer
        return Prompt(tokenizer.encode(text) or [tokenizer.end_of_text_id])

    def token_bytes(self, token_id: int) -> bytes:
        return self._chat.tokenizer.token_bytes(token_id)

    def is_control(self, token_id: int) -> bool:
        return token_id in self._chat.tokenizer.special_ids

    def submit(self, prompt: Prompt, settings: SamplingSettings, samples: int) -> Sequence[Sample]:
        from duihua.engine.engine import default_seeds

        tickets: list[Sample] = []
        try:
            for seed in default_seeds(settings, samples):
                tickets.append(self._service.submit(prompt.ids, settings, seed))
        except BaseException:
            for ticket in tickets:
                ticket.cancel()
            raise
        return tickets

    def opened(self) -> tuple[Decoder, Tokenizer]:
        from duihua.nn.lora import twin

        return twin(self._chat.network), self._chat.tokenizer

    def close(self, drain_seconds: float) -> None:
        self._service.close(drain_seconds)
