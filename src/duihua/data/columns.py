"""Rows to records: which column holds what, and what makes a row unusable.

The common forms of public data are known: a text column; pairs of texts in two languages; conversations and preferences
(`message_columns.py`); labelled texts, pairs and multiple choice (`labelled_columns.py`). `plan_columns` settles the columns
once, on the first row, so that a wrong name is one clear error and not a million silent misses; `to_record` then turns each
row into a record or raises `BadRecordError`, which readers count and the checker lists.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from duihua.data.labelled_columns import choice, labelled
from duihua.data.message_columns import conversation, preference
from duihua.data.records import BadRecordError, Document, Kind, LeftOut, Parallel, Record, detect_language
from duihua.data.source import ColumnsConfig
from duihua.errors import DataError

TRIED = {
    "text": ("text", "content", "document", "article"),
    "messages": ("messages", "conversations", "conversation", "dialog"),
    "system": ("system",),
    "tools": ("tools",),
    "instruction": ("instruction", "question", "query", "prompt"),
    "input": ("input", "context"),
    "output": ("output", "response", "answer", "reply", "completion"),
    "prompt": ("prompt", "instruction", "question", "conversations", "messages"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "text_b": ("text_b", "sentence2", "hypothesis", "question2"),
    "label": ("label", "class", "category", "labels"),
    "context": ("context", "ctx", "question", "query", "goal", "premise"),
    "options": ("options", "choices", "endings"),
    "answer": ("answer", "gold", "label", "answerKey", "answer_key"),
    "first": ("source", "src", "sentence1"),
    "second": ("target", "tgt", "sentence2"),
}
"""Names tried for each part where the config names no column."""

TRIED_LABELLED = {"text": (*TRIED["text"], "sentence", "review", "sentence1", "premise", "question1")}
"""What is tried instead where the records are labelled."""

NEEDED: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "text": (("text",),),
    "conversations": (("messages",), ("instruction", "output")),
    "preferences": (("chosen", "rejected"),),
    "labelled": (("text", "label"),),
    "choices": (("context", "options", "answer"),),
    "parallel": (("first", "second"),),
}
"""Parts that a record of each kind cannot do without, one alternative after the other."""

PREFERENCES: Kind = "preferences"
CONVERSATIONS: Kind = "conversations"

KEPT: dict[tuple[str, ...], tuple[str, ...]] = {
    ("messages",): ("system", "tools"),
    ("instruction", "output"): ("system", "tools", "input"),
    ("chosen", "rejected"): ("prompt", "system"),
    ("text", "label"): ("text_b",),
}
"""Parts that are used beside the needed ones where they are there."""


@dataclass(frozen=True)
class ColumnPlan:
    """The settled columns: part ("text", "messages", "chosen", ...) -> the column's name."""

    kind: Kind
    columns: Mapping[str, str]

    def get(self, row: Mapping[str, Any], part: str) -> Any:
        """The row's value for a part; None where the plan or the row has none."""
        column = self.columns.get(part)
        return None if column is None else row.get(column)


def plan_columns(kind: Kind, config: ColumnsConfig, available: Iterable[str], where: str) -> ColumnPlan:
    """Settle the columns for rows that have the columns `available`.

    Raises DataError naming `where` (file and line), the available columns and the nearest to the one missing.
    """
    names = [name for name in available if isinstance(name, str)]
    found: dict[str, str] = {}
    usual_of = {**TRIED, **TRIED_LABELLED} if kind == "labelled" else TRIED
    for part, tried in usual_of.items():
        asked = getattr(config, part)
        if asked:
            if asked not in names:
                raise _no_column(f"no column {asked!r}", [part], [asked], names, where)
            found[part] = asked
        else:
            usual = next((name for name in tried if name in names), None)
            if usual is not None:
                found[part] = usual
    needed = NEEDED[kind]
    for parts in needed:
        if all(part in found for part in parts):
            beside = {part: found.get(part) or _only(usual_of[part]) for part in KEPT.get(parts, ())}
            return ColumnPlan(
                kind, {part: found[part] for part in parts} | {part: name for part, name in beside.items() if name}
            )
    missing = [part for part in needed[0] if part not in found]
    usual_names = " or ".join(" + ".join(parts) for parts in needed)
    other = _looks_like(names)
    if other and other != kind:
        raise DataError(
            f"no column for {kind} ({usual_names}); the columns are: {', '.join(names)}",
            where=where,
            remedy=f"They look like {other}: set `kind: {other}`, on the command line --kind {other}",
        )
    raise _no_column(f"no column for {kind} ({usual_names})", missing, missing, names, where)


