"""The scaling study behind the dial: several sizes, each trained on several budgets, and the law that fits them.

    python benchmarks/scaling.py --sizes 1 2 3 4 5 --tokens 160K 320K 640K 1280K --work runs/scaling
    python benchmarks/scaling.py --sizes 4 6 8 10 --seconds 600 --device cuda        budgets of 600 s and a half, a quarter, ...
    python benchmarks/scaling.py --fit --write --plot docs/training/scaling.svg      from the rows that are there

Shapes, batch and rates are those that the dial derives (stages/dial.py), so that the law is about what the dial runs. Budgets
count tokens, so that a busy machine changes nothing but the wait; with --seconds the speed of each size is measured once and
kept. Runs of one size share what they have in common: up to its decay a run of warm-up, stable part and decay is the same
for every horizon (Hu et al. 2024, section 4.3), so the stable part is trained once and each budget branches off it, which
gives the same bits as a run of its own in 0.7 of the work. Stopped, it goes on where it was.

All held-out documents are scored: they are of several kinds in turn, and every fourth of them is easier by 3 to 5 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duihua import console
from duihua.config import build
from duihua.config.quantity import quantity
from duihua.data.source import SourceConfig
from duihua.errors import DuihuaError
from duihua.files import write_atomic, write_json
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.stages.configs.tokenizer import TokenizerConfig
from duihua.stages.dial import resolve
from duihua.training.config import ScheduleConfig, TrainerConfig
from duihua.training.scaling_law import LAW_FILE, Cell, Law, fit

WARMUP_STEPS = 10
QUIET = TrainerConfig(checkpoint_seconds=1e9, keep_checkpoints=1, log_every=10)


def settings(given: argparse.Namespace, size: int, steps: int) -> PretrainConfig:
    """What the dial runs at `size`, with the study's own steps and one warm-up for all."""
    asked = build(
        PretrainConfig, {"size": size, "tokens": 1, "sources": [{"name": name} for name in given.sources]}, "study"
    )
    found = resolve(asked, size, 1.0)
    schedule = dataclasses.replace(found.schedule, warmup_steps=WARMUP_STEPS)
    return dataclasses.replace(found, steps=steps, schedule=schedule, trainer=QUIET)


