"""The copy-memory task: read a symbol, then blanks, then a sign to recall; say the symbol (Hochreiter and Schmidhuber 1997,
section 5; Arjovsky et al. 2016, section 5.1).

    s  _ _ _ ... _  ?   ->  s at the last step           s one of `symbols`, `lag` blanks

Nothing helps but memory: the blanks are all alike, so what is not kept in the state for `lag` steps is gone, and the gradient
that could teach the network to keep it has to come back over as many steps. It is the smallest task on which the LSTM's cell
shows: chance is 1 / symbols. To leave the network no clock to rely on, the number of blanks varies a little above the lag.

It is trained by the one Trainer, with a fresh batch in every step that depends on the seed and the step alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.nn.recurrent_kinds import CellKind
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.trainer import Batch, LossParts, Trainer


@dataclass(frozen=True)
class MemoryTask:
    """symbols: how many there are to recall. lag: least blanks between reading and recall; up to `spread` more."""

    symbols: int = 8
    lag: int = 50
    spread: int = 10

    @property
    def vocabulary_size(self) -> int:
        """The symbols, the blank and the sign to recall."""
        return self.symbols + 2

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.lag + self.spread + 2

    def batch(self, random: np.random.Generator, rows: int) -> dict[str, Tensor]:
        """{"token_ids": (b, longest), "answers": (b,), "places": (b,) of the sign to recall}; behind it blanks."""
        blank, recall = self.symbols, self.symbols + 1
        answers = random.integers(self.symbols, size=rows)
        places = 1 + self.lag + random.integers(self.spread + 1, size=rows)
        ids = np.full((rows, self.longest), blank, dtype=np.int64)
        ids[:, 0] = answers
        ids[np.arange(rows), places] = recall
        return {
            "token_ids": torch.from_numpy(ids),
            "answers": torch.from_numpy(answers),
            "places": torch.from_numpy(places),
        }


class MemoryBatches:
    """A fresh batch for each step."""

    def __init__(self, task: MemoryTask, rows: int, seed: int) -> None:
        self.task, self.rows, self.seed, self.step = task, rows, seed, 0

    def next(self) -> list[Batch]:
        self.step += 1
        return [self.task.batch(np.random.Generator(np.random.PCG64([self.seed, self.step])), self.rows)]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def recall_loss(network: nn.Module, batch: Mapping[str, Tensor]) -> LossParts:
    """Cross-entropy at the step of the recall alone. metrics: accuracy there."""
    logits_bv = recall_logits(network, batch)
    answers_b = batch["answers"]
    right = float((logits_bv.argmax(dim=1) == answers_b).sum())
    total = nn.functional.cross_entropy(logits_bv, answers_b, reduction="sum")
    return LossParts(total, float(len(answers_b)), {"accuracy": (right, float(len(answers_b)))})


def recall_logits(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits (b, v) at the step of the recall."""
    assert isinstance(network, RecurrentLM)
    hidden_btd = network(batch["token_ids"])[0]
    rows_b = torch.arange(len(batch["places"]), device=hidden_btd.device)
    return network.logits(hidden_btd[rows_b, batch["places"]])


@torch.no_grad()
def recall_accuracy(network: RecurrentLM, task: MemoryTask, examples: int = 1000, seed: int = 2**31) -> float:
    """Share of fresh examples whose symbol is recalled."""
    device = network.embedding.weight.device
    drawn = task.batch(np.random.Generator(np.random.PCG64(seed)), examples)
    batch = {name: tensor.to(device) for name, tensor in drawn.items()}
    return float((recall_logits(network.eval(), batch).argmax(dim=1) == batch["answers"]).float().mean())


@torch.no_grad()
def started_as_torch(network: RecurrentLM, seed: int) -> RecurrentLM:
    """torch's own start everywhere: N(0, 1) for what is read (nn.Embedding), uniform +-1/sqrt(e) for layers and head.

    The small embedding with which a language model begins would whisper the one symbol that matters here.
    """
    network.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    network.embedding.weight.normal_(generator=generator)
    bound = network.head.in_features**-0.5
    network.head.weight.uniform_(-bound, bound, generator=generator)
    return network


@dataclass(frozen=True)
class MemoryResult:
    """accuracy: at the step of the recall, of fresh examples. loss: mean of the last logged steps, nats."""

    cell: CellKind
    seed: int
    accuracy: float
    loss: float
    steps: int
    seconds: float
    parameters: int


def train_memory(
    cell: CellKind,
    directory: Path,
    *,
    task: MemoryTask | None = None,
    seed: int = 0,
    steps: int = 400,
    width: int = 64,
    rows: int = 16,
    learning_rate: float = 1e-2,
    forget_bias: float | None = 6.0,
) -> tuple[RecurrentLM, MemoryResult]:
    """Train one network on the task. Checkpoints and metrics go into `directory`.

    All weights start as torch's do, save the LSTM's forget bias: a gate of sigmoid(b) keeps a memory for about e^b steps, so
    60 steps want b = ln 60 = 4.1 or more (Tallec and Ollivier 2018, section 2). With 1 or 3 the LSTM is at chance after 400
    steps like the RNN, with 4 one seed of three learns, since sigmoid(4)^60 = 0.33; with 5 and 6 (0.67, 0.86) all of eight.
    """
    task = task or MemoryTask()
    config = RecurrentConfig(
        vocabulary_size=task.vocabulary_size, end_id=task.symbols, cell=cell, width=width, layers=1, forget_bias=forget_bias,
        tied_embeddings=False,
    )  # fmt: skip
    network = started_as_torch(RecurrentLM(config), seed)
    trained = Trainer(
        network,
        recall_loss,
        MemoryBatches(task, rows, seed),
        steps=steps,
        optimizer=OptimizerConfig(kind="adam", learning_rate=learning_rate, beta1=0.9, beta2=0.999),
        schedule=ScheduleConfig(kind="linear", warmup_steps=10),
        config=TrainerConfig(clip_norm=1.0, log_every=25, checkpoint_seconds=1e9),
        directory=directory,
        seed=seed,
        label=f"copy-memory, {cell}",
    ).run()
    accuracy = recall_accuracy(network, task)
    return network, MemoryResult(cell, seed, accuracy, trained.loss, steps, trained.seconds, config.parameters)
