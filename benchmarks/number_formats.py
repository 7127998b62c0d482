"""What each number format costs and changes: fp32, bf16, fp16 with its scaler. One small decoder, same batches, same seed.

Why the formats take turns step by step: on a machine that others use too, a format timed alone in a quiet minute would look
fast. Times are processor seconds on a CPU and seconds on the clock on a GPU, the median over steps. Peak memory needs a
process of its own: it is that of the whole process above what it held before the network was built (on a GPU what torch
allocated), after three steps. A processor without instructions for a short format computes it in fp32 with roundings
between, so that a format can be slower there and still save memory.

    python benchmarks/number_formats.py --steps 100 --json

The text is the sample that comes with the package, read as bytes. Prints a table, or JSON with every loss.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

FORMATS = ("fp32", "bf16", "fp16")


class ByteBatches:
    """Random pieces of the sample's text as bytes: the same ones for every format."""

    def __init__(self, rows: int, length: int) -> None:
        import torch

        from duihua.data.home import data_directory
        from duihua.data.source import SourceConfig, open_source

        source = open_source(SourceConfig(name="tiny-text"), data_directory())
        text = "\n".join(record.text for record in source.records("train"))  # type: ignore[union-attr]
        self.ids = torch.tensor(list(text.encode()))
        self.rows, self.length = rows, length
        self.generator = torch.Generator().manual_seed(1)

    def next(self) -> list[dict[str, Any]]:
        import torch

        starts = torch.randint(len(self.ids) - self.length - 1, (self.rows, 1), generator=self.generator)
        pieces = self.ids[starts + torch.arange(self.length + 1)]
        return [{"token_ids": pieces[:, :-1], "targets": pieces[:, 1:]}]

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["random"])


def trainer(precision: str, setup: argparse.Namespace, rows: int, folder: Path) -> Any:
    """A trainer of a fresh network, the same one for every format."""
    import torch

    from duihua.models.config import DecoderConfig
    from duihua.models.decoder import Decoder
    from duihua.stages.pretrain import language_model_loss
    from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
    from duihua.training.trainer import Trainer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    heads = max(1, setup.width // 64)
    shape = DecoderConfig(
        vocabulary_size=256,
        width=setup.width,
        layers=setup.layers,
        heads=heads,
        key_value_heads=heads,
        head_width=setup.width // heads,
        feed_forward_width=setup.width * 11 // 4,
        context=setup.length,
    )
    return Trainer(
        Decoder(shape).initialise(1),
        language_model_loss,
        ByteBatches(rows, setup.length),
        steps=setup.steps,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=2e-3, beta1=0.9),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=10),
        config=TrainerConfig(precision=precision, checkpoint_seconds=1e9),  # type: ignore[arg-type]
        directory=folder,
        device=setup.device,
        seed=1,
        label=precision,
    )


def peak_memory(precision: str, setup: argparse.Namespace) -> float:
    """MiB that three steps of a format take above what stood there before; to be called in a process of its own."""
    import torch

    from duihua.report.machine import own_peak_memory

    with tempfile.TemporaryDirectory() as folder:
        before = trainer(precision, argparse.Namespace(**{**vars(setup), "width": 64, "layers": 1}), 1, Path(folder))
        before.step()  # whatever libraries take once
        held = own_peak_memory()
        measured = trainer(precision, setup, setup.memory_rows, Path(folder))
        for _ in range(3):
            measured.step()
    if torch.device(setup.device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return (own_peak_memory() - held) / 2**20


def compare(setup: argparse.Namespace) -> list[dict[str, Any]]:
    """Train all formats side by side; one row a format."""
    import torch

    from duihua.models.decoder import parameter_count

    cuda = torch.device(setup.device).type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
    losses: dict[str, list[float]] = {name: [] for name in FORMATS}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: trainer(name, setup, setup.rows, Path(folder) / name) for name in FORMATS}
        for step in range(setup.steps):
            turn = step % len(FORMATS)
            for name in (*FORMATS[turn:], *FORMATS[:turn]):
                if cuda:
                    torch.cuda.synchronize()
                started = clock()
                losses[name].append(trainers[name].step()["loss"])
                if cuda:
                    torch.cuda.synchronize()
                seconds[name].append(clock() - started)
        skipped = {name: made.skipped for name, made in trainers.items()}
        parameters = parameter_count(trainers["fp32"].network)
    tail = max(1, setup.steps // 10)
    rows = []
    for name in FORMATS:
        gaps = [abs(a - b) / b for a, b in zip(losses[name], losses["fp32"], strict=True)]
        rows.append(
            {
                "format": name,
                "parameters": parameters,
                "loss": statistics.mean(losses[name][-tail:]),
                "widest_gap": max(gaps),
                "tokens_per_second": setup.rows * setup.length / statistics.median(seconds[name][2:]),
                "skipped_steps": skipped[name],
                "losses": losses[name],
            }
        )
    return rows


def measured_apart(name: str, arguments: list[str]) -> float:
    """`peak_memory` of a format in a fresh process."""
    command = [sys.executable, __file__, *arguments, "--peak-memory-of", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=4, help="sequences a step")
    parser.add_argument("--memory-rows", type=int, default=32, help="sequences a step where memory is measured")
    parser.add_argument("--length", type=int, default=128, help="bytes a sequence")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak-memory-of", choices=FORMATS, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    setup = parser.parse_args()
    if setup.peak_memory_of:
        print(peak_memory(setup.peak_memory_of, setup))
        return
    rows = compare(setup)
    for row in rows:
        row["peak_mebibytes"] = measured_apart(row["format"], [a for a in sys.argv[1:] if a != "--json"])
    if setup.json:
        print(json.dumps({"rows": rows, "steps": setup.steps, "tokens_per_step": setup.rows * setup.length}))
        return
    print(f"{'format':8} {'loss':>8} {'widest gap':>11} {'tokens/s':>9} {'peak MiB':>9} {'skipped':>8}")
    for row in rows:
        print(
            f"{row['format']:8} {row['loss']:8.4f} {row['widest_gap']:11.2%} {row['tokens_per_second']:9,.0f} "
            f"{row['peak_mebibytes']:9.0f} {row['skipped_steps']:8}"
        )


if __name__ == "__main__":
    main()
