"""The facts of a run: time and size, every setting, how to make it again, and the glossary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import (
    both,
    compact,
    duration,
    folded,
    heading,
    joined,
    note,
    number,
    size_of,
    stage_name,
    t,
    table,
    with_note,
)
from duihua.report.glossary import GLOSSARY
from duihua.report.run_record import RunRecord, finite
from duihua.report.summary import command_line
from duihua.report.texts import TEXTS


def cost(record: RunRecord) -> Markup | None:
    """Per stage: how long, how much, how fast, how big."""
    if not record.stages:
        return None
    rows: list[tuple[object, ...]] = [
        (
            with_note(stage_name(stage), "" if stage.status == "finished" else _status(stage.status)),
            with_note(duration(stage.seconds), _counted("cost.steps", stage.result.get("steps"), number)),
            with_note(
                number(_rounded(stage.figure("tokens_per_second"))),
                _counted("amount.tokens", stage.figure("tokens"), compact),
            ),
            with_note(
                compact(stage.result.get("parameters") or stage.weights),
                size_of(stage.weights_bytes) if stage.weights_bytes else "",
            ),
        )
        for stage in record.stages
    ]
    minutes = finite(record.run.get("minutes"))
    if minutes is not None:
        total = Markup("<b>{}</b>").format(duration(60 * minutes))
        rows.append((Markup("<b>{}</b>").format(t("cost.total")), total, "", ""))
    columns = [t(f"column.{name}") for name in ("stage", "time", "speed", "parameters")]
    return joined([table(columns, rows, "nrrr"), note(t("cost.note"))])


def _counted(key: str, value: Any, shown: Callable[[Any], str]) -> Markup | str:
    """A count with its unit, or nothing where there is none."""
    return t(key, count=shown(value)) if finite(value) is not None else ""


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
        rows = [
            (_machine_part(path), Markup("<code>{}</code>").format(value)) for path, value in _flat({**stated, **more})
        ]
        body = table((t("column.part"), t("column.value")), rows, "lw")
        parts.append(Markup('<div class="settings">{}</div>').format(body))
    return joined(parts) if len(parts) > 1 else None


def _machine_part(name: str) -> Markup:
    """What a part of the machine is called in both languages, where it is one of ours."""
    key = f"machine.{name}"
    return t(key) if key in TEXTS else Markup("<code>{}</code>").format(name)


def glossary(record: RunRecord) -> Markup | None:
    """Every word of the report, explained."""
    del record  # the words are the same for every run
    entries = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(both(*term), both(*meaning)) for term, meaning in GLOSSARY
    )
    return Markup('<dl class="glossary">{}</dl>').format(entries)


def _status(status: str) -> Markup:
    key = f"run.{status}"
    return t(key) if key in TEXTS else escape(status)


def _rounded(value: Any) -> int | None:
    real = finite(value)
    return None if real is None else round(real)


def _setting_table(settings_: Mapping[str, Any]) -> Markup:
    rows = [
        (Markup("<code>{}</code>").format(path), Markup("<code>{}</code>").format(value))
        for path, value in _flat(settings_)
    ]
    return Markup('<div class="settings">{}</div>').format(table((t("column.setting"), t("column.value")), rows, "lw"))


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
