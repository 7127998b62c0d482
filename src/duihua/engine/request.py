"""One reply in the making, and what it becomes: events for a reader who watches, a completion for one who waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from duihua.engine.sampling import Row
from duihua.engine.settings import SamplingSettings
from duihua.text.text_stream import TextStream

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""stop: an end token or a stop string; length: max_new_tokens or the context was reached."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One new token of a reply. The last event of a reply has a finish_reason; joined, the texts are the reply's text.

    id is None, and text empty, in the last event of a reply that was cancelled or broke off by an error. logprob and
    top (id, log-probability; likeliest first): the model's at the temperature, see settings.py.
    """

    id: int | None
    text: str = ""
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply. ids hold the end token where one ended it; logprobs (len(ids),) fp32 on the CPU, see settings.py.

    text leaves out the end token and what follows a stop string. top_logprobs is empty unless it was asked for.
    """

    ids: list[int]
    logprobs: Tensor
    finish_reason: FinishReason
    text: str = ""
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Request:
    """What the engine keeps of one reply. limit: most new tokens, with the room left in the context considered."""

    prompt: list[int]
    settings: SamplingSettings
    seed: int
    stop_ids: tuple[int, ...]
    limit: int
    text_stream: TextStream | None = None
    deliver: Callable[[TokenEvent], None] | None = None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: BaseException | None = None
    cancelled: bool = False
    reused: int = 0
    """Tokens of the prompt that were found in the cache and not computed again."""

    def row(self) -> Row:
        """What the sampler must know of it."""
        return Row(self.settings, self.seed, self.stop_ids, self.prompt, self.ids)

    def take(self, token: int, logprob: float, top: list[tuple[int, float]]) -> None:
        """Add a token; decide whether the reply ends with it; tell the reader."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if self.settings.top_logprobs:
            self.top_logprobs.append(top)
        text, stream = "", self.text_stream
        if token in self.stop_ids:
            self.finish_reason = "stop"
        elif stream is not None:
            text = stream.push(token)
        if self.finish_reason is None and len(self.ids) >= self.limit:
            self.finish_reason = "length"
        if stream is not None:
            if self.finish_reason is not None:
                text += stream.finish()
            if stream.stopped:
                self.finish_reason = "stop"
            self.texts.append(text)
        if self.deliver is not None:
            self.deliver(TokenEvent(token, text, logprob, tuple(top), self.finish_reason))

    def end(self, reason: FinishReason, error: BaseException | None = None) -> None:
        """Break off: no token more, and the reader is told."""
        if self.finish_reason is None:
            self.finish_reason, self.error = reason, error
            if self.deliver is not None:
                self.deliver(TokenEvent(None, finish_reason=reason, error=error))

    def completion(self) -> Completion:
        """The reply as a record; one that is still being written counts as cancelled."""
        logprobs = torch.tensor(self.logprobs, dtype=torch.float32)
        reason = self.finish_reason or "cancelled"
        return Completion(list(self.ids), logprobs, reason, "".join(self.texts), self.top_logprobs)
