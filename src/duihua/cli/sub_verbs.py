"""Verbs that are several: one that trains, as the stage of their name, and others that use what was trained.

    duihua reward train ...      the stage; `duihua reward --input ...`, settings at once, is the same
    duihua reward score ...

Why one dispatcher: a word that is not known is answered with the nearest one, and help looks alike, under every such verb.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

from duihua import console
from duihua.config.mapping import suggestion
from duihua.errors import ConfigError


def dispatch(
    verb: str,
    argv: Sequence[str],
    *,
    train: Callable[[Sequence[str]], int],
    others: Mapping[str, tuple[str, str]],
    usage: str,
    help_of_training: bool = False,
) -> int:
    """Run the one that the first word names; what it returns. Raises DuihuaError.

    others: word -> (module, its function), imported when it is asked for. usage: stands for --help, above the stage's own help
    where help_of_training is set.
    """
    words = [word for word in argv if word != "--json"]
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        console.say(usage)
        return train(["--help"]) if help_of_training else 0
    if first.startswith("-"):  # settings at once: the stage by itself, as every other stage's verb
        return train(argv)
    if first != "train" and first not in others:
        raise ConfigError(
            f"there is no `duihua {verb} {first}`",
            where=f"duihua {verb}",
            remedy=suggestion(first, ["train", *others]),
        )
    rest = list(argv)
    rest.remove(first)
    if first == "train":
        return train(rest)
    module, function = others[first]
    return int(getattr(importlib.import_module(module), function)(rest))
