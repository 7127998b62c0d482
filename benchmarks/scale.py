"""The loader against the size of the corpus, one rank against several, and training against the length of the context: memory,
start-up, tokens a second.

Why synthetic: what is asked is whether memory and start-up grow with the corpus, and for that ten gigabytes of zeros in a
sparse file are as good as text, and cost no disk. Each size runs in a process of its own, so that none inherits memory from
another. Resident memory is what the kernel counts (VmRSS), less what it was before the shard was opened.

    python benchmarks/scale.py --megabytes 1 100 1000 10000 --steps 500
    python benchmarks/scale.py --megabytes 1 --ranks 1 2 --steps 20
    python benchmarks/scale.py --megabytes 1 --contexts 256 512 1024 2048 4096 8192 --steps 3

Each context is trained on with the same tokens a step, in fewer and longer rows, by all cores. Of its curve the exponent is
given: the slope of a straight line through the logarithms.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

BYTES_A_TOKEN = 3.0
DOCUMENT_TOKENS = 700
VOCABULARY = 8192


def synthetic_shard(folder: Path, megabytes: float) -> Path:
    """A shard of that much text, its ids in a sparse file of zeros; documents of 350 to 1,049 tokens."""
    import numpy as np

    folder.mkdir(parents=True)
    tokens = int(megabytes * 1e6 / BYTES_A_TOKEN)
    lengths = np.random.Generator(np.random.PCG64(0)).integers(350, 1050, max(1, tokens // DOCUMENT_TOKENS))
    ends = lengths.cumsum()
    with open(folder / "ids.bin", "wb") as file:
        file.truncate(int(ends[-1]) * 2)
    ends.astype(np.int64).tofile(folder / "ends.bin")
    about = {"dtype": "uint16", "tokens": int(ends[-1]), "documents": len(ends), "bytes": int(megabytes * 1e6)}
    (folder / "shard.json").write_text(json.dumps(about))
    return folder


def resident_bytes() -> tuple[int, int]:
    """This process's resident memory now and at its highest, as the kernel counts it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024


def measure_loader(folder: Path, rows: int, length: int, steps: int) -> dict[str, Any]:
    """Open the shard, read `steps` batches of (rows, length); what it took."""
    from duihua.data.loaders import StreamedBatches
    from duihua.data.shards import Shard

    before, _ = resident_bytes()
    started, worked = time.perf_counter(), time.process_time()
    shard = Shard(folder)
    batches = StreamedBatches([shard], [1.0], rows, length, 1, 0, 0)
    batches.next()
    start_up, start_up_work = time.perf_counter() - started, time.process_time() - worked
    opened, _ = resident_bytes()
    started = time.perf_counter()
    for _ in range(steps):
        batches.next()
    seconds = time.perf_counter() - started
    after, peak = resident_bytes()
    return {
        "tokens": shard.tokens,
        "documents": shard.documents,
        "start_up_seconds": start_up,
        "start_up_processor_seconds": start_up_work,
        "memory_opened_bytes": opened - before,
        "memory_after_bytes": after - before,
        "memory_peak_bytes": peak - before,
        "tokens_per_second": steps * rows * length / seconds,
    }


def measure_training(folder: Path, rows: int, length: int, steps: int) -> dict[str, Any]:
    """Train a small decoder on this rank's part; the same on every rank."""
    import torch

    from duihua.data.loaders import StreamedBatches
    from duihua.data.shards import Shard
    from duihua.models.config import DecoderConfig
    from duihua.models.decoder import Decoder
    from duihua.stages.pretrain import language_model_loss
    from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
    from duihua.training.ranks import joined
    from duihua.training.trainer import Trainer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    shape = DecoderConfig(
        vocabulary_size=VOCABULARY, width=192, layers=4, heads=4, key_value_heads=4, head_width=48,
        feed_forward_width=512, context=length,
    )  # fmt: skip
    with joined("cpu") as ranks:
        trainer = Trainer(
            Decoder(shape).initialise(0),
            language_model_loss,
            StreamedBatches([Shard(folder)], [1.0], rows, length, 1, 0, 0),
            steps=steps + 2,
            optimizer=OptimizerConfig(),
            schedule=ScheduleConfig(),
            config=TrainerConfig(),
            directory=folder / "unused",
        )
        for _ in range(2):
            trainer.step()
        ranks.wait()
        started = time.perf_counter()
        for _ in range(steps):
            trainer.step()
        seconds = time.perf_counter() - started
    return {
        "ranks": ranks.count,
        "tokens_per_second": steps * rows * length / seconds,
        "step_seconds": seconds / steps,
        "memory_peak_bytes": resident_bytes()[1],
    }