class Study:
    """Trains cells and appends their rows to `cells.jsonl` in the work folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        from duihua.data.home import data_directory
        from duihua.data.source import open_source
        from duihua.stages import tokenizer as stage
        from duihua.stages.context import StageContext
        from duihua.stages.first_weights import bigrams_of
        from duihua.stages.pretrain import held_out_documents, token_shards
        from duihua.text.tokenizer import Tokenizer

        self.given, self.work, data = given, given.work, data_directory(given.data)
        configs = tuple(SourceConfig(name=name) for name in given.sources)
        folder = given.tokenizer or given.work / "tokenizer"
        if not (folder / "tokenizer.json").exists():
            wanted = TokenizerConfig(sources=configs, vocabulary_size=given.vocabulary)
            stage.run(wanted, StageContext(folder, {}, data, "cpu", 1, given.threads))
        self.tokenizer = Tokenizer.load(folder)
        sources = [open_source(config, data) for config in configs]
        self.shards, self.repeats = token_shards(sources, configs, self.tokenizer, data)
        self.counted = bigrams_of(self.shards, self.repeats, self.tokenizer.vocabulary_size)
        self.documents = list(held_out_documents(sources))
        self.rows = read_rows(given.work / "cells.jsonl")
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_atomic(given.work / "cells.jsonl", text.encode("utf-8"))  # without a line that a crash cut off

    def steps_of(self, size: int) -> list[int]:
        """The steps of each budget, in rising order."""
        config = settings(self.given, size, 1)
        step_tokens = config.rows * config.micro_batches * config.length
        if self.given.tokens:
            return sorted(max(WARMUP_STEPS + 1, round(budget / step_tokens)) for budget in self.given.tokens)
        rate = self._rate(size)
        return sorted(round(rate * self.given.seconds / 2**halving / step_tokens) for halving in range(4))

    def run(self, seed: int) -> None:
        """All cells of one seed, small budgets first, so that a study which is cut short is still a grid."""
        known = {(row["size"], row["steps"], row["seed"]) for row in self.rows}
        budgets = [self.steps_of(size) for size in self.given.sizes]
        for place in range(len(budgets[0])):
            for size, steps in zip(self.given.sizes, (each[place] for each in budgets), strict=True):
                if (size, steps, seed) not in known:
                    row = self._cell(size, steps, seed)
                    self.rows.append(row)
                    with open(self.work / "cells.jsonl", "a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    console.say(f"size {size}, {steps} steps, seed {seed}: {row['bits_per_byte']:.4f} bits per byte")
        for size in self.given.sizes:
            shutil.rmtree(self.work / f"stable-{size}-{seed}", ignore_errors=True)

    def _cell(self, size: int, steps: int, seed: int) -> dict[str, Any]:
        from duihua.evaluation.bits_per_byte import bits_per_byte
        from duihua.models.decoder import parameter_count
        from duihua.models.work import multiplying_weights, training_flops

        began, config = time.process_time(), settings(self.given, size, steps)
        trunk, branch = self.work / f"stable-{size}-{seed}", self.work / f"branch-{size}-{seed}"
        stable = steps - max(1, round(config.schedule.decay_fraction * steps))
        self._train(config, trunk, seed, stable, ScheduleConfig(kind="constant", warmup_steps=WARMUP_STEPS))
        shutil.rmtree(branch, ignore_errors=True)
        shutil.copytree(trunk, branch)
        trained, network = self._train(config, branch, seed, steps, config.schedule)
        scores = bits_per_byte(network, self.tokenizer, self.documents, config.length, device=self.given.device)
        shutil.rmtree(branch)
        shape = config.shape.decoder(self.tokenizer.vocabulary_size, config.length)
        return {
            "size": size,
            "width": shape.width,
            "steps": steps,
            "seed": seed,
            "tokens": trained.tokens,
            "multiplying_weights": multiplying_weights(shape),
            "parameters": parameter_count(network),
            "operations": training_flops(shape, trained.tokens),
            "bits_per_byte": scores["all"].bits_per_byte,
            "heldout_bytes": scores["all"].bytes,
            "skipped_steps": trained.skipped_steps,
            "processor_seconds": round(time.process_time() - began, 1),
        }

    def _train(self, config: PretrainConfig, folder: Path, seed: int, steps: int, schedule: ScheduleConfig) -> Any:
        """(result, network) of a training in `folder`, which goes on from what is there."""
        from duihua.data.loaders import StreamedBatches
        from duihua.stages.execution import settled
        from duihua.stages.first_weights import fresh_network
        from duihua.stages.pretrain import language_model_loss
        from duihua.training.trainer import Trainer

        with settled(self.given.device, self.given.threads, seed):
            shape = config.shape.decoder(self.tokenizer.vocabulary_size, config.length)
            network = fresh_network(config, shape, self.shards, self.repeats, seed, self.counted)[0]
            batches = StreamedBatches(
                self.shards,
                self.repeats,
                config.rows,
                config.length,
                config.micro_batches,
                seed,
                self.tokenizer.end_of_text_id,
                config.mask_documents,
            )
            trainer = Trainer(
                network,
                language_model_loss,
                batches,
                steps=steps,
                optimizer=config.optimizer,
                schedule=schedule,
                config=config.trainer,
                directory=folder,
                device=self.given.device,
                seed=seed,
                label=folder.name,
            )
            return trainer.run(), network

    def _rate(self, size: int) -> float:
        """Tokens a second of a size on this machine, measured once."""
        from duihua.files import read_json
        from duihua.models.decoder import Decoder
        from duihua.stages.pretrain import language_model_loss
        from duihua.training.speed import measure_steps

        path = self.work / "rates.json"
        rates = read_json(path) if path.exists() else {}
        if str(size) not in rates:
            config = settings(self.given, size, 1)
            shape = config.shape.decoder(self.tokenizer.vocabulary_size, config.length)
            rates[str(size)] = measure_steps(
                Decoder(shape).initialise(0),
                language_model_loss,
                self.tokenizer.vocabulary_size,
                config.rows,
                config.length,
                1.0,
                config=QUIET,
                optimizer=config.optimizer,
                device=self.given.device,
            ).tokens_per_second
            write_json(path, rates)
        return float(rates[str(size)])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows so far; a last line that a crash cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def recorded_rows(folders: list[Path]) -> list[dict[str, Any]]:
    """Rows of pre-training stages that were run before, by their result.json: recipes in a shape of the dial."""
    from duihua.files import read_json
    from duihua.models.config import DecoderConfig
    from duihua.models.work import multiplying_weights

    rows = []
    for folder in folders:
        found = read_json(folder / "result.json")["metrics"]
        names = [field.name for field in dataclasses.fields(DecoderConfig)]
        fields = {name: found["settings"][name] for name in names if name in found["settings"]}
        rows.append(
            {
                "size": fields["layers"],
                "width": fields["width"],
                "steps": found["steps"],
                "seed": 1,
                "tokens": found["tokens"],
                "multiplying_weights": multiplying_weights(DecoderConfig(**fields)),
                "parameters": found["parameters"],
                "operations": found["settings"]["training_flops"],
                "bits_per_byte": found["bits_per_byte"]["all"],
                "heldout_bytes": found["heldout_bytes"],
                "processor_seconds": 0.0,
                "recorded": True,
            }
        )
    return rows


def cells_of(rows: list[dict[str, Any]]) -> list[Cell]:
    return [Cell(row["multiplying_weights"], row["tokens"], row["bits_per_byte"]) for row in rows]


def about(given: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the constants come from."""
    from duihua.report.machine import machine, versions

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "sources": list(given.sources),
        "vocabulary_size": given.vocabulary,
        "preset": "qwen3",
        "optimizer": "muon",
        "length": 256,
        "start": "bigrams",
        "sizes": sorted({row["size"] for row in rows}),
        "tokens": sorted({row["tokens"] for row in rows}),
        "seeds": sorted({row["seed"] for row in rows}),
        "heldout_bytes": max(row["heldout_bytes"] for row in rows),
        "processor_minutes": round(sum(row["processor_seconds"] for row in rows) / 60, 1),
        "commit": given.commit,
        "processor": machine()["processor"],
        "torch": versions().get("torch"),
        "note": given.note,
        "recorded": sum(bool(row.get("recorded")) for row in rows),
        "cells": [
            [row["size"], row["multiplying_weights"], row["tokens"], round(row["bits_per_byte"], 4)] for row in rows
        ],
    }


