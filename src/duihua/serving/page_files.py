"""The built page as static files, with headers that let it load nothing from elsewhere and run nothing inline.

The page is built from web/ when the wheel is built, and lies beside this module in page/. In a checkout it may not be
built yet; then the address says how, and the API works all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

PAGE_DIRECTORY = Path(__file__).parent / "page"

SECURITY_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "media-src 'self' blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types svelte-trusted-html",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Duihua 对话</title>
<h1>The page is not built yet</h1>
<p>In the checkout run <code>python tools/build_page.py</code> (or <code>make setup</code>) and load this address again.
The API at <code>/v1</code> works already.</p>
<h1 lang="zh">页面还没有构建</h1>
<p lang="zh">请在源码目录中运行 <code>python tools/build_page.py</code>（或 <code>make setup</code>），然后重新打开此地址。
<code>/v1</code> 的接口已经可用。</p></html>"""


def _response(file: Path, cache: str) -> Response:
    return FileResponse(file, headers={**SECURITY_HEADERS, "Cache-Control": cache})


class Assets(StaticFiles):
    """Files whose names hold their content's hash: they may be kept for ever. None while the page is not built."""

    async def check_config(self) -> None:
        """Nothing: starlette takes a missing folder for a mistake and answers 500; here its files are not found, a 404."""

    def file_response(self, full_path: Any, *arguments: Any, **keywords: Any) -> Response:
        response = super().file_response(full_path, *arguments, **keywords)
        response.headers.update({**SECURITY_HEADERS, "Cache-Control": "public, max-age=31536000, immutable"})
        return response


def install(app: FastAPI, directory: Path = PAGE_DIRECTORY) -> None:
    """Serve the page at /, or how to build it."""
    index = directory / "index.html"

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def page() -> Response:
        if not index.is_file():
            return HTMLResponse(NOT_BUILT, 503, headers=SECURITY_HEADERS)
        return _response(index, "no-cache")

    @app.api_route("/icon.svg", methods=["GET", "HEAD"], include_in_schema=False)
    @app.api_route("/favicon.ico", methods=["GET", "HEAD"], include_in_schema=False)
    def icon() -> Response:
        if not (directory / "icon.svg").is_file():
            return Response(status_code=404)
        return _response(directory / "icon.svg", "no-cache")

    app.mount("/assets", Assets(directory=directory / "assets", check_dir=False), name="assets")
