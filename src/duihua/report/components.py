"""The building blocks of the report's page: bilingual text, tables, cards, sections.

Why Markup and not strings: everything that comes from a model, a user or a file is escaped by the type itself. A plain
`str` that meets a `Markup` is escaped; only the few literals written here are trusted. Both languages stand in the page
and style sheet and switch choose one, so the page reads as English where scripts do not run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from duihua.console import PICTURES
from duihua.report.run_record import StageRecord, finite
from duihua.report.texts import TEXTS

_PICTURES = {code: picture for code, picture in PICTURES.items() if code not in (9, 10)}
"""Line ends and tabs stay."""


def both(en: object, zh: object) -> Markup:
    """Two languages as one piece of HTML, of which one is shown."""
    if en == zh:
        return escape(en)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(en, zh)


def t(key: str, **values: object) -> Markup:
    """The text of `key` in both languages; values are escaped unless they are Markup already.

    A value that is itself bilingual is a pair of spans of which the style sheet shows the right one.
    """
    text = TEXTS[key]
    return both(Markup(text.en).format(**values), Markup(text.zh).format(**values))


def either(value: Any) -> Markup:
    """Text that a stage wrote: plain, or a mapping {"en", "zh"}."""
    if isinstance(value, Mapping):
        return both(value.get("en", ""), value.get("zh", value.get("en", "")))
    return escape("" if value is None else value)


def visible(html: str) -> str:
    """The page with control characters shown as pictures: they would be invalid, or turn a line around."""
    return html.translate(_PICTURES)


def said(value: Any) -> Markup:
    """Text from a model or a person: a string or a list of messages."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = [str(message.get("content", "")) if isinstance(message, Mapping) else str(message) for message in value]
        value = "\n".join(parts)
    text = "" if value is None else str(value).strip()
    if not text:
        return Markup('<span class="muted">{}</span>').format(t("page.empty"))
    return Markup('<bdi class="said">{}</bdi>').format(text)


def dialogue(messages: Any, fallback: Any) -> Markup:
    """A prompt: one message as its text alone, several with who says what. `fallback` is the text where a run holds no
    messages."""
    listed = isinstance(messages, Sequence) and not isinstance(messages, str)
    turns = [message for message in messages if isinstance(message, Mapping)] if listed else []
    if len(turns) < 2:
        return Markup('<p class="prompt">{}</p>').format(said(turns[0].get("content") if turns else fallback))
    return Markup('<dl class="prompt">{}</dl>').format(Markup("").join(_turn(turn) for turn in turns))


def _turn(message: Mapping[str, Any]) -> Markup:
    role = str(message.get("role") or "")
    speaker = t(f"role.{role}") if f"role.{role}" in TEXTS else escape(role)
    kind = role if f"role.{role}" in TEXTS else "other"
    return Markup('<div class="turn {}"><dt>{}</dt><dd>{}</dd></div>').format(
        kind, speaker, said(message.get("content"))
    )


def number(value: Any, digits: int = 3) -> str:
    """A number as text: whole ones with separators, others with `digits` places, "–" for none, "NaN" for not finite.

    Below 0.01 two significant digits count instead: in three places a learning rate of 0.0005 would read 0.001.
    """
    if value is None or isinstance(value, bool | str | Mapping):
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    number_ = float(value)
    if not math.isfinite(number_):
        return "NaN"
    if number_ == 0:
        return "0"
    size = abs(number_)
    if size < 1e-4:
        return f"{number_:.1e}".replace("-", "−")
    text = f"{number_:,.{0 if size >= 1000 else 1 if size >= 100 else digits}f}"
    if size < 0.01:  # the longer of the two, so that 0.00999 keeps the look of its neighbours: 0.010
        text = max(text, f"{number_:.2g}", key=len)
    return text.replace("-", "−")


def rate(value: Any) -> str:
    """A small share with four places always, so that the figures of a column can be compared: 0.0005, 0.0430."""
    real = finite(value)
    return number(value) if real is None else f"{real:.4f}".replace("-", "−")


def brief(value: Any) -> str:
    """A number in four significant digits: for ranges, where the eye compares sizes and not columns."""
    real = finite(value)
    if real is None or real == 0 or abs(real) >= 1000 or isinstance(value, int):
        return number(value)
    return f"{real:.4g}".replace("-", "−") if abs(real) >= 1e-3 else number(real, 3)


