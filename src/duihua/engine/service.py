"""An engine that runs in the background, for a server: many submitters, one thread that moves all replies on.

Why a thread of its own: the forward holds the processor for milliseconds to seconds, and an event loop must answer in
between. Submitting, cancelling and looking never wait for a forward. A reader that goes away cancels; the slot is free
at the next step. The queue is bounded, so that a crowd is told to come back and not left to time out.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from duihua.engine.engine import Engine, default_seeds
from duihua.engine.request import Request, TokenEvent
from duihua.engine.settings import SamplingSettings
from duihua.errors import GenerationError
from duihua.nn.packed_weights import packed_weights


class EngineBusy(GenerationError):  # noqa: N818  (a state, which the server answers with 429)
    """The queue is full, or the service is closing: try again later."""


@dataclass(frozen=True)
class ServiceStatus:
    """active, waiting: requests now; slots, most_waiting: their limits. The rest counts since the start."""

    active: int
    waiting: int
    slots: int
    most_waiting: int
    requests: int
    tokens: int
    failures: int


class Ticket:
    """One submitted request. Iterate it (`for` or `async for`) for its events; leaving the loop early cancels it.

    The last event has a finish_reason; an event that carries an error is raised to the reader. A ticket is read once.
    """

    def __init__(self, service: EngineService, request: Request) -> None:
        self._service = service
        self._request = request
        self._events: queue.SimpleQueue[TokenEvent] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._notify: Callable[[], None] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self._request.prompt)

    @property
    def reused_tokens(self) -> int:
        """Tokens of the prompt that were still in the cache; known from the first event on."""
        return self._request.reused

    @property
    def completion_tokens(self) -> int:
        """Tokens made so far, the end token included."""
        return len(self._request.ids)

    @property
    def seed(self) -> int:
        """The sample's own seed."""
        return self._request.seed

    def cancel(self) -> None:
        """Stop it; its slot is free at the next step. Does nothing when it has ended."""
        self._service.cancel(self)

    def __iter__(self) -> Iterator[TokenEvent]:
        try:
            while True:
                event = self._events.get()
                if event.error is not None:
                    raise event.error
                yield event
                if event.finish_reason is not None:
                    return
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[TokenEvent]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody reads any more
                loop.call_soon_threadsafe(arrived.set)

        with self._lock:
            self._notify = notify
        try:
            while True:
                arrived.clear()
                while not self._events.empty():
                    event = self._events.get_nowait()
                    if event.error is not None:
                        raise event.error
                    yield event
                    if event.finish_reason is not None:
                        return
                if self._events.empty():
                    await arrived.wait()
        finally:
            self.cancel()

    def _deliver(self, event: TokenEvent) -> None:
        """Called by the engine's thread."""
        self._events.put(event)
        with self._lock:
            notify = self._notify
        if notify is not None:
            notify()


class EngineService:
    """Runs `engine` in a thread from `start` to `close` (or as a context manager). most_waiting: bound of the queue.

    While it runs, nothing else should train the engine's network or move it.
    """

    def __init__(self, engine: Engine, most_waiting: int = 32) -> None:
        self.engine = engine
        self.most_waiting = most_waiting
        self._wake = threading.Event()
        self._admission = threading.Lock()
        self._closing = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._requests = 0
        self._tokens = 0
        self._failures = 0

    def start(self) -> EngineService:
        """Start the thread. Returns self."""
        assert self._thread is None, "an EngineService starts once"
        self._thread = threading.Thread(target=self._work, name="duihua-engine", daemon=True)
        self._thread.start()
        return self

    def submit(
        self, prompt: Sequence[int], settings: SamplingSettings | None = None, seed: int | None = None
    ) -> Ticket:
        """Queue a request and return at once.

        seed: the sample's own, for several samples of one prompt (see `sample_seed`); else as in `Engine.stream`.
        Raises EngineBusy when the queue is full or the service closes, and GenerationError for what `Engine.generate`
        refuses.
        """
        settings = settings or SamplingSettings()
        request = self.engine.request(prompt, settings, default_seeds(settings, 1)[0] if seed is None else seed)
        ticket = Ticket(self, request)

        def deliver(event: TokenEvent) -> None:
            self._tokens += event.id is not None
            ticket._deliver(event)

        request.deliver = deliver
        with self._admission:
            if self._closing or self._thread is None:
                raise EngineBusy("the service is not running", remedy="Try again when it has started")
            if self.engine.waiting >= self.most_waiting:
                raise EngineBusy(f"{self.engine.waiting} requests are waiting already", remedy="Try again in a moment")
            self._requests += 1
            self.engine.enqueue(request)
        self._wake.set()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """See Ticket.cancel."""
        self.engine.cancel(ticket._request)
        self._wake.set()

    def status(self) -> ServiceStatus:
        """Figures for health checks and metrics."""
        return ServiceStatus(
            active=self.engine.active,
            waiting=self.engine.waiting,
            slots=self.engine.slots,
            most_waiting=self.most_waiting,
            requests=self._requests,
            tokens=self._tokens,
            failures=self._failures,
        )

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more requests, let the running ones write on for `drain_seconds`, cancel the rest, end the thread."""
        with self._admission:
            self._closing = True
        deadline = time.monotonic() + drain_seconds
        while (self.engine.active or self.engine.waiting) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> EngineService:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        with packed_weights(self.engine.network):
            while not self._stopping:
                self._wake.clear()
                try:
                    busy = self.engine.step()
                except Exception:  # every reader has been handed it; the next request finds free slots
                    self._failures += 1
                    busy = True
                if not busy and not self._stopping:
                    self._wake.wait()
        self.engine.cancel_all()
