"""What a request must pass before it reaches a route: size, origin, host, key.

Plain ASGI and not Starlette's BaseHTTPMiddleware, which copies streams through a queue and hides disconnects.

Why host and origin matter on a server that only this machine can reach: every web page that the user visits runs on this
machine too. A page of another origin is refused by its `Origin` header; one that has its own name resolve to 127.0.0.1
(DNS rebinding) by its `Host` header.
"""

from __future__ import annotations

import hmac
import json
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duihua.serving.api_errors import error_body
from duihua.serving.config import ServingConfig, is_loopback

LOCAL_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
GUARDED = ("/v1/", "/api/", "/inside", "/metrics", "/openapi.json")


class Guards:
    """Refuses requests that are too large, come from foreign pages, or lack the key. The page's own files are open."""

    def __init__(self, app: ASGIApp, config: ServingConfig) -> None:
        self._app, self._config = app, config
        self._limit = config.body_limit_kib * 1024
        self._hosts = {config.host.strip("[]").lower(), *(urlsplit(origin).hostname or "" for origin in config.origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self._with_limit(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str, str] | None:
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return 400, "Content-Length is not a number.", "bad_length"
        if int(length[:18]) > self._limit:
            return 413, f"The body is larger than {self._config.body_limit_kib} KiB.", "body_too_large"
        host = headers.get("host", "")
        if not self._config.api_key and not self._known_host(host):
            return 403, "This server answers only under its own address.", "unknown_host"
        if not path.startswith(GUARDED) or method == "OPTIONS":
            return None
        origin = headers.get("origin")
        if origin is not None and not self._known_origin(origin, host):
            return 403, "Pages of this origin may not call the server (--origins allows one).", "unknown_origin"
        if self._config.api_key and not self._has_key(headers):
            return 401, "A key is needed: Authorization: Bearer KEY.", "invalid_api_key"
        return None

    def _known_host(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "") if re.fullmatch(r"[\w.\-:\[\]]*", host) else ""
        return is_loopback(name) or name.lower() in self._hosts

    def _known_origin(self, origin: str, host: str) -> bool:
        own = origin.partition("://")[2].lower() == host.lower() and bool(host)
        return own or re.fullmatch(LOCAL_ORIGIN, origin) is not None or origin in self._config.origins

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            key.strip().encode("latin-1"), self._config.api_key.encode("utf-8")
        )

    async def _with_limit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A body without Content-Length is counted as it comes. Whoever reads it finds its end at the limit, and whatever
        is answered to that becomes a 413."""
        received, refused = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                return {"type": "http.request", "body": b"", "more_body": False}
            return message

        async def watched(message: Message) -> None:
            nonlocal refused
            if received <= self._limit:
                await send(message)
            elif not refused:
                refused = True
                limit = self._config.body_limit_kib
                await _refuse(send, 413, f"The body is larger than {limit} KiB.", "body_too_large")

        await self._app(scope, counted, watched)


async def _refuse(send: Send, status: int, message: str, code: str) -> None:
    body = json.dumps(error_body(status, message, code=code)).encode("utf-8")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
