"""Runs the app: takes the port first, then loads the models, and goes when it is told to.

The port comes first, so that a wrong one is said at once and not after a minute of loading; meanwhile /health says 503.
On Ctrl-C or SIGTERM nothing new is taken, replies get a moment to end, and what they wrote is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import uvicorn

from duihua.errors import ServingError
from duihua.serving.app import DRAIN_SECONDS, create_app
from duihua.serving.config import ServingConfig
from duihua.serving.conversations import ConversationStore
from duihua.serving.models import Models, find_sources, load_model
from duihua.serving.services import InsideWriter, TranslatorInsideWriter


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on host and port, or ServingError with what to do."""
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServingError("no such address on this machine", where=where, remedy="Use --host 127.0.0.1") from error
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(128)
        return taken
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise ServingError(
                "another program uses this port",
                where=where,
                remedy=f"Stop it, or choose another port: --port {port + 1 if port < 65535 else 8000}",
            ) from error
        if error.errno == errno.EACCES:
            raise ServingError(
                "this port is for the system's own programs", where=where, remedy="Choose one above 1023"
            ) from error
        raise ServingError(f"cannot listen: {error.strerror}", where=where, remedy="Use --host 127.0.0.1") from error


def address_of(listening: socket.socket, host: str) -> str:
    """The URL to open in a browser."""
    port = listening.getsockname()[1]
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def serve(
    bundles: Sequence[str | Path],
    config: ServingConfig,
    *,
    listening: Callable[[str], None] = lambda address: None,
    ready: Callable[[str, Models], None] = lambda address, models: None,
    inside: InsideWriter | None = None,
    inside_translator: TranslatorInsideWriter | None = None,
) -> None:
    """Serve until told to stop. `listening` is called when the port is ours, `ready` when the models are loaded. inside,
    inside_translator: see `create_app`.

    Raises ConfigError, ServingError or BundleError before anything is served, and the error of a model that cannot be
    loaded after the server has closed.
    """
    config.check()
    sources = find_sources(bundles)
    with contextlib.closing(listen(config.host, config.port)) as taken:
        address = address_of(taken, config.host)
        store = ConversationStore(config.store_url)
        models = Models([partial(load_model, source, config) for source in sources])
        app = create_app(models, store, config, inside=inside, inside_translator=inside_translator)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(DRAIN_SECONDS) + 1,
            )
        )
        listening(address)

        def loaded() -> None:
            if models.error is not None:
                server.should_exit = True
            else:
                ready(address, models)

        models.start(loaded)
        with signals_end_quietly():
            asyncio.run(server.serve(sockets=[taken]))
        if models.error is not None:
            raise models.error


@contextlib.contextmanager
def signals_end_quietly() -> Iterator[None]:
    """uvicorn sends itself the signal again when it has stopped; by then it has done its work."""
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
