"""The benchmark of PPO: it times whole rollouts with their updates, and its figures are medians over alternating turns."""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from duihua.models.bundle import ModelCard, Normalisation, save_bundle
from duihua.models.heads import ScoredDecoder

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "ppo.py"


@pytest.fixture
def benchmark() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmark_ppo", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)
    del sys.modules[spec.name]


def settings(**changes: Any) -> argparse.Namespace:
    given = {"batch": 8, "minibatch": 4, "epochs": 2, "prompt_tokens": 5, "reply_tokens": 6, "iterations": 2, "repeats": 3,
             "threads": 1, "critic": "separate", "peer_python": Path("peer")}  # fmt: skip
    return argparse.Namespace(**given | changes)


def test_every_reply_has_the_asked_length_and_every_iteration_its_time(
    lab: Any, tmp_path: Path, benchmark: ModuleType
) -> None:
    network = ScoredDecoder(lab.decoder(seed=3)).initialise_score(3)
    card = ModelCard(title="tiny reward", stage="reward")
    save_bundle(tmp_path / "reward", network, lab.tokenizer, card, normalisation=Normalisation(0.0, 1.0))
    given = settings(policy=str(lab.policy_bundle(tmp_path / "sft")), reward=str(tmp_path / "reward"))
    prompts = benchmark.make_prompts(given)
    assert len(prompts) == 8 * (1 + 2) and {len(prompt) for prompt in prompts} == {5}
    found = benchmark.of_duihua(given, prompts)
    assert found["length"] == 6.0 and len(found["seconds"]) == 2 and min(found["seconds"]) > 0
    assert len(found["processor_seconds"]) == 2
    assert benchmark.make_prompts(given) == prompts, "both sides are asked the same"


def test_sides_take_turns_and_the_ratio_is_of_medians(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"duihua": iter([[1.0, 2.0], [2.0, 9.0], [2.0, 2.0]]), "trl": iter([[8.0, 8.0], [1.0, 8.0], [16.0, 8.0]])}
    asked: list[str] = []

    def turn(side: str, given: argparse.Namespace, prompts: Path) -> dict[str, Any]:
        asked.append(side)
        taken = next(seconds[side])
        processor = [2 * value for value in taken] if side == "duihua" else [8.0, 8.0]
        return {"seconds": taken, "processor_seconds": processor, "length": 6.0, "version": side}

    monkeypatch.setattr(benchmark, "turn", turn)
    (tmp_path / "config.json").write_text('{"vocab_size": 290}', encoding="utf-8")
    found = benchmark.compare(settings(policy=str(tmp_path)))
    assert asked == ["duihua", "trl"] * 3
    assert found["sides"]["duihua"]["samples_per_second"] == 8 / 2.0
    assert found["sides"]["trl"]["samples_per_second"] == 8 / 8.0
    assert found["ratio"] == 4.0 and found["processor_ratio"] == 2.0 and len(found["load"]) == 7
    assert statistics.mean([1.0, 2.0, 2.0, 9.0, 2.0, 2.0]) != 2.0, "a mean would be led astray by the slow one"


def test_a_batch_that_cannot_be_cut_is_refused(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--batch", "10", "--minibatch", "4"])
    assert "no multiple" in capsys.readouterr().err
