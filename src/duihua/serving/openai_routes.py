"""/v1/models, /v1/chat/completions, /v1/completions: what the official client can do against us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from duihua.engine.request import TokenEvent
from duihua.engine.settings import SamplingSettings
from duihua.errors import DuihuaError
from duihua.serving import openai_format as form
from duihua.serving.api_errors import ApiError, error_body
from duihua.serving.generation import Generation
from duihua.serving.leaving import CLIENT_CLOSED, disconnected
from duihua.serving.openai_schema import ChatRequest, CompletionRequest
from duihua.serving.served_classifier import ClassifierCard
from duihua.serving.served_model import Prompt, ServedCard, ServedModel
from duihua.serving.served_translator import TranslatorCard
from duihua.serving.services import Services, Shared
from duihua.serving.sse import EventStream, event

router = APIRouter(prefix="/v1")
log = logging.getLogger(__name__)


@router.get("/models")
def list_models(services: Shared) -> dict[str, Any]:
    """Every model that is loaded; a classifier says its task and classes, a translator its directions."""
    models = [_model(model.card) for model in services.models.all()]
    models += [_classifier(found.card) for found in services.models.classifiers()]
    return {"object": "list", "data": models + [_translator(found.card) for found in services.models.translators()]}


@router.get("/models/{name:path}")
def get_model(name: str, services: Shared) -> dict[str, Any]:
    """One model."""
    for found in services.models.classifiers():
        if found.card.name == name:
            return _classifier(found.card)
    for translator in services.models.translators():
        if translator.card.name == name:
            return _translator(translator.card)
    return _model(services.models.get(name).card)


def _model(card: ServedCard | ClassifierCard | TranslatorCard) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "duihua",
        "context_length": card.context_length,
        "parameters": card.parameters,
    }


def _classifier(card: ClassifierCard) -> dict[str, Any]:
    return {**_model(card), "task": card.task, "classes": list(card.classes)}


def _translator(card: TranslatorCard) -> dict[str, Any]:
    return {**_model(card), "task": "translation", "directions": [list(each) for each in card.directions]}


@router.post("/chat/completions")
async def chat_completions(body: ChatRequest, request: Request, services: Shared) -> Response:
    """The assistant's next message."""
    model = services.models.get(body.model)
    body.refuse_unsupported()
    settings = model.settings(**body.sampling())
    messages = [message.plain() for message in body.messages]
    prompt = await run_in_threadpool(model.chat_prompt, messages, settings)
    generations = _start(services, model, [prompt], settings, body.n or 1)
    kind = "chat.completion.chunk" if body.stream else "chat.completion"
    envelope = form.Envelope(kind, "chatcmpl", model.card.name, prompt.dropped_turns)
    if body.stream:
        return EventStream(_chat_stream(body, envelope, generations[0]), generations[0].cancel)
    choices = await _whole(request, generations, logprobs=bool(body.logprobs))
    listed = [
        {
            "index": index,
            "message": {"role": "assistant", "content": "".join(choice.text), "refusal": None},
            "logprobs": {"content": choice.logprobs, "refusal": None} if body.logprobs else None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(choices)
    ]
    return JSONResponse(envelope(listed, usage=form.usage(generations)))


async def _chat_stream(body: ChatRequest, envelope: form.Envelope, generation: Generation) -> AsyncGenerator[str, None]:
    counted = body.stream_options is not None and body.stream_options.include_usage
    none_yet: dict[str, Any] = {"usage": None} if counted else {}

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> str:
        listed = [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}]
        return event(envelope(listed, **none_yet))

    try:
        for index in range(generation.samples):
            yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
        async with contextlib.aclosing(_tokens([generation])) as tokens:
            async for index, token in tokens:
                entries = form.token_logprobs(generation.model, token) if body.logprobs else []
                if token.text or entries:
                    logprobs = {"content": entries, "refusal": None} if body.logprobs else None
                    yield chunk(index, {"content": token.text}, logprobs=logprobs)
                if token.finish_reason is not None:
                    yield chunk(index, {}, form.finish_reason(token))
        if counted:
            yield event(envelope([], usage=form.usage([generation])))
    except Exception as error:
        yield _failed(error)
    yield event("[DONE]")


