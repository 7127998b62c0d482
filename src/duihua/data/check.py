"""The checker: everything that is wrong with a source, each with file, line and field, and nothing fixed in silence.

It reads through the same code as training (`rows.py`, `columns.py`), so what it counts is what a stage would leave out.
Beyond single records it looks for records that are too long, for exact and near duplicates, and for leakage: a held-out
record that repeats a training record, or a held-out prompt that training answers; and, among labelled examples, for one
text under two labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from duihua.data.near_duplicates import DuplicateIndex
from duihua.data.parallel.groups import side_keys
from duihua.data.parallel.own_files import ParallelApart, ParallelFiles
from duihua.data.records import (
    ALL_HELD_OUT,
    Choice,
    Conversation,
    Document,
    Labelled,
    LeftOut,
    Parallel,
    Preference,
    Record,
    Split,
    first_user_message,
    is_held_out,
    normalised,
    record_text,
)
from duihua.data.rows import Fault
from duihua.data.source import Source
from duihua.data.user_files import UserFiles
from duihua.data.views import ApartSource

EXACT, NEAR, LEAK, PROMPT_LEAK, TWO_LABELS, SIDE_LEAK, EMPTY = (
    "exact duplicate",
    "near duplicate",
    "held-out record repeats a training record",
    "held-out prompt is asked in training",
    "the same text has another label elsewhere",
    "held-out text stands in training, on the same side",
    "holds no record",
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and with which other place it has to do."""

    reason: str
    place: str
    other_place: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" + (f" ({self.other_place})" if self.other_place else "")


@dataclass
class CheckReport:
    """What was found in a source."""

    source: str
    records: Counter[str] = field(default_factory=Counter)
    """Usable records of each split."""
    languages: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    """Label -> usable records of both splits, of labelled sources."""
    problems: Counter[str] = field(default_factory=Counter)
    """Reason -> how often."""
    examples: dict[str, list[Problem]] = field(default_factory=dict)
    """Reason -> its first cases."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """What a stage would leave out. Duplicates and over-long records are told, not left out here."""
    examples_kept: int = 20

    def add(self, problem: Problem) -> None:
        """Count a problem and keep it while examples of its reason are few."""
        self.problems[problem.reason] += 1
        kept = self.examples.setdefault(problem.reason, [])
        if len(kept) < self.examples_kept:
            kept.append(problem)

    @property
    def clean(self) -> bool:
        """Whether nothing at all was found."""
        return not self.problems and not self.left_out.total

    def to_mapping(self) -> dict[str, Any]:
        """For --json and for storing beside a run."""
        return {
            "source": self.source,
            "records": dict(self.records),
            "languages": dict(self.languages),
            "characters": self.characters,
            "labels": dict(self.labels),
            "clean": self.clean,
            "problems": [
                {
                    "reason": reason,
                    "count": count,
                    "examples": [
                        {"place": each.place, "other_place": each.other_place} for each in self.examples[reason]
                    ],
                }
                for reason, count in self.problems.most_common()
            ],
            "left_out": self.left_out.to_mapping(),
        }


@dataclass(frozen=True)
class LengthLimit:
    """What counts as too long: more than `most` of `unit`, as `measure` counts them."""

    most: int
    unit: str
    measure: Callable[[str], int]


CHARACTER_LIMIT = LengthLimit(8000, "characters", len)
"""About 2,000 tokens of English; in a small model's context fits less: give its tokenizer to know."""


def check(
    source: Source,
    heldout: Source | None = None,
    limit: LengthLimit = CHARACTER_LIMIT,
    duplicates: bool = True,
    advance: Callable[[int], None] | None = None,
    examples: int = 20,
) -> CheckReport:
    """Read a source whole and report. With `heldout`, the first is training data and the second held-out data as a
    whole; without it the source's own split is looked at. Memory: about a kilobyte a record with `duplicates`.

    Raises DataError where a source cannot be read at all: missing file, wrong column.
    """
    if heldout is None and isinstance(source, ApartSource) and not isinstance(source, ParallelApart):
        heldout, source = source.heldout, source.train
    report = CheckReport(source.name, examples_kept=examples)
    index = DuplicateIndex() if duplicates else None
    seen: list[tuple[Split, str]] = []
    prompts: dict[bytes, dict[Split, str]] = {}
    answers: dict[bytes, tuple[str, str]] = {}
    for split, record, place in _all(source, heldout, report):
        if advance is not None:
            advance(1)
        text = record_text(record)
        report.records[split] += 1
        report.languages[record.language] += 1
        report.characters += len(text)
        if not isinstance(record, Document):
            length = limit.measure(text)
            if length > limit.most:
                report.add(Problem(f"longer than {limit.most} {limit.unit}", place, f"{length} {limit.unit}"))
        if isinstance(record, Conversation | Preference):
            _prompt_leak(record, split, place, prompts, report)
        elif isinstance(record, Labelled | Choice):
            _two_answers(record, place, answers, report)
        elif isinstance(record, Parallel):
            _side_leak(record, split, place, prompts, report)
        if index is None:
            continue
        repeated = index.add(len(seen), text)
        seen.append((split, place))
        if repeated is not None:
            first_split, first_place = seen[repeated[0]]
            kind = "the same as" if repeated[1] else "nearly the same as"
            if first_split != split:
                held, trained = (place, first_place) if split == "heldout" else (first_place, place)
                report.add(Problem(LEAK, held, f"{kind} {trained}"))
            else:
                report.add(Problem(EXACT if repeated[1] else NEAR, place, f"{kind} {first_place}"))
    if report.clean and not report.records.total():
        report.add(Problem(EMPTY, source.name))
    if report.records["heldout"] and not report.records["train"]:
        report.add(Problem(ALL_HELD_OUT, source.name))
    return report


