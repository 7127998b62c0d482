"""The loop: what it computes, and that interruptions leave no trace."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.errors import CheckpointError, TrainingError
from duihua.training.checkpoints import load_newest
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.trainer import LossParts, Trainer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 6, bias=False), nn.Linear(6, 12, bias=False)])
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = torch.tanh(block(x))
        out: Tensor = self.head(nn.functional.dropout(self.norm(x), 0.1, self.training))
        return out


def loss(network: nn.Module, batch: dict[str, Tensor]) -> LossParts:
    ids = batch["token_ids"]
    weights = batch.get("weights", torch.ones_like(ids, dtype=torch.float32))
    losses = nn.functional.cross_entropy(network(ids).flatten(0, 1), ids.roll(1, 1).flatten(), reduction="none")
    return LossParts((losses * weights.flatten()).sum(), float(weights.sum()), {"half": (0.5 * 4, 4.0)})


class Batches:
    """Random ids; splits each step's rows into `parts` micro-batches of unequal weight."""

    def __init__(self, parts: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(7)
        self.parts = parts

    def next(self) -> list[dict[str, Tensor]]:
        ids = torch.randint(0, 11, (6, 5), generator=self.generator)
        weights = torch.arange(30).view(6, 5).float()
        pieces = [slice(0, 6)] if self.parts == 1 else [slice(0, 1), slice(1, 6)]
        return [{"token_ids": ids[piece], "weights": weights[piece]} for piece in pieces]

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["random"].to(torch.uint8))


def make(directory: Path, steps: int = 12, batches: Any = None, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        Net(),
        changes.pop("loss", loss),
        batches or Batches(),
        steps=steps,
        optimizer=changes.pop("optimizer", OptimizerConfig()),
        schedule=ScheduleConfig(warmup_steps=2),
        config=TrainerConfig(log_every=3, checkpoint_seconds=1e9, **changes),
        directory=directory,
        label="test",
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", ["muon", "adamw", "adam", "sgd"])
# 12 is the last: who asks to stop then wants no next stage either.
@pytest.mark.parametrize("stopped_at", [1, 5, 11, 12])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, kind: str, stopped_at: int) -> None:
    optimizer = OptimizerConfig(kind=kind)  # type: ignore[arg-type]
    whole = make(tmp_path / "whole", optimizer=optimizer)
    whole.run()
    first = make(tmp_path / "parts", optimizer=optimizer)
    calls = 0

    def stopping(network: nn.Module, batch: dict[str, Tensor]) -> LossParts:
        nonlocal calls
        calls += 1
        if calls == stopped_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(network, batch)

    first.loss = stopping
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert first.step_number == stopped_at
    second = make(tmp_path / "parts", optimizer=optimizer)
    second.run()
    assert same(whole.network, second.network)
    lines = [
        [json.loads(x) for x in (tmp_path / d / "metrics.jsonl").read_text().splitlines()] for d in ("whole", "parts")
    ]
    assert [(x["step"], x["loss"]) for x in lines[0]] == [(x["step"], x["loss"]) for x in lines[1]]


def test_a_batch_source_that_forgets_its_place_is_noticed(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    whole.run()

    class Forgetful(Batches):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    first = make(tmp_path / "parts", checkpoint_steps=5)
    for _ in range(5):
        first.step()
    first.save()
    second = make(tmp_path / "parts", batches=Forgetful())
    second.run()
    assert not same(whole.network, second.network)


def test_micro_batches_of_unequal_weight_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    def gradient(parts: int) -> Tensor:
        trainer = make(tmp_path / str(parts), batches=Batches(parts), clip_norm=0.0)
        torch.manual_seed(0)
        trainer.network.eval = lambda: trainer.network  # type: ignore[method-assign]
        trainer.network.train = lambda mode=True: trainer.network  # type: ignore[method-assign]
        trainer.network.training = False  # no dropout: the two ways draw differently
        trainer.step()
        return torch.cat([w.grad.flatten() for w in trainer.network.parameters() if w.grad is not None])

    whole, parts = gradient(1), gradient(2)
    assert (whole - parts).abs().max() < 1e-6
    assert whole.abs().max() > 1e-3


def test_the_gradient_is_clipped_to_the_norm_and_the_norm_before_is_logged(tmp_path: Path) -> None:
    trainer = make(tmp_path, clip_norm=0.01)
    shown = trainer.step()
    norm = torch.cat([w.grad.flatten() for w in trainer.network.parameters() if w.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)
    assert shown["gradient_norm"] > 0.02


def test_steps_with_a_loss_that_is_not_finite_are_skipped_then_stop_the_run(tmp_path: Path) -> None:
    def broken(network: nn.Module, batch: dict[str, Tensor]) -> LossParts:
        parts = loss(network, batch)
        return LossParts(parts.sum * float("nan"), parts.weight)

    trainer = make(tmp_path, loss=broken, most_skipped_steps=3)
    before = [w.clone() for w in trainer.network.parameters()]
    with pytest.raises(TrainingError, match="3 steps in a row"):
        trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = make(tmp_path / "whole")
    whole.run()
    first = make(tmp_path / "parts", checkpoint_steps=3)
    for _ in range(9):
        first.step()
        if first.step_number % 3 == 0:
            first.save()
    folder = tmp_path / "parts" / "checkpoints"
    assert [path.name for path in sorted(folder.iterdir())] == ["step-00000006", "step-00000009"]
    target = folder / "step-00000009" / "weights.safetensors"
    data = bytearray(target.read_bytes())
    data[-3] ^= 1
    target.write_bytes(bytes(data))
    second = make(tmp_path / "parts")
    second.run()
    assert "step-00000009" in capsys.readouterr().out
    assert same(whole.network, second.network)


def test_when_all_checkpoints_are_damaged_nothing_is_trained_over_them(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=3)
    trainer.run()
    for file in (tmp_path / "checkpoints").glob("*/state.json"):
        file.write_text("{")
    with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
        load_newest(tmp_path / "checkpoints")


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    make(tmp_path, steps=4).run()
    again = make(tmp_path, steps=4)
    again.loss = lambda network, batch: pytest.fail("trained again")
    result = again.run()
    assert result.steps == 4
    assert result.tokens == 4 * 30
    assert result.last_metrics["half"] == 0.5
