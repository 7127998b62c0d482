"""The recipes that turn pairs of a chat page into a model: what learns from which part, with whose settings.

Why settings of a run: how fast a reward model of this size learns, and which preferences and prompts there are beside the
votes, was found out when the run was made. Without one the defaults below hold, and nothing but the store is read.

The reward models read the votes and, from a run, what its reward model read; the policy of DPO learns from the votes alone,
since everything else it has been taught already. The judge has a seed of its own and no pair in common with what the new
version learns from (`half`): what climbing finds out about the one reward model need not please the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from duihua.config import build, to_mapping
from duihua.data.feedback import Part, pairs_file, prompts_file
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.files import read_json
from duihua.report.recipe import Recipe, parse_recipe
from duihua.report.run_log import RUN_FILE
from duihua.stages import STAGES
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.reward import RewardConfig
from duihua.training.config import OptimizerConfig

Config = TypeVar("Config")

METHODS = ("dpo", "ppo")
JUDGE = "judge"
ABOUT = {
    "en": "A chat model that learns from what was said of its replies on the chat page.",
    "zh": "从聊天页上对回复的评价中学习的聊天模型。",
}
STORE_FIRST = 1000.0
"""Weight of the store's own prompts in the comparison: they are asked first, those of a run's sources after them."""


@dataclass(frozen=True)
class Recipes:
    """judge: None where a judge was given. training: its last stage makes the version."""

    judge: Recipe | None
    training: Recipe

    @property
    def policy_config(self) -> Any:
        """The settings of the stage that makes the version: DPOConfig or PPOConfig."""
        return self.training.stages[-1].config


@dataclass(frozen=True)
class Made:
    """What recipes are made of. data: folder of the parts; heldout_pairs: whether any pair is held out; context: of the model;
    judge: whether one is trained."""

    data: Path
    heldout_pairs: bool
    context: int
    run: Path | None = None
    judge: bool = True


def recipes_of(method: str, base: Path, made: Made, *, settings: Sequence[str], seed: int, threads: int) -> Recipes:
    """The recipe of the training and that of the judge, where one is trained. settings: `dpo.beta=0.2`, `judge.epochs=2`.

    Raises ConfigError for a setting that does not exist and for a run that cannot be read.
    """
    for_judge = [one for one in settings if one.strip().startswith(f"{JUDGE}.")]
    if for_judge and not made.judge:
        raise ConfigError(
            "a judge was given", where=f"--set {for_judge[0]}", remedy="Leave --judge or this setting out"
        )
    others = [one for one in settings if one not in for_judge]
    policy = {"policy": str(base)}

    def recipe(stages: list[dict[str, Any]], own: Sequence[str], own_seed: int, name: str) -> Recipe:
        top = {"recipe": name, "about": ABOUT, "seed": own_seed, "threads": threads, "stages": stages}
        return parse_recipe(top, own, where="feedback")

    stages: list[dict[str, Any]] = []
    if method == "ppo":
        stages.append({"reward": to_mapping(reward_config("learn", made)), "from": policy})
        stages.append({"ppo": to_mapping(ppo_config(made)), "from": policy})
    else:
        stages.append({"dpo": to_mapping(dpo_config(made)), "from": policy})
    judge = {"reward": to_mapping(reward_config("judge", made)), "as": JUDGE, "from": policy}
    return Recipes(
        recipe([judge], for_judge, seed + 1, "feedback-judge") if made.judge else None,
        recipe(stages, others, seed, f"feedback-{method}"),
    )


def pairs_source(part: Part, made: Made) -> SourceConfig:
    """The pairs of a part, with the held-out ones for the accuracy."""
    heldout = str(pairs_file(made.data, "heldout")) if made.heldout_pairs else ""
    return SourceConfig(path=str(pairs_file(made.data, part)), heldout=heldout, kind="preferences")


def prompts_source(made: Made, weight: float = 1.0) -> SourceConfig:
    """The prompts of the store, each with a reply."""
    train, heldout = (str(prompts_file(made.data, part)) for part in ("learn", "heldout"))
    return SourceConfig(path=train, heldout=heldout, kind="conversations", weight=weight)


def reward_config(part: Part, made: Made) -> RewardConfig:
    """Of a reward model that reads the votes of a part; with a run, beside what the run's reward model read."""
    pairs = pairs_source(part, made)
    half: Literal["both", "first", "second"] = "both" if not made.judge else "second" if part == "judge" else "first"
    found = run_config(made.run, "reward", RewardConfig)
    if found is not None:
        return replace(found, preferences=(pairs, *found.preferences), half=half)
    return RewardConfig(
        preferences=(pairs,),
        conversations=(prompts_source(made),),
        half=half,
        sampled_pairs=0,
        off_topic_pairs=0,
        heldout_sampled_pairs=0,
        heldout_off_topic_pairs=0,
        epochs=3,
        batch_pairs=8,
        reply_tokens=min(32, made.context // 4),
        normalisation_samples=64,
        verification_samples=64,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.95, epsilon=1e-5),
    )


def dpo_config(made: Made) -> DPOConfig:
    """DPO on the votes alone. What it writes is compared afterwards, so that it compares nothing itself."""
    found = run_config(made.run, "dpo", DPOConfig)
    if found is None:
        found = DPOConfig(epochs=3, batch_pairs=8)
        ppo = run_config(made.run, "ppo", PPOConfig)
        if ppo is not None:  # how fast a policy of this size may move
            rate = ppo.optimizer.learning_rate
            found = replace(found, optimizer=replace(found.optimizer, learning_rate=rate))
    reply_tokens = min(found.reply_tokens, made.context // 4)
    return replace(
        found,
        preferences=(pairs_source("learn", made),),
        conversations=(),
        sampled_pairs=0,
        off_topic_pairs=0,
        heldout_sampled_pairs=0,
        heldout_off_topic_pairs=0,
        heldout_prompts=0,
        reply_tokens=reply_tokens,
        prompt_tokens=min(found.prompt_tokens, made.context - reply_tokens - 1),
    )


def ppo_config(made: Made) -> PPOConfig:
    """PPO on the prompts of the store and, with a run, those of the run."""
    found = run_config(made.run, "ppo", PPOConfig)
    known = found or PPOConfig(sources=(prompts_source(made),))
    reply_tokens = min(known.reply_tokens, made.context // 4)
    return replace(
        known,
        sources=(prompts_source(made), *(found.sources if found else ())),
        reply_tokens=reply_tokens,
        prompt_tokens=min(known.prompt_tokens, made.context - reply_tokens - 1),
    )


def comparison_sources(made: Made) -> tuple[SourceConfig, ...]:
    """Whose held-out prompts are asked: the store's, and with a run those of its PPO or, without one, of its reward model."""
    ppo, reward = run_config(made.run, "ppo", PPOConfig), run_config(made.run, "reward", RewardConfig)
    others = ppo.sources if ppo is not None else reward.conversations if reward is not None else ()
    return (prompts_source(made, STORE_FIRST), *others)


def run_config(run: Path | None, stage: str, cls: type[Config]) -> Config | None:
    """The settings of the last stage of that kind in a run; None where it has none, or there is no run."""
    if run is None:
        return None
    stored = read_json(run / RUN_FILE)
    entries: list[Mapping[str, Any]] = stored.get("stages", []) if isinstance(stored, dict) else []
    found = [entry for entry in entries if entry.get("stage") == stage]
    return build(STAGES[stage].config_class(), found[-1]["config"], str(run / RUN_FILE)) if found else None
