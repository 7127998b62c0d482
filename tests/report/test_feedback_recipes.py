"""What learns from which part of the votes, and what is taken from a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from duihua.config import to_mapping
from duihua.data.feedback import PARTS, pairs_file, prompts_file
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.files import write_json
from duihua.report.feedback_recipes import Made, Recipes, comparison_sources, recipes_of
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.reward import RewardConfig
from duihua.training.config import OptimizerConfig


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose reward model read one source of preferences, and whose PPO had prompts and a rate of its own."""
    reward = RewardConfig(preferences=(SourceConfig(name="dpo-zh"),), sampled_pairs=77)
    ppo = PPOConfig(
        sources=(SourceConfig(name="chitchat"),), optimizer=OptimizerConfig(kind="adamw", learning_rate=4e-4)
    )
    stages = [{"stage": name, "config": to_mapping(one)} for name, one in (("reward", reward), ("ppo", ppo))]
    write_json(tmp_path / "run" / "run.json", {"stages": stages})
    return tmp_path / "run"


def recipes(tmp_path: Path, method: str, run: Path | None = None, judge: bool = True, *settings: str) -> Recipes:
    for part in PARTS:
        pairs_file(tmp_path, part).touch()
        prompts_file(tmp_path, part).touch()
    made = Made(tmp_path, True, 256, run, judge)
    return recipes_of(method, tmp_path, made, settings=settings, seed=5, threads=1)


def read_by(config: RewardConfig) -> list[str]:
    return [Path(source.path).name or source.name for source in config.preferences]


def test_reward_model_and_judge_share_no_vote_no_pair_of_the_run_and_no_seed(tmp_path: Path, run: Path) -> None:
    found = recipes(tmp_path, "ppo", run)
    assert found.judge is not None
    reward, judge = found.training.stages[0].config, found.judge.stages[0].config
    assert (read_by(reward), reward.half) == (["pairs-learn.jsonl", "dpo-zh"], "first")
    assert (read_by(judge), judge.half) == (["pairs-judge.jsonl", "dpo-zh"], "second")
    assert (found.training.seed, found.judge.seed) == (5, 6)
    assert reward.sampled_pairs == judge.sampled_pairs == 77, "the run's settings"
    assert found.training.stages[1].inputs == {"policy": tmp_path, "reward": "reward"}
    assert [source.name for source in found.policy_config.sources] == ["", "chitchat"]
    (alone,) = recipes(tmp_path, "ppo").policy_config.sources
    assert Path(alone.path).name == "prompts-learn.jsonl", "without a run the store's prompts and no others"


def test_with_a_judge_at_hand_the_reward_model_reads_both_halves(tmp_path: Path, run: Path) -> None:
    found = recipes(tmp_path, "ppo", run, False)
    assert found.judge is None
    assert found.training.stages[0].config.half == "both"


def test_dpo_learns_from_the_votes_alone_at_the_rate_of_the_run(tmp_path: Path, run: Path) -> None:
    config = recipes(tmp_path, "dpo", run).policy_config
    assert read_by(config) == ["pairs-learn.jsonl"] and not config.conversations
    assert config.optimizer.learning_rate == 4e-4
    assert recipes(tmp_path, "dpo").policy_config.optimizer.learning_rate != 4e-4


def test_the_prompts_of_the_store_are_asked_first_and_those_of_the_run_after_them(tmp_path: Path, run: Path) -> None:
    store, other = comparison_sources(Made(tmp_path, True, 256, run))
    assert (Path(store.path).name, Path(store.heldout).name) == ("prompts-learn.jsonl", "prompts-heldout.jsonl")
    assert other.name == "chitchat" and store.weight > 100 * other.weight
    assert len(comparison_sources(Made(tmp_path, True, 256))) == 1


def test_settings_reach_their_stage_and_those_of_a_judge_need_one(tmp_path: Path) -> None:
    found = recipes(tmp_path, "dpo", None, True, "judge.epochs=7", "dpo.beta=0.3")
    assert found.judge is not None
    assert (found.judge.stages[0].config.epochs, found.policy_config.beta) == (7, 0.3)
    with pytest.raises(ConfigError, match="a judge was given"):
        recipes(tmp_path, "dpo", None, False, "judge.epochs=7")
