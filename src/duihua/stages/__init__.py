"""The stages of the road: what each is called, where its config and its code lie, and what it takes from others.

Why a table of import paths: `duihua --help` and `duihua sft --help` must not import torch, so a stage's code is imported
only when it runs. The table is also the default wiring of a recipe: an input comes from the latest stage before it of
the first kind named here that the recipe has.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.stages.context import StageContext, StageResult


@dataclass(frozen=True)
class Input:
    """What a stage is given in a role: the kinds of stage that can make it, best first, and whether it needs it."""

    stages: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True)
class Stage:
    """A kind of stage. `config` is `module:Class` (no torch there), `module` has `run(config, context)`."""

    name: str
    help: str
    config: str
    module: str
    inputs: Mapping[str, Input]
    alone: bool = False
    """Whether it can run without any input, though it takes some."""
    ranks: bool = False
    """Whether several ranks can train it together (torchrun)."""

    def config_class(self) -> type[Any]:
        """The frozen dataclass of the stage's settings; imports no torch."""
        module, _, name = self.config.partition(":")
        found: type[Any] = getattr(importlib.import_module(module), name)
        return found

    def run(self, config: Any, context: StageContext) -> StageResult:
        """Import the stage's code and run it."""
        function: Callable[[Any, StageContext], StageResult] = importlib.import_module(self.module).run
        return function(config, context)


def _stage(
    name: str, help: str, config_class: str, *, alone: bool = False, ranks: bool = False, **inputs: Input
) -> Stage:
    config = f"duihua.stages.configs.{name}:{config_class}"
    return Stage(name, help, config, f"duihua.stages.{name}", inputs, alone, ranks)


STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        stage.name: stage
        for stage in (
            _stage("tokenizer", "learn a byte-level BPE vocabulary from text", "TokenizerConfig"),
            _stage(
                "pretrain",
                "train a decoder on running text, from random weights",
                "PretrainConfig",
                ranks=True,
                tokenizer=Input(("tokenizer",)),
            ),
            _stage(
                "sft",
                "teach a base model to answer in conversations",
                "SFTConfig",
                ranks=True,
                policy=Input(("pretrain",)),
            ),
            _stage(
                "reward",
                "train a reward model on pairs of replies",
                "RewardConfig",
                ranks=True,
                policy=Input(("sft", "pretrain")),
                other=Input((), required=False),
            ),
            _stage(
                "ppo",
                "train a chat model against a reward model",
                "PPOConfig",
                ranks=True,
                policy=Input(("sft", "pretrain")),
                reward=Input(("reward",)),
                judge=Input((), required=False),
            ),
            _stage(
                "dpo",
                "train a chat model on preferences directly, without a reward model",
                "DPOConfig",
                ranks=True,
                policy=Input(("sft", "pretrain")),
                reward=Input(("reward",), required=False),
            ),
            _stage(
                "grpo",
                "train a chat model on groups of its own replies (GRPO, RLOO)",
                "GRPOConfig",
                ranks=True,
                policy=Input(("sft", "pretrain")),
                reward=Input(("reward",), required=False),
                judge=Input((), required=False),
            ),
            _stage(
                "rejection_sampling",
                "fine-tune a chat model on the best of its own replies",
                "RejectionSamplingConfig",
                ranks=True,
                policy=Input(("sft", "pretrain")),
                reward=Input(("reward",), required=False),
            ),
            _stage(
                "recurrent",
                "train a recurrent language model (RNN, LSTM or GRU)",
                "RecurrentTrainingConfig",
                alone=True,
                tokenizer=Input(("tokenizer",), required=False),
            ),
            _stage(
                "classify",
                "teach a base model to classify texts, pairs and choices",
                "ClassifyConfig",
                policy=Input(("pretrain",), required=False),
                tokenizer=Input(("tokenizer",), required=False),
            ),
            _stage("translate", "train a translator on parallel texts", "TranslateConfig"),
            _stage("bag_of_words", "classify texts by the words that they hold, without a network", "BagOfWordsConfig"),
            _stage(
                "ngram",
                "count n-grams of text: a language model without a network",
                "NGramConfig",
                alone=True,
                tokenizer=Input(("tokenizer",), required=False),
            ),
            _stage(
                "evaluate",
                "measure base, fine-tuned and PPO models side by side",
                "EvaluateConfig",
                base=Input(("pretrain",), required=False),
                sft=Input(("sft",), required=False),
                reward=Input(("reward",), required=False),
                ppo=Input(("ppo",), required=False),
            ),
            _stage(
                "compare",
                "let all models of a run meet on the same prompts, judged blind",
                "CompareConfig",
                base=Input(("pretrain",), required=False),
                sft=Input(("sft",)),
                rejection_sampling=Input(("rejection_sampling",), required=False),
                dpo=Input(("dpo",), required=False),
                grpo=Input(("grpo",), required=False),
                ppo=Input(("ppo",), required=False),
                reward=Input(("reward",), required=False),
                judge=Input((), required=False),
            ),
        )
    }
)


def find_stage(name: str, where: str = "") -> Stage:
    """The stage called `name`. Raises ConfigError with the nearest name."""
    from duihua.config.mapping import suggestion

    if name not in STAGES:
        raise ConfigError(f"there is no stage {name!r}", where=where, remedy=suggestion(name, list(STAGES)))
    return STAGES[name]
