"""The same sentences under the run's tokenizer and under characters and words learnt from the same text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from duihua.errors import DuihuaError
from duihua.files import read_json
from duihua.report.components import heading, joined, note, number, t, table
from duihua.report.run_record import RunRecord, dig, finite
from duihua.report.token_page import token_fragment, vocabulary_title

LANGUAGES = ("en", "zh")
VIEW_FILE = "token_view.json"
"""As the tokenizer stage writes it; a run made before that has none, and its report no such section."""


def tokens(record: RunRecord) -> Markup | None:
    """What each vocabulary costs on held-out text, then the sentences."""
    stage = record.stage("tokenizer")
    path = None if stage is None else stage.directory / VIEW_FILE
    if path is None or not path.is_file():
        return None
    try:
        view = read_json(path)
        return joined([*_heldout(view), heading(t("tokens.sentences")), token_fragment(view)])
    except (DuihuaError, KeyError, TypeError, AttributeError):  # cut off or of another version: no reason for no report
        return note(t("tokens.unreadable", file=VIEW_FILE))


def _heldout(view: Mapping[str, Any]) -> list[Markup]:
    costs = view.get("heldout")
    if not isinstance(costs, Mapping):
        return []
    columns = [t("tokens.vocabulary.column"), *(t(f"language.{code}") for code in LANGUAGES)]
    boxes = []
    for title, key, form in (
        (t("tokens.rate"), "characters_per_token", lambda value: number(value, 2)),
        (t("tokens.unknown"), "unknown_share", _percent),
    ):
        rows = [
            (vocabulary_title(each), *(form(dig(costs, f"{each['name']}.{code}.{key}")) for code in LANGUAGES))
            for each in view["vocabularies"]
        ]
        boxes.append(Markup("<div><h4>{}</h4>{}</div>").format(title, table(columns, rows, "nrr")))
    tables = Markup('<div class="tables">{}</div>').format(joined(boxes))
    return [heading(t("tokens.heldout")), note(t("tokens.heldout.note")), tables]


def _percent(share: object) -> str:
    real = finite(share)
    return "–" if real is None else f"{real:.1%}"
