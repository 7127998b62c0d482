"""One request for text: the tokens of its samples, merged, under a deadline, counted.

The reader may go away at any await. Whatever ends the iteration (the last token, an error, a deadline, a client that
hung up) runs the same `finally`, which cancels what still runs; so a slot is never held for nobody. That needs the
iterator to be closed, not only dropped: readers use `contextlib.aclosing`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from duihua.engine.request import TokenEvent
from duihua.engine.settings import SamplingSettings
from duihua.serving.metrics import Metrics
from duihua.serving.served_model import Prompt, Sample, ServedModel

Arrival = tuple[int, TokenEvent | Exception]
"""The sample, and what it brought."""


@dataclass
class Generation:
    """`samples` replies to one prompt, queued when this is made. Read `events` once, and close it.

    Raises EngineBusy when the queue is full: before any byte of the answer is sent, so that it can still be a 429.
    """

    model: ServedModel
    prompt: Prompt
    settings: SamplingSettings
    samples: int
    deadline_seconds: float
    metrics: Metrics

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._tickets = self.model.submit(self.prompt, self.settings, self.samples)
        self.completion_tokens = 0
        self.seconds_to_first: float | None = None

    @property
    def reused_tokens(self) -> int:
        """Tokens of the prompt that were still in the cache."""
        return max(ticket.reused_tokens for ticket in self._tickets)

    @property
    def seconds(self) -> float:
        """Since the request was queued."""
        return time.monotonic() - self._began

    def cancel(self) -> None:
        """End every sample early; their last events say `cancelled`."""
        for ticket in self._tickets:
            ticket.cancel()

    async def events(self) -> AsyncGenerator[tuple[int, TokenEvent], None]:
        """(sample, event) as they come, until each sample had an event with a finish_reason.

        Over the deadline a sample ends with `length`, behind whatever it had written by then: a reader who is slow, or
        late, loses nothing. An error of the engine is raised.
        """
        name = self.model.card.name
        arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        readers = [asyncio.create_task(_read(i, ticket, arrivals)) for i, ticket in enumerate(self._tickets)]
        unfinished = set(range(self.samples))
        self.metrics.running.labels(name).inc(self.samples)
        self.metrics.prompt_tokens.labels(name).inc(len(self.prompt.ids))
        over = False
        try:
            await asyncio.sleep(0)  # the readers bring what is there already
            while unfinished:
                left = self.deadline_seconds - self.seconds
                if left <= 0 and not over:
                    over = True
                    self.cancel()
                try:
                    index, event = await _next(arrivals, left)
                except TimeoutError:
                    for index in sorted(unfinished):
                        yield index, TokenEvent(None, finish_reason="length")
                    return
                if over and not isinstance(event, Exception) and event.finish_reason == "cancelled":
                    event = replace(event, finish_reason="length")
                if isinstance(event, Exception):
                    raise event
                if event.id is not None:
                    self._count(name)
                if event.finish_reason is not None:
                    unfinished.discard(index)
                    self.metrics.finished.labels(name, event.finish_reason).inc()
                yield index, event
        finally:
            self.cancel()
            for reader in readers:
                reader.cancel()
            self.metrics.running.labels(name).dec(self.samples)

    def _count(self, name: str) -> None:
        self.completion_tokens += 1
        self.metrics.completion_tokens.labels(name).inc()
        if self.seconds_to_first is None:
            self.seconds_to_first = self.seconds
            self.metrics.first_token_seconds.labels(name).observe(self.seconds_to_first)


async def _next(arrivals: asyncio.Queue[Arrival], seconds: float) -> Arrival:
    """What has arrived, else what arrives within the time; TimeoutError when nothing does. (`wait_for` without time left
    does not look.)"""
    return arrivals.get_nowait() if not arrivals.empty() else await asyncio.wait_for(arrivals.get(), max(0.0, seconds))


async def _read(index: int, ticket: Sample, arrivals: asyncio.Queue[Arrival]) -> None:
    try:
        async for event in ticket:
            arrivals.put_nowait((index, event))
    except Exception as error:
        arrivals.put_nowait((index, error))
