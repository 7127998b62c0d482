"""Over the deadline: what was written by then is delivered and counted, whoever it stands behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from duihua.engine.request import TokenEvent
from duihua.serving.generation import Generation
from duihua.serving.metrics import Metrics

DONE = "all of it"


class Finished:
    """A reply that is there whole before anybody reads it."""

    reused_tokens = 0

    def cancel(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[TokenEvent]:
        for character in DONE:
            yield TokenEvent(ord(character), character)
        yield TokenEvent(256, finish_reason="stop")


class Stuck:
    """A reply that has one character and never another; told to stop, it says so."""

    reused_tokens = 0

    def __init__(self) -> None:
        self._stopped = asyncio.Event()

    def cancel(self) -> None:
        self._stopped.set()

    async def __aiter__(self) -> AsyncIterator[TokenEvent]:
        yield TokenEvent(ord("x"), "x")
        await self._stopped.wait()
        yield TokenEvent(None, finish_reason="cancelled")


@pytest.fixture
def model(scripted: Any) -> Any:
    made = scripted()
    kinds = {"stuck": Stuck, "finished": Finished}
    made.submit = lambda prompt, settings, samples: [kinds[bytes(prompt.ids).decode()]() for _ in range(samples)]
    return made


def generation(model: Any, prompt: str, deadline: float) -> Generation:
    return Generation(model, model.text_prompt(prompt), model.settings(), 1, deadline, Metrics())


def test_what_is_there_already_is_delivered_though_the_deadline_has_passed(model: Any) -> None:
    async def read(prompt: str) -> tuple[str, Any, int]:
        made = generation(model, prompt, deadline=0.0)
        async with contextlib.aclosing(made.events()) as events:
            found = [event async for _, event in events]
        return "".join(event.text for event in found), found[-1].finish_reason, made.completion_tokens

    assert asyncio.run(read("finished")) == (DONE, "stop", len(DONE) + 1)
    assert asyncio.run(read("stuck")) == ("x", "length", 1)


def test_a_slow_reader_loses_nothing_behind_the_deadline(model: Any) -> None:
    async def read() -> str:
        made = generation(model, "finished", deadline=30.0)
        text = ""
        async with contextlib.aclosing(made.events()) as events:
            async for _, event in events:
                text += event.text
                made.deadline_seconds = 0.0  # as when the client takes its time over the first token
        return text

    assert asyncio.run(read()) == DONE


@pytest.mark.parametrize("prompts", [["stuck", "finished"], ["finished", "stuck"], ["stuck", "finished", "stuck"]])
def test_every_prompt_of_a_request_keeps_what_it_had_written_at_the_deadline(
    serve: Callable[..., Any], model: Any, tmp_path: Path, prompts: list[str]
) -> None:
    expected = {"stuck": ("x", "length"), "finished": (DONE, "stop")}
    tokens = sum(len(DONE) + 1 if prompt == "finished" else 1 for prompt in prompts)
    body = {"model": "scripted", "prompt": prompts, "max_tokens": 50}
    with serve(tmp_path, lambda: model, deadline_seconds=0.2) as running:
        url = f"{running.address}/v1/completions"
        whole = httpx.post(url, json=body).json()
        streamed = httpx.post(url, json={**body, "stream": True, "stream_options": {"include_usage": True}}).text
        running_now = httpx.get(f"{running.address}/metrics").text
    assert [(choice["text"], choice["finish_reason"]) for choice in whole["choices"]] == [expected[p] for p in prompts]
    assert whole["usage"]["completion_tokens"] == tokens
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    texts, reasons = [""] * len(prompts), [""] * len(prompts)
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
    assert list(zip(texts, reasons, strict=True)) == [expected[prompt] for prompt in prompts]
    assert chunks[-1]["usage"]["completion_tokens"] == tokens
    assert 'duihua_replies_running{model="scripted"} 0.0' in running_now
