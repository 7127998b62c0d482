"""Bigram against RNN against LSTM: perplexity on 10,000 words of English, the networks at equal parameters, over seeds.

    python benchmarks/older_models.py                       # the wiki words, 3 seeds: an hour of one core, resumable
    python benchmarks/older_models.py --quick               # 1,000 types, one seed, 1.5 epochs: the order comes out in minutes
    python benchmarks/older_models.py --ptb DIR             # the Penn Treebank, for who has it: ptb.{train,valid,test}.txt
    python benchmarks/older_models.py --try 8e-3 1.6e-2 3.2e-2  # first choose each network's rate among these, in equal trials

The counted models (stages/older_models.py) need no parameters of their own, so "equal parameters" is between the networks: one
layer, tied weights, the width that comes nearest to --parameters, so that the RNN gets wider. They are trained alike but for
the learning rate, each its own. With --try both networks try the same rates for
--try-epochs passes with seed 0, which is none of the reported ones, and each keeps that of its best validation perplexity.
Test perplexity is that of the weights with the best validation perplexity. For the original Penn Treebank the counts of tokens
and the perplexities of unigram (639.3) and bigram (186.8) must come out, and are shown beside what was found.

One line of JSON a finished cell goes into --output; run again, it goes on where it stopped. A cell made with other settings or
another corpus is passed over, so one file can hold several.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

RATES = {"rnn": 1.6e-2, "gru": 1.6e-2, "lstm": 1.6e-2}
"""AdamW's rate of each cell, falling linearly to 0; --rates gives others. Validation perplexity after one pass, 1,412,000
parameters, at 4e-3, 8e-3, 1.6e-2 and 3.2e-2: RNN 159.1, 136.5, 130.4 and 330.3; LSTM 173.3, 143.9, 136.8 and 154.9. GRU: not
tried."""
QUICK_RATES = {"rnn": 2e-3, "gru": 8e-3, "lstm": 8e-3}
"""Of the quick run, which has no time for small ones."""
TRAINING: dict[str, Any] = {
    "rows": 20,
    "length": 35,
    "samples": 1,
    "schedule": {"kind": "linear", "warmup_steps": 20},
    "trainer": {"clip_norm": 0.5, "log_every": 100, "checkpoint_seconds": 300},
}
SHAPE: dict[str, Any] = {"layers": 1, "initial_range": 0.3, "input_dropout": 0.1, "output_dropout": 0.3}
"""Of the networks; the quick run has no dropout, it sees too little text to learn it by heart. From an embedding in +-0.3 both
cells learn quicker than from +-0.1: with 1,000 types and 0.4 epochs the LSTM is at 29.5 and the RNN at 34.4, where 0.5 epochs
from 0.1 gave 38.2 and 41.3 (at a rate of 4e-3)."""


def config_of(cell: str, setup: argparse.Namespace, rate: float, epochs: float) -> Any:
    """The stage's settings of one network."""
    from duihua.config import build
    from duihua.models.recurrent_config import RecurrentConfig, width_of
    from duihua.stages.configs.recurrent import RecurrentTrainingConfig

    layers = SHAPE["layers"]
    width = width_of(setup.parameters, RecurrentConfig(vocabulary_size=setup.types, cell=cell, layers=layers))  # type: ignore[arg-type]
    dropout = {name: 0.0 if setup.quick else value for name, value in SHAPE.items() if name.endswith("dropout")}
    return build(
        RecurrentTrainingConfig,
        {
            **TRAINING,
            "corpus": str(setup.ptb) if setup.ptb else "wiki-words",
            "types": setup.types,
            "epochs": epochs,
            "shape": {
                "cell": cell,
                "layers": layers,
                "width": width,
                "initial_range": SHAPE["initial_range"],
                **dropout,
            },
            "optimizer": {"kind": "adamw", "learning_rate": rate, "beta1": 0.9, "beta2": 0.999},
        },
        cell,
    )


def corpus_of(setup: argparse.Namespace) -> Any:
    """The corpus that all models are measured on."""
    from duihua.data.starter.wiki_words import WikiWords
    from duihua.data.word_corpus import read_word_corpus

    whole = read_word_corpus(setup.ptb, "Penn Treebank") if setup.ptb else WikiWords(setup.data).corpus()
    setup.types = setup.types or whole.vocabulary.vocabulary_size
    return whole.with_types(setup.types)


def counted(name: str, corpus: Any) -> dict[str, Any]:
    """Count and score."""
    from duihua.stages.older_models import TREEBANK_PERPLEXITIES, counted_losses

    losses, stored = counted_losses(corpus, name)
    line: dict[str, Any] = {
        "perplexity": {part: loss.perplexity for part, loss in losses.items()},
        "parameters": stored,
    }
    if corpus.is_treebank and name in TREEBANK_PERPLEXITIES:
        line["expected"] = TREEBANK_PERPLEXITIES[name]
    return line


