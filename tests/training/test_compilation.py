"""Compiled blocks compute what the blocks compute, and only training goes through them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from duihua.errors import TrainingError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages.pretrain import language_model_loss
from duihua.training import compilation
from duihua.training.compilation import compile_blocks, compiles
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.speed import RandomTokens
from duihua.training.trainer import Trainer

SHAPE = DecoderConfig(
    vocabulary_size=64, width=32, layers=3, heads=4, key_value_heads=2, head_width=8, feed_forward_width=48, context=16
)
IDS = torch.arange(48).reshape(3, 16) % 64


def gradients(network: Decoder, ids: Tensor = IDS) -> list[Tensor]:
    network.train().zero_grad()
    batch = {"token_ids": ids[:, :-1], "targets": ids[:, 1:]}
    language_model_loss(network, batch).sum.backward()  # type: ignore[no-untyped-call]
    return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]


def gap(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_blocks_give_the_same_gradients(recomputed: bool) -> None:
    network = Decoder(SHAPE).initialise(1)
    network.gradient_checkpointing = recomputed
    plain, shorter = gradients(network), gradients(network, IDS[:2, :9])
    calls = []
    assert compile_blocks(network, "aot_eager") == 3  # all of torch.compile but the last step, machine code
    network.compiled_blocks = [
        lambda *given, block=block: calls.append(1) or block(*given) for block in network.compiled_blocks
    ]
    assert gap(gradients(network), plain) < 2e-5 and gap(gradients(network, IDS[:2, :9]), shorter) < 2e-5
    assert len(calls) >= 6, "the compiled blocks were asked"
    other = Decoder(SHAPE).initialise(2)
    assert gap(gradients(other), plain) > 1e-2, "another network is told apart"


def test_batches_of_many_sizes_share_one_program() -> None:
    """One for the first size, one for all others, below and above where oneDNN begins to pay."""
    torch.compiler.reset()
    network, made = Decoder(SHAPE).initialise(1), counters["stats"]
    made.clear()
    compile_blocks(network, "aot_eager")
    for rows in (3, 4, 200):
        gradients(network, IDS[:1].expand(rows, 16))
    assert made["unique_graphs"] == 2
    torch.compiler.reset()


def test_only_training_goes_through_them_and_no_weight_is_stored_twice() -> None:
    network = Decoder(SHAPE).initialise(1)
    names = list(network.state_dict())

    def refuse(*_: object) -> Tensor:
        raise AssertionError("asked")

    network.compiled_blocks = [refuse] * 3
    network.eval()
    network(IDS)
    network.train()
    network(IDS[:, :1], cache=network.new_cache(3), positions_bt=torch.zeros(3, 1, dtype=torch.long))
    with pytest.raises(AssertionError, match="asked"):
        network(IDS)
    assert list(network.state_dict()) == names


def test_auto_compiles_long_trainings_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: object())
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert not compiles(TrainerConfig(), cpu, 10**6)
    assert compiles(TrainerConfig(), gpu, 1000) and not compiles(TrainerConfig(), gpu, 999)
    assert not compiles(TrainerConfig(sharding="full"), gpu, 1000) and not compiles(
        TrainerConfig(compile="off"), gpu, 1000
    )
    assert compiles(TrainerConfig(compile="blocks"), cpu, 1)
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: None)
    assert not compiles(TrainerConfig(), gpu, 1000), "without the compiler's GPU part"


def trainer(network: nn.Module, folder: Path) -> Trainer:
    return Trainer(
        network,
        language_model_loss,
        RandomTokens(64, 2, 8),
        steps=2,
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(),
        config=TrainerConfig(compile="blocks"),
        directory=folder,
        label="pretrain",
    )


def test_the_trainer_compiles_what_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda block, backend: block)
    network = Decoder(SHAPE).initialise(1)
    assert trainer(network, tmp_path).run().steps == 2
    assert network.compiled_blocks == list(network.blocks)


def test_a_network_without_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no blocks to compile"):
        trainer(nn.Linear(2, 2), tmp_path)
