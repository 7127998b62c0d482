"""`duihua data check`: everything wrong with a source or your own files, by file, line and field."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.data_reading import say_left_out, source_config
from duihua.data.home import data_directory
from duihua.data.records import ADD_RECORDS, ALL_HELD_OUT, NONE_HELD_OUT
from duihua.data.source import KNOWN_SOURCES, open_source


def add_verb(verbs: Any, common: argparse.ArgumentParser, reading: argparse.ArgumentParser) -> None:
    """Add `check` to the verbs of `duihua data`."""
    verb = verbs.add_parser("check", parents=[common, reading], help="everything wrong with it: file, line, field")
    verb.add_argument("--held-out", metavar="PATH", default="", help="your held-out file: look for leakage into it")
    verb.add_argument("--longest", type=int, default=0, help="longest conversation (default 8000 characters)")
    verb.add_argument("--tokenizer", metavar="DIR", default="", help="count --longest in this tokenizer's tokens")
    verb.add_argument("--examples", type=int, default=20, help="how many cases of each problem are named")
    verb.add_argument("--no-duplicates", action="store_true", help="look for no duplicates and no leakage")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read and say. Returns 0, or 1 where something is wrong. Raises DuihuaError."""
    from duihua.data import check as checking
    from duihua.data.rows import NOT_UTF8, TO_UTF8

    home = data_directory(arguments.data)
    source = open_source(source_config(arguments, arguments.target), home)
    heldout = open_source(source_config(arguments, arguments.held_out), home) if arguments.held_out else None
    limit = checking.CHARACTER_LIMIT
    if arguments.tokenizer:
        from duihua.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(Path(arguments.tokenizer))
        limit = checking.LengthLimit(arguments.longest or 512, "tokens", lambda text: len(tokenizer.encode(text)))
    elif arguments.longest:
        limit = dataclasses.replace(limit, most=arguments.longest)
    with console.progress(None, "records", "check") as bar:
        report = checking.check(source, heldout, limit, not arguments.no_duplicates, bar.advance, arguments.examples)
    if console.json_mode():
        console.emit_json(report.to_mapping())
        return 0 if report.clean else 1
    console.say(
        f"{report.source}: {report.records['train']:,} usable records to train on, {report.records['heldout']:,} held out, "
        f"{report.characters:,} characters" + "".join(f", {name} {n:,}" for name, n in report.languages.most_common())
    )
    if report.labels:
        console.say("labels: " + ", ".join(f"{name} {n:,}" for name, n in report.labels.most_common()))
    counts = report.records
    if counts["train"] and not counts["heldout"] and source.name not in KNOWN_SOURCES:
        console.warn(f"{report.source}: {NONE_HELD_OUT}, so nothing would be measured on unseen ones. {ADD_RECORDS}")
    say_left_out(report.left_out.to_mapping())
    for reason, count in report.problems.most_common():
        console.say(f"\n{reason}: {count:,}")
        for problem in report.examples[reason]:
            console.say(f"  {problem.place}" + (f" ({problem.other_place})" if problem.other_place else ""))
        if count > len(report.examples[reason]):
            console.say(f"  ... {count - len(report.examples[reason]):,} more")
        if reason == NOT_UTF8:
            console.say(f"  {TO_UTF8}.")
        if reason == ALL_HELD_OUT:
            console.say(f"  {ADD_RECORDS}.")
    if report.clean:
        console.say("Nothing wrong was found.")
    return 0 if report.clean else 1
