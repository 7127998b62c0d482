"""`duihua reward train|score|doctor`: train a reward model, score replies with it, ask whether it is fit to start PPO.

    duihua reward train --input policy=runs/quickstart/sft --output runs/reward
    duihua reward score runs/reward pairs.jsonl > scored.jsonl        or from a pipe: ... | duihua reward score runs/reward -
    duihua reward doctor runs/reward --policy runs/quickstart/sft

`train` is the stage like every other (`cli/stage.py`); `duihua reward` with flags at once is `train` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from duihua.cli import stage
from duihua.cli.sub_verbs import dispatch

USAGE = """\
usage: duihua reward train|score|doctor [options]

  train   train a reward model on pairs of replies     duihua reward train --input policy=DIR --output DIR
  score   score conversations or pairs, JSONL in and out      duihua reward score DIR FILE (- for standard input)
  doctor  is it fit to start PPO, and why not?         duihua reward doctor DIR --policy DIR

score --help and doctor --help say what each takes; each takes --json. What train takes (`train` may be left out):
"""

OTHERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"score": ("duihua.cli.reward_score", "main"), "doctor": ("duihua.cli.doctor_alignment", "reward")}
)


def main(argv: Sequence[str]) -> int:
    """Train, score or examine; returns an exit code. Raises DuihuaError."""
    return dispatch("reward", argv, train=train, others=OTHERS, usage=USAGE, help_of_training=True)


def train(argv: Sequence[str]) -> int:
    """The stage."""
    return stage.main(["reward", *argv])
