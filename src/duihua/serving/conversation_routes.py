"""/api: what the page calls. Conversations, their messages, and replies that are written into them.

A reply belongs to the server: its message exists from the start, and its text is stored however it ends, also when the
page is closed in the middle. Plain routes run in threads, because the store waits for the disk.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from duihua.errors import DuihuaError
from duihua.serving import conversation_schema as schema
from duihua.serving.api_errors import ApiError
from duihua.serving.conversations import NotFoundError, StoredMessage
from duihua.serving.generation import Generation
from duihua.serving.live_replies import LiveReply
from duihua.serving.services import Services, Shared
from duihua.serving.sse import EventStream, event
from duihua.text.chat_template import Message
from duihua.version import __version__

router = APIRouter(prefix="/api")
log = logging.getLogger(__name__)


@router.get("/status")
def status(services: Shared) -> dict[str, Any]:
    """Version, whether the models are loaded, and what they are."""
    cards = [model.card for model in services.models.all()]
    default = services.models.default
    return {
        "version": __version__,
        "ready": services.models.state == "ready",
        "default_model": default.card.name if default else "",
        "translators": [
            {
                "id": found.card.name,
                "context_length": found.card.context_length,
                "directions": [list(each) for each in found.card.directions],
            }
            for found in services.models.translators()
        ],
        "models": [
            {
                "id": card.name,
                "parameters": card.parameters,
                "context_length": card.context_length,
                "vocabulary_size": card.vocabulary_size,
                "prompts": list(card.prompts),
                "learnt_from": list(card.learnt_from),
                "defaults": {
                    "temperature": card.defaults.temperature,
                    "top_p": card.defaults.top_p,
                    "top_k": card.defaults.top_k,
                    "min_p": card.defaults.min_p,
                    "repetition_penalty": card.defaults.repetition_penalty,
                    "max_tokens": card.defaults.max_new_tokens,
                },
            }
            for card in cards
        ],
    }


@router.get("/conversations")
def list_conversations(
    services: Shared,
    search: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> list[dict[str, Any]]:
    """The latest first; with `search`, those whose title or messages contain it."""
    return [schema.summary(conversation) for conversation in services.store.list(search, limit)]


@router.post("/conversations", status_code=201)
def create_conversation(body: schema.NewConversation, services: Shared) -> dict[str, Any]:
    """An empty one."""
    conversation = services.store.create(
        title=body.title, system=body.system, model=body.model, settings=body.settings.named()
    )
    return schema.whole(conversation, [])


@router.get("/conversations/{conversation_id}")
def get_conversation(conversation_id: str, services: Shared) -> dict[str, Any]:
    """One with all its messages."""
    messages = []
    for stored in services.store.messages(conversation_id):
        live = services.live.get(stored.id)
        messages.append(schema.message(stored, live.text if live else None))
    return schema.whole(services.store.get(conversation_id), messages)


@router.patch("/conversations/{conversation_id}")
def update_conversation(conversation_id: str, body: schema.ConversationChanges, services: Shared) -> dict[str, Any]:
    """Title, system prompt, model, settings, or the leaf that is looked at."""
    return schema.summary(services.store.update(conversation_id, **body.named()))


@router.delete("/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: str, services: Shared) -> None:
    """For good; replies that are being written into it are stopped."""
    await run_in_threadpool(services.store.delete, conversation_id)
    services.live.stop_conversation(conversation_id)


@router.post("/conversations/{conversation_id}/messages", status_code=201)
def add_message(conversation_id: str, body: schema.NewMessage, services: Shared) -> dict[str, Any]:
    """A user's message, or another version of one."""
    stored = services.store.add(conversation_id, parent_id=body.parent_id, role=body.role, content=body.content)
    return schema.message(stored)


