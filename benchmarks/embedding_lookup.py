"""A look-up in the embedding against the product with one-hot vectors: the same numbers, and how much sooner.

Why it matters: articles introduce the embedding as one-hot times matrix, which is what it computes and not how. The product
touches every row of the table for every token, the look-up one row. They take turns; the shortest of many runs counts.

    python benchmarks/embedding_lookup.py --vocabulary-size 8192 --width 256 --tokens 1024
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")


def measure(vocabulary_size: int, width: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Least seconds of each way over `rounds` turns, with and without making the one-hot vectors."""
    import torch

    from duihua.nn.embedding import Embedding

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    table = Embedding(vocabulary_size, width)
    ids = torch.randint(vocabulary_size, (tokens,), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(ids, vocabulary_size).float()
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "look_up": lambda: table(ids),
        "product": lambda: one_hot @ table.weight,
        "one_hot_and_product": lambda: torch.nn.functional.one_hot(ids, vocabulary_size).float() @ table.weight,
    }
    least = dict.fromkeys(ways, float("inf"))
    with torch.no_grad():
        equal = torch.equal(ways["look_up"](), ways["product"]())
        for _ in range(rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                least[name] = min(least[name], time.perf_counter() - started)
    return {
        "vocabulary_size": vocabulary_size,
        "width": width,
        "tokens": tokens,
        "equal": equal,
        "seconds": least,
        "times_faster": least["product"] / least["look_up"],
        "one_hot_bytes": one_hot.numel() * 4,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocabulary-size", type=int, default=8192)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    setup = parser.parse_args()
    found = measure(setup.vocabulary_size, setup.width, setup.tokens, setup.rounds)
    if setup.json:
        print(json.dumps(found))
        return
    for name, seconds in found["seconds"].items():
        print(f"{name:20} {1e3 * seconds:9.3f} ms")
    print(f"equal: {found['equal']}; look-up {found['times_faster']:,.0f} times faster")


if __name__ == "__main__":
    main()
