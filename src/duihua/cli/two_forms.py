"""Verbs of two forms: one trains, like every stage's verb; the other asks what was trained, and a flag of its own tells it.

    duihua classify --input policy=DIR --output DIR      the stage
    duihua classify DIR --predict FILE                   the question

Why one verb for both: whoever has trained a model looks for the way to ask it under the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duihua import console
from duihua.cli import stage
from duihua.errors import ConfigError


def train_or_ask(
    verb: str,
    argv: Sequence[str],
    *,
    flags: Sequence[str],
    ask: Callable[[Sequence[str]], int],
    bare: str,
    remedy: str,
    explained: str,
) -> int:
    """Run the stage `verb`, or `ask` where one of `flags` is among the words; what either returns.

    ask is given the words, or `--help` alone where that is among them. bare, remedy: what is said of a model without any of
    the flags. explained: stands above the stage's own help. Raises DuihuaError.
    """
    helps = "--help" in argv or "-h" in argv
    if any(word.partition("=")[0] in flags for word in argv):
        return ask(["--help"] if helps else argv)
    if argv and not argv[0].startswith("-"):
        raise ConfigError(bare, where=f"duihua {verb} {argv[0]}", remedy=remedy)
    if helps:
        console.say(explained)
    return stage.main([verb, *argv])
