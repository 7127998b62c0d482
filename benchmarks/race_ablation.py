"""What each idea is worth in the pre-training race: single settings of race/duihua.yaml changed, equal time, several seeds.

Why the race's own driver and not benchmarks/ablation.py: there one thread has 40 seconds and fixed steps; here the clock
decides, so that an idea pays for every millisecond that it costs. `--clock processor` counts the process's own seconds over
its threads, which a machine with other work on it disturbs less; the result that counts is the wall's, on a quiet one.

    python benchmarks/race_ablation.py --seconds 150 --seeds 1 2 3 --variants default rows=4 rows=16
    python benchmarks/race_ablation.py --variants default "mine: pretrain.rows=4 pretrain.length=128"

A variant is a name of the list below, or `name: field=value field=value`. Seeds outside, variants taking turns. Run again,
it goes on where it stopped. Prints a table and JSON: mean bits per byte, standard error, difference from the default paired
by seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ablation import table
from race.cells import Cell, run_cells
from race.ideas import IDEAS
from race.systems import Setup

from duihua import console
from duihua.errors import DuihuaError

SHAPE = "pretrain.shape."
VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "start=random": ("pretrain.start=random",),
    "start=random, embedding_learning_rate=0.2": (
        "pretrain.start=random",
        "pretrain.optimizer.embedding_learning_rate=0.2",
    ),
    "bigram_smoothing=100": ("pretrain.bigram_smoothing=100",),
    "bigram_smoothing=1000": ("pretrain.bigram_smoothing=1000",),
    "head_learning_rate=0.002": ("pretrain.optimizer.head_learning_rate=0.002",),
    "rows=4": ("pretrain.rows=4",),
    "rows=16": ("pretrain.rows=16",),
    "length=128, rows=16": ("pretrain.length=128", "pretrain.rows=16"),
    "length=128, rows=8": ("pretrain.length=128",),
    "width=128": tuple(f"{SHAPE}{field}" for field in ("width=128", "heads=2", "feed_forward_width=352")),
    "width=256": tuple(f"{SHAPE}{field}" for field in ("width=256", "heads=4", "feed_forward_width=704")),
    "layers=3": (f"{SHAPE}layers=3",),
    "layers=6": (f"{SHAPE}layers=6",),
    "key_value_heads=3": (f"{SHAPE}key_value_heads=3",),
    "ungated relu_squared": tuple(
        f"{SHAPE}{field}" for field in ("gated=false", "activation=relu_squared", "feed_forward_width=768")
    ),
    "value_embeddings": (f"{SHAPE}value_embeddings=true",),
    "residual_scalars": (f"{SHAPE}residual_scalars=true",),
    "logit_soft_cap=15": (f"{SHAPE}logit_soft_cap=15.0",),
    "tied_embeddings": (f"{SHAPE}tied_embeddings=true", "pretrain.start=random"),
    "vocabulary=4096": ("tokenizer.vocabulary_size=4096",),
    "vocabulary=6144": ("tokenizer.vocabulary_size=6144",),
    "vocabulary=12288": ("tokenizer.vocabulary_size=12288",),
    "vocabulary=16384": ("tokenizer.vocabulary_size=16384",),
    "newton_schulz_steps=3": ("pretrain.optimizer.newton_schulz_steps=3",),
    "newton_schulz_steps=4": ("pretrain.optimizer.newton_schulz_steps=4",),
    "momentum=0.9": ("pretrain.optimizer.momentum=0.9",),
    "matrix_learning_rate=0.01": ("pretrain.optimizer.matrix_learning_rate=0.01",),
    "matrix_learning_rate=0.04": ("pretrain.optimizer.matrix_learning_rate=0.04",),
    "embedding_learning_rate=0.05": ("pretrain.optimizer.embedding_learning_rate=0.05",),
    "embedding_learning_rate=0.2": ("pretrain.optimizer.embedding_learning_rate=0.2",),
    "head_learning_rate=0.008": ("pretrain.optimizer.head_learning_rate=0.008",),
    "head_learning_rate=0.016": ("pretrain.optimizer.head_learning_rate=0.016",),
    "decay_fraction=0.7": ("pretrain.schedule.decay_fraction=0.7",),
    "decay_fraction=1.0": ("pretrain.schedule.decay_fraction=1.0",),
    "cosine": ("pretrain.schedule.kind=cosine",),
    "weight_decay=0.1": ("pretrain.optimizer.weight_decay=0.1",),
    "clip_norm=0": ("pretrain.trainer.clip_norm=0",),
    **{name: (f"ideas=[{name}]",) for name in IDEAS},
}


def variant(given: str) -> tuple[str, tuple[str, ...]]:
    """(name, settings) of a name of the list or of `name: field=value ...`. ValueError for neither."""
    if given in VARIANTS:
        return given, VARIANTS[given]
    name, colon, settings = given.partition(":")
    if not colon or not all("=" in setting for setting in settings.split()) or not settings.split():
        raise ValueError(f"{given!r} is neither one of {', '.join(VARIANTS)} nor `name: field=value`")
    return name.strip(), tuple(settings.split())


def main() -> int:
    given = _arguments()
    from duihua.data.home import data_directory

    base = Setup(
        data=data_directory("" if given.data is None else str(given.data)),
        work=given.work,
        threads=given.threads,
        sets=tuple(given.set),
        clock=given.clock,
    )
    cells = [
        Cell(name, "duihua", given.seconds, seed, dataclasses.replace(base, sets=(*base.sets, *settings)))
        for seed in given.seeds
        for name, settings in given.variants
    ]
    with console.json_output(given.json):
        try:
            rows = run_cells(cells, given.output or given.work / "ablation.jsonl")
        except DuihuaError as error:
            print(error, file=sys.stderr)
            return 2
    found = table([{**row, "variant": row["label"]} for row in rows])
    if given.json:
        print(json.dumps({"seconds": given.seconds, "clock": given.clock, "rows": found}))
        return 0
    columns = ("variant", "seeds", "steps", "parameters", "bits per byte", "difference", "standard error")
    console.table(f"{given.seconds:g} seconds ({given.clock})", columns, [_line(row) for row in found])
    return 0


def _line(row: dict[str, Any]) -> list[str]:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:+.4f}"

    counts = [str(row["seeds"]), str(row["steps"]), f"{row['parameters']:,}"]
    return [
        row["variant"],
        *counts,
        f"{row['bits_per_byte']:.4f}",
        shown(row["difference"]),
        shown(row["standard_error"]),
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="over race/duihua.yaml, in all"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--data", type=Path, default=None, help="data directory (default: that of duihua)")
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain-race"), help="tokenizers and logs")
    parser.add_argument("--output", type=Path, default=None, help="rows (default: ablation.jsonl in --work)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    given = parser.parse_args()
    try:
        given.variants = [variant(each) for each in given.variants]
    except ValueError as error:
        parser.error(str(error))
    return given


if __name__ == "__main__":
    sys.exit(main())
