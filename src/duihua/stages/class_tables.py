"""What the classify stage says on the console: before, what it learns from; after, its scores as tables, the majority
baseline beside each, the mean over seeds where there are several, and which class is taken for which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from duihua import console

MOST_CLASSES = 20
"""Classes that a confusion table on the console has; a larger one stands in result.json alone."""


def announce(classes: int, length: int, cut: Mapping[str, Mapping[str, Any]], auxiliary_weight: float) -> None:
    """Say before the training what it learns from. classes: 0 for choices. cut: a part of the data -> its `cut_counts`."""
    console.say(
        f"classify: {cut['train']['examples']:,} training and {cut['heldout']['examples']:,} held-out examples, "
        f"{f'{classes} classes' if classes else 'choices'}, {cut['train']['tokens']:,} tokens an epoch, "
        f"lambda {auxiliary_weight:g}"
    )
    for part, counts in cut.items():
        if counts["cut_examples"]:
            console.say(
                f"classify: {part}: {counts['cut_examples']:,} of {counts['examples']:,} examples are longer than "
                f"{length} tokens and were cut, {counts['cut_tokens']:,} tokens in all"
            )


def show(metrics: Mapping[str, Any], stage: str = "classify") -> None:
    """Print the scores of a stage's result."""
    names = {"accuracy": "accuracy", "macro_f1": "F1, macro", "f1": f"F1 of {metrics['positive']!r}", "matthews": "MCC"}
    if metrics["task"] == "multiple_choice":  # the places of options have no sense of their own
        names = {"accuracy": "accuracy"}
    over = metrics["over_seeds"]
    columns = ["held-out", "value", "low", "high", "majority"]
    if over is not None:
        columns += [f"mean of {len(metrics['seeds'])} seeds", "low", "high"]
    rows = []
    for name, text in names.items():
        value = metrics[name]
        if value is None:
            continue
        interval = [value["low"], value["high"]] if isinstance(value, Mapping) else [None, None]
        row = [text, _number(value), *interval, _number(metrics["baseline"][name])]
        if over is not None and over[name] is not None:
            row += [over[name]["value"], over[name]["low"], over[name]["high"]]
        rows.append(row)
    console.table(f"{stage}: the kept classifier on the held-out part", columns, rows)
    labels, counts = metrics["confusion"]["labels"], metrics["confusion"]["counts"]
    if metrics["task"] != "multiple_choice" and len(labels) <= MOST_CLASSES:
        table = [[label, *row] for label, row in zip(labels, counts, strict=True)]
        console.table(f"{stage}: true class (rows), predicted class (columns)", ["", *labels], table)


def _number(value: Any) -> float:
    return float(value["value"] if isinstance(value, Mapping) else value)
