"""What pre-training gains on labelled tasks, and what the auxiliary loss of GPT-1 gains: sets x with and without
pre-training x lambda x seeds, the majority class beside each.

    python benchmarks/classification.py --base runs/classification-base/pretrain --sets reviews-zh newsgroups

Both arms have the same shape, tokenizer, examples and order. Which rates and how many passes are best differs between the arms
and between sets, so a gain under one setting says little: each arm has its own best of one grid (CHOSEN), measured on
training examples that are not trained on, never on the test:

    python benchmarks/classification.py --base ... --validation 1000 --grid muon-low:5:mean muon-high:5:mean --seeds 1

Two arms are compared on the same test items and seeds (evaluation/classification.py, `paired_difference`): the interval over
seeds asks whether other runs would find the gain, the one over items whether other items would show it.

One line of JSON a finished cell goes into --output; run again, it goes on where it stopped. A line that was made with
another base or other settings is passed over, so one file can hold several bases. MRPC is read from $DUIHUA_DATA/mrpc where
that is set. For a gain that means anything, the base and its tokenizer must not have seen the test texts:
recipes/classification-base.yaml.
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


def _muon(matrix: float, embedding: float, head: float) -> dict[str, Any]:
    return {
        "kind": "muon",
        "matrix_learning_rate": matrix,
        "embedding_learning_rate": embedding,
        "head_learning_rate": head,
        "scalar_learning_rate": 0.005,
    }


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"kind": "adamw", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01},
    "muon-low": _muon(0.005, 0.1, 0.004),
    "muon-mid": _muon(0.01, 0.1, 0.004),
    "muon-high": _muon(0.02, 0.2, 0.004),
    "muon-head": _muon(0.02, 0.2, 0.02),
}
"""Rates and warm-up are for a base of a few million parameters and some hundred updates; GPT-1's 6.25e-5 after
a warm-up of 0.2 % is for 117 million and thousands."""
SETS: dict[str, dict[str, Any]] = {
    "reviews-zh": {"task": "classification", "limit": 500, "length": 64, "test_limit": 2000},
    "newsgroups-4": {"task": "classification", "limit": 1000, "length": 96},
    "newsgroups": {"task": "classification", "limit": 1000, "length": 96, "test_limit": 1000},
    "reuters-r8": {"task": "classification", "limit": 500, "length": 96},
    "mrpc": {"task": "similarity", "limit": 0, "length": 64},
    "csqa": {"task": "multiple_choice", "limit": 500, "length": 40, "test_limit": 600},
    "piqa": {"task": "multiple_choice", "limit": 1000, "length": 64},
    "socialiqa": {"task": "multiple_choice", "limit": 1000, "length": 56},
    "hellaswag": {"task": "multiple_choice", "limit": 600, "length": 64, "test_limit": 1000},
}
"""What each set is cut to so that a cell takes about a minute on one core (all of MRPC two or three, in both orders, because
its majority class is hard to beat with less): training examples drawn by a hash (0: all), most
tokens of a sequence, most test examples (all where it is not given)."""
CHOSEN: dict[str, tuple[str, str]] = {
    "reviews-zh": ("muon-low:5:mean", "muon-low:5:mean"),
    "newsgroups": ("muon-high:4:mean", "muon-high:4:mean"),
    "newsgroups-4": ("muon-high:4:mean", "muon-high:4:mean"),
}
"""Settings without and with pre-training: optimizer, passes, pooling. Best of the grid in docs/log.md on training examples that
were not trained on (newsgroups-4 takes those of all twenty); where a set is not named, DEFAULT, which was not tuned."""
DEFAULT = ("muon-mid:1:mean", "muon-mid:1:mean")
Key = tuple[str, bool, float, str, int]
"""Set, whether pre-trained, lambda, setting, seed."""


def config_of(key: Key, setup: argparse.Namespace, folder: Path) -> Any:
    """The stage's settings of a cell. folder: where the examples are put if the test is not to be touched."""
    from duihua.config import build
    from duihua.stages.configs.classify import ClassifyConfig

    name, pretrained, weight, setting, _ = key
    optimizer, epochs, pooling = setting.split(":")
    chosen = dict(SETS[name])
    source: dict[str, Any] = {"name": name, "limit": chosen.pop("limit")}
    mrpc = os.environ.get("DUIHUA_DATA", "")
    if name == "mrpc" and mrpc:
        source = {"path": str(Path(mrpc) / "mrpc"), "kind": "labelled", "limit": source["limit"]}
    if setup.validation:
        source = validation_source(source, setup.validation, setup.data, folder)
    given = {**COMMON, **chosen, "source": source, "auxiliary_weight": weight, "from_scratch": not pretrained}
    given |= {"optimizer": OPTIMIZERS[optimizer], "epochs": int(epochs), "pooling": pooling}
    return build(ClassifyConfig, given, name)


