"""Rows to labelled examples and choices: the forms in which public sets write classes, options and right answers.

A class is a name: a text, or a whole number or truth value, whose digits become the name. Options are a list of texts (or
its JSON, for CSV), or the pair of lists that ARC and CommonsenseQA use, {"text": [...], "label": ["A", ...]}. The right one
is given as an index from 0, by its name in that pair, as the text of an option, or by a letter; anything else is a bad
record and not a guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from duihua.data.records import BadRecordError, Choice, Labelled, detect_language


def labelled(row: Mapping[str, Any], columns: Mapping[str, str], source: str, language: str = "") -> Labelled:
    """The row's labelled text or pair; columns: text, label and perhaps text_b -> their names in the row."""
    texts = tuple(_text(row.get(columns[part]), columns[part]) for part in ("text", "text_b") if part in columns)
    return Labelled(
        texts, class_name(row.get(columns["label"]), columns["label"]), source, language or detect_language(texts[0])
    )


def choice(row: Mapping[str, Any], columns: Mapping[str, str], source: str, language: str = "") -> Choice:
    """The row's choice; columns: context, options and answer -> their names in the row."""
    context = _text(row.get(columns["context"]), columns["context"])
    options, names = _options(row.get(columns["options"]), columns["options"])
    answer = _answer(row.get(columns["answer"]), options, names, columns["answer"])
    if options.count(options[answer]) > 1:
        raise BadRecordError("the right option stands twice", columns["options"])
    return Choice(context, options, answer, source, language or detect_language(context))


def class_name(value: Any, field: str) -> str:
    """The name of a class: trimmed text, or the digits of a whole number; true and false are 1 and 0."""
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps becomes one of floats
        return str(int(value))
    if not isinstance(value, str):
        raise BadRecordError("the label is missing, or neither a text nor a whole number", field)
    if not value.strip():
        raise BadRecordError("empty label", field)
    return value.strip()


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise BadRecordError("missing or not a text", field)
    if not value.strip():
        raise BadRecordError("empty text", field)
    return value.strip()


def _options(value: Any, field: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(texts, names); names are empty where the options have none."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRecordError("bad JSON in an options column", field) from error
    names: Any = []
    if isinstance(value, Mapping):
        value, names = value.get("text"), value.get("label", [])
    if not isinstance(value, list) or len(value) < 2:
        raise BadRecordError("not a list of two or more options", field)
    options = tuple(_text(text, f"{field}[{index}]") for index, text in enumerate(value))
    if not isinstance(names, list) or len(names) not in (0, len(options)):
        raise BadRecordError("options and their names differ in number", field)
    return options, tuple(str(name).strip() for name in names)


def _answer(value: Any, options: tuple[str, ...], names: tuple[str, ...], field: str) -> int:
    """Index of the right option."""
    if isinstance(value, int) and not isinstance(value, bool):
        index = value
    elif isinstance(value, str) and value.strip() in names:
        index = names.index(value.strip())
    elif isinstance(value, str) and value.strip() in options:
        index = options.index(value.strip())
    elif isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        index = int(value.strip())
    elif isinstance(value, str) and len(value.strip()) == 1 and "A" <= value.strip() <= "Z":
        index = ord(value.strip()) - ord("A")
    else:
        raise BadRecordError("the answer is neither an index nor one of the options", field)
    if not 0 <= index < len(options):
        raise BadRecordError("the answer is an index beyond the options (they count from 0)", field)
    return index
