"""What each architectural choice is worth on the starter corpus: one field changed at a time, equal processor time, 3 seeds.

Why processor time and not steps: a choice that learns more a step but costs more a step may lose. Every variant's step is
timed first, the variants taking turns; the shortest of many is what it costs undisturbed, and decides how many steps fit the
budget. That number is fixed before training (the schedule runs over steps, never over the clock) and stored.

    python benchmarks/ablation.py --tokenizer runs/quickstart/tokenizer --seconds 40 --seeds 1 2 3 --output ablation.jsonl

Run again, it goes on where it stopped. Prints a table and JSON: mean of held-out bits per byte, standard error, difference
from the default paired by seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

LENGTH, ROWS = 256, 4
BASE: dict[str, Any] = {
    "width": 128,
    "layers": 4,
    "heads": 2,
    "key_value_heads": 1,
    "head_width": 64,
    "feed_forward_width": 352,
    "context": LENGTH,
}
UNGATED: dict[str, Any] = {"gated": False, "feed_forward_width": 528}
"""As many parameters as a gated layer of 352."""
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "positions=learned": {"positions": "learned"},
    "positions=sinusoidal": {"positions": "sinusoidal"},
    "positions=none": {"positions": "none"},
    "rope_theta=1e6": {"rope_theta": 1e6},
    "norm=layer": {"norm": "layer"},
    "norm_place=post": {"norm_place": "post", "final_norm": False, "initialisation": "normal"},
    "final_norm=false": {"final_norm": False},
    "norm_epsilon=1e-3": {"norm_epsilon": 1e-3},
    "query_key_norm=none": {"query_key_norm": "none"},
    "query_key_norm=plain": {"query_key_norm": "plain"},
    "activation=gelu_tanh": {"activation": "gelu_tanh"},
    "activation=relu_squared": {"activation": "relu_squared"},
    "gated=false, silu": {**UNGATED, "activation": "silu"},
    "gated=false, gelu": {**UNGATED, "activation": "gelu"},
    "gated=false, gelu_tanh": {**UNGATED, "activation": "gelu_tanh"},
    "gated=false, relu": {**UNGATED, "activation": "relu"},
    "gated=false, relu_squared": {**UNGATED, "activation": "relu_squared"},
    "attention_bias": {"attention_bias": True},
    "feed_forward_bias": {"feed_forward_bias": True},
    "tied_embeddings": {"tied_embeddings": True},
    "key_value_heads=2": {"key_value_heads": 2},
    "head_width=32": {"head_width": 32, "heads": 4, "key_value_heads": 2},
    "dropout=0.1": {"embedding_dropout": 0.1, "attention_dropout": 0.1, "residual_dropout": 0.1},
    "value_embeddings": {"value_embeddings": True},
    "residual_scalars": {"residual_scalars": True},
    "logit_soft_cap=15": {"logit_soft_cap": 15.0},
    "initialisation=normal": {"initialisation": "normal"},
    "initialisation=normal_scaled": {"initialisation": "normal_scaled"},
    "initialiser_range=0.05": {"initialisation": "normal", "initialiser_range": 0.05},
    "context=128": {"context": 128},
    "context=512": {"context": 512},
    "vocabulary_size=2048": {"vocabulary_size": 2048},
    "vocabulary_size=8192": {"vocabulary_size": 8192},
    "width=192": {"width": 192, "heads": 3, "feed_forward_width": 512},
    "layers=6": {"layers": 6},
    "fast": {
        **UNGATED,
        "activation": "relu_squared",
        "value_embeddings": True,
        "residual_scalars": True,
        "logit_soft_cap": 15.0,
    },
}
STRETCHED: dict[str, dict[str, Any] | None] = {
    "rope_scaling=none, read at 512": None,
    "rope_scaling=linear, read at 512": {"kind": "linear", "factor": 2.0},
    "rope_scaling=dynamic, read at 512": {"kind": "dynamic", "factor": 2.0},
    "rope_scaling=yarn, read at 512": {"kind": "yarn", "factor": 2.0, "original_context": 256},
    "rope_scaling=llama3, read at 512": {"kind": "llama3", "factor": 2.0, "original_context": 256},
}
"""The trained default once more, read with windows of twice its context: no training of their own."""


def _tokenizer(name: str, setup: argparse.Namespace) -> Any:
    """The given tokenizer, or for a variant of another vocabulary one that was trained for it, once."""
    from duihua.config import build
    from duihua.stages import tokenizer as stage
    from duihua.stages.configs.tokenizer import TokenizerConfig
    from duihua.stages.context import StageContext
    from duihua.text.tokenizer import Tokenizer

    size = VARIANTS[name].get("vocabulary_size")
    if size is None:
        return Tokenizer.load(setup.tokenizer)
    folder = setup.output.parent / f"{setup.output.stem}-tokenizer-{size}"
    if not (folder / "result.json").exists():
        settings = {"vocabulary_size": size, "megabytes": 4.0, "sources": [{"name": "race-text"}]}
        config = build(TokenizerConfig, settings, "tokenizer")
        stage.run(config, StageContext(folder, {}, setup.data, "cpu", 1, 1))
    return Tokenizer.load(folder)


def _corpus(tokenizer: Any, data: Path) -> tuple[Any, Any, list[Any]]:
    from duihua.data.source import SourceConfig, open_source
    from duihua.stages.pretrain import token_shards

    configs = (SourceConfig(name="race-text"),)
    sources = [open_source(config, data) for config in configs]
    shards, repeats = token_shards(sources, configs, tokenizer, data)
    return shards, repeats, sources


def _trainer(name: str, seed: int, steps: int, setup: argparse.Namespace, folder: Path) -> tuple[Any, Any, list[Any]]:
    import torch

    from duihua.data.loaders import StreamedBatches
    from duihua.models.config import DecoderConfig
    from duihua.models.decoder import Decoder
    from duihua.stages.pretrain import language_model_loss
    from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
    from duihua.training.trainer import Trainer

    torch.set_num_threads(1)
    tokenizer = _tokenizer(name, setup)
    shards, repeats, sources = _corpus(tokenizer, setup.data)
    shape = DecoderConfig(**{"vocabulary_size": tokenizer.vocabulary_size, **BASE, **VARIANTS[name]})
    network = Decoder(shape).initialise(seed)
    trainer = Trainer(
        network,
        language_model_loss,
        StreamedBatches(
            shards, repeats, ROWS * LENGTH // shape.context, shape.context, 1, seed, tokenizer.end_of_text_id
        ),
        steps=steps,
        optimizer=OptimizerConfig(embedding_learning_rate=0.2, head_learning_rate=0.004),
        schedule=ScheduleConfig(),
        config=TrainerConfig(checkpoint_seconds=1e9),
        directory=folder,
        seed=seed,
        label=name,
    )
    return trainer, tokenizer, sources


def calibrate(names: Sequence[str], setup: argparse.Namespace, rounds: int = 8) -> dict[str, float]:
    """Least processor seconds of one step of each variant; the variants take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: _trainer(name, 1, 10**6, setup, Path(folder))[0] for name in names}
        for round_number in range(rounds):
            for name, trainer in trainers.items():
                for step in range(2):
                    started = time.process_time()
                    trainer.step()
                    if round_number or step:  # the first step of all allocates
                        seconds[name].append(time.process_time() - started)
    return {name: min(values) for name, values in seconds.items()}