def validation_source(source: dict[str, Any], count: int, data: Path, folder: Path) -> dict[str, Any]:
    """The training examples that `source` draws, and `count` of its others in the place of the test.

    Where it draws all, so many of them are set aside. Which ones follows from the hash that draws them.
    """
    from duihua.config import build
    from duihua.data.records import Choice, Labelled, hash_order
    from duihua.data.source import SourceConfig, open_source

    limit = source["limit"]
    opened = open_source(build(SourceConfig, {**source, "limit": 0}, "source"), data)
    records = sorted(opened.records("train"), key=hash_order)
    cut = limit or len(records) - count
    for file, part in (("train", records[:cut]), ("validation", records[cut : cut + count])):
        with open(folder / f"{file}.jsonl", "w", encoding="utf-8") as lines:
            for record in part:
                row: dict[str, Any]
                if isinstance(record, Choice):
                    row = {"context": record.context, "options": record.options, "answer": record.answer}
                else:
                    assert isinstance(record, Labelled)
                    row = dict(zip(("text", "text_b"), record.texts, strict=False)) | {"label": record.label}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    paths = {"path": str(folder / "train.jsonl"), "heldout": str(folder / "validation.jsonl")}
    return {**paths, "kind": opened.kind}


def fingerprint_of(key: Key, setup: argparse.Namespace) -> str:
    """Hash of what decides a cell beside its key: the base (without pre-training its shape and tokenizer) and settings."""
    from duihua.files import read_json, sha256_file, sha256_json

    name, pretrained, _, setting, _ = key
    shape = {field: value for field, value in read_json(setup.base / "config.json").items() if field != "duihua"}
    base = [shape, sha256_file(setup.base / "tokenizer.json")]
    base += [sha256_file(setup.base / "model.safetensors")] if pretrained else []
    return sha256_json([base, COMMON, OPTIMIZERS[setting.split(":")[0]], SETS[name], setup.validation])[:16]


def cell(key: Key, setup: argparse.Namespace) -> dict[str, Any]:
    """Train and test once."""
    from duihua.files import read_json
    from duihua.stages import find_stage
    from duihua.stages.classify import PREDICTIONS_FILE
    from duihua.stages.context import StageContext
    from duihua.stages.execution import execute

    name, pretrained, weight, setting, seed = key
    began, busy = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="duihua-") as folder:
        made = Path(folder) / "classifier"
        context = StageContext(made, {"policy": setup.base}, setup.data, "cpu", seed, setup.threads)
        metrics = execute(find_stage("classify"), config_of(key, setup, Path(folder)), context).metrics
        said = read_json(made / PREDICTIONS_FILE)
    right = "".join(str(int(a == b)) for a, b in zip(said["truth"], said["predicted"][0], strict=True))
    kept = ("accuracy", "f1", "macro_f1", "matthews", "positive", "classes", "cut", "steps", "tokens")
    return {
        "set": name,
        "pretrained": pretrained,
        "lambda": weight,
        "setting": setting,
        "seed": seed,
        "validation": setup.validation,
        "fingerprint": fingerprint_of(key, setup),
        **{field: metrics[field] for field in kept},
        "train_examples": metrics["cut"]["train"]["examples"],
        "baseline": {field: metrics["baseline"][field] for field in ("accuracy", "f1", "macro_f1", "matthews")},
        "right": right,
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
    }


def key_of(line: dict[str, Any]) -> Key:
    """What tells one cell from another."""
    return line["set"], line["pretrained"], line["lambda"], line["setting"], line["seed"]


