"""Everything that a command prints goes through here.

Why one place: with `--json` standard output carries exactly one JSON object, so everything that people read must move
to standard error; and when nobody watches (a pipe, a log, CI) lines must be plain, without colours or redrawn bars.
A process has one standard output, so whether it speaks JSON is a fact of the process: `_Mode` below is the one switch.
rich is imported only when a bar is drawn on a terminal, which keeps `duihua --help` quick.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO


class _Mode:
    """Whether standard output is kept for one JSON object, and whether nothing is said to people."""

    json = False
    silent = False


_mode = _Mode()

PLAIN_INTERVAL_SECONDS = 20.0


def json_mode() -> bool:
    """Whether this command was asked for `--json`."""
    return _mode.json


@contextmanager
def json_output(on: bool = True) -> Iterator[None]:
    """Keep standard output for `emit_json` inside the block (when `on`); everything else goes to standard error."""
    before, _mode.json = _mode.json, on or _mode.json
    try:
        yield
    finally:
        _mode.json = before


@contextmanager
def silence() -> Iterator[None]:
    """Inside, nothing is printed: of several processes that do the same work one speaks."""
    before, _mode.silent = _mode.silent, True
    try:
        yield
    finally:
        _mode.silent = before


def _out() -> TextIO:
    return sys.stderr if _mode.json else sys.stdout


def say(text: str = "") -> None:
    """Print a line for people: standard output, or standard error under `--json`."""
    if _mode.silent:
        return
    print(text, file=_out(), flush=True)


def pieces(parts: Sequence[tuple[str, str]], indent: str = "") -> None:
    """Print pieces of text (text, rich style) one after the other: in their styles on a terminal, elsewhere between bars."""
    stream = _out()
    if _mode.silent or not stream.isatty():
        say(f"{indent}|{'|'.join(text for text, _ in parts)}|")
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=stream, highlight=False, soft_wrap=True).print(Text.assemble(indent, *parts))


def warn(text: str) -> None:
    """Print a line on standard error: something that went differently from what was asked, but goes on."""
    if _mode.silent:
        return
    print(text, file=sys.stderr, flush=True)


def emit_json(value: Any) -> None:
    """Print the command's one JSON object on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2), file=sys.stdout, flush=True)


def counted(number: int, noun: str) -> str:
    """`1 prompt`, `1,200 prompts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal: Chinese characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)


PICTURES = {code: chr(0x2400 + code) for code in range(32)} | {127: "␡"}
PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "�")
"""Control characters, and the marks that turn a line around, as pictures: what is shown may be of anybody, and must steer
neither a terminal nor a page."""


def harmless(text: str) -> str:
    """Text of others for a line on a terminal."""
    return text.translate(PICTURES)


def format_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as plain text; columns whose values are all numbers are set to the right."""
    cells = [[harmless(_cell(value)) for value in row] for row in rows]
    widths = [
        max(display_width(text) for text in [column, *(row[index] for row in cells)])
        for index, column in enumerate(columns)
    ]
    right = [
        bool(rows) and all(row[index] is None or isinstance(row[index], int | float) for row in rows)
        for index in range(len(columns))
    ]

    def line(texts: Sequence[str]) -> str:
        padded = []
        for text, width, to_right in zip(texts, widths, right, strict=True):
            space = " " * (width - display_width(text))
            padded.append(space + text if to_right else text + space)
        return "  ".join(padded).rstrip()

    lines = [title] if title else []
    lines += [line(list(columns)), "  ".join("-" * width for width in widths)]
    lines += [line(row) for row in cells]
    return "\n".join(lines)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table (title, column names, rows of texts and numbers)."""
    say(format_table(title, columns, rows))


class Progress(Protocol):
    """What `progress` gives: call `advance` after each piece of work."""

    def advance(self, n: float = 1, **metrics: Any) -> None:
        """`n` more units are done; `metrics` (loss=3.2) are shown beside the bar."""


def duration(seconds: float) -> str:
    """`75` -> `1m15s`: seconds for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _metrics_text(metrics: dict[str, Any]) -> str:
    return " ".join(f"{name} {_cell(value)}" for name, value in metrics.items())


class _PlainProgress:
    """A line now and then, for logs and pipes: done, rate, remaining time."""

    def __init__(self, total: float | None, unit: str, label: str, before: float = 0.0) -> None:
        self.total, self.unit, self.label, self.before = total, unit, label, before
        self.done = before
        self.metrics: dict[str, Any] = {}
        self.began = self.shown = time.monotonic()

    def advance(self, n: float = 1, **metrics: Any) -> None:
        self.done += n
        self.metrics.update(metrics)
        if time.monotonic() - self.shown >= PLAIN_INTERVAL_SECONDS:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        elapsed = self.shown - self.began
        rate = (self.done - self.before) / elapsed if elapsed > 0 else 0.0
        text = f"{self.label}: {self.done:,.0f}"
        if self.total is not None:
            text += f"/{self.total:,.0f}"
        text += f" {self.unit}, {rate:,.4g} {self.unit}/s"
        if self.total is not None and rate > 0 and self.done < self.total:
            text += f", {duration((self.total - self.done) / rate)} left"
        else:
            text += f", {duration(elapsed)}"
        if self.metrics:
            text += f", {_metrics_text(self.metrics)}"
        say(text)


class _BarProgress:
    """A bar drawn by rich on a terminal."""

    def __init__(self, bar: Any, task: Any) -> None:
        self.bar, self.task = bar, task
        self.metrics: dict[str, Any] = {}

    def advance(self, n: float = 1, **metrics: Any) -> None:
        self.metrics.update(metrics)
        self.bar.update(self.task, advance=n, metrics=_metrics_text(self.metrics))


@contextmanager
def progress(total: float | None, unit: str, label: str, before: float = 0.0) -> Iterator[Progress]:
    """Show work of `total` units (None: unknown) with its rate and remaining time while the block runs. before: units that an
    earlier run has done; they are shown as done and count for no speed.

    On a terminal a bar; elsewhere one plain line every 20 seconds and one at the end.
    """
    stream = _out()
    if _mode.silent or not stream.isatty():
        plain = _PlainProgress(total, unit, label, before)
        try:
            yield plain
        finally:
            plain.show()
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Units a second, by rich's moving average."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.4g} {unit}/s")

    with RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[metrics]}"),
        console=Console(file=stream),
        speed_estimate_period=60,
    ) as bar:
        yield _BarProgress(bar, bar.add_task(label, total=total, completed=int(before), metrics=""))
