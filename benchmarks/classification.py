"""What pre-training gains on labelled tasks, and what the auxiliary loss of GPT-1 gains: sets x with and without
pre-training x lambda x seeds, the majority class beside each.

    python benchmarks/classification.py --base runs/quickstart/pretrain --sets reviews-zh newsgroups-4 mrpc csqa

Both arms have the same shape, tokenizer, examples, order, rates and number of updates; without pre-training the weights are
random. Which rates are best differs between the arms and between sets, so a gain under one optimizer says little by itself:
run both (--optimizers adamw muon) and compare each arm's best. Two arms are compared on the same test items and seeds
(evaluation/classification.py, `paired_difference`): the interval over seeds asks whether other runs would find the gain, the
one over items whether other items would show it.

One line of JSON a finished cell goes into --output; run again, it goes on where it stopped. A line that was made with
another base or other settings is passed over, so one file can hold several bases. MRPC is read from $DUIHUA_DATA/mrpc where
that is set. For a gain that means anything, the base and its tokenizer must not have seen the test texts.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

COMMON: dict[str, Any] = {
    "batch": 32,
    "micro_batch": 32,
    "warmup_share": 0.1,
    "trainer": {"checkpoint_seconds": 1e9, "log_every": 50},
}
"""Of every set."""
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"kind": "adamw", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01},
    "muon": {
        "kind": "muon",
        "matrix_learning_rate": 0.005,
        "embedding_learning_rate": 0.1,
        "head_learning_rate": 0.004,
        "scalar_learning_rate": 0.005,
    },
}
"""Rates and warm-up are for a base of a few million parameters and some hundred updates; GPT-1's 6.25e-5 after
a warm-up of 0.2 % is for 117 million and thousands."""
SETS: dict[str, dict[str, Any]] = {
    "reviews-zh": {"task": "classification", "limit": 500, "length": 64, "epochs": 5, "test_limit": 2000},
    "newsgroups-4": {"task": "classification", "limit": 1000, "length": 96, "epochs": 3},
    "newsgroups": {"task": "classification", "limit": 1000, "length": 96, "epochs": 4, "test_limit": 2000},
    "reuters-r8": {"task": "classification", "limit": 500, "length": 96, "epochs": 4},
    "mrpc": {"task": "similarity", "limit": 0, "length": 80, "epochs": 1},
    "csqa": {"task": "multiple_choice", "limit": 1000, "length": 40, "epochs": 1},
    "piqa": {"task": "multiple_choice", "limit": 1000, "length": 64, "epochs": 1},
    "socialiqa": {"task": "multiple_choice", "limit": 1000, "length": 56, "epochs": 1},
    "hellaswag": {"task": "multiple_choice", "limit": 600, "length": 64, "epochs": 1, "test_limit": 1000},
}
"""What each set is cut to so that a cell takes about a minute on one core (all of MRPC two or three, in both orders, because
its majority class is hard to beat with less): training examples drawn by a hash (0: all), most
tokens of a sequence, passes, most test examples (all where it is not given)."""
Key = tuple[str, bool, float, str, int]
"""Set, whether pre-trained, lambda, optimizer, seed."""


def config_of(name: str, pretrained: bool, weight: float, optimizer: str) -> Any:
    """The stage's settings of a cell."""
    from duihua.config import build
    from duihua.stages.configs.classify import ClassifyConfig

    chosen = dict(SETS[name])
    source: dict[str, Any] = {"name": name, "limit": chosen.pop("limit")}
    folder = os.environ.get("DUIHUA_DATA", "")
    if name == "mrpc" and folder:
        source = {"path": str(Path(folder) / "mrpc"), "kind": "labelled", "limit": source["limit"]}
    given = {**COMMON, **chosen, "source": source, "auxiliary_weight": weight, "from_scratch": not pretrained}
    given["optimizer"] = OPTIMIZERS[optimizer]
    return build(ClassifyConfig, given, name)


def fingerprint_of(name: str, setup: argparse.Namespace) -> str:
    """Hash of what decides a cell beside its key: the base (its shape, tokenizer and weights) and the settings."""
    from duihua.files import sha256_file, sha256_json

    files = {file: sha256_file(setup.base / file) for file in ("config.json", "model.safetensors", "tokenizer.json")}
    return sha256_json([files, COMMON, OPTIMIZERS, SETS[name]])[:16]