def rows_of(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a set and lambda: both arms over their seeds, the gain, the majority class."""
    from duihua.evaluation.classification import paired_difference
    from duihua.evaluation.intervals import t_interval

    rows = []
    groups = {(c["set"], c["lambda"]) for c in cells}
    for name, weight in sorted(groups, key=lambda group: (list(SETS).index(group[0]), group[1])):
        of_group = [c for c in cells if (c["set"], c["lambda"]) == (name, weight)]
        of_group.sort(key=lambda c: c["seed"])
        arms = {arm: [c for c in of_group if c["pretrained"] is arm] for arm in (False, True)}
        first = (arms[True] or arms[False])[0]
        row: dict[str, Any] = {
            "set": name,
            "lambda": weight,
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
            row[f"{title}_settings"] = sorted({c["setting"] for c in arms[arm]})
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
    "set", "lambda", "train", "test", "majority", "without", "with pre-training", "gain (seeds)", "gain (items)",
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
        "",
        "Optimizer, passes and pooling, without and with pre-training: " + "; ".join(_settings_of(rows)) + ".",
    ]
    return "\n".join([*lines, ""])


GRID_COLUMNS = ("set", "lambda", "pre-training", "optimizer:passes:pooling", "seeds", "accuracy")


def grid_of(cells: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Mean accuracy over the seeds of each setting, the best of a set, lambda and arm first."""
    groups: dict[tuple[int, float, bool, str], list[float]] = {}
    for c in cells:
        group = (list(SETS).index(c["set"]), c["lambda"], c["pretrained"], c["setting"])
        groups.setdefault(group, []).append(100 * c["accuracy"]["value"])
    means = [(group, found, sum(found) / len(found)) for group, found in groups.items()]
    ordered = sorted(means, key=lambda each: (*each[0][:3], -each[2]))
    return [
        [list(SETS)[number], f"{weight:g}", "with" if arm else "without", setting, str(len(found)), f"{mean:.1f}"]
        for (number, weight, arm, setting), found, mean in ordered
    ]


def _settings_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What each set was trained with, both arms."""
    settings = {
        f"{row['set']} {' '.join(row['without_settings']) or '-'} and {' '.join(row['with_settings']) or '-'}": None
        for row in rows
    }
    return list(settings)


def main() -> None:
    """Run what is missing, then print."""
    setup = _arguments()
    from duihua import console

    lines = [json.loads(line) for line in setup.output.read_text().splitlines()] if setup.output.exists() else []
    arms = {"both": (True, False), "with": (True,), "without": (False,)}[setup.pre_training]
    wanted = [
        (name, pretrained, weight, setting, seed)
        for seed in setup.seeds  # a seed of everything before the next: what is there is comparable at any time
        for name in setup.sets
        for weight in setup.lambdas
        for pretrained in arms
        for setting in setup.grid or [CHOSEN.get(name, DEFAULT)[pretrained]]
    ]
    fingerprints = {key: fingerprint_of(key, setup) for key in wanted}
    cells = {key_of(line): line for line in lines if fingerprints.get(key_of(line)) == line["fingerprint"]}
    missing = [key for key in wanted if key not in cells]
    with console.json_output(), open(setup.output, "a", encoding="utf-8") as file:  # the stage's talk goes to stderr
        for number, key in enumerate([] if setup.report else missing, 1):
            made = cells[key] = cell(key, setup)
            file.write(json.dumps(made) + "\n")
            file.flush()
            print(
                f"{number}/{len(missing)} {key[0]}, {'with' if key[1] else 'without'} pre-training, lambda {key[2]:g}, "
                f"{key[3]}, seed {key[4]}: {made['accuracy']['value']:.4f}, {made['seconds']} s",
                file=sys.stderr,
            )
    finished = [cells[key] for key in wanted if key in cells]
    if setup.grid:
        console.table("accuracy on training examples that were set aside", GRID_COLUMNS, grid_of(finished))
        return
    rows = rows_of(finished)
    if setup.markdown:
        setup.markdown.write_text(markdown(rows, setup), encoding="utf-8")
    if setup.json:
        print(json.dumps({"rows": rows, "cells": finished}))
        return
    console.table("accuracy in points, 95 % intervals over seeds", COLUMNS, [cells_of(row) for row in rows])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="policy bundle; without pre-training only its shape")
    parser.add_argument("--sets", nargs="+", default=["reviews-zh", "newsgroups", "mrpc", "csqa"], choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.5], help="for a sweep: 0 0.2 0.5 1")
    parser.add_argument("--pre-training", choices=("both", "with", "without"), default="both")
    parser.add_argument(
        "--validation", type=int, default=0, help="test on so many training examples that are set aside"
    )
    parser.add_argument("--grid", nargs="+", default=[], help="settings to compare, optimizer:passes:pooling each")
    parser.add_argument("--report", action="store_true", help="run nothing, show what is finished")
    parser.add_argument("--data", type=Path, default=None, help="data directory (default: that of duihua)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("classification.jsonl"), help="cells, one line each")
    parser.add_argument("--markdown", type=Path, default=None, help="write the section for docs/benchmarks.md here")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    setup = parser.parse_args()
    if setup.grid and not setup.validation:
        parser.error("--grid compares settings, which the test must not decide: add --validation 1000")
    setup.command = shlex.join(["python", "benchmarks/classification.py", *sys.argv[1:]])
    from duihua.data.home import data_directory

    setup.data = data_directory("" if setup.data is None else str(setup.data))
    return setup


if __name__ == "__main__":
    main()
