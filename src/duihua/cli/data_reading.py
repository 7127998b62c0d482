"""What `duihua data show` and `duihua data check` read: a known source, your own files, or a data set of the hub, by flags."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from duihua import console
from duihua.cli.arguments import Parser
from duihua.config import nearest
from duihua.data.records import Kind, Split
from duihua.data.source import KNOWN_SOURCES, ColumnsConfig, SourceConfig
from duihua.errors import ConfigError

SHOWN_CHARACTERS = 400
SPLITS: tuple[Split, ...] = ("train", "heldout")


def reading_flags() -> argparse.ArgumentParser:
    """The words that say what is read, as a parent of other parsers."""
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
    return reading


def source_config(arguments: argparse.Namespace, target: str) -> SourceConfig:
    """What the command line asks for: a hub data set, a known name, or a path. Raises ConfigError."""
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


def say_left_out(left_out: dict[str, Any]) -> None:
    """A table of what gave no record, and why; nothing where everything did."""
    if left_out["total"]:
        rows = [[reason, entry["count"], entry["first"]] for reason, entry in left_out["reasons"].items()]
        console.table("Left out", ["reason", "count", "first met at"], rows)


def clipped(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """The text, or its beginning with a mark where it has more than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