def cell(name: str, seed: int, steps: int, setup: argparse.Namespace) -> dict[str, Any]:
    """Train one variant with one seed, and score it."""
    from duihua.errors import TrainingError
    from duihua.evaluation.bits_per_byte import bits_per_byte
    from duihua.models.decoder import parameter_count

    with tempfile.TemporaryDirectory() as folder:
        trainer, tokenizer, sources = _trainer(name, seed, steps, setup, Path(folder))
        started = time.process_time()
        try:
            trained = trainer.run()
        except TrainingError as error:  # a variant that diverges is a result, not a reason to stop the others
            return {"variant": name, "seed": seed, "steps": steps, "bits_per_byte": None, "error": str(error)}
        seconds = time.process_time() - started
        network, documents = trainer.network, list(_some(sources, setup.heldout_bytes))
        scores = bits_per_byte(network, tokenizer, documents, network.config.context)
        stretched = _stretched(network, tokenizer, documents) if name == "default" else {}
    return {
        "variant": name,
        "stretched": stretched,
        "seed": seed,
        "steps": steps,
        "tokens": trained.tokens,
        "parameters": parameter_count(trainer.network),
        "processor_seconds": seconds,
        "loss": trained.loss,
        "bits_per_byte": scores["all"].bits_per_byte,
        "languages": {key: score.bits_per_byte for key, score in scores.items() if key != "all"},
    }


def _stretched(network: Any, tokenizer: Any, documents: list[Any]) -> dict[str, float | None]:
    """Bits per byte of the same weights, read with twice the context under each scaling of the rotary positions."""
    from duihua.evaluation.bits_per_byte import bits_per_byte
    from duihua.models.config import RopeScaling
    from duihua.models.decoder import Decoder

    found = {}
    for name, scaling in STRETCHED.items():
        shape = dataclasses.replace(
            network.config, context=2 * LENGTH, rope_scaling=None if scaling is None else RopeScaling(**scaling)
        )
        longer = Decoder(shape)
        longer.load_state_dict(network.state_dict())
        found[name] = bits_per_byte(longer, tokenizer, documents, 2 * LENGTH)["all"].bits_per_byte
    return found