def _looks_like(names: list[str]) -> Kind | None:
    """The kind of records whose usual columns stand there: preferences or conversations."""
    for kind in (PREFERENCES, CONVERSATIONS):
        if any(all(any(name in names for name in TRIED[part]) for part in parts) for parts in NEEDED[kind]):
            return kind
    return None


def _only(tried: tuple[str, ...]) -> str:
    """The one name that is tried for a part. It is looked for in every row: the first may lack what others of its file have,
    such as a system message or tools, and that would be lost in silence."""
    return tried[0] if len(tried) == 1 else ""


def _no_column(problem: str, parts: list[str], asked: list[str], names: list[str], where: str) -> DataError:
    """parts: those of a record that have no column; asked: the name that each was looked for by, of which the first is shown
    with a column that is nearly called so."""
    near = difflib.get_close_matches(asked[0], names, n=1, cutoff=0.5)
    if near and parts[0] in ("chosen", "rejected") and near[0][:4].lower() != asked[0][:4].lower():
        near = []  # `worse` is not `chosen`, though five letters are: a pair turned round teaches the opposite
    if near:
        hint = f"Did you mean {near[0]!r}? Set columns.{parts[0]}, on the command line --column {parts[0]}={near[0]}"
    else:
        settings = " and ".join(f"columns.{part}" for part in parts)
        flags = " ".join(f"--column {part}=NAME" for part in parts)
        hint = f"Name the right column{'s' * (len(parts) > 1)} in {settings}, on the command line {flags}"
    return DataError(f"{problem}; the columns are: {', '.join(names) or 'none'}", where=where, remedy=hint)


def to_record(
    row: Mapping[str, Any],
    plan: ColumnPlan,
    source: str,
    language: str = "",
    notes: LeftOut | None = None,
    place: str = "",
) -> Record:
    """The row's record; BadRecordError where it gives none. A part left out of a usable record is counted in `notes`."""
    if plan.kind == "text":
        text = plan.get(row, "text")
        if not isinstance(text, str):
            raise BadRecordError("missing or not a text", plan.columns["text"])
        if not text.strip():
            raise BadRecordError("empty text", plan.columns["text"])
        return Document(text, source, language or detect_language(text))
    if plan.kind == "labelled":
        return labelled(row, plan.columns, source, language)
    if plan.kind == "choices":
        return choice(row, plan.columns, source, language)
    if plan.kind == "parallel":
        return _parallel(row, plan, source, language)
    if plan.kind == "conversations":
        return conversation(row, plan.columns, source, language, notes, place)
    return preference(row, plan.columns, source, language)


def _parallel(row: Mapping[str, Any], plan: ColumnPlan, source: str, language: str) -> Parallel:
    """language: both, as "fr-en"."""
    texts = []
    for part in ("first", "second"):
        text = plan.get(row, part)
        if not isinstance(text, str):
            raise BadRecordError("missing or not a text", plan.columns[part])
        if not text.strip():
            raise BadRecordError("empty side", plan.columns[part])
        texts.append(" ".join(text.split()))
    first, _, second = language.partition("-")
    return Parallel((texts[0], texts[1]), (first, second), source)
