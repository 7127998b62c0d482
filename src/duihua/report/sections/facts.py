"""The facts of a run: data and licences, time and size, every setting, how to make it again, and the glossary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import (
    both,
    compact,
    duration,
    either,
    folded,
    heading,
    joined,
    note,
    number,
    size_of,
    t,
    table,
)
from duihua.report.glossary import GLOSSARY
from duihua.report.run_record import RunRecord, StageRecord, finite
from duihua.report.summary import command_line
from duihua.report.texts import TEXTS


def data(record: RunRecord) -> Markup | None:
    """Sources with their terms, joined over the stages, and what fine-tuning left out."""
    rows, conversations, left_out = _terms(record), _conversations(record), _left_out(record)
    if not rows and not conversations and not left_out:
        return None
    parts = [note(t("data.note"))]
    if rows:
        columns = [t(f"column.{name}") for name in ("source", "language", "licence", "used_by", "records", "about")]
        parts.append(table(columns, rows, "llwwrw"))
    if conversations:
        columns = [t(f"column.{name}") for name in ("source", "language", "conversations", "tokens")]
        parts += [heading(t("data.conversations")), table(columns, conversations, "llrr")]
    parts += [heading(t("data.left_out")), note(t("data.left_out.note"))]
    if left_out:
        columns = [t(f"column.{name}") for name in ("stage", "source", "reason", "count", "place")]
        parts.append(table(columns, left_out, "llwrw"))
    else:
        parts.append(note(t("data.nothing_left_out")))
    return joined(parts)


def cost(record: RunRecord) -> Markup | None:
    """Per stage: how long, how much, how fast, how big."""
    if not record.stages:
        return None
    rows: list[tuple[object, ...]] = [
        (
            stage_name(stage),
            _status(stage.status),
            duration(stage.seconds),
            number(stage.result.get("steps")),
            compact(stage.result.get("tokens")),
            number(_rounded(stage.result.get("tokens_per_second"))),
            compact(stage.result.get("parameters")),
            size_of(stage.weights_bytes),
        )
        for stage in record.stages
    ]
    minutes = finite(record.run.get("minutes"))
    if minutes is not None:
        total = Markup("<b>{}</b>").format(duration(60 * minutes))
        rows.append((Markup("<b>{}</b>").format(t("cost.total")), "", total, "", "", "", "", ""))
    columns = [
        t(f"column.{name}") for name in ("stage", "status", "time", "steps", "tokens", "speed", "parameters", "size")
    ]
    return table(columns, rows, "llrrrrrr")


def settings(record: RunRecord) -> Markup | None:
    """Derived settings and the resolved config of each stage, folded."""
    parts: list[Markup] = []
    for stage in record.stages:
        derived = stage.result.get("settings")
        if isinstance(derived, Mapping) and derived:
            body = _setting_table(derived)
            parts.append(folded(t("settings.derived", stage=stage_name(stage)), body, opened=stage.stage == "pretrain"))
        if stage.config:
            parts.append(folded(t("settings.config", stage=stage_name(stage)), _setting_table(stage.config)))
    return joined([note(t("settings.note")), *parts]) if parts else None


def again(record: RunRecord) -> Markup | None:
    """The command, versions and machine."""
    run, parts = record.run, [note(t("again.note"))]
    command = command_line(record)
    if command:
        parts += [heading(t("again.command")), Markup('<pre class="command"><code>{}</code></pre>').format(command)]
    versions, machine = run.get("versions"), run.get("machine")
    if isinstance(versions, Mapping) and versions:
        parts.append(heading(t("again.versions")))
        parts.append(table((t("column.part"), t("column.version")), versions.items(), "ll"))
    if machine:
        parts.append(heading(t("again.machine")))
        stated = machine if isinstance(machine, Mapping) else {"machine": machine}
        more = {key: run[key] for key in ("device", "threads", "seed") if key in run}
        parts.append(_setting_table({**stated, **more}))
    return joined(parts) if len(parts) > 1 else None


def glossary(record: RunRecord) -> Markup | None:
    """Every word of the report, explained."""
    del record  # the words are the same for every run
    entries = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(both(*term), both(*meaning)) for term, meaning in GLOSSARY
    )
    return Markup('<dl class="glossary">{}</dl>').format(entries)


def stage_name(stage: StageRecord) -> Markup:
    """The stage's name in both languages, with the recipe's own name where that differs."""
    key = f"stage.{stage.stage}"
    name = t(key) if key in TEXTS else escape(stage.stage)
    return name if stage.name == stage.stage else Markup("{} ({})").format(name, stage.name)


def _status(status: str) -> Markup:
    key = f"run.{status}"
    return t(key) if key in TEXTS else escape(status)


def _rounded(value: Any) -> int | None:
    real = finite(value)
    return None if real is None else round(real)


def _terms(record: RunRecord) -> list[tuple[object, ...]]:
    merged: dict[str, dict[str, Any]] = {}
    users: dict[str, dict[str, Markup]] = {}
    for stage in record.stages:
        for terms in stage.result.get("terms") or []:
            if not isinstance(terms, Mapping):
                continue
            name = str(terms.get("name") or "")
            known = merged.setdefault(name, {})
            known.update({key: value for key, value in terms.items() if value not in (None, "") and key not in known})
            users.setdefault(name, {})[stage.name] = stage_name(stage)
    rows: list[tuple[object, ...]] = []
    for name, terms in merged.items():
        remarks = [either(terms[key]) for key in ("attribution", "note") if terms.get(key)]
        rows.append(
            (
                _source_name(name, terms.get("homepage")),
                _language(terms.get("language")),
                either(terms.get("licence") or "–"),
                Markup(" · ").join(users[name].values()),
                number(terms.get("records")),
                Markup("<br>").join(remarks),
            )
        )
    return rows


def _source_name(name: str, homepage: Any) -> Markup:
    """A link where the homepage is a web address; any other scheme stays text."""
    if isinstance(homepage, str) and homepage.startswith(("https://", "http://")):
        return Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(homepage, name)
    return escape(name)


def _language(code: Any) -> Markup:
    codes = (
        [str(one) for one in code] if isinstance(code, list | tuple) else str(code or "–").replace("+", ",").split(",")
    )
    named = [t(f"language.{one.strip()}") if f"language.{one.strip()}" in TEXTS else escape(one) for one in codes]
    return Markup(" · ").join(named)


def _conversations(record: RunRecord) -> list[tuple[object, ...]]:
    return [
        (
            str(source.get("name") or ""),
            _language(source.get("language")),
            number(source.get("conversations")),
            number(source.get("tokens")),
        )
        for source in record.result("sft").get("sources") or []
        if isinstance(source, Mapping)
    ]


def _left_out(record: RunRecord) -> list[tuple[object, ...]]:
    """Rows stage, source, reason, count, first place. Stages count by reason, some of them within each source or split."""
    rows: list[tuple[object, ...]] = []
    for stage in record.stages:
        counted = stage.result.get("left_out")
        groups: dict[str, Any] = {}
        if isinstance(counted, Mapping):
            groups = {"": counted} if "reasons" in counted else dict(counted)
        for source in stage.result.get("sources") or []:
            if isinstance(source, Mapping) and source.get("left_out"):
                groups[str(source.get("name") or "")] = {"reasons": source["left_out"]}
        for name, group in groups.items():
            reasons = group.get("reasons") if isinstance(group, Mapping) else None
            for reason, found in (reasons or {}).items():
                detailed = found if isinstance(found, Mapping) else {"count": found}
                if detailed.get("count"):
                    place = str(detailed.get("first") or "")
                    rows.append((stage_name(stage), name or "–", str(reason), number(detailed["count"]), place or "–"))
    return rows


def _setting_table(settings_: Mapping[str, Any]) -> Markup:
    rows = [
        (Markup("<code>{}</code>").format(path), Markup("<code>{}</code>").format(value))
        for path, value in _flat(settings_)
    ]
    return table((t("column.setting"), t("column.value")), rows, "lw")


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested settings as dotted paths; a list is entered only where it holds mappings."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{index}]")
    else:
        yield path, _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value) or "[]"
    if isinstance(value, Mapping):
        return "{}"
    return str(value)
