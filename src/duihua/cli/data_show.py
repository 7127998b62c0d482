"""`duihua data show`: the first records of a source, its counts and its terms."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from itertools import chain, islice
from typing import Any

from duihua import console
from duihua.cli.data_reading import SPLITS, clipped, say_left_out, source_config
from duihua.data.home import data_directory
from duihua.data.parallel.base import PARTS, part_of
from duihua.data.records import Choice, Conversation, Document, Labelled, Parallel, Preference, Record, message_text
from duihua.data.source import Source, open_source


def add_verb(verbs: Any, common: argparse.ArgumentParser, reading: argparse.ArgumentParser) -> None:
    """Add `show` to the verbs of `duihua data`."""
    verb = verbs.add_parser("show", parents=[common, reading], help="records, counts and terms of a source")
    verb.add_argument("--records", type=int, default=3, help="how many records of each split")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read and say. Returns 0. Raises DuihuaError."""
    source: Source = open_source(source_config(arguments, arguments.target), data_directory(arguments.data))
    counts: dict[str, int] = {}
    shown: dict[str, list[Record]] = {}
    labels: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    parts = {part: sum(1 for _ in part_of(source, part)) for part in PARTS} if source.kind == "parallel" else None
    for split in SPLITS:
        records = source.records(split)
        shown[split] = list(islice(records, arguments.records))
        # a data set from the hub may have no end that one would wait for
        rest = () if arguments.hub else records
        counts[split] = 0
        for record in chain(shown[split], rest):
            counts[split] += 1
            if isinstance(record, Labelled):
                labels[split][record.label] += 1
    terms = dataclasses.asdict(source.terms)
    if console.json_mode():
        console.emit_json(
            {
                "name": source.name,
                "kind": source.kind,
                "language": source.language,
                "counts": None if arguments.hub else counts,
                "parts": parts,
                "labels": None if arguments.hub or source.kind != "labelled" else labels,
                "left_out": source.left_out.to_mapping(),
                "terms": terms,
                "records": {split: [dataclasses.asdict(record) for record in shown[split]] for split in SPLITS},
            }
        )
        return 0
    console.say(f"{source.name}: {source.kind}, {source.language}")
    if not arguments.hub:
        console.say(f"{counts['train']:,} to train on, {counts['heldout']:,} held out")
        if parts is not None:
            console.say("parts: " + ", ".join(f"{part} {count:,}" for part, count in parts.items()))
        if source.kind == "labelled":
            rows = [
                [name, *(labels[split][name] for split in SPLITS)] for name in sorted(set().union(*labels.values()))
            ]
            console.table("Classes", ["label", "train", "held out"], rows)
    for key, value in terms.items():
        if value:
            console.say(f"{key}: {value}")
    say_left_out(source.left_out.to_mapping())
    for split in SPLITS:
        for record in shown[split]:
            console.say(f"\n[{split}, {record.source}, {record.language}]")
            for line in _lines(record):
                console.say(line)
    return 0


def _lines(record: Record) -> list[str]:
    """A record for people."""
    if isinstance(record, Document):
        return [clipped(record.text)]
    if isinstance(record, Conversation):
        return [f"{message['role']}: {clipped(message_text(message))}" for message in record.messages[:8]] + (
            [f"... {len(record.messages) - 8} more messages"] if len(record.messages) > 8 else []
        )
    if isinstance(record, Labelled):
        return [f"label: {record.label}", *(f"text: {clipped(text)}" for text in record.texts)]
    if isinstance(record, Choice):
        options = (
            f"{'right' if index == record.answer else 'wrong'}: {clipped(option)}"
            for index, option in enumerate(record.options)
        )
        return [f"context: {clipped(record.context)}", *options]
    if isinstance(record, Parallel):
        return [f"{language}: {clipped(text)}" for language, text in zip(record.languages, record.texts, strict=True)]
    assert isinstance(record, Preference)
    return [f"{message['role']}: {clipped(message_text(message))}" for message in record.prompt] + [
        f"chosen: {clipped(record.chosen)}",
        f"rejected: {clipped(record.rejected)}",
    ]
