"""Out of memory: which errors mean it, how each kind of batch is cut, and that the gradient is that of the whole."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duihua.data.halves import halve_rows
from duihua.data.streams import ContiguousBatches
from duihua.errors import TrainingError
from duihua.models.classifier import Classifier
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.stages.classify import JointLoss
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.encoded_pairs import Pair
from duihua.stages.pair_batches import PairBatches
from duihua.stages.recurrent import TruncatedLoss
from duihua.stages.reward import Loss
from duihua.stages.task_examples import TaskBatches, TaskExample
from duihua.text.task_inputs import TaskInput
from duihua.training.micro_batches import MicroBatches, is_out_of_memory

Batch = dict[str, Tensor]


def test_what_means_out_of_memory() -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 800 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ):
        assert is_out_of_memory(error), error
    for other in (
        RuntimeError("shape '[3]' is invalid"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        TrainingError("out of memory"),
        ValueError("out of memory"),
    ):
        assert not is_out_of_memory(other), other


def test_the_error_that_torch_really_raises_on_a_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.float32)
    assert is_out_of_memory(caught.value)


def test_rows_are_cut_in_two_and_what_belongs_to_all_stays_whole() -> None:
    batch = {"token_ids": torch.arange(10).view(5, 2), "whole": torch.tensor([7.0])}
    first, second = halve_rows(batch, whole=("whole",))
    assert first["token_ids"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert second["token_ids"].tolist() == [[6, 7], [8, 9]]
    assert first["whole"] is second["whole"] is batch["whole"]
    alone = {"token_ids": torch.ones(1, 4)}
    assert halve_rows(alone) == [alone]


def gradient(network: nn.Module, loss: Any, batches: list[Batch]) -> Tensor:
    """The gradient of the summed loss over the summed weight, as the Trainer takes it."""
    network.zero_grad()
    weight = 0.0
    for batch in batches:
        parts = loss(network, batch)
        parts.sum.backward()
        weight += parts.weight
    grads = [w.grad.flatten() for w in network.parameters() if w.grad is not None]
    return torch.cat(grads) / weight


def decoder() -> Decoder:
    shape = DecoderConfig(
        vocabulary_size=40,
        width=16,
        layers=1,
        heads=2,
        key_value_heads=1,
        head_width=8,
        feed_forward_width=24,
        context=24,
    )
    made = Decoder(shape).initialise(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(weight))))
    return made


def reward_case() -> tuple[nn.Module, Any, Any]:
    pairs = [Pair([1, 2, 3 + i], [1, 2, 9, 4 + i][: 3 + i % 2], "human", 1, 1, "s", "en") for i in range(5)]
    return ScoredDecoder(decoder()).initialise_score(0), Loss(RewardConfig()), PairBatches(pairs, 5, 5, 0, seed=1)


def classify_case() -> tuple[nn.Module, Any, Any]:
    classifier = Classifier(decoder(), "multiple_choice", 2, dropout=0.0).initialise(0).eval()
    marks = classifier.tokens
    examples = []
    for i in range(6):
        rows = tuple((marks.start, 3 + i, 5 + k, marks.extract) for k in range(2 + i % 2))
        examples.append(TaskExample(TaskInput(rows, 0), i % 2))
    batches = TaskBatches(examples, batch=6, micro_batch=6, pad_id=0, vocabulary_size=40, seed=0)
    return classifier, JointLoss(0.5), batches


def recurrent_case() -> tuple[nn.Module, Any, Any]:
    network = RecurrentLM(RecurrentConfig(cell="lstm", width=8, layers=1, vocabulary_size=12, end_id=0)).initialise(0)
    batches = ContiguousBatches(np.arange(60) % 12, 4, 5, seed=0)
    network.eval()
    loss = TruncatedLoss(batches)
    loss(network, batches.next()[0])  # so that the window below begins with a state
    return network, loss, batches


@pytest.mark.parametrize("case", [reward_case, classify_case, recurrent_case])
def test_the_gradient_of_the_halves_is_that_of_the_whole(case: Any) -> None:
    network, loss, source = case()
    batches = source.next()
    assert len(batches) == 1
    whole = gradient(network, loss, batches)
    told = copy.deepcopy(source.state_dict())
    cut = MicroBatches(source)
    halves = cut.smaller(batches, MemoryError())
    quarters = cut.smaller(halves, MemoryError())
    assert (len(halves), len(quarters)) == (2, 4)
    found = gradient(network, loss, quarters)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    assert str(source.state_dict()) == str(told), "what the loss told the source is the same as well"
    control = gradient(network, loss, quarters[:-1])
    assert (control - whole).abs().max() > 1e-4


def test_an_example_alone_cannot_be_cut_and_the_user_is_told_what_to_do() -> None:
    class Source:
        def halves(self, batch: Batch) -> list[Batch]:
            return halve_rows(batch)

    cut = MicroBatches(Source(), "sft")
    with pytest.raises(TrainingError, match="does not hold a micro-batch of 1 x 9 tokens: no memory") as caught:
        cut.smaller([{"token_ids": torch.ones(1, 9)}], MemoryError("no memory"))
    assert caught.value.where == "sft"
    assert cut.halvings == 0


def test_a_source_that_does_not_say_how_is_not_cut_by_guess(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the memory does not hold"):
        MicroBatches(object()).smaller([{"token_ids": torch.ones(8, 9)}], MemoryError())
