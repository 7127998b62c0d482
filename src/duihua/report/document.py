"""The shell of every page that the report writes: head, policy, and the bar with the name and the switch of languages.

Why one shell: the pages are mailed and archived one by one, and each must open anywhere without a network and read in
English and Chinese. So style sheets and scripts stand in the page itself, and its policy forbids every request and every
script but these, by their hashes: text that a model wrote stays text even if an escape were forgotten.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from duihua.report.components import joined, visible

CLOSED = ("base-uri 'none'", "form-action 'none'")
"""What a page may do beside running its own scripts: nothing."""

PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; {policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title} · Duihua 对话</title>
<style>{style}</style>
{data}{scripts}
</head>
<body>
<header class="top"><div class="inner"><span class="brand">Duihua <span lang="zh-CN">对话</span></span>
<div class="switch" role="group" aria-label="Language 语言"><button type="button" data-language="en" lang="en">English</button><button type="button" data-language="zh" lang="zh-CN">中文</button></div></div></header>
{content}</body>
</html>
""")  # noqa: E501 - HTML lines


DATA = Markup('<script id="data" type="application/json">{}</script>\n')


def document(
    title: str,
    content: Markup,
    *,
    styles: Sequence[str] = ("report.css",),
    scripts: Sequence[str] = ("report.js",),
    data: Mapping[str, Any] | None = None,
    policy: Sequence[str] = CLOSED,
) -> str:
    """The whole page around `content`, as text. title: escaped here. styles, scripts: names of assets, in order. data: what the
    scripts find as JSON in the element `data`. policy: its directives beside those for styles and scripts."""
    programs = [_asset(name) for name in scripts]
    html = PAGE.format(
        hashes=Markup(" ").join(Markup("'sha256-{}'").format(_digest(program)) for program in programs),
        policy=Markup("; ".join(policy)),
        title=title,
        style=Markup("".join(map(_asset, styles))),
        data=DATA.format(Markup(_safe_json(data))) if data is not None else "",
        scripts=joined(Markup("<script>{}</script>").format(Markup(program)) for program in programs),
        content=content,
    )
    return visible(html)


def _asset(name: str) -> str:
    return resources.files("duihua.report").joinpath("assets", name).read_text(encoding="utf-8")


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON that can stand in a script element: no character of it can end the element or start another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _digest(program: str) -> str:
    return base64.b64encode(hashlib.sha256(program.encode("utf-8")).digest()).decode("ascii")
