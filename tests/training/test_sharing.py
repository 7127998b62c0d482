"""How a step is cut over ranks: every row once, whatever their number; and what cannot be cut is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from duihua.errors import ConfigError, TrainingError
from duihua.training.launch import launch_words, launched_ranks
from duihua.training.micro_batches import MicroBatches
from duihua.training.ranks import Ranks, current, device_of_rank, only_first_goes_on


def load_lab() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rank_lab", Path(__file__).parent / "rank_lab.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lab = load_lab()
SOURCES = {
    "streamed": lab.streamed,
    "packed": lambda _: lab.packed(),
    "pairs": lambda _: lab.pairs(),
    "rollout": lambda _: lab.rollout(lab.ppo_config()),
}


def rows(batch: dict[str, torch.Tensor]) -> list[str]:
    """The rows of a batch as texts without the pads that a neighbour makes necessary; of pairs both sides together."""
    if not batch:
        return []
    count = len(batch["token_ids"])
    sides = 2 if "lengths" in batch else 1
    found = []
    for row in range(count // sides):
        ids = [batch["token_ids"][row + side * count // sides].tolist() for side in range(sides)]
        found.append(str([[i for i in side if i] for side in ids]))
    return found


def missed(source_of: Any, folder: Path, ranks: int, share: str = "share") -> int:
    """Micro-batches of six steps whose rows the ranks do not have once each, and in which a state differs."""
    whole, parts = source_of(folder), [source_of(folder) for _ in range(ranks)]
    wrong = 0
    for _ in range(6):
        expected = whole.next()
        shared = [getattr(part, share)(number, ranks) for number, part in enumerate(parts)]
        for place, batch in enumerate(expected):
            together = sorted(row for part in shared for row in rows(part[place]))
            wrong += together != sorted(rows(batch))
        plain = {k: v for k, v in whole.state_dict().items() if isinstance(v, int | float)}
        wrong += any({k: part.state_dict()[k] for k in plain} != plain for part in parts)
    return wrong


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("source", list(SOURCES))
def test_every_row_of_a_step_is_on_one_rank(tmp_path: Path, source: str, ranks: int) -> None:
    assert missed(SOURCES[source], tmp_path, ranks) == 0


def test_a_cut_that_drops_the_remainder_is_noticed(tmp_path: Path) -> None:
    class Dropping(type(lab.streamed(tmp_path))):  # type: ignore[misc]
        def floor(self, rank: int, ranks: int) -> list[Any]:
            each = self.rows // ranks
            return [{name: t[rank * each : (rank + 1) * each] for name, t in batch.items()} for batch in self.next()]

    def source(folder: Path) -> Any:
        made = lab.streamed(folder)
        made.__class__ = Dropping
        return made

    assert missed(source, tmp_path, 2, "floor") > 0
    assert missed(source, tmp_path, 3, "floor") == 0, "three rows on three ranks leave no remainder"


def test_a_source_that_cannot_be_cut_is_refused_on_several_ranks() -> None:
    class Alone:
        def next(self) -> list[dict[str, torch.Tensor]]:
            return []

    with pytest.raises(TrainingError, match="Alone cannot be spread over 2 ranks"):
        MicroBatches(Alone(), "test", Ranks(0, 2))
    assert MicroBatches(Alone(), "test").next() == []


def test_one_rank_gives_everything_back() -> None:
    ranks = current()
    assert (ranks.count, ranks.first) == (1, True)
    assert ranks.gather({"a": 1}) == [{"a": 1}]
    assert ranks.share("x") == "x"
    value = {"a": torch.ones(2)}
    assert ranks.share_state(value) is value
    assert ranks.add(torch.ones(2)).tolist() == [1, 1]
    only_first_goes_on()


def test_what_torchrun_says_is_read_and_checked() -> None:
    told = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert launched_ranks({}) == 1
    assert launched_ranks(told) == 2
    assert launch_words({}) == ["duihua"]
    assert launch_words(told | {"LOCAL_WORLD_SIZE": "2"})[:3] == ["torchrun", "--nproc-per-node", "2"]
    with pytest.raises(ConfigError, match="MASTER_PORT is not set"):
        launched_ranks({name: value for name, value in told.items() if name != "MASTER_PORT"})
    with pytest.raises(ConfigError, match="whole number"):
        launched_ranks({"WORLD_SIZE": "two"})


def test_ranks_cannot_share_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert device_of_rank("cpu") == "cpu"
    assert device_of_rank("cuda") == "cuda:1"
    with pytest.raises(TrainingError, match="cannot share cuda:0"):
        device_of_rank("cuda:0")