@router.put("/conversations/{conversation_id}/messages/{message_id}/judgement")
def judge_message(conversation_id: str, message_id: str, body: schema.Judgement, services: Shared) -> dict[str, Any]:
    """A vote on a reply, and what it should have said; kept in its `details`."""
    if services.live.get(message_id) is not None:
        raise ApiError(409, "The reply is still being written.", param="message_id")
    stored = services.store.judge(conversation_id, message_id, vote=body.vote, correction=body.correction)
    return schema.message(stored)


@router.post("/conversations/{conversation_id}/replies")
async def write_reply(conversation_id: str, body: schema.NewReply, services: Shared) -> Response:
    """Events `start` (the empty message), `delta` (text, tokens so far), `done` (the message as it is stored)."""
    model = services.models.get(body.model)
    path = await run_in_threadpool(services.store.path, conversation_id, body.parent_id)
    if path[-1].role != "user":
        raise ApiError(400, "A reply answers a user's message.", param="parent_id")
    conversation = await run_in_threadpool(services.store.get, conversation_id)
    settings = model.settings(**body.settings.sampling())
    prompt = await run_in_threadpool(model.chat_prompt, _messages(conversation.system, path), settings)
    stored = await run_in_threadpool(
        lambda: services.store.add(
            conversation_id, parent_id=body.parent_id, role="assistant", content="", model=model.card.name
        )
    )
    try:
        generation = Generation(model, prompt, settings, 1, services.config.deadline_seconds, services.metrics)
    except DuihuaError:
        await run_in_threadpool(services.store.discard, stored.id)
        raise
    live = LiveReply(conversation_id, generation)
    services.live.add(stored.id, live)

    def closed() -> None:
        generation.cancel()
        services.live.remove(stored.id)

    return EventStream(_events(services, live, stored), closed)


@router.post("/replies/{message_id}/stop", status_code=204)
async def stop_reply(message_id: str, services: Shared) -> None:
    """End a reply early. Its stream then ends with `done`; a reply that has ended already stays as it is."""
    services.live.stop(message_id)


def _messages(system: str, path: list[StoredMessage] | Any) -> list[Message]:
    """What the model is given: a reply that came out empty is left out together with its question."""
    messages = [Message(role="system", content=system)] if system.strip() else []
    for stored, following in zip(path, [*path[1:], None], strict=True):
        if stored.role == "user" and following is not None and not following.content.strip():
            continue
        if stored.content.strip():
            messages.append(Message(role=stored.role, content=stored.content))
    return messages


async def _events(services: Services, live: LiveReply, stored: StoredMessage) -> AsyncGenerator[str, None]:
    generation = live.generation
    details: dict[str, Any] = {
        "prompt_tokens": len(generation.prompt.ids),
        "dropped_turns": generation.prompt.dropped_turns,
        "seed": generation.settings.seed,
        "finish_reason": "cancelled",
    }
    try:
        yield event({"type": "start", "message": schema.message(stored)})
        try:
            async with contextlib.aclosing(generation.events()) as tokens:
                async for _, token in tokens:
                    if token.finish_reason is not None:
                        details["finish_reason"] = token.finish_reason
                    if token.text:
                        live.pieces.append(token.text)
                        delta = {"type": "delta", "text": token.text, "tokens": generation.completion_tokens}
                        yield event(delta)
        except DuihuaError as error:
            details |= {"finish_reason": "error", "error": str(error)}
        except Exception:
            log.exception("a reply failed")
            details |= {"finish_reason": "error", "error": "The server made a mistake; its log says which."}
    finally:
        # The page may be gone (this runs while the task is being cancelled): what was written is kept all the same.
        with anyio.CancelScope(shield=True):
            details |= {
                "completion_tokens": generation.completion_tokens,
                "seconds": round(generation.seconds, 4),
                "seconds_to_first": round(generation.seconds_to_first or generation.seconds, 4),
            }
            with contextlib.suppress(NotFoundError):  # the conversation was deleted meanwhile
                stored = await run_in_threadpool(services.store.write, stored.id, content=live.text, details=details)
            services.live.remove(stored.id)
    yield event({"type": "done", "message": schema.message(stored)})
