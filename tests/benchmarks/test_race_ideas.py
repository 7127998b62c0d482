"""Each idea of the race changes what it says it changes, and nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duihua.data.loaders import StreamedBatches
from duihua.data.shards import write_shard
from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages.pretrain import language_model_loss
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.trainer import Trainer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS, LENGTH, STEPS = 4, 8, 12


class Letters:
    vocabulary_size = 128
    end_of_text_id = 0

    def encode_flat(self, texts: list[str]) -> tuple[Any, Any]:
        rows = [[ord(c) for c in text] for text in texts]
        return np.array([id for row in rows for id in row]), np.cumsum(list(map(len, rows)))


@pytest.fixture
def ideas(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("race.ideas")
    for name in [name for name in sys.modules if name.partition(".")[0] == "race"]:
        del sys.modules[name]


def trainer(folder: Path) -> Trainer:
    random = np.random.default_rng(5)
    texts = ["".join(chr(97 + int(26 * one**3)) for one in random.random(57)) for _ in range(20)]
    shard = write_shard(folder / "shard", texts, Letters())
    shape = DecoderConfig(
        128, width=16, layers=1, heads=2, key_value_heads=1, head_width=8, context=LENGTH, initialisation="normal"
    )  # no matrix is zero, so that each has a gradient at once
    return Trainer(
        Decoder(shape).initialise(0),
        language_model_loss,
        StreamedBatches([shard], [1.0], ROWS, LENGTH, 1, 3, 0),
        steps=STEPS,
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(kind="constant", warmup_steps=0),
        config=TrainerConfig(checkpoint_seconds=1e9),
        directory=folder / "run",
    )


def first_matrix(made: Trainer) -> nn.Parameter:
    """Of those that Muon moves."""
    return next(weight for name, weight in made.network.named_parameters() if "blocks" in name and weight.dim() == 2)


def walked(made: Trainer, hooks: list[Any]) -> list[dict[str, Tensor]]:
    """What is read when every step is taken."""
    seen = []
    next_step, source = made.batches.next, made.batches

    def next_() -> list[dict[str, Tensor]]:
        seen.append(next_step()[0])
        return [seen[-1]]

    source.next = next_  # type: ignore[method-assign]
    for _ in range(STEPS):
        for hook in hooks:
            hook()
        made.step()
    return seen


def plain(folder: Path) -> tuple[list[dict[str, Tensor]], Trainer]:
    made = trainer(folder)
    return walked(made, []), made


def test_normuon_evens_the_rows_and_keeps_the_size(ideas: Any, tmp_path: Path) -> None:
    changes = {}
    for name in ("plain", "normuon"):
        made = trainer(tmp_path / name)
        hooks = ideas.hooks_of([name] if name == "normuon" else [], made)
        weight = first_matrix(made)
        before = weight.detach().clone()
        for hook in hooks:
            hook()
        made.step()
        changes[name] = weight.detach() - before
    sizes = {name: change.square().mean(dim=1).sqrt() for name, change in changes.items()}
    assert float(sizes["normuon"].std()) < 1e-4 * float(sizes["normuon"].mean()) < float(sizes["plain"].std())
    assert abs(float(changes["normuon"].norm() / changes["plain"].norm()) - 1) < 1e-4


def test_weights_decay_where_the_update_goes_towards_zero_too(ideas: Any, tmp_path: Path) -> None:
    after, starts = {}, {}
    for name in ("plain", "cautious-decay"):
        made = trainer(tmp_path / name)
        ideas.hooks_of([] if name == "plain" else [name], made)
        weight = first_matrix(made)
        starts[name] = weight.detach().clone()
        made.step()
        after[name] = weight.detach().clone()
    start, change = starts["plain"], after["plain"] - starts["plain"]
    assert bool((start * change < 0).any()) and bool((start * change > 0).any())
    decayed = after["plain"] - 0.02 * ideas.DECAY * start * (start * change < 0)
    assert (after["cautious-decay"] - decayed).abs().max() < 1e-7
    everywhere = after["plain"] - 0.02 * ideas.DECAY * start
    assert (after["cautious-decay"] - everywhere).abs().max() > 1e-5


def test_the_batch_grows_and_its_rates_with_it(ideas: Any, tmp_path: Path) -> None:
    made = trainer(tmp_path)
    factors: list[float] = []
    step = made.optimizer.step

    def noted(factor: float) -> None:
        factors.append(factor)
        step(factor)

    made.optimizer.step = noted  # type: ignore[method-assign]
    seen = walked(made, ideas.hooks_of(["batch-ramp"], made))
    assert [len(one["token_ids"]) for one in seen] == [ROWS // 2] * 4 + [ROWS] * 8
    assert factors == pytest.approx([0.5**0.5] * 4 + [1.0] * 8)


def test_rows_are_cut_short_at_first_and_hold_the_same_tokens(ideas: Any, tmp_path: Path) -> None:
    expected, _ = plain(tmp_path / "plain")
    made = trainer(tmp_path / "cut")
    seen = walked(made, ideas.hooks_of(["length-warm-up"], made))
    assert [one["token_ids"].shape[1] for one in seen] == [2] * 3 + [4] * 3 + [8] * 6
    assert all(torch.equal(a["targets"].flatten(), b["targets"].flatten()) for a, b in zip(seen, expected, strict=True))


def test_rows_follow_the_stream_or_go_from_frequent_to_rare(ideas: Any, tmp_path: Path) -> None:
    expected, _ = plain(tmp_path / "plain")
    found = {}
    for name in ("in-order", "easy-first"):
        made = trainer(tmp_path / name)
        found[name] = walked(made, ideas.hooks_of([name], made))
    stream = torch.cat([one["targets"].flatten() for one in found["in-order"]])
    inputs = torch.cat([one["token_ids"].flatten() for one in found["in-order"]])
    assert torch.equal(inputs[1:], stream[:-1]), "each row goes on where the one before ended"
    same = [torch.equal(a["targets"], b["targets"]) for a, b in zip(found["easy-first"], expected, strict=True)]
    assert all(same[: ideas.SETTLED]) and not all(same)

    def rows(of: list[dict[str, Tensor]]) -> list[tuple[int, ...]]:
        return [tuple(row.tolist()) for one in of[ideas.SETTLED :] for row in one["targets"]]

    assert sorted(rows(found["easy-first"])) == sorted(rows(expected))
    frequent = np.bincount([id for row in rows(expected) for id in row])
    ease = [float(np.log(frequent[list(row)]).mean()) for row in rows(found["easy-first"])]
    half = len(ease) // 2
    assert np.mean(ease[:half]) > np.mean(ease[half:]) + 0.1


def test_an_unknown_idea_is_refused(ideas: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such idea: luck.*normuon"):
        ideas.hooks_of(["normuon", "luck"], trainer(tmp_path))
