"""Serves the live page of `duihua watch --page`: two addresses, both only read from, for this machine.

How the page is written is the report's affair, and serving and report stand on one floor: the command line hands the two
writers in. A page of another name that resolves to this machine is refused (guards.py says why).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from duihua.errors import DuihuaError
from duihua.serving.config import ServingConfig
from duihua.serving.guards import Guards
from duihua.serving.inside_route import HEADERS
from duihua.serving.server import address_of, listen, signals_end_quietly

Writer = Callable[[str, str], str]
"""(stage, axis) -> HTML; both empty where the address does not say them."""
MOST_CHARACTERS = 200


def create_watch_app(page: Writer, content: Writer, config: ServingConfig) -> Starlette:
    """The app: `/` is the whole page, `/content` what its script puts in. Where a writer raises DuihuaError, 503 says why."""

    def route(write: Writer) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            words = [request.query_params.get(name, "")[:MOST_CHARACTERS] for name in ("stage", "axis")]
            try:
                html = await run_in_threadpool(write, *words)
            except DuihuaError as error:
                return Response(str(error), 503, HEADERS, "text/plain; charset=utf-8")
            return HTMLResponse(html.encode("utf-8", "replace"), headers=HEADERS)

        return answer

    return Starlette(
        routes=[Route("/", route(page)), Route("/content", route(content))],
        middleware=[Middleware(Guards, config=config)],
    )


def serve_page(
    page: Writer, content: Writer, host: str, port: int, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Serve until told to stop. ready: called with the address. Raises ConfigError, ServingError where the port is taken."""
    config = ServingConfig(host=host, port=port)
    config.check()
    with contextlib.closing(listen(host, port)) as taken:
        server = uvicorn.Server(
            uvicorn.Config(
                create_watch_app(page, content, config),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        ready(address_of(taken, host))
        with signals_end_quietly():
            asyncio.run(server.serve(sockets=[taken]))
