"""Pairs of the policy's own replies: the best that ended against the worst, and what DPO learns from them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.data.records import LeftOut
from duihua.errors import ConfigError
from duihua.models.bundle import ModelCard, Normalisation, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import dpo
from duihua.stages.best_of_n import Candidates
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.context import StageContext
from duihua.stages.ranked_pairs import pairs_of
from duihua.stages.replies import Prompt, Reply
from duihua.training.config import OptimizerConfig, TrainerConfig


def prompt(index: int) -> Prompt:
    return Prompt(index, [{"role": "user", "content": f"say {index}"}], [7, 8, index], "s", "en")


def reply(token: int, ended: bool = True) -> Reply:
    return Reply([token, 99] if ended else [token], [0.0], ended)


def test_the_best_that_ended_stands_against_the_worst_of_all() -> None:
    replies = [
        [reply(1), reply(2), reply(3, ended=False)],
        [reply(1, ended=False), reply(2), reply(3)],
        [reply(1), reply(2), reply(3)],
        [reply(1, ended=False), reply(2, ended=False), reply(3, ended=False)],
        [reply(1, ended=False), reply(2), reply(3, ended=False)],
    ]
    scores = torch.tensor([[0.5, -1.0, 2.0], [-3.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [4.0, 1.0, 2.0]])
    left_out = LeftOut()
    pairs = pairs_of(Candidates([prompt(n) for n in range(5)], replies, scores), left_out)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [
        ([7, 8, 0, 1, 99], [7, 8, 0, 2, 99]),  # the third is liked best and was broken off
        ([7, 8, 1, 3, 99], [7, 8, 1, 1]),  # no stop token where the policy wrote none
    ]
    assert [(pair.chosen_reply, pair.rejected_reply) for pair in pairs] == [(2, 2), (2, 1)]
    # Of the last prompt the only reply that ended is liked least of all.
    assert left_out.counts == {"all sampled replies are liked alike": 2, "no sampled reply ended": 1}


def config(lab: Any, folder: Path, **changes: Any) -> DPOConfig:
    base = DPOConfig(
        preferences=(), conversations=(lab.conversations(folder),), sampled_pairs=0, off_topic_pairs=0,
        heldout_sampled_pairs=8, heldout_off_topic_pairs=0, heldout_prompts=8, reply_tokens=6, prompt_tokens=40,
        ranked_pairs=320, ranked_candidates=6, batch_pairs=16, samples=2,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=5e-3), epochs=3,
        trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_the_stage_learns_from_ranked_pairs_alone(lab: Any, tmp_path: Path) -> None:
    """How good the outcome is depends on the judge; that real ones are climbed stands in docs/benchmarks.md."""
    policy = lab.decoder()
    with torch.no_grad():
        policy.head.weight[lab.tokenizer.im_end_id] += torch.randn(
            policy.head.weight.shape[1], generator=torch.Generator().manual_seed(3)
        )
    save_bundle(tmp_path / "sft", policy, lab.tokenizer, ModelCard(title="tiny", stage="sft"))
    judge = ScoredDecoder(lab.decoder()).initialise_score(5)
    card = ModelCard(title="tiny", stage="reward")
    save_bundle(tmp_path / "judge", judge, lab.tokenizer, card, normalisation=Normalisation(0.0, 1.0))
    inputs = {"policy": tmp_path / "sft", "reward": tmp_path / "judge"}
    context = StageContext(tmp_path / "dpo", inputs, data_directory=tmp_path, seed=1, threads=1)
    found = dpo.run(config(lab, tmp_path), context).metrics
    counts = found["pairs"]["train"]
    assert 250 < counts.pop("ranked") <= 320 and set(counts.values()) == {0}
    lines = [json.loads(line) for line in (tmp_path / "dpo" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["accuracy"] < 0.5 and lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert lines[-1]["accuracy"] > 0.75 and lines[-1]["loss"] < 0.6


def test_ranking_needs_a_reward_model_prompts_and_two_candidates(lab: Any, tmp_path: Path) -> None:
    lab.policy_bundle(tmp_path / "sft")
    context = StageContext(tmp_path / "out", {"policy": tmp_path / "sft"}, data_directory=tmp_path, threads=1)
    with pytest.raises(ConfigError, match="nothing that ranks replies"):
        dpo.run(config(lab, tmp_path), context)
    with pytest.raises(ConfigError, match="ranked_candidates: the best and the worst of 1"):
        DPOConfig(ranked_candidates=1)