def _some(sources: list[Any], most_bytes: int) -> Iterator[Any]:
    """Every k-th held-out document, so that about `most_bytes` are scored and both languages have their share."""
    from duihua.data.records import Document

    documents = [record for source in sources for record in source.records("heldout") if isinstance(record, Document)]
    total = sum(len(document.text.encode()) for document in documents)
    yield from documents[:: max(1, math.ceil(total / most_bytes))]


def table(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a variant: mean and standard error over seeds, and the difference from the default paired by seed."""
    base = {c["seed"]: c["bits_per_byte"] for c in cells if c["variant"] == "default"}
    read = [(c, name, value) for c in cells for name, value in c.get("stretched", {}).items()]
    cells = [*cells, *({**c, "variant": name, "bits_per_byte": value} for c, name, value in read)]
    rows = []
    for name in dict.fromkeys(c["variant"] for c in cells):
        mine = [c for c in cells if c["variant"] == name]
        values = [c["bits_per_byte"] for c in mine if c["bits_per_byte"] is not None]
        gaps = [c["bits_per_byte"] - base[c["seed"]] for c in mine if c["bits_per_byte"] and base.get(c["seed"])]
        rows.append(
            {
                "variant": name,
                "seeds": len(values),
                "steps": mine[0]["steps"],
                "parameters": mine[0].get("parameters"),
                "bits_per_byte": statistics.mean(values) if values else None,
                "difference": statistics.mean(gaps) if gaps else None,
                "standard_error": statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None,
            }
        )
    return sorted(rows, key=lambda row: (row["bits_per_byte"] is None, row["bits_per_byte"] or 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--data", type=Path, default=None, help="data directory (default: that of duihua)")
    parser.add_argument("--seconds", type=float, default=40.0, help="processor seconds of training a cell")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--heldout-bytes", type=int, default=150_000)
    parser.add_argument("--workers", type=int, default=2, help="cells at once, one thread each")
    parser.add_argument("--output", type=Path, default=Path("ablation.jsonl"))
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    setup = parser.parse_args()
    from duihua.data.home import data_directory

    setup.data = data_directory("" if setup.data is None else str(setup.data))
    for name in setup.variants:  # tokenises once, before the workers start
        _corpus(_tokenizer(name, setup), setup.data)
    lines = [json.loads(line) for line in setup.output.read_text().splitlines()] if setup.output.exists() else []
    steps = {line["variant"]: line["calibrated_steps"] for line in lines if "calibrated_steps" in line}
    cells = [line for line in lines if "bits_per_byte" in line]
    new = [name for name in setup.variants if name not in steps]
    with open(setup.output, "a", encoding="utf-8") as file:
        if new:
            times = calibrate(list(dict.fromkeys(["default", *new])), setup)
            # Against a default timed earlier, the ratio holds even when the machine is busier now.
            unit = setup.seconds / times["default"] if "default" in new else float(steps["default"])
            for name in new:
                steps[name] = max(20, round(unit * times["default"] / times[name]))
                line = {"variant": name, "calibrated_steps": steps[name], "step_seconds": times[name]}
                file.write(json.dumps(line) + "\n")
            file.flush()
        done = {(c["variant"], c["seed"]) for c in cells}
        wanted = [(name, seed) for seed in setup.seeds for name in setup.variants if (name, seed) not in done]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(setup.workers, mp_context=context) as pool:
            futures = {pool.submit(cell, name, seed, steps[name], setup): name for name, seed in wanted}
            for number, future in enumerate(as_completed(futures), 1):
                found = future.result()
                cells.append(found)
                file.write(json.dumps(found) + "\n")
                file.flush()
                shown = found["bits_per_byte"] if found["bits_per_byte"] is not None else found.get("error")
                print(f"{number}/{len(wanted)} {found['variant']}, seed {found['seed']}: {shown}", file=sys.stderr)
    rows = table(cells)
    if setup.json:
        print(json.dumps({"rows": rows, "cells": cells}))
        return
    print(f"{'variant':32} {'steps':>6} {'parameters':>11} {'bits/byte':>9} {'difference':>18}")
    for row in rows:
        error = f" +- {row['standard_error']:.4f}" if row["standard_error"] is not None else ""
        gap = f"{row['difference']:+.4f}{error}" if row["difference"] is not None else "-"
        value = f"{row['bits_per_byte']:.4f}" if row["bits_per_byte"] is not None else "diverged"
        print(f"{row['variant']:32} {row['steps']:>6} {row['parameters'] or 0:>11,} {value:>9} {gap:>18}")


if __name__ == "__main__":
    main()
