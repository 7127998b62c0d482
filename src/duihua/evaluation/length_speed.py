"""Sequential against parallel: how long one training step takes as the sequence grows, for RNN, LSTM and Transformer.

A recurrent network needs t steps one after the other, however many processors there are; a Transformer's work grows with t^2 in
its attention and can all be done at once. Which is quicker at a length depends on the machine: on one core, where nothing is
parallel, the recurrent network loses only by the overhead of its many small products, on a GPU by its t steps. So the numbers
are of a machine, and are measured, not asserted. Both networks have about the same parameters and read the same tokens.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.decoder import parameter_count as parameters_of
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig

LENGTHS = (16, 32, 64, 128, 256, 512)
VOCABULARY = 512
"""Small, so that the output layer, the same for all, does not hide what differs."""


@dataclass(frozen=True)
class StepTime:
    """Median seconds of a training step (forward, backward; no update) on (batch, length) tokens."""

    model: str
    length: int
    batch: int
    parameters: int
    seconds: float

    @property
    def steps_per_second(self) -> float:
        return 1.0 / self.seconds

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        rates = {
            "steps_per_second": self.steps_per_second,
            "tokens_per_second": self.batch * self.length / self.seconds,
        }
        return {"model": self.model, "length": self.length, "parameters": self.parameters, **rates}


def networks(width: int = 128, layers: int = 2, longest: int = max(LENGTHS)) -> dict[str, nn.Module]:
    """The three, with the Transformer's layers cut so that its parameters are near the LSTM's. "written out" runs the steps
    of nn/recurrent.py in place of torch's kernel."""
    recurrent = {
        cell: RecurrentLM(RecurrentConfig(vocabulary_size=VOCABULARY, cell=cell, width=width, layers=layers))
        for cell in ("rnn", "lstm")
    }
    transformer = Decoder(
        DecoderConfig(
            vocabulary_size=VOCABULARY,
            width=width,
            layers=layers,
            heads=width // 32,
            key_value_heads=width // 32,
            head_width=32,
            feed_forward_width=width,
            context=longest,
            tied_embeddings=True,
        )
    ).initialise(0)
    return {"rnn": recurrent["rnn"], "lstm": recurrent["lstm"], "transformer": transformer}


def step_times(
    lengths: Sequence[int] = LENGTHS,
    *,
    batch: int = 8,
    repeats: int = 5,
    device: str = "cpu",
    width: int = 128,
    written_out: bool = True,
) -> list[StepTime]:
    """One entry a model and length. written_out: also the recurrent networks step by step in Python."""
    found: list[StepTime] = []
    for name, network in networks(width=width, longest=max(lengths)).items():
        network.to(device).train()
        ways = (
            {name: True}
            if isinstance(network, Decoder) or not written_out
            else {name: True, f"{name}, written out": False}
        )
        for label, fused in ways.items():
            for length in lengths:
                ids = torch.randint(VOCABULARY, (batch, length + 1), device=device)
                seconds = _median(partial(_step, network, ids, fused), repeats, device)
                found.append(StepTime(label, length, batch, parameters_of(network), seconds))
    return found


def _step(network: nn.Module, ids: Tensor, fused: bool) -> None:
    network.zero_grad(set_to_none=True)
    if isinstance(network, RecurrentLM):
        hidden, _ = network(ids[:, :-1], fused=fused)
    else:
        assert isinstance(network, Decoder)
        hidden = network.hidden(ids[:, :-1])
    total, _ = network.next_token_losses(hidden, ids[:, 1:], hidden.new_ones(ids[:, 1:].shape))
    total.backward()  # type: ignore[no-untyped-call]


def _median(run: Callable[[], None], repeats: int, device: str) -> float:
    run()
    times = []
    for _ in range(repeats):
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
