"""`duihua reward train|score|doctor`: train a reward model, score replies with it, ask whether it is fit to start PPO.

    duihua reward train --input policy=runs/quickstart/sft --output runs/reward
    duihua reward score runs/reward pairs.jsonl > scored.jsonl        or from a pipe: ... | duihua reward score runs/reward -
    duihua reward doctor runs/reward --policy runs/quickstart/sft

`train` is the stage like every other (`cli/stage.py`); `duihua reward` with flags at once is `train` too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duihua import console
from duihua.cli import stage
from duihua.config.mapping import suggestion
from duihua.errors import ConfigError

USAGE = """\
usage: duihua reward train|score|doctor [options]

  train   train a reward model on pairs of replies     duihua reward train --input policy=DIR --output DIR
  score   score conversations or pairs, JSONL in and out      duihua reward score DIR FILE (- for standard input)
  doctor  is it fit to start PPO, and why not?         duihua reward doctor DIR --policy DIR

score --help and doctor --help say what each takes; each takes --json. What train takes (`train` may be left out):
"""


def main(argv: Sequence[str]) -> int:
    """Train, score or examine; returns an exit code. Raises DuihuaError."""
    words = [word for word in argv if word != "--json"]
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        console.say(USAGE)
        return train(["--help"])
    if first.startswith("-"):  # settings at once: the stage by itself, as every other stage's verb
        return train(argv)
    if first not in VERBS:
        raise ConfigError(
            f"there is no `duihua reward {first}`", where="duihua reward", remedy=suggestion(first, list(VERBS))
        )
    rest = list(argv)
    rest.remove(first)
    return VERBS[first](rest)


def train(argv: Sequence[str]) -> int:
    """The stage."""
    return stage.main(["reward", *argv])


def score(argv: Sequence[str]) -> int:
    """`duihua reward score`."""
    from duihua.cli.reward_score import main as verb

    return verb(argv)


def doctor(argv: Sequence[str]) -> int:
    """`duihua reward doctor`, and `duihua doctor reward`."""
    from duihua.cli.doctor_alignment import reward

    return reward(argv)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {"train": train, "score": score, "doctor": doctor}