def signed(value: Any, digits: int = 3) -> str:
    """A change: with its sign."""
    real = finite(value)
    return "–" if real is None else ("+" if real > 0 else "") + number(real, digits)


def compact(value: Any) -> str:
    """A count in few characters: 3.9M, 262k, 512."""
    real = finite(value)
    if real is None:
        return "–"
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(real) >= size:
            return f"{real / size:.3g}{letter}"
    return f"{real:g}"


def size_of(byte_count: Any) -> str:
    """Bytes as a person reads them."""
    real = finite(byte_count)
    if real is None or real == 0:
        return "–"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if real >= size:
            return f"{real / size:.3g} {unit}" if real < 1000 * size else f"{real / size:.0f} {unit}"
    return f"{real:.0f} B"


def duration(seconds: Any) -> Markup:
    """Seconds as a person reads them, in both languages."""
    real = finite(seconds)
    if real is None:
        return Markup("–")
    if real < 10:
        return t("time.seconds", seconds=f"{real:.1f}")
    whole = round(real)
    if whole < 60:
        return t("time.seconds", seconds=whole)
    if whole < 3600:
        return t("time.minutes", minutes=whole // 60, seconds=f"{whole % 60:02d}")
    return t("time.hours", hours=whole // 3600, minutes=f"{whole % 3600 // 60:02d}")


def stage_name(stage: StageRecord) -> Markup:
    """The stage's name in both languages, with the recipe's own name where that differs."""
    key, own = f"stage.{stage.stage}", f"stage.name.{stage.name}"
    kind = t(key) if key in TEXTS else escape(stage.stage)
    if stage.name == stage.stage:
        return kind
    return t("stage.named", stage=kind, name=t(own) if own in TEXTS else stage.name)


def estimate(value: Any, digits: int = 3) -> Markup:
    """A number, or one with its uncertainty: {value, low, high, n} or {value, standard_error, n}."""
    if not isinstance(value, Mapping):
        return escape(number(value, digits))
    text = escape(number(value.get("value"), digits))
    if finite(value.get("low")) is not None and finite(value.get("high")) is not None:
        text += Markup(' <span class="muted interval">[{}, {}]</span>').format(
            number(value["low"], digits), number(value["high"], digits)
        )
    elif finite(value.get("standard_error")) is not None:
        text += Markup(' <span class="muted">± {}</span>').format(number(value["standard_error"], digits))
    return text


def with_note(text: object, remark: object) -> Markup:
    """A cell with a second, quieter line below it; without a remark the text alone."""
    if not remark:
        return escape(text)
    return Markup('{}<span class="second-line">{}</span>').format(text, remark)


@dataclass(frozen=True)
class Group:
    """A row of a table that stands for itself above the rows that belong to it."""

    title: Markup


def table(columns: Sequence[object], rows: Iterable[Sequence[object] | Group], align: str) -> Markup:
    """A table that scrolls inside its own box. `align`: one letter a column, l text, r number, w text that may wrap,
    n a row's name, which wraps on a phone."""
    classes = {"l": "", "r": ' class="number"', "w": ' class="wrap"', "n": ' class="name"'}
    marks = [Markup(classes[letter]) for letter in align]
    assert len(marks) == len(columns), "one letter of `align` for each column"
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(mark, column) for mark, column in zip(marks, columns, strict=True)
    )
    body = Markup("").join(
        Markup('<tr class="group"><th colspan="{}" scope="rowgroup">{}</th></tr>').format(len(columns), row.title)
        if isinstance(row, Group)
        else Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td{}>{}</td>").format(mark, cell) for mark, cell in zip(marks, row, strict=True))
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll" tabindex="0"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, body)


def heading(text: object) -> Markup:
    """A heading inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def note(text: object) -> Markup:
    """A sentence of explanation."""
    return Markup('<p class="note">{}</p>').format(text)


def folded(summary: object, body: object, *, opened: bool = False) -> Markup:
    """Something that opens by a click (and in print)."""
    return Markup("<details{}><summary>{}</summary>{}</details>").format(
        Markup(" open") if opened else "", summary, body
    )


def joined(parts: Iterable[object]) -> Markup:
    """Pieces after each other."""
    return Markup("\n").join(parts)  # type: ignore[arg-type]
