"""A view of tokens (text/token_view.py) as HTML: a piece for the report, and a page of its own that opens anywhere.

Why ids stand under the tokens and not in a list: which id is which token is what one wants to see. Colour only separates
neighbours; what a token is, unknown or a part of a character, is written.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import joined, note, number, t, table, visible
from duihua.text import token_view
from duihua.version import __version__

PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src '{script_hash}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>Tokens 词元 · Duihua 对话</title>
<style>{style}</style>
<script>{script}</script>
</head>
<body>
<header class="top"><div class="inner"><span class="brand">Duihua <span lang="zh-CN">对话</span></span>
<div class="switch" role="group" aria-label="Language 语言"><button type="button" data-language="en" lang="en">English</button><button type="button" data-language="zh" lang="zh-CN">中文</button></div></div></header>
<main class="alone">
<h1>{title}</h1>
{body}
<footer class="end">{footer}</footer>
</main>
</body>
</html>
""")  # noqa: E501 - HTML lines


def token_page(view: Mapping[str, Any]) -> str:
    """The whole page of a view."""
    folder = resources.files("duihua.report").joinpath("assets")
    script, style = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    html = PAGE.format(
        script_hash=f"sha256-{digest}",
        style=Markup(style),
        script=Markup(script),
        title=t("tokens.title"),
        body=token_fragment(view),
        footer=t("page.footer", version=__version__),
    )
    return visible(html)


def token_fragment(view: Mapping[str, Any]) -> Markup:
    """Every text with its tokens under each vocabulary, and a table of what they cost."""
    names = {each["name"]: vocabulary_title(each) for each in view["vocabularies"]}
    parts = [note(t("tokens.note"))]
    for one in view["texts"]:
        parts.append(Markup('<h3 class="sentence"><bdi>{}</bdi></h3>').format(token_view.visible(one["text"])))
        parts.append(_costs(one, names))
        parts += [_tokens(row, names[row["vocabulary"]]) for row in one["rows"]]
    spans = [span for one in view["texts"] for row in one["rows"] for span in row["spans"]]
    if any(not span["known"] for span in spans):
        parts.append(note(t("tokens.unknown.note")))
    if any(not span["whole"] for span in spans):
        parts.append(note(t("tokens.part.note")))
    return joined(parts)


def vocabulary_title(vocabulary: Mapping[str, Any]) -> Markup:
    """What a vocabulary is called: its kind in both languages, its own name where it has one, and its size."""
    kind = t(f"tokens.kind.{vocabulary['kind']}")
    own = vocabulary["name"]
    if own not in (vocabulary["kind"], token_view.TITLES[vocabulary["kind"]]):
        kind = Markup("{} <code>{}</code>").format(kind, own)
    return t("tokens.vocabulary", kind=kind, ids=number(vocabulary["ids"]))


def _costs(one: Mapping[str, Any], names: Mapping[str, Markup]) -> Markup:
    columns = [t("tokens.vocabulary.column"), t("tokens.count"), t("tokens.unknown"), t("tokens.rate")]
    rows = [
        (
            names[row["vocabulary"]],
            number(row["tokens"]),
            number(row["unknown"]),
            number(row["characters_per_token"], 2),
        )
        for row in one["rows"]
    ]
    return table(columns, rows, "nrrr")


def _tokens(row: Mapping[str, Any], title: Markup) -> Markup:
    return Markup('<h4>{}</h4><p class="tokens">{}</p>').format(title, Markup("").join(map(_token, row["spans"])))


def _token(span: Mapping[str, Any]) -> Markup:
    shown = escape(token_view.visible(span["text"]))
    if not span["known"]:
        return Markup('<span class="unknown"><b>{}</b><i><em>unk</em> {}</i></span>').format(shown, span["id"])
    kind = Markup("") if span["whole"] else Markup(' class="part"')
    return Markup("<span{}><b>{}</b><i>{}</i></span>").format(kind, shown, span["id"])