def main() -> int:
    given = _arguments()
    with console.json_output(given.json):
        try:
            rows = read_rows(given.work / "cells.jsonl")
            if not given.fit:
                given.work.mkdir(parents=True, exist_ok=True)
                study = Study(given)
                for seed in given.seeds:
                    study.run(seed)
                rows = study.rows
            rows = [row for row in (*rows, *recorded_rows(given.runs)) if row["tokens"] >= given.least_tokens]
            law = fit(cells_of(rows), about(given, rows))
        except DuihuaError as error:
            print(error, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            console.say("Stopped; nothing is lost. Go on with the same command")
            return 130
    if given.write:
        write_json(given.law, law.to_mapping())
    if given.plot:
        from scaling_plot import draw

        draw(law, rows, given.plot)
    found = _table(law, rows)
    if given.json:
        print(json.dumps({"law": law.to_mapping(), "rows": found}))
        return 0
    columns = ("size", "weights", "tokens", "bits per byte", "by the law", "difference, %")
    console.table("Scaling study", columns, [list(row.values()) for row in found])
    console.say(f"{law.curve}; misfit {100 * law.misfit:.2f} %")
    return 0


def _table(law: Law, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for row in sorted(rows, key=lambda each: (each["size"], each["tokens"])):
        expected = law.curve.bits(row["multiplying_weights"], row["tokens"])
        found.append(
            {
                "size": row["size"],
                "multiplying_weights": row["multiplying_weights"],
                "tokens": row["tokens"],
                "bits_per_byte": round(row["bits_per_byte"], 4),
                "expected": round(expected, 4),
                "difference": round(100 * (expected / row["bits_per_byte"] - 1), 2),
            }
        )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 3, 5])
    budgets = parser.add_mutually_exclusive_group()
    budgets.add_argument("--tokens", type=quantity, nargs="+", help="budgets in tokens, such as 80K")
    budgets.add_argument(
        "--seconds", type=float, default=120.0, help="largest budget of each size; then half of it, ..."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--sources", nargs="+", default=["race-text"])
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--tokenizer", type=Path, default=None, help="its folder (default: trained in --work)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", default="", help="data directory (default: that of duihua)")
    parser.add_argument("--work", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--fit", action="store_true", help="train nothing, fit the rows that are there")
    parser.add_argument(
        "--least-tokens",
        type=quantity,
        default=0,
        help="shorter runs are not fitted: near their start they follow no power",
    )
    parser.add_argument(
        "--runs", type=Path, nargs="+", default=[], metavar="DIR", help="pre-training stages to count too"
    )
    parser.add_argument("--write", action="store_true", help="write the law that the dial uses")
    parser.add_argument("--law", type=Path, default=LAW_FILE, help="where to write it")
    parser.add_argument("--commit", default="", help="written beside the constants")
    parser.add_argument("--note", default="", help="written beside the constants")
    parser.add_argument("--plot", type=Path, default=None, help="draw it into this SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
