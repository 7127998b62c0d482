"""The data of a run: every source with its terms, what fine-tuning learnt from, and what was left out and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import (
    Group,
    compact,
    either,
    heading,
    joined,
    note,
    number,
    stage_name,
    t,
    table,
    with_note,
)
from duihua.report.run_record import RunRecord, StageRecord, dig, finite
from duihua.report.sections.reward_figures import kind_name
from duihua.report.sources import SourceFacts, sources
from duihua.report.texts import TEXTS
from duihua.report.translations import known


def data(record: RunRecord) -> Markup | None:
    """Sources with their terms, joined over the stages, and what was left out of them."""
    listed, conversations, pairs = sources(record), _conversations(record), _pairs(record)
    left_out, cut = _counted(record, "left_out"), _counted(record, "cut")
    if not (listed or conversations or pairs or left_out or cut):
        return None
    parts = [note(t("data.note"))]
    if listed:
        parts.append(Markup('<ul class="sources">{}</ul>').format(joined(_source(one) for one in listed)))
    if conversations:
        columns = [t(f"column.{name}") for name in ("source", "conversations", "tokens")]
        parts += [heading(t("data.conversations")), table(columns, conversations, "nrr")]
    if pairs:
        columns = [t(f"column.{name}") for name in ("kind", "training", "heldout")]
        parts += [heading(t("data.pairs")), table(columns, pairs, "nrr")]
    parts += [heading(t("data.left_out")), note(t("data.left_out.note"))]
    columns = [t(f"column.{name}") for name in ("reason", "count")]
    parts.append(table(columns, left_out, "wr") if left_out else note(t("data.nothing_left_out")))
    if cut:
        parts += [heading(t("data.cut")), note(t("data.cut.note")), table(columns, cut, "wr")]
    return joined(parts)


def _source(one: SourceFacts) -> Markup:
    """A source as a block: its name, language and amount in one line, its terms over the full width below."""
    facts = [_language(one.terms.get("language"))] if one.terms.get("language") else []
    facts += [t(f"amount.{unit}", count=compact(value)) for unit, value in one.amounts]
    licence, attribution, remark = (_stated(one.terms.get(key)) for key in ("licence", "attribution", "note"))
    if attribution:
        lines = [t("data.licence_by", licence=licence or "–", attribution=attribution)]
    else:
        lines = [t("data.licence", licence=licence or "–")]
    lines += [remark] if remark else []
    return Markup('<li><div class="head"><b>{}</b> <span>{}</span></div>{}<p class="muted">{}</p></li>').format(
        _source_name(one.name, one.terms.get("homepage")),
        Markup(" · ").join(facts),
        joined(Markup("<p>{}</p>").format(line) for line in lines),
        t("data.used_by", stages=Markup(" · ").join(stage_name(stage) for stage in one.stages)),
    )


def _stated(value: Any) -> Markup:
    """A sentence of the terms: in both languages as it came, or with its Chinese where that is known."""
    return either(value) if value is None or isinstance(value, Mapping) else known(value)


def _source_name(name: str, homepage: Any) -> Markup:
    """A link where the homepage is a web address; any other scheme stays text."""
    if isinstance(homepage, str) and homepage.startswith(("https://", "http://")):
        return Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(homepage, name)
    return escape(name)


def _language(code: Any) -> Markup:
    codes = [str(one) for one in code] if isinstance(code, list | tuple) else re.split(r"[+,-]", str(code or "–"))
    named = [t(f"language.{one.strip()}") if f"language.{one.strip()}" in TEXTS else escape(one) for one in codes]
    return Markup(" · ").join(named)


def _conversations(record: RunRecord) -> list[tuple[object, ...]]:
    return [
        (
            with_note(str(source.get("name") or ""), _language(source.get("language"))),
            number(source.get("conversations")),
            number(source.get("tokens")),
        )
        for source in record.result("sft").get("sources") or []
        if isinstance(source, Mapping)
    ]


def _pairs(record: RunRecord) -> list[Group | tuple[object, ...]]:
    """Rows kind, training and held-out pairs below the name of each stage that learnt from pairs."""
    rows: list[Group | tuple[object, ...]] = []
    for stage in record.stages:
        made = {name: dig(stage.result, f"pairs.{name}") for name in ("train", "heldout")}
        counts = {name: count for name, count in made.items() if isinstance(count, Mapping)}
        kinds = dict.fromkeys(kind for count in counts.values() for kind, pairs in count.items() if finite(pairs))
        if kinds:
            rows.append(Group(stage_name(stage)))
        rows += [
            (kind_name(kind), *(number(dig(made[name], kind)) for name in ("train", "heldout")))
            for kind in map(str, kinds)
        ]
    return rows


def _counted(record: RunRecord, key: str) -> list[Group | tuple[object, ...]]:
    """Rows reason and count below the name of each stage, the sources or splits that it was counted in added up."""
    rows: list[Group | tuple[object, ...]] = []
    for stage in record.stages:
        reasons = _by_reason(stage, key)
        if reasons:
            rows.append(Group(stage_name(stage)))
        for reason, places in reasons.items():
            rows.append((with_note(known(reason), _where(places)), number(sum(one.count for one in places))))
    return rows


@dataclass(frozen=True)
class _Place:
    """How often a reason was met in a source or split ("" where the stage counts as a whole), and where first."""

    group: str
    count: int
    first: str


def _by_reason(stage: StageRecord, key: str) -> dict[str, list[_Place]]:
    """Stages count by reason, some of them within each source or each split."""
    counted = stage.result.get(key)
    groups: dict[str, Any] = {}
    if isinstance(counted, Mapping):
        groups = {"": counted} if "reasons" in counted else dict(counted)
    for source in stage.result.get("sources") or []:
        if isinstance(source, Mapping) and source.get(key):
            groups[str(source.get("name") or "")] = {"reasons": source[key]}
    found: dict[str, list[_Place]] = {}
    for name, group in groups.items():
        reasons = group.get("reasons") if isinstance(group, Mapping) else None
        for reason, stated in (reasons if isinstance(reasons, Mapping) else {}).items():
            detailed = stated if isinstance(stated, Mapping) else {"count": stated}
            count = finite(detailed.get("count"))
            if count:
                found.setdefault(str(reason), []).append(_Place(name, int(count), str(detailed.get("first") or "")))
    return dict(sorted(found.items(), key=lambda item: -sum(one.count for one in item[1])))


def _where(places: list[_Place]) -> Markup:
    """The second line of a reason: its share in each source or split, and where it was first met."""
    parts = [
        Markup("{}\u00a0{}").format(t(f"split.{one.group}"), number(one.count))
        if f"split.{one.group}" in TEXTS
        else escape(f"{one.group}\u00a0{one.count:,}")
        for one in places
        if one.group
    ]
    first = places[0].first
    if first and first != places[0].group:
        parts.append(t("data.first", place=first))
    return Markup(" · ").join(parts)
