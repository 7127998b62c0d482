"""The shapes of /api, which the page speaks (web/src/lib/types.ts says the same in TypeScript)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from duihua.serving.conversations import Conversation, StoredMessage
from duihua.serving.openai_schema import Probability, Strict

Title = Annotated[str, Field(max_length=200)]
SystemPrompt = Annotated[str, Field(max_length=20_000)]
ModelName = Annotated[str, Field(max_length=200)]
Content = Annotated[str, Field(min_length=1, max_length=100_000)]


class PageSettings(Strict):
    """Sampling settings of a conversation; what is missing is the model's own default."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Field(ge=0.5, le=2.0)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None

    def named(self) -> dict[str, Any]:
        """Those that are set."""
        return self.model_dump(exclude_none=True)

    def sampling(self) -> dict[str, Any]:
        """The same as fields of SamplingSettings."""
        named = self.named()
        if "max_tokens" in named:
            named["max_new_tokens"] = named.pop("max_tokens")
        return named


class NewConversation(Strict):
    """Body of POST /api/conversations."""

    title: Title = ""
    system: SystemPrompt = ""
    model: ModelName = ""
    settings: PageSettings = PageSettings()


class ConversationChanges(Strict):
    """Body of PATCH /api/conversations/{id}: what is missing stays."""

    title: Title | None = None
    system: SystemPrompt | None = None
    model: ModelName | None = None
    settings: PageSettings | None = None
    leaf_id: str | None = None

    def named(self) -> dict[str, Any]:
        """Those that are given."""
        changes = self.model_dump(exclude_none=True, exclude={"settings"})
        return changes if self.settings is None else {**changes, "settings": self.settings.named()}


class NewMessage(Strict):
    """Body of POST /api/conversations/{id}/messages: a user's message under `parent_id` (null: a first one)."""

    parent_id: str | None = None
    role: Literal["user"] = "user"
    content: Content


class Judgement(Strict):
    """Body of PUT /api/conversations/{id}/messages/{id}/judgement: a vote on a reply (0: none), the text wanted instead."""

    vote: Literal[-1, 0, 1] = 0
    correction: Annotated[str, Field(max_length=100_000)] = ""


class NewReply(Strict):
    """Body of POST /api/conversations/{id}/replies: have the model answer the message `parent_id`."""

    parent_id: str
    model: ModelName
    settings: PageSettings = PageSettings()


def summary(conversation: Conversation) -> dict[str, Any]:
    """A line of the history."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "model": conversation.model,
        "updated_at": conversation.updated_at,
    }


def whole(conversation: Conversation, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A conversation with all versions of all messages."""
    return {
        **summary(conversation),
        "system": conversation.system,
        "settings": conversation.settings,
        "leaf_id": conversation.leaf_id,
        "messages": messages,
    }


def message(stored: StoredMessage, live_text: str | None = None) -> dict[str, Any]:
    """One message; of a reply that is being written, the text so far."""
    return {
        "id": stored.id,
        "parent_id": stored.parent_id,
        "role": stored.role,
        "content": stored.content if live_text is None else live_text,
        "model": stored.model,
        "details": stored.details,
        "created_at": stored.created_at,
    }
