"""How fast this machine trains a given network: measured, in a few seconds.

Why measured: operations a second printed on a box are never reached, and how far below them a step stays depends on
widths, batch, number format and library. Real updates are run, forward, backward, clipping and optimizer, on random
tokens. Where a whole step would not fit into the memory or would take too long, a product of the network's own size is
timed instead and the count of operations divided by its rate: a bound that no training reaches, and said to be so.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from duihua.nn.fused_attention import one_shape
from duihua.nn.products import product
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.precision import compute_dtype
from duihua.training.trainer import Batch, BatchSource, Loss, Trainer

LONGEST_STEP = 5.0
"""Seconds; a step that takes longer even at the rate of bare products is not measured."""
PRODUCT = {False: 1e10, True: 1e13}
"""Operations of one timed product on a CPU and on a GPU: enough for the full rate, some tenths of a second at most."""
ENDLESS = 1_000_000
"""Steps of the training that is measured, whose end is never reached."""
TOGETHER = {False: 1, True: 32}
"""Products between two looks at the clock: on a GPU one takes some microseconds, as long as waiting for it."""
Method = Literal["training steps", "matrix products"]


@dataclass(frozen=True)
class Speed:
    """method: "training steps" or, as an upper bound, "matrix products". operations_per_second: of products, with the count
    of models/flops.py. steps, seconds: measured, 0 steps for products. step_seconds: of one step of batch x time tokens."""

    method: Method
    tokens_per_second: float
    operations_per_second: float
    batch: int
    time: int
    steps: int
    seconds: float
    device: str
    threads: int
    precision: str

    @property
    def step_seconds(self) -> float:
        return self.batch * self.time / self.tokens_per_second

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"step_seconds": self.step_seconds}


class RandomTokens:
    """A batch source of random ids: {"token_ids", "targets"}, both (batch, time)."""

    def __init__(self, vocabulary_size: int, batch: int, time: int) -> None:
        self.vocabulary_size, self.shape = vocabulary_size, (batch, time + 1)
        self.generator = torch.Generator().manual_seed(0)

    def next(self) -> list[Batch]:
        ids = torch.randint(self.vocabulary_size, self.shape, generator=self.generator)
        return [{"token_ids": ids[:, :-1].contiguous(), "targets": ids[:, 1:].contiguous()}]

    def state_dict(self) -> dict[str, Tensor]:
        return {"random": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["random"].to(torch.uint8))


def measure_steps(
    network: nn.Module,
    loss: Loss,
    vocabulary_size: int,
    batch: int,
    length: int,
    flops_per_token: float,
    *,
    config: TrainerConfig,
    optimizer: OptimizerConfig,
    device: str = "cpu",
    seconds: float = 4.0,
    batches: BatchSource | None = None,
) -> Speed:
    """Train `network` on random tokens for about `seconds`, after one or two steps that are not counted. It is changed by that.

    flops_per_token: of forward and backward, to state the rate of operations. batches: what to train on instead, steps of
    `batch` rows of `length` in all. Nothing is written.
    """
    trainer = Trainer(
        network,
        loss,
        batches or RandomTokens(vocabulary_size, batch, length),
        steps=ENDLESS,
        optimizer=optimizer,
        schedule=ScheduleConfig(kind="constant", warmup_steps=1000),
        config=config,
        directory=Path("unused"),
        device=device,
        label="measurement",
    )
    with one_shape():
        began = time.perf_counter()
        trainer.step()
        if time.perf_counter() - began < 1.0:
            trainer.step()
        steps, started = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - started < seconds:
            trainer.step()  # ends with the norm on the host, so that a GPU has finished all but the update
            steps += 1
        _wait(device)
        passed = time.perf_counter() - started
    rate = steps * batch * length / passed
    return Speed(
        "training steps",
        rate,
        rate * flops_per_token,
        batch,
        length,
        steps,
        passed,
        device,
        torch.get_num_threads(),
        config.precision,
    )


def measure_products(
    width: int,
    hidden: int,
    batch: int,
    length: int,
    flops_per_token: float,
    *,
    precision: str = "auto",
    device: str = "cpu",
    seconds: float = 1.0,
) -> Speed:
    """The rate of products (batch x length, width) (width, hidden), as that of whole training: an upper bound."""
    dtype = compute_dtype(precision, device) or torch.float32
    on_gpu = torch.device(device).type == "cuda"
    rows = int(min(batch * length, 8192, max(64, PRODUCT[on_gpu] / (2 * width * hidden))))
    left = torch.randn(rows, width, device=device).to(dtype)
    right = torch.randn(width, hidden, device=device).to(dtype)
    product(left, right)
    _wait(device)
    products, started = 0, time.perf_counter()
    while products == 0 or time.perf_counter() - started < seconds:
        for _ in range(TOGETHER[on_gpu]):
            product(left, right)
        _wait(device)
        products += TOGETHER[on_gpu]
    passed = time.perf_counter() - started
    operations = 2.0 * rows * width * hidden * products / passed
    rate = operations / flops_per_token
    return Speed(
        "matrix products",
        rate,
        operations,
        batch,
        length,
        0,
        passed,
        device,
        torch.get_num_threads(),
        precision,
    )


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
