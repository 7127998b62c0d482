"""argparse for the verbs: its complaints become one line with the remedy, as every other fault of a user.

Why: argparse prints its usage, several lines of it, and leaves by itself; a person looks for the one word that matters, and
under `--json` a script finds no object.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NoReturn

from duihua.errors import ConfigError

UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of leaving; names the nearest flag where one is unknown. `--help` is as always."""

    def error(self, message: str) -> NoReturn:
        """What argparse calls with its complaint."""
        hint = f"`{self.prog} --help` lists what it takes"
        if message.startswith(UNKNOWN):
            word = message.removeprefix(UNKNOWN).split()[0].partition("=")[0]
            if not word.startswith("-"):
                raise ConfigError("is one word too many", where=word, remedy=_sentence(hint))
            from duihua.config import nearest  # which takes longer to import than a parser that is content

            near = nearest(word, list(_flags(self)))
            raise ConfigError(
                "unknown flag",
                where=word,
                remedy=f"The nearest known name is {near!r}; {hint}" if near else _sentence(hint),
            )
        if message.startswith("argument ") and ": " in message:
            where, _, problem = message.removeprefix("argument ").partition(": ")
            raise ConfigError(problem, where=where, remedy=_sentence(hint))
        raise ConfigError(message, remedy=_sentence(hint))


def _sentence(hint: str) -> str:
    return hint[:1].upper() + hint[1:]


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The parser's flags, and those of its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _flags(inner)
