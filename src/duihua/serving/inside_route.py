"""GET /inside: what goes on inside a served model when it reads a text, as one page complete in itself.

How the page is written is the report's affair (report/inside/page.py), and serving and report stand on one floor: the command
line, above both, hands the writer in. The network is captured as a twin over the same tensors, so that replies which the engine
writes at the same time neither meet our hooks nor end up in the picture. One page is made at a time and few may wait: it is
work for nobody in a hurry, and the replies go first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from duihua.engine.service import EngineBusy
from duihua.serving.api_errors import ApiError
from duihua.serving.services import Services, Shared

MOST_CHARACTERS = 2000
DEFAULT_TEXT = "我爱你"
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page brings the rest of its policy itself
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Writer = TypeVar("Writer")

router = APIRouter()


@router.get("/inside", response_class=HTMLResponse)
async def inside(
    services: Shared,
    model: Annotated[str, Query(max_length=200)] = "",
    text: Annotated[str | None, Query(max_length=MOST_CHARACTERS)] = None,
    source: Annotated[str, Query(max_length=20)] = "",
    target: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """Attention, logit lens and walk-through of a text in a model (default: the server's default model); of a translator the
    attention from translation to text, in the direction from `source` to `target`."""
    html = await run_in_threadpool(_write, services, model, text, (source, target))
    return HTMLResponse(html.encode("utf-8", "replace"), headers=HEADERS)


def _write(services: Services, model: str, text: str | None, languages: tuple[str, str]) -> str:
    page = _translator_page if services.models.translates(model) else _model_page
    write = page(services, model, text, languages)
    if not services.inside_places.acquire(blocking=False):
        raise EngineBusy("too many ask for this page at the same time", remedy="Try again in a moment")
    try:
        with services.inside_lock:
            return write()
    finally:
        services.inside_places.release()


def _model_page(services: Services, model: str, text: str | None, _: tuple[str, str]) -> Callable[[], str]:
    """Makes the page of a chat model."""
    default = services.models.default
    served = default if default is not None and not model else services.models.get(model)
    writer = _there(services.inside)

    def write() -> str:
        network, tokenizer = served.opened()
        shown = DEFAULT_TEXT if text is None else text
        return writer(served.card.name, network, tokenizer, shown, not services.config.api_key)

    return write


def _translator_page(services: Services, model: str, text: str | None, languages: tuple[str, str]) -> Callable[[], str]:
    """Makes the page of a translator."""
    served = services.models.translator(model) if model else services.models.translators()[0]
    writer = _there(services.inside_translator)
    asks = not services.config.api_key
    return lambda: served.shown(lambda opened: writer(served.card.name, opened, text, languages, asks))


def _there(writer: Writer | None) -> Writer:
    if writer is None:
        raise ApiError(404, "This server does not show the inside of its models.", code="not_found")
    return writer