def trained(cell: str, seed: int, setup: argparse.Namespace, rate: float, epochs: float) -> dict[str, Any]:
    """Train and score once; a training that was stopped goes on from its checkpoint below --work."""
    from duihua.stages import find_stage
    from duihua.stages.context import StageContext
    from duihua.stages.execution import execute

    with tempfile.TemporaryDirectory(prefix="duihua-") as aside:
        folder = (setup.work or Path(aside)) / f"{cell}-{seed}-{rate:g}-{epochs:g}-{setup.fingerprint}"
        context = StageContext(folder, {}, setup.data, "cpu", seed, setup.threads)
        metrics = execute(find_stage("recurrent"), config_of(cell, setup, rate, epochs), context).metrics
    kept = ("perplexity", "parameters", "looks", "steps", "tokens", "tokens_per_second", "training_seconds", "samples")
    return {name: metrics[name] for name in kept} | {"width": metrics["settings"]["width"]}


class Cells:
    """What is finished, one line of JSON each, in a file that a later run goes on with."""

    def __init__(self, file: Any, fingerprint: str) -> None:
        file.seek(0)
        stored = [json.loads(line) for line in file.read().splitlines()]
        self.file, self.fingerprint = file, fingerprint
        self.found = {self._key(line): line for line in stored if line["fingerprint"] == fingerprint}

    @staticmethod
    def _key(line: dict[str, Any]) -> tuple[Any, ...]:
        return line["model"], line["seed"], line["rate"], line["epochs"]

    def cell(self, make: Callable[[], dict[str, Any]], **key: Any) -> dict[str, Any]:
        """The line of this key: found, or made and written."""
        from duihua import console

        key = {"rate": None, "epochs": None, **key}
        if (line := self.found.get(self._key(key))) is not None:
            return line
        began = time.monotonic()
        line = {**key, "fingerprint": self.fingerprint, **make()}
        line["seconds"] = round(time.monotonic() - began, 1)
        self.found[self._key(line)] = line
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        told = ", ".join(f"{name} {value}" for name, value in key.items() if name != "model" and value is not None)
        perplexity = line["perplexity"]
        console.say(
            f"{key['model']}, {told}: perplexity {perplexity['valid']:.2f} valid, {perplexity['test']:.2f} test"
        )
        return line


def trial_lines(cells: Cells, setup: argparse.Namespace) -> list[dict[str, Any]]:
    """Every network with every rate of --try, and the rates that are best set in the setup."""
    lines = []
    for cell in setup.cells:
        of_cell = []
        for rate in setup.try_rates:
            key = {"model": cell, "seed": 0, "rate": rate, "epochs": setup.try_epochs}
            of_cell.append(cells.cell(partial(trained, cell, 0, setup, rate, setup.try_epochs), **key))
        if of_cell:
            setup.rates[cell] = min(of_cell, key=lambda line: line["perplexity"]["valid"])["rate"]
        lines += of_cell
    return lines


def fingerprint_of(setup: argparse.Namespace, corpus: Any) -> str:
    """Hash of what decides a cell beside its model, seed, rate and passes."""
    from duihua.files import sha256_json

    decides = [
        corpus.fingerprint(),
        setup.types,
        setup.parameters,
        setup.quick,
        TRAINING,
        SHAPE,
        2,
    ]
    return sha256_json(decides)[:16]


