"""What the OpenAI API sends: completions, chunks of streams, usage, log-probabilities."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from duihua.engine.request import TokenEvent
from duihua.serving.generation import Generation
from duihua.serving.served_model import ServedModel
from duihua.version import __version__

FINGERPRINT = f"duihua-{__version__}"
LOWEST_LOGPROB = -9999.0  # OpenAI's own stand-in for minus infinity, which JSON cannot hold


@dataclass
class Choice:
    """One sample, as it grows."""

    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = "stop"

    def take(self, event: TokenEvent, logprobs: list[dict[str, Any]]) -> None:
        """Add an event."""
        self.text.append(event.text)
        self.logprobs.extend(logprobs)
        if event.finish_reason is not None:
            self.finish_reason = finish_reason(event)


class Envelope:
    """The fields that a completion and every chunk of a stream have in common: one id, one time."""

    def __init__(self, kind: str, prefix: str, model: str, dropped_turns: int) -> None:
        self._fields: dict[str, Any] = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        # Not OpenAI's, which fails instead: what was left out of a conversation that is longer than the context.
        self._ours = {"duihua": {"dropped_turns": dropped_turns}} if dropped_turns else {}

    def __call__(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._fields, "choices": choices, **more, **self._ours}


def finish_reason(event: TokenEvent) -> str:
    """OpenAI knows stop and length; a cancelled reply has no reader."""
    return "length" if event.finish_reason == "length" else "stop"


def usage(generations: list[Generation]) -> dict[str, Any]:
    """Token counts of a request. The end token counts: it was generated."""
    prompt = sum(len(generation.prompt.ids) for generation in generations)
    completion = sum(generation.completion_tokens for generation in generations)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(generation.reused_tokens for generation in generations)},
    }


def token_logprobs(model: ServedModel, event: TokenEvent) -> list[dict[str, Any]]:
    """One entry for a token of text, none for control tokens, in the form of chat completions."""
    if event.id is None or model.is_control(event.id):
        return []
    top = [_logprob(model, token, logprob) for token, logprob in event.top]
    return [{**_logprob(model, event.id, event.logprob), "top_logprobs": top}]


def _logprob(model: ServedModel, token_id: int, logprob: float) -> dict[str, Any]:
    data = model.token_bytes(token_id)
    number = logprob if math.isfinite(logprob) else LOWEST_LOGPROB
    return {"token": data.decode("utf-8", "replace"), "logprob": number, "bytes": list(data)}


def legacy_logprobs(entries: list[dict[str, Any]], offset: int = 0) -> dict[str, Any]:
    """The same in the form of the older completions route."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],
        "text_offset": offsets,
    }
