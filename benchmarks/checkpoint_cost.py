"""What a checkpoint costs a training: the seconds of a whole one, and those of the copying alone.

    python benchmarks/checkpoint_cost.py --json

Checkpoints of an interval are written in the background: a step waits for the copy, which the next step must not change, and
not for hashing, writing and syncing. What that saves is the difference of two shares of the time between two checkpoints:
`share_of_training`, were it waited for, and `share_in_background`. The shape is the quickstart's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from duihua.models.decoder import Decoder, parameter_count
from duihua.stages.configs.pretrain import ShapeConfig
from duihua.training.checkpoints import save_checkpoint, split_state
from duihua.training.config import OptimizerConfig, TrainerConfig
from duihua.training.optimizers import Optimizer


def measure(shape: ShapeConfig, vocabulary_size: int, context: int, times: int) -> dict[str, float]:
    """Medians over `times` checkpoints, in seconds and bytes."""
    network = Decoder(shape.decoder(vocabulary_size, context)).initialise(0)
    optimizer = Optimizer(network, OptimizerConfig())
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step(1e-3)
    copied, saved = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for step in range(1, times + 1):
            began = time.perf_counter()
            weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            split_state(optimizer.state_dict(), "state", {})
            copied.append(time.perf_counter() - began)
            began = time.perf_counter()
            save_checkpoint(Path(folder), step, weights, {"optimizer": optimizer.state_dict()}, keep=2)
            saved.append(time.perf_counter() - began)
        size = sum(file.stat().st_size for file in (Path(folder) / f"step-{times:08d}").iterdir())
    interval = TrainerConfig().checkpoint_seconds
    whole, copy = statistics.median(saved), statistics.median(copied)
    return {
        "parameters": parameter_count(network),
        "bytes": size,
        "seconds": whole,
        "longest_seconds": max(saved),
        "copy_seconds": copy,
        "share_of_training": whole / (interval + whole),
        "share_in_background": copy / (interval + copy),
    }


def main() -> int:
    """Print the figures. Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=192, help="of the decoder (default: the quickstart's 192)")
    parser.add_argument("--layers", type=int, default=4, help="its layers (default 4)")
    parser.add_argument("--vocabulary-size", type=int, default=8192, help="its vocabulary (default 8192)")
    parser.add_argument("--times", type=int, default=9, help="checkpoints that are written (default 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    shape = ShapeConfig(width=arguments.width, layers=arguments.layers, heads=3, key_value_heads=1, head_width=64)
    found = measure(shape, arguments.vocabulary_size, 256, arguments.times)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name.replace('_', ' '):24} {value:,.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