def rows_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a model, over its seeds."""
    from duihua.evaluation.intervals import t_interval

    rows = []
    for model in dict.fromkeys(line["model"] for line in lines):
        of_model = [line for line in lines if line["model"] == model]
        row: dict[str, Any] = {"model": model, "parameters": of_model[0]["parameters"], "seeds": len(of_model)}
        for part in ("valid", "test"):
            row[part] = [line["perplexity"][part] for line in of_model]
        spread = t_interval(row["test"])
        row["interval"] = None if len(of_model) < 2 else [spread.low, spread.high]
        row["expected"] = of_model[0].get("expected")
        rows.append(row)
    return rows


COLUMNS = ("model", "stored numbers", "valid", "test", "95 % over seeds", "each seed", "known")


def cells_of(row: dict[str, Any]) -> list[str]:
    """A row of the table as texts."""
    mean = {part: sum(row[part]) / len(row[part]) for part in ("valid", "test")}
    return [
        row["model"],
        f"{row['parameters']:,}",
        f"{mean['valid']:.1f}",
        f"{mean['test']:.1f}",
        "-" if row["interval"] is None else f"{row['interval'][0]:.1f} to {row['interval'][1]:.1f}",
        ", ".join(f"{value:.1f}" for value in row["test"]) if row["seeds"] > 1 else "-",
        "-" if row["expected"] is None else f"{row['expected']:.1f}",
    ]


def markdown(rows: list[dict[str, Any]], trials: list[dict[str, Any]], corpus: Any, setup: argparse.Namespace) -> str:
    """The section for docs/benchmarks.md."""
    from duihua.report.machine import machine, versions

    parts = ", ".join(f"{name} {version}" for name, version in versions().items())
    tokens = " / ".join(f"{count:,}" for count in corpus.tokens.values())
    unknown = ", ".join(f"{part} {100 * share:.1f} %" for part, share in corpus.unknown_share.items())
    lines = [
        "## Bigram, RNN, LSTM",
        "",
        f"`{setup.command}`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()['processor']}, {setup.threads} thread a training; {parts}. "
        f"{corpus.name}: {tokens} tokens (train / valid / test), {setup.types:,} types, unknown: {unknown}. "
        f"Networks: one layer, tied, {setup.epochs:g} epochs; perplexity over all tokens, ends of sentences included.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(cells_of(row))} |" for row in rows),
    ]
    if trials:
        lines += ["", f"Rates tried, seed 0, epochs {setup.try_epochs:g}; validation perplexity:", ""]
        lines += [
            f"| model | {' | '.join(f'{rate:g}' for rate in setup.try_rates)} |",
            "|---|" + "---:|" * len(setup.try_rates),
        ]
        for cell in setup.cells:
            found = [f"{line['perplexity']['valid']:.1f}" for line in trials if line["model"] == cell]
            lines.append(f"| {cell} | {' | '.join(found)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run what is missing, then print."""
    setup = _arguments()
    from duihua import console
    from duihua.stages.older_models import COUNTED

    with console.json_output(), open(setup.output, "a+", encoding="utf-8") as file:  # the stage's talk goes to stderr
        corpus = corpus_of(setup)
        setup.fingerprint = fingerprint_of(setup, corpus)
        if setup.ptb and not corpus.is_treebank and not setup.quick:
            console.say(f"these are not the counts of the original Penn Treebank: {corpus.tokens}")
        cells = Cells(file, setup.fingerprint)
        trials = trial_lines(cells, setup)
        lines = [cells.cell(partial(counted, name, corpus), model=name, seed=0) for name in COUNTED]
        for seed in setup.seeds:
            for cell in setup.cells:
                key = {"model": cell, "seed": seed, "rate": setup.rates[cell], "epochs": setup.epochs}
                lines.append(cells.cell(partial(trained, cell, seed, setup, key["rate"], key["epochs"]), **key))
    order = [*COUNTED, *setup.cells]
    lines.sort(key=lambda line: order.index(line["model"]))
    rows = rows_of(lines)
    if setup.markdown:
        setup.markdown.write_text(markdown(rows, trials, corpus, setup), encoding="utf-8")
    if setup.json:
        print(json.dumps({"corpus": corpus.describe(), "rows": rows, "cells": lines, "trials": trials}))
        return
    console.table(f"{corpus.name}: perplexity", COLUMNS, [cells_of(row) for row in rows])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ptb", type=Path, default=None, help="folder with the original ptb.train.txt and the others")
    parser.add_argument("--quick", action="store_true", help="1,000 types, one seed, 1.5 epochs, 190,000 parameters")
    parser.add_argument("--cells", nargs="+", default=["rnn", "lstm"], choices=list(RATES))
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default 1 2 3; of the quick run 1")
    parser.add_argument("--parameters", type=int, default=None, help="of each network (default 1,412,000)")
    parser.add_argument("--epochs", type=float, default=None, help="passes over the training text (default 3)")
    parser.add_argument(
        "--rates", nargs="+", default=[], metavar="CELL=RATE", help="other learning rates, as lstm=4e-3"
    )
    parser.add_argument(
        "--try",
        dest="try_rates",
        nargs="+",
        type=float,
        default=[],
        metavar="RATE",
        help="rates that every network tries",
    )
    parser.add_argument("--try-epochs", type=float, default=1.0, help="passes of each such trial (default 1)")
    parser.add_argument("--types", type=int, default=None, help="most frequent types that are kept (default all)")
    parser.add_argument("--data", type=Path, default=None, help="data directory (default: that of duihua)")
    parser.add_argument("--work", type=Path, default=None, help="keep trainings here, so that a stopped one goes on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("older_models.jsonl"), help="cells, one line each")
    parser.add_argument("--markdown", type=Path, default=None, help="write the section for docs/benchmarks.md here")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    setup = parser.parse_args()
    setup.command = shlex.join(["python", "benchmarks/older_models.py", *sys.argv[1:]])
    setup.seeds = setup.seeds or ([1] if setup.quick else [1, 2, 3])
    setup.parameters = setup.parameters or (190_000 if setup.quick else 1_412_000)
    setup.epochs = setup.epochs or (1.5 if setup.quick else 3.0)
    setup.types = setup.types or (1000 if setup.quick else 0)
    given = dict(each.partition("=")[::2] for each in setup.rates)
    if unknown := set(given) - set(RATES):
        parser.error(f"--rates: no cell {', '.join(sorted(unknown))}; there are {', '.join(RATES)}")
    setup.rates = (QUICK_RATES if setup.quick else RATES) | {cell: float(rate) for cell, rate in given.items()}
    from duihua.data.home import data_directory

    setup.data = data_directory("" if setup.data is None else str(setup.data))
    return setup


if __name__ == "__main__":
    main()
