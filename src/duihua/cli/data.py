"""`duihua data`: list the known sources, get their archives, show records, check a source or your own files.

Each verb stands in a file of its own: `data_known.py` (list, get), `data_show.py`, `data_check.py`, `data_words.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from duihua import console
from duihua.cli import data_check, data_known, data_show, data_words
from duihua.cli.arguments import Parser
from duihua.cli.data_reading import reading_flags


def main(argv: Sequence[str]) -> int:
    """Run one of list, get, show, check, words. Returns 0; 1 where `check` found something. Raises DuihuaError."""
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
    reading = reading_flags()
    parser = Parser(prog="duihua data", description="Sources of training data: get, look at, check.")
    verbs = parser.add_subparsers(required=True, metavar="list|get|show|check|words")
    data_known.add_verbs(verbs, common)
    data_show.add_verb(verbs, common, reading)
    data_check.add_verb(verbs, common, reading)
    data_words.add_verb(verbs, common)
    return parser
