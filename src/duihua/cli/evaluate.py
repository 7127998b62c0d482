"""`duihua evaluate`: one measurement of one model (or of two), and the stage of the same name that measures a whole run.

    duihua evaluate perplexity runs/quickstart/pretrain --text book.txt --stride 128
    duihua evaluate accuracy runs/quickstart/ppo --conversations talks.jsonl
    duihua evaluate bleu --hypotheses out.en --references test.en --language en --json
    duihua evaluate tasks runs/quickstart/pretrain --tasks hellaswag,piqa --limit 200
    duihua evaluate compare runs/a runs/b --text book.txt
    duihua evaluate --input base=runs/quickstart/pretrain --output runs/evaluation       (the stage)

A measurement has a word of its own; without one the flags are the stage's, as in `cli/stage.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from duihua import console
from duihua.cli import stage
from duihua.errors import ConfigError

MEASUREMENTS: dict[str, tuple[str, str]] = {
    "perplexity": ("duihua.cli.evaluate_text", "perplexity and bits per byte of texts"),
    "accuracy": ("duihua.cli.evaluate_accuracy", "right tokens, exactly right lines, right classes"),
    "bleu": ("duihua.cli.evaluate_lines", "BLEU, chrF and error rates of lines against references"),
    "tasks": (
        "duihua.cli.evaluate_tasks",
        "multiple-choice tasks by likelihood: HellaSwag, PIQA, ARC, MMLU and others",
    ),
    "compare": ("duihua.cli.evaluate_compare", "two models on the same items: difference, interval, p-value"),
}


def main(argv: Sequence[str]) -> int:
    """Run one measurement, or the stage. Returns 0. Raises DuihuaError."""
    words = [word for word in argv if word != "--json"]
    if words and words[0] in MEASUREMENTS:
        rest = list(argv)
        rest.remove(words[0])
        module = importlib.import_module(MEASUREMENTS[words[0]][0])
        return int(module.main(rest))
    if words and not words[0].startswith("-"):
        from duihua.config.mapping import suggestion

        raise ConfigError(
            f"there is no measurement {words[0]!r}",
            where="duihua evaluate",
            remedy=f"{suggestion(words[0], list(MEASUREMENTS))}; `duihua evaluate --help` explains them all",
        )
    if "--help" in words or "-h" in words:
        say_measurements()
    return stage.main(["evaluate", *argv])


def say_measurements() -> None:
    """The measurements, above the stage's own help."""
    width = max(map(len, MEASUREMENTS))
    console.say("One measurement: duihua evaluate MEASUREMENT ... (duihua evaluate MEASUREMENT --help explains it)")
    console.say()
    for name, (_, about) in MEASUREMENTS.items():
        console.say(f"  {name.ljust(width)}  {about}")
    console.say()
    console.say(
        "Without such a word it is the stage of a recipe, which measures base, fine-tuned and PPO model together:"
    )
    console.say()
