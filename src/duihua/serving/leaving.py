"""What happens to an answer that nobody waits for any more: it is given up.

A server hears that a client has hung up only where it listens. Whoever answers as a whole, and not as a stream, therefore
listens beside the work, and whoever works in a thread, which no one can stop from outside, asks from time to time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from duihua.serving.api_errors import ApiError

T = TypeVar("T")
CLIENT_CLOSED = 499
"""nginx's number for a client that went away; only the metrics see it."""


async def disconnected(request: Request) -> None:
    """Returns when the client has gone. The request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def while_waited_for(request: Request, work: Callable[[Callable[[], bool]], T]) -> T:
    """What `work` gives, which runs in a thread. It is handed a function that says whether the client has gone (or the server
    stops), and may raise whatever it likes then. Raises ApiError where the client has gone."""
    gone = threading.Event()
    answer = asyncio.create_task(run_in_threadpool(work, gone.is_set))
    left = asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ApiError(CLIENT_CLOSED, "The client has gone.")
        return answer.result()
    finally:
        gone.set()
        left.cancel()
        answer.add_done_callback(_forget)


def _forget(answer: asyncio.Task[T]) -> None:
    """Look at an answer that nobody wants, so that its error is not logged as one that was missed."""
    if not answer.cancelled():
        answer.exception()
