"""Counters for Prometheus, in a registry of their own: two apps in one process (as in tests) do not share numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What one server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        self.requests = Counter(
            "duihua_requests", "Requests answered", ("method", "route", "status"), registry=self.registry
        )
        self.prompt_tokens = Counter("duihua_prompt_tokens", "Tokens of prompts", ("model",), registry=self.registry)
        self.completion_tokens = Counter(
            "duihua_completion_tokens", "Tokens written", ("model",), registry=self.registry
        )
        self.finished = Counter(
            "duihua_replies", "Replies by the reason of their end", ("model", "reason"), registry=self.registry
        )
        self.running = Gauge(
            "duihua_replies_running", "Replies being written or waiting", ("model",), registry=self.registry
        )
        self.first_token_seconds = Histogram(
            "duihua_first_token_seconds",
            "From the request to its first token",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )

    def render(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)


class CountRequests:
    """ASGI middleware: one count per request, by the route's pattern (never by the path that a client chose)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in {"GET", "POST", "PATCH", "DELETE", "OPTIONS"} else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
