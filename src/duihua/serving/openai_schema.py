"""The shapes of the OpenAI API that we accept.

Strict: `temperature: false` is an error and no zero. A field that OpenAI has and we cannot serve is refused with its
name when it would change the reply (tools, JSON mode); a field that only describes the caller (user, metadata) is
accepted. An unknown field is refused, so that a typing error does not pass for a setting.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from duihua.engine.settings import PENALTIES
from duihua.serving.api_errors import ApiError
from duihua.text.chat_template import Message

MOST_SAMPLES = 8
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]


class Strict(BaseModel):
    """No conversions, no unknown fields, no NaN, no halves of surrogate pairs (JSON can spell them; UTF-8, the store and
    the tokenizer cannot)."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        if not _encodable(value):
            raise ValueError("holds half of a surrogate pair, which is no text")
        return value


def _encodable(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, list):
        return all(map(_encodable, value))
    if isinstance(value, dict):
        return all(_encodable(key) and _encodable(item) for key, item in value.items())
    return True


class TextPart(Strict):
    """A part of a message's content; text is the only kind that these models read."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One turn. developer is OpenAI's newer word for system."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None

    def plain(self) -> Message:
        """As the chat template takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=text)


class StreamOptions(Strict):
    """include_usage: a last chunk with the token counts."""

    include_usage: bool = False
    include_obfuscation: bool = False


class SamplingFields(Strict):
    """What both routes take."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Field(ge=PENALTIES[0], le=PENALTIES[1])] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100.0, le=100.0)]] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: str | list[str] | None) -> list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop
        if stops is not None and (len(stops) > 16 or not all(stops)):
            raise ValueError("give at most 16 strings, none of them empty")
        return stops

    @field_validator("logit_bias")
    @classmethod
    def _bias(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if bias and not all(key.isascii() and key.isdigit() and len(key) < 10 for key in bias):
            raise ValueError("its keys are token ids")
        return bias

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> SamplingFields:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream=true")
        return self

    def sampling(self) -> dict[str, Any]:
        """Fields of SamplingSettings that the request names."""
        names = (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
        )
        named = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.seed is not None:
            named["seed"] = self.seed % 2**63
        if self.stop:
            named["stop"] = tuple(self.stop)
        if self.logit_bias:
            named["logit_bias"] = {int(key): value for key, value in self.logit_bias.items()}
        if (limit := self.token_limit) is not None:
            named["max_new_tokens"] = limit
        return named

    @property
    def token_limit(self) -> int | None:
        """Most new tokens that the request asks for."""
        return self.max_tokens


class ChatRequest(SamplingFields):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    store: bool | None = None
    parallel_tool_calls: bool | None = None
    service_tier: str | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    def sampling(self) -> dict[str, Any]:
        named = super().sampling()
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs is for logprobs=true.", param="top_logprobs")
        if self.top_logprobs:
            named["top_logprobs"] = self.top_logprobs
        return named

    def refuse_unsupported(self) -> None:
        """ApiError for what would have to change the reply and cannot."""
        neutral: dict[str, tuple[Any, ...]] = {
            "response_format": (None, {"type": "text"}),
            "tools": (None, []),
            "tool_choice": (None, "none", "auto"),
            "functions": (None, []),
            "function_call": (None, "none", "auto"),
            "modalities": (None, ["text"]),
            "audio": (None,),
        }
        for name, values in neutral.items():
            if getattr(self, name) not in values:
                raise ApiError(
                    400, f"{name} is not supported by this server.", param=name, code="unsupported_parameter"
                )


class CompletionRequest(SamplingFields):
    """Body of POST /v1/completions: text to go on from, without a chat template. Token ids are not taken: they could
    be control tokens."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MOST_SAMPLES)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: None = None

    def sampling(self) -> dict[str, Any]:
        named = super().sampling()
        if self.logprobs:
            named["top_logprobs"] = self.logprobs
        return named

    def prompts(self) -> list[str]:
        """One or several."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt
