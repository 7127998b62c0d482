"""Server-sent events that end when the reader does.

Starlette cancels a stream whose client has gone, but leaves the generator behind it to the garbage collector, and until
then the slot stays taken. Here the generator is closed before the response returns, whatever the reason.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """A response of `text/event-stream` from an async generator of events.

    on_close is called at the end in any case: a generator that was never started runs no `finally` of its own.
    """

    def __init__(self, events: AsyncGenerator[str, None], on_close: Callable[[], None]) -> None:
        self._events, self._on_close = events, on_close
        super().__init__(events, media_type="text/event-stream", headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()
            await self._events.aclose()


def event(data: Any) -> str:
    """One event; text stays as it is (no \\u escapes), except lone surrogates, which UTF-8 cannot hold."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode("utf-8", "replace").decode("utf-8")
