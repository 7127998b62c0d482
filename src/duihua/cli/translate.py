"""`duihua translate train|run|score`: train a translator, ask it, score it.

    duihua translate train --from fr --to en --output runs/fr-en
    duihua translate run runs/fr-en letter.txt        or from a pipe, or sentence by sentence at a terminal
    duihua translate score runs/fr-en --test multi30k-fr-en
    duihua translate score --hypotheses mine.txt --references theirs.txt --language en

`train` is the stage like every other (`cli/stage.py`), with `--from` and `--to` for its two languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from duihua import console
from duihua.cli import stage
from duihua.cli.sub_verbs import dispatch

USAGE = """\
usage: duihua translate train|run|score [options]

  train   train a translator on parallel texts        duihua translate train --from fr --to en --output DIR
  run     translate a file, standard input, or what is typed      duihua translate run DIR [FILE]
  score   BLEU and chrF, with signatures              duihua translate score DIR --test multi30k-fr-en

duihua translate train --help, run --help and score --help say what each takes; each takes --json."""

LANGUAGE_FLAGS = {"--from": "--from-language", "--to": "--to-language", "--both": "--both-directions"}
OTHERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"run": ("duihua.cli.translate_run", "main"), "score": ("duihua.cli.translate_score", "main")}
)


def main(argv: Sequence[str]) -> int:
    """Train, run or score; returns 0. Raises DuihuaError."""
    return dispatch("translate", argv, train=train, others=OTHERS, usage=USAGE)


def train(argv: Sequence[str]) -> int:
    """The stage, its flags and `--from`, `--to`, `--both`."""
    if "--help" in argv or "-h" in argv:
        console.say("--from L and --to L stand for --from-language and --to-language, --both for --both-directions.")
    renamed = []
    for word in argv:
        flag, equals, value = word.partition("=")
        renamed.append(f"{LANGUAGE_FLAGS.get(flag, flag)}{equals}{value}")
    return stage.main(["translate", *renamed], prog="duihua translate train")