def _prompt_leak(
    record: Conversation | Preference,
    split: Split,
    place: str,
    prompts: dict[bytes, dict[Split, str]],
    report: CheckReport,
) -> None:
    """Note where a first user message was met, and tell when it is met on both sides."""
    prompt = first_user_message(record.messages if isinstance(record, Conversation) else record.prompt)
    key = hashlib.sha256((normalised(prompt) or prompt).encode("utf-8", "surrogatepass")).digest()[:16]
    places = prompts.setdefault(key, {})
    other: Split = "train" if split == "heldout" else "heldout"
    if other in places and split not in places:
        held, trained = (place, places[other]) if split == "heldout" else (places[other], place)
        report.add(Problem(PROMPT_LEAK, held, f"as in {trained}"))
    places.setdefault(split, place)


def _side_leak(
    record: Parallel, split: Split, place: str, sides: dict[bytes, dict[Split, str]], report: CheckReport
) -> None:
    """Note where each side of a pair was met, and tell when one is met in training and held out."""
    other: Split = "train" if split == "heldout" else "heldout"
    for key in side_keys(record.texts):
        places = sides.setdefault(key, {})
        if other in places and split not in places:
            held, trained = (place, places[other]) if split == "heldout" else (places[other], place)
            report.add(Problem(SIDE_LEAK, held, f"as in {trained}"))
        places.setdefault(split, place)


def _two_answers(
    record: Labelled | Choice, place: str, answers: dict[bytes, tuple[str, str]], report: CheckReport
) -> None:
    """Note the label (or right option) of a text, and tell when the same text has another one."""
    answer = record.label if isinstance(record, Labelled) else record.options[record.answer]
    if isinstance(record, Labelled):
        report.labels[record.label] += 1
    text = record_text(record)
    key = hashlib.sha256((normalised(text) or text).encode("utf-8", "surrogatepass")).digest()[:16]
    first_answer, first_place = answers.setdefault(key, (answer, place))
    if first_answer != answer:
        report.add(Problem(TWO_LABELS, place, f"{answer}, and {first_answer} in {first_place}"))


def _all(source: Source, heldout: Source | None, report: CheckReport) -> Iterator[tuple[Split, Record, str]]:
    """(split, record, place) of everything usable; the rest is counted in the report."""
    if heldout is None:
        yield from _one(source, None, report)
    else:
        yield from _one(source, "train", report)
        yield from _one(heldout, "heldout", report)


def _one(source: Source, as_split: Split | None, report: CheckReport) -> Iterator[tuple[Split, Record, str]]:
    if isinstance(source, ParallelFiles):
        for pair, place, part in source.split(report.left_out):
            yield as_split or ("train" if part == "train" else "heldout"), pair, place
        for reason, count in report.left_out.counts.items():
            for _ in range(count):
                report.add(Problem(reason, report.left_out.first_place[reason]))
        return
    if isinstance(source, UserFiles):
        for file in source.other_files:
            report.left_out.add(
                f"file of a type that is not read as {source.kind} ({file.suffix or 'no suffix'})", str(file)
            )
        for result in source.results(report.left_out):
            if isinstance(result, Fault):
                report.left_out.add(result.reason, result.place)
                report.add(Problem(result.reason, result.place))
            else:
                record, place = result
                yield as_split or ("heldout" if is_held_out(record) else "train"), record, place
        return
    splits: tuple[Split, ...] = ("train", "heldout")
    told: set[tuple[str, str]] = set()  # most sources read everything in both passes; some have a file for each split
    for split in splits:
        for number, record in enumerate(source.records(split)):
            yield as_split or split, record, f"{source.name}: {split} record {number + 1}"
        for reason, count in source.left_out.counts.items():
            place = source.left_out.first_place[reason]
            if (reason, place) not in told:
                told.add((reason, place))
                report.left_out.add(reason, place, count)