def cell(key: Key, setup: argparse.Namespace) -> dict[str, Any]:
    """Train and test once."""
    from duihua.files import read_json
    from duihua.stages import find_stage
    from duihua.stages.classify import PREDICTIONS_FILE
    from duihua.stages.context import StageContext
    from duihua.stages.execution import execute

    name, pretrained, weight, optimizer, seed = key
    began, busy = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="duihua-") as folder:
        context = StageContext(Path(folder), {"policy": setup.base}, setup.data, "cpu", seed, setup.threads)
        metrics = execute(find_stage("classify"), config_of(name, pretrained, weight, optimizer), context).metrics
        said = read_json(Path(folder) / PREDICTIONS_FILE)
    right = "".join(str(int(a == b)) for a, b in zip(said["truth"], said["predicted"][0], strict=True))
    kept = ("accuracy", "f1", "macro_f1", "matthews", "positive", "classes", "cut", "steps", "tokens")
    return {
        "set": name,
        "pretrained": pretrained,
        "lambda": weight,
        "optimizer": optimizer,
        "seed": seed,
        "fingerprint": fingerprint_of(name, setup),
        **{field: metrics[field] for field in kept},
        "train_examples": metrics["cut"]["train"]["examples"],
        "baseline": {field: metrics["baseline"][field] for field in ("accuracy", "f1", "macro_f1", "matthews")},
        "right": right,
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
    }


def key_of(line: dict[str, Any]) -> Key:
    """What tells one cell from another."""
    return line["set"], line["pretrained"], line["lambda"], line["optimizer"], line["seed"]


