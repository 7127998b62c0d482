"""What this processor's matrix products reach: PyTorch's own in fp32, oneDNN's in fp32, bf16; and attention four ways.

    python benchmarks/products.py                # two threads, a minute
    python benchmarks/products.py --threads 8 --json

The reason for src/duihua/nn/products.py and src/duihua/nn/whole_attention.py, and how to see on another machine whether their
rules choose well there. Every way is timed in turns within one process, the best of its turns counts: noise only adds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from duihua import console
from duihua.nn import whole_attention
from duihua.nn.products import bf16_is_native, choose, linear, processor_maker, products_by

PRODUCTS = (
    (2048, 192, 512),
    (4096, 384, 384),
    (4096, 384, 1536),
    (4096, 1536, 384),
    (256, 384, 8192),
    (2048, 2048, 2048),
)
"""Rows, inputs, outputs of a linear layer."""
ATTENTIONS = ((8, 3, 1, 256), (16, 6, 6, 256), (4, 12, 12, 512))
"""Rows, query heads, heads of keys, tokens; 64 features."""
Work = Callable[[], Any]


def best(ways: dict[str, Work], turns: int) -> dict[str, float]:
    """Seconds of each way."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(turns + 1):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            found[name] = min(found[name], time.perf_counter() - began)
    return found


def by(name: str, work: Work) -> Work:
    """`work` with products by that library."""

    def run() -> None:
        with products_by(name):  # type: ignore[arg-type]
            work()

    return run


def in_bf16(work: Work) -> Work:
    """`work` under autocast."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            work()

    return run


def product_row(rows: int, inputs: int, outputs: int, turns: int) -> dict[str, float]:
    """Operations a second of a linear layer, forward and both gradients."""
    x = torch.randn(rows, inputs, requires_grad=True)
    weight = torch.randn(outputs, inputs, requires_grad=True)
    grad = torch.randn(rows, outputs)

    def step() -> None:
        y = linear(x, weight)
        torch.autograd.grad(y, (x, weight), grad.to(y.dtype))

    ways = {"torch fp32": by("torch", step), "oneDNN fp32": by("onednn", step), "bf16": in_bf16(step)}
    return {name: 6.0 * rows * inputs * outputs / taken for name, taken in best(ways, turns).items()}


def attention_row(batch: int, heads: int, groups: int, tokens: int, turns: int) -> dict[str, float]:
    """Seconds of causal attention, forward and backward."""
    query = torch.randn(batch, heads, tokens, 64, requires_grad=True)
    key, value = (torch.randn(batch, groups, tokens, 64, requires_grad=True) for _ in range(2))
    grad = torch.randn(batch, heads, tokens, 64)

    def back(y: Tensor) -> None:
        torch.autograd.grad(y, (query, key, value), grad.to(y.dtype))

    def fused() -> None:
        back(F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True))

    def whole() -> None:
        back(whole_attention.attend(query, key, value, None))

    ways = {
        "fused fp32": fused,
        "whole fp32": by("onednn", whole),
        "fused bf16": in_bf16(fused),
        "whole bf16": in_bf16(whole),
    }
    return best(ways, turns)


def main() -> int:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=15, help="of each way, the best counts (default 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine = {
        "maker": processor_maker(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bf16_is_native(),
        "chosen": choose({}),
        "torch": torch.__version__,
        "threads": given.threads,
    }
    products = {" x ".join(map(str, shape)): product_row(*shape, given.turns) for shape in PRODUCTS}
    attentions = {" x ".join(map(str, shape)): attention_row(*shape, given.turns) for shape in ATTENTIONS}
    if given.json:
        print(json.dumps({"machine": machine, "products": products, "attention": attentions}))
        return 0
    console.say(", ".join(f"{name} {value}" for name, value in machine.items()))
    columns = list(next(iter(products.values())))
    shown = [[name, *(f"{row[way] / 1e9:.0f}" for way in columns)] for name, row in products.items()]
    console.table("GFLOP/s, forward and gradients", ("rows x inputs x outputs", *columns), shown)
    columns = list(next(iter(attentions.values())))
    shown = [[name, *(f"{1e3 * row[way]:.1f}" for way in columns)] for name, row in attentions.items()]
    console.table("attention, ms", ("rows x heads x key heads x tokens", *columns), shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