def exponent(points: list[tuple[float, float]]) -> float:
    """The slope of the least-squares line through the logarithms of (x, y)."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def in_processes(
    what: str, count: int, arguments: argparse.Namespace, folder: Path, threads: int = 1
) -> dict[str, Any]:
    """Run this file `count` times at once, as ranks where there are several; what the first of them printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, __file__, "--only", what, "--folder", str(folder)]
    words += ["--rows", str(arguments.rows), "--length", str(arguments.length), "--steps", str(arguments.steps)]
    launch = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    launch["OMP_NUM_THREADS"] = str(threads)
    processes = [
        subprocess.Popen(
            words, env=os.environ | launch | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE
        )
        for rank in range(count)
    ]
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a process of {what} failed")
    found: dict[str, Any] = json.loads(said[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1, 100, 1000], help="of text, one process each")
    parser.add_argument("--ranks", type=int, nargs="*", default=[], help="also train a small model on so many ranks")
    parser.add_argument(
        "--contexts",
        type=int,
        nargs="*",
        default=[],
        help="also train it on rows of so many tokens, rows x length in all",
    )
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["loader", "training"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        way = measure_loader if arguments.only == "loader" else measure_training
        print(json.dumps(way(arguments.folder, arguments.rows, arguments.length, arguments.steps)))
        return
    found: dict[str, Any] = {"loader": [], "training": [], "contexts": []}
    step_tokens = max([arguments.rows * arguments.length, *arguments.contexts])
    with tempfile.TemporaryDirectory(prefix="duihua-scale-") as folder:
        for number, megabytes in enumerate(arguments.megabytes):
            shard = synthetic_shard(Path(folder) / str(number), megabytes)
            found["loader"].append({"megabytes": megabytes, **in_processes("loader", 1, arguments, shard)})
        for count in arguments.ranks:
            found["training"].append(in_processes("training", count, arguments, Path(folder) / "0"))
        for context in arguments.contexts:
            arguments.rows, arguments.length = step_tokens // context, context
            made = in_processes("training", 1, arguments, Path(folder) / "0", os.cpu_count() or 1)
            found["contexts"].append({"context": context, **made})
    if len(found["contexts"]) > 1:
        for name in ("tokens_per_second", "memory_peak_bytes"):
            found[f"{name}_exponent"] = exponent([(row["context"], row[name]) for row in found["contexts"]])
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for row in found["loader"]:
        print(
            f"{row['megabytes']:,.0f} MB, {row['tokens']:,} tokens in {row['documents']:,} documents: start-up "
            f"{row['start_up_seconds']:.2f} s ({row['start_up_processor_seconds']:.2f} s of one core), memory "
            f"{row['memory_opened_bytes'] / 2**20:,.0f} MiB opened, "
            f"{row['memory_after_bytes'] / 2**20:,.0f} MiB after {arguments.steps} steps, "
            f"{row['memory_peak_bytes'] / 2**20:,.0f} MiB at most, {row['tokens_per_second']:,.0f} tokens/s"
        )
    for row in found["training"]:
        print(
            f"{row['ranks']} ranks: {row['tokens_per_second']:,.0f} tokens/s, {row['step_seconds'] * 1e3:.1f} ms a step"
        )
    for row in found["contexts"]:
        print(
            f"context {row['context']:,}: {row['tokens_per_second']:,.0f} tokens/s, {row['memory_peak_bytes'] / 2**20:,.0f} MiB"
        )
    if "tokens_per_second_exponent" in found:
        print(
            f"tokens/s as context to the {found['tokens_per_second_exponent']:+.2f}, memory to the "
            f"{found['memory_peak_bytes_exponent']:+.2f}"
        )


if __name__ == "__main__":
    main()