def rows_of(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a set and lambda: both arms over their seeds, the gain, the majority class."""
    from duihua.evaluation.classification import paired_difference
    from duihua.evaluation.intervals import t_interval

    rows = []
    groups = {(c["set"], c["lambda"], c["optimizer"]) for c in cells}
    for name, weight, optimizer in sorted(groups, key=lambda group: (list(SETS).index(group[0]), *group[1:])):
        of_group = [c for c in cells if (c["set"], c["lambda"], c["optimizer"]) == (name, weight, optimizer)]
        of_group.sort(key=lambda c: c["seed"])
        arms = {arm: [c for c in of_group if c["pretrained"] is arm] for arm in (False, True)}
        first = (arms[True] or arms[False])[0]
        row: dict[str, Any] = {
            "set": name,
            "lambda": weight,
            "optimizer": optimizer,
            "train": first["train_examples"],
            "test": len(first["right"]),
            "majority": first["baseline"],
        }
        for arm, title in ((False, "without"), (True, "with")):
            for field in ("accuracy", "f1", "macro_f1", "matthews"):
                values = [c[field]["value"] if field == "accuracy" else c[field] for c in arms[arm]]
                known = [value for value in values if value is not None]
                row[f"{title}_{field}"] = _plain(t_interval(known)) if known else None
            row[f"{title}_seeds"] = [c["seed"] for c in arms[arm]]
        both = sorted({c["seed"] for c in arms[False]} & {c["seed"] for c in arms[True]})
        if both:
            said = {
                (c["pretrained"], c["seed"]): [digit == "1" for digit in c["right"]]
                for c in (*arms[False], *arms[True])
            }
            found = paired_difference([said[False, seed] for seed in both], [said[True, seed] for seed in both])
            row["gain"] = {"over_seeds": _plain(found.over_seeds), "over_items": _plain(found.over_items)}
        rows.append(row)
    return rows


def _plain(interval: Any) -> dict[str, Any]:
    """An interval as JSON can hold it: without ends where they are infinite."""
    return {name: value if abs(value) != float("inf") else None for name, value in interval.to_dict().items()}


COLUMNS = (
    "set", "lambda", "optimizer", "train", "test", "majority", "without", "with pre-training", "gain (seeds)", "gain (items)",
    "F1 (majority)", "MCC",
)  # fmt: skip


def cells_of(row: dict[str, Any]) -> list[str]:
    """A row of the table as texts; shares in points, intervals behind them."""
    best = "with" if row["with_accuracy"] else "without"
    f1 = "f1" if row[f"{best}_f1"] else "macro_f1"
    gain = row.get("gain", {"over_seeds": None, "over_items": None})
    named = SETS[row["set"]]["task"] != "multiple_choice"  # the places of options have no sense of their own
    score = f"{_points(row[f'{best}_{f1}'])} ({100 * row['majority'][f1]:.1f}){'' if f1 == 'f1' else ' macro'}"
    return [
        row["set"],
        f"{row['lambda']:g}",
        row["optimizer"],
        str(row["train"]),
        str(row["test"]),
        f"{100 * row['majority']['accuracy']['value']:.1f}",
        _points(row["without_accuracy"]),
        _points(row["with_accuracy"]),
        _points(gain["over_seeds"], sign="+"),
        _points(gain["over_items"], sign="+"),
        score if named else "-",
        f"{row[f'{best}_matthews']['value']:.3f}" if named else "-",
    ]


def _points(interval: dict[str, Any] | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    value = f"{100 * interval['value']:{sign}.1f}"
    return value if interval["low"] is None else f"{value} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def markdown(rows: Sequence[dict[str, Any]], setup: argparse.Namespace) -> str:
    """The section for docs/benchmarks.md."""
    from duihua.report.machine import machine, versions

    here, parts = machine(), versions()
    lines = [
        "## Classification, with and without pre-training",
        "",
        f"`{setup.command}`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {here['processor']}, {setup.threads} thread a cell; "
        + ", ".join(f"{name} {version}" for name, version in parts.items())
        + ". Accuracy, F1 and gains in points; 95 % intervals in brackets, over seeds (Student's t) unless said otherwise.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(cells_of(row))} |" for row in rows),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Run what is missing, then print."""
    setup = _arguments()
    from duihua import console

    fingerprints = {name: fingerprint_of(name, setup) for name in setup.sets}
    lines = [json.loads(line) for line in setup.output.read_text().splitlines()] if setup.output.exists() else []
    cells = {key_of(line): line for line in lines if fingerprints.get(line["set"]) == line["fingerprint"]}
    arms = {"both": (True, False), "with": (True,), "without": (False,)}[setup.pre_training]
    wanted = [
        (name, pretrained, weight, optimizer, seed)
        for seed in setup.seeds  # a seed of everything before the next: what is there is comparable at any time
        for name in setup.sets
        for weight in setup.lambdas
        for optimizer in setup.optimizers
        for pretrained in arms
    ]
    missing = [key for key in wanted if key not in cells]
    with console.json_output(), open(setup.output, "a", encoding="utf-8") as file:  # the stage's talk goes to stderr
        for number, key in enumerate(missing, 1):
            made = cells[key] = cell(key, setup)
            file.write(json.dumps(made) + "\n")
            file.flush()
            print(
                f"{number}/{len(missing)} {key[0]}, {'with' if key[1] else 'without'} pre-training, lambda {key[2]:g}, "
                f"{key[3]}, seed {key[4]}: {made['accuracy']['value']:.4f}, {made['seconds']} s",
                file=sys.stderr,
            )
    rows = rows_of([cells[key] for key in wanted])
    if setup.markdown:
        setup.markdown.write_text(markdown(rows, setup), encoding="utf-8")
    if setup.json:
        print(json.dumps({"rows": rows, "cells": [cells[key] for key in wanted]}))
        return
    console.table("accuracy in points, 95 % intervals over seeds", COLUMNS, [cells_of(row) for row in rows])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="policy bundle; without pre-training only its shape")
    parser.add_argument("--sets", nargs="+", default=["reviews-zh", "newsgroups-4", "mrpc", "csqa"], choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.5], help="for a sweep: 0 0.2 0.5 1")
    parser.add_argument("--optimizers", nargs="+", default=["adamw"], choices=list(OPTIMIZERS))
    parser.add_argument("--pre-training", choices=("both", "with", "without"), default="both")
    parser.add_argument("--data", type=Path, default=None, help="data directory (default: that of duihua)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("classification.jsonl"), help="cells, one line each")
    parser.add_argument("--markdown", type=Path, default=None, help="write the section for docs/benchmarks.md here")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    setup = parser.parse_args()
    setup.command = shlex.join(["python", "benchmarks/classification.py", *sys.argv[1:]])
    from duihua.data.home import data_directory

    setup.data = data_directory("" if setup.data is None else str(setup.data))
    return setup


if __name__ == "__main__":
    main()
