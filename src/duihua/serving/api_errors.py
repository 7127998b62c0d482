"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`, with the status that its clients expect.

Nothing that a client sends is repeated in a message, except names of fields with everything odd replaced: half a
surrogate pair in a field name would otherwise turn a 400 into a 500 when the answer is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from duihua.engine.service import EngineBusy
from duihua.errors import DuihuaError
from duihua.serving.conversations import NotFoundError

TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}

RETRY_AFTER = "2"  # seconds: about as long as a small model takes for a reply


class ApiError(Exception):
    """A request that is answered with an error. param: the field that is wrong; code: a word for programs."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    clean = message.encode("utf-8", "replace").decode("utf-8")
    return {"error": {"message": clean, "type": kind, "param": param, "code": code}}


def error_response(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The same as a response."""
    return JSONResponse(error_body(status, message, param, code), status, headers)


def of_duihua_error(error: DuihuaError) -> JSONResponse:
    """What a typed error of ours means over HTTP."""
    if isinstance(error, EngineBusy):
        return error_response(429, str(error), code="queue_full", headers={"Retry-After": RETRY_AFTER})
    if isinstance(error, NotFoundError):
        return error_response(404, str(error), code="not_found")
    return error_response(400, str(error), param=error.where or None)


def install(app: FastAPI) -> None:
    """Answer every kind of failure in this form."""

    @app.exception_handler(ApiError)
    async def _api(_request: Request, error: ApiError) -> Response:
        return error_response(error.status, error.message, error.param, error.code)

    @app.exception_handler(DuihuaError)
    async def _ours(_request: Request, error: DuihuaError) -> Response:
        return of_duihua_error(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        param = ".".join(path).encode("ascii", "replace").decode("ascii")[:200]
        if first["type"] == "json_invalid":
            return error_response(400, "The body is not JSON.", code="invalid_json")
        where = f"{param}: " if param else ""
        return error_response(400, f"{where}{first['msg']}.", param=param or None, code=first["type"])

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        message = "The body cannot be read as JSON." if error.status_code == 400 else str(error.detail)
        return error_response(error.status_code, message, headers=error.headers)

    @app.exception_handler(Exception)
    async def _bug(_request: Request, _error: Exception) -> Response:
        return error_response(500, "The server made a mistake; its log says which.", code="internal_error")
