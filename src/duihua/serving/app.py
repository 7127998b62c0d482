"""The application: routes, guards and page put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from duihua.serving import (
    api_errors,
    classification_routes,
    conversation_routes,
    inside_route,
    metrics,
    openai_routes,
    page_files,
    translation_routes,
)
from duihua.serving.config import ServingConfig
from duihua.serving.conversations import ConversationStore
from duihua.serving.guards import LOCAL_ORIGIN, Guards
from duihua.serving.models import Models
from duihua.serving.services import InsideWriter, Services, Shared, TranslatorInsideWriter
from duihua.version import __version__

DRAIN_SECONDS = 2.0
"""How long a reply may still write when the server stops."""


def create_app(
    models: Models,
    store: ConversationStore,
    config: ServingConfig,
    page: Path = page_files.PAGE_DIRECTORY,
    inside: InsideWriter | None = None,
    inside_translator: TranslatorInsideWriter | None = None,
) -> FastAPI:
    """An app that serves `models` (start them yourself) and closes models and store when it is shut down. inside,
    inside_translator: write the page of GET /inside, of chat models and of translators."""
    services = Services(config, models, store, inside=inside, inside_translator=inside_translator)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(models.close, DRAIN_SECONDS)
        store.close()

    app = FastAPI(
        title="Duihua",
        version=__version__,
        docs_url=None,  # its viewer would be loaded from another host
        redoc_url=None,
        lifespan=lifespan,
        responses={400: {"description": "The request is wrong; the error says how."}},
        middleware=[
            Middleware(metrics.CountRequests, metrics=services.metrics),
            Middleware(
                CORSMiddleware,
                allow_origins=list(config.origins),
                allow_origin_regex=LOCAL_ORIGIN,
                allow_methods=["*"],
                allow_headers=["*"],
            ),
            Middleware(Guards, config=config),
        ],
    )
    app.state.services = services
    api_errors.install(app)
    app.include_router(openai_routes.router)
    app.include_router(classification_routes.router)
    app.include_router(translation_routes.router)
    app.include_router(conversation_routes.router)
    app.include_router(inside_route.router)

    @app.get("/health")
    def health(services: Shared) -> Response:
        """200 when every model is loaded, 503 before."""
        state = services.models.state
        body: dict[str, Any] = {"status": "ok" if state == "ready" else state}
        return JSONResponse(body, 200 if state == "ready" else 503)

    @app.get("/metrics")
    def read_metrics(services: Shared) -> Response:
        """Counters in Prometheus' format."""
        return Response(services.metrics.render(), media_type=metrics.CONTENT_TYPE)

    page_files.install(app, page)
    return app