@router.post("/completions")
async def completions(body: CompletionRequest, request: Request, services: Shared) -> Response:
    """Text to follow the prompt, or each of several prompts."""
    model = services.models.get(body.model)
    settings = model.settings(**body.sampling())
    prompts = await run_in_threadpool(lambda: [model.text_prompt(text) for text in body.prompts()])
    generations = _start(services, model, prompts, settings, body.n or 1)
    envelope = form.Envelope("text_completion", "cmpl", model.card.name, 0)
    if body.stream:
        return EventStream(_completion_stream(body, envelope, generations), lambda: _cancel(generations))
    choices = await _whole(request, generations, logprobs=body.logprobs is not None)
    listed = [
        {
            "index": index,
            "text": "".join(choice.text),
            "logprobs": form.legacy_logprobs(choice.logprobs) if body.logprobs is not None else None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(choices)
    ]
    return JSONResponse(envelope(listed, usage=form.usage(generations)))


async def _completion_stream(
    body: CompletionRequest, envelope: form.Envelope, generations: list[Generation]
) -> AsyncGenerator[str, None]:
    counted = body.stream_options is not None and body.stream_options.include_usage
    none_yet: dict[str, Any] = {"usage": None} if counted else {}
    offsets: dict[int, int] = {}
    try:
        async with contextlib.aclosing(_tokens(generations)) as tokens:
            async for index, token in tokens:
                entries = form.token_logprobs(generations[0].model, token) if body.logprobs is not None else []
                if not (token.text or entries or token.finish_reason):
                    continue
                offset = offsets.get(index, 0)
                offsets[index] = offset + sum(len(entry["token"]) for entry in entries)
                choice = {
                    "index": index,
                    "text": token.text,
                    "logprobs": form.legacy_logprobs(entries, offset) if body.logprobs is not None else None,
                    "finish_reason": form.finish_reason(token) if token.finish_reason else None,
                }
                yield event(envelope([choice], **none_yet))
        if counted:
            yield event(envelope([], usage=form.usage(generations)))
    except Exception as error:
        yield _failed(error)
    yield event("[DONE]")


# -- shared by the routes ---------------------------------------------------------------------------------------------


def _start(
    services: Services, model: ServedModel, prompts: list[Prompt], settings: SamplingSettings, samples: int
) -> list[Generation]:
    """Queue every prompt, or none when the queue has no room for all."""
    generations: list[Generation] = []
    try:
        for prompt in prompts:
            generations.append(
                Generation(model, prompt, settings, samples, services.config.deadline_seconds, services.metrics)
            )
    except BaseException:
        _cancel(generations)
        raise
    return generations


def _cancel(generations: list[Generation]) -> None:
    for generation in generations:
        generation.cancel()


async def _tokens(generations: list[Generation]) -> AsyncGenerator[tuple[int, TokenEvent], None]:
    """(choice, event) of all samples of all prompts as they come: read one after the other, a prompt whose turn came behind
    the deadline would lose what was long written."""
    arrivals: asyncio.Queue[tuple[int, TokenEvent] | Exception | None] = asyncio.Queue()

    async def read(number: int, generation: Generation) -> None:
        try:
            async with contextlib.aclosing(generation.events()) as events:
                async for index, token in events:
                    arrivals.put_nowait((number * generation.samples + index, token))
            arrivals.put_nowait(None)
        except Exception as error:
            arrivals.put_nowait(error)

    readers = [asyncio.create_task(read(number, generation)) for number, generation in enumerate(generations)]
    reading = len(readers)
    try:
        while reading:
            arrived = await arrivals.get()
            if isinstance(arrived, Exception):
                raise arrived
            if arrived is None:
                reading -= 1
            else:
                yield arrived
    finally:
        _cancel(generations)
        for reader in readers:
            reader.cancel()


async def _whole(request: Request, generations: list[Generation], *, logprobs: bool) -> list[form.Choice]:
    """Every choice, complete. ApiError, with the slots free again, when nobody waits any more."""
    choices = [form.Choice() for _ in range(len(generations) * generations[0].samples)]

    async def collect() -> None:
        async with contextlib.aclosing(_tokens(generations)) as tokens:
            async for index, token in tokens:
                choices[index].take(token, form.token_logprobs(generations[0].model, token) if logprobs else [])

    work, gone = asyncio.create_task(collect()), asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ApiError(CLIENT_CLOSED, "The client has gone.")
        work.result()
        return choices
    finally:
        _cancel(generations)
        work.cancel()
        gone.cancel()


def _failed(error: Exception) -> str:
    """An error in the middle of a stream, in the form that OpenAI's client raises."""
    if isinstance(error, DuihuaError):
        return event(error_body(400, str(error)))
    log.error("a reply failed", exc_info=error)
    return event(error_body(500, "The server made a mistake; its log says which.", code="internal_error"))
