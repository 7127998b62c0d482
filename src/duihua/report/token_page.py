"""A view of tokens (text/token_view.py) as HTML: a piece for the report, and a page of its own that opens anywhere.

Why ids stand under the tokens and not in a list: which id is which token is what one wants to see. Colour only separates
neighbours; what a token is, unknown or a part of a character, is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import joined, note, number, t, table
from duihua.report.document import document
from duihua.text import token_view
from duihua.version import __version__

CONTENT = Markup("""<main class="alone">
<h1>{title}</h1>
{body}
<footer class="end">{footer}</footer>
</main>
""")


def token_page(view: Mapping[str, Any]) -> str:
    """The whole page of a view."""
    content = CONTENT.format(
        title=t("tokens.title"), body=token_fragment(view), footer=t("page.footer", version=__version__)
    )
    return document("Tokens 词元", content)


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
