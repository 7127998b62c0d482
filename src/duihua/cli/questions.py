"""What `duihua classify --predict` reads: lines or rows, each one example of the classifier's task.

Why nothing is passed over: the answers stand in the order of the examples, and a reader pairs them line by line. A line
that gives no example is therefore an error that names file and line, not a gap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from duihua.data.columns import TRIED, TRIED_LABELLED
from duihua.data.lines import STANDARD_INPUT, stream_lines
from duihua.data.rows import TEXT_SUFFIXES, Fault, Row, form_of, read_rows
from duihua.engine.classifier_model import Question
from duihua.errors import DataError
from duihua.text.task_inputs import Task, text_count


def read_questions(
    file: str, task: Task, columns: Sequence[str] = (), form: str = "txt"
) -> Iterator[tuple[Question, str]]:
    """(question, place) for every example of `file` ("-": standard input), in order.

    columns: names of the columns with the texts (for choices: context and options), empty for the usual ones. form: of
    standard input, txt or jsonl. Raises DataError naming file and line for anything that is no example.
    """
    if columns and len(columns) != _column_count(task):
        raise DataError(
            f"{task} reads {_column_count(task)} columns, found {len(columns)}",
            where="--columns",
            remedy="Name as many",
        )
    if file != "-" and form_of(Path(file)) not in TEXT_SUFFIXES:
        return _from_rows(read_rows(Path(file)), task, columns)
    if file == "-" and form == "jsonl":
        return _from_rows(_json_rows(_placed_lines(file)), task, columns)
    if columns:
        raise DataError("lines of plain text have no columns", where="--columns", remedy="Leave it out")
    return _from_lines(_placed_lines(file), task)


def _column_count(task: Task) -> int:
    return 2 if task == "multiple_choice" else text_count(task)


def _from_lines(lines: Iterator[tuple[str, str]], task: Task) -> Iterator[tuple[Question, str]]:
    """One example a line, its parts separated by tabs."""
    for line, place in lines:
        parts = [line] if task == "classification" else line.split("\t")
        if not all(part.strip() for part in parts):
            raise DataError("an empty text", where=place, remedy="Write a text on every line")
        if task == "multiple_choice":
            yield Question((parts[0],), tuple(parts[1:])), place
        else:
            if len(parts) != text_count(task):
                raise DataError(
                    f"{task} needs two texts with a tab between them, found {len(parts)}",
                    where=place,
                    remedy="Write both, or give a file with columns",
                )
            yield Question(tuple(parts)), place


def _from_rows(rows: Iterator[Row | Fault], task: Task, columns: Sequence[str]) -> Iterator[tuple[Question, str]]:
    names: Sequence[str] = ()
    for row in rows:
        if isinstance(row, Fault):
            raise DataError(row.reason, where=row.place, remedy="Mend the line")
        names = names or columns or _usual_columns(row, task)
        if task == "multiple_choice":
            yield Question((_text(row, names[0]),), _options(row, names[1])), row.place
        else:
            yield Question(tuple(_text(row, name) for name in names)), row.place


def _usual_columns(row: Row, task: Task) -> list[str]:
    pair = [TRIED_LABELLED["text"], TRIED["text_b"]]
    wanted = [TRIED["context"], TRIED["options"]] if task == "multiple_choice" else pair[: text_count(task)]
    found = []
    for tried in wanted:
        name = next((name for name in tried if name in row.values), None)
        if name is None:
            raise DataError(
                f"no column of the names {', '.join(tried)}; there are {', '.join(map(str, row.values)) or 'none'}",
                where=row.place,
                remedy=f"Name them: --columns {'A,B' if _column_count(task) == 2 else 'A'}",
            )
        found.append(name)
    return found


def _text(row: Row, name: str) -> str:
    value = row.values.get(name)
    if not isinstance(value, str) or not value.strip():
        problem = f"the column {name!r} holds no text" if name in row.values else f"no column {name!r}"
        raise DataError(problem, where=row.place, remedy=f"There are {', '.join(map(str, row.values))}")
    return value


def _options(row: Row, name: str) -> tuple[str, ...]:
    """A list of texts, or its JSON (in CSV)."""
    value: Any = row.values.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, Mapping):
        value = value.get("text")
    if not isinstance(value, list) or not all(isinstance(option, str) and option.strip() for option in value):
        raise DataError(f"the column {name!r} holds no list of texts", where=row.place, remedy='Write ["a", "b"]')
    return tuple(value)


def _placed_lines(file: str) -> Iterator[tuple[str, str]]:
    """(line, file:line) of a text file or of standard input."""
    name = STANDARD_INPUT if file == "-" else file
    for number, line in enumerate(stream_lines(file), start=1):
        yield line, f"{name}:{number}"


def _json_rows(lines: Iterator[tuple[str, str]]) -> Iterator[Row | Fault]:
    for line, place in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Fault("bad JSON", place)
            continue
        yield Row(value, place) if isinstance(value, dict) else Fault("not an object", place)
