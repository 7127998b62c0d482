"""Settings of the DPO stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.errors import ConfigError
from duihua.stages.configs.checks import at_least_one, no_dropout, not_negative
from duihua.stages.configs.pairs import PairsConfig
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class DPOConfig(PairsConfig):
    """How a policy is trained on preferences directly, without a reward model and without sampling while it learns."""

    reply_tokens: int = 32
    """Most tokens of a sampled reply, in pairs and in the comparison at the end, whose prompts are of `conversations` too."""
    temperature: float = 1.0
    """Temperature at which replies are sampled. The loss reads log-probabilities at temperature 1."""
    ranked_pairs: int = 0
    """Training prompts of `conversations` to each of which the policy writes several replies: the best that ended against the
    worst, by the reward model of the input `reward`, is one pair more (Pace et al. 2024, West-of-N). 0: none."""
    ranked_candidates: int = 8
    """Replies to each of those prompts."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: -log sigmoid of beta times the difference of the two log-ratios (Rafailov et al. 2023, equation 7); ipo: the
    squared distance of that difference from 1 / (2 beta), which does not grow without end (Azar et al. 2023, equation 17)."""
    beta: float = 0.1
    """How closely the policy is held to where it started: the KL coefficient of the reward that the loss stands for."""
    label_smoothing: float = 0.0
    """sigmoid: the share of pairs that is taken to be the wrong way round (conservative DPO, Mitchell 2023). 0: none."""
    average_tokens: bool = False
    """Divide every log-probability by the length of its reply, so that length alone moves nothing. Off in the papers; with
    ipo many train with it on, which makes its target a difference for each token."""
    nll_weight: float = 0.0
    """Weight of the chosen reply's negative log-likelihood a token beside the preference loss (Pang et al. 2024, "Iterative
    Reasoning Preference Optimization", equation 2; often called RPO). It keeps the chosen replies, and their stop tokens, from
    becoming unlikely together with the rejected ones. 0: none."""
    row_tokens: int = 512
    """Tokens of a row, in which several pairs lie side by side; a longer pair has a row of its own."""
    micro_batch_tokens: int = 2048
    """Tokens in memory at a time; it does not change what is learnt."""
    heldout_prompts: int = 96
    """Most held-out prompts of `conversations` that are answered before and after; 0 for none."""
    prompt_tokens: int = 96
    """Longest of those prompts."""
    micro_batch: int = 16
    """Replies that are judged at a time in that comparison."""
    samples: int = 8
    """Replies before and after that are shown."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", learning_rate=5e-5, beta1=0.9, beta2=0.95, epsilon=1e-8)
    )
    """Which parameters move how fast. Ten to a hundred times slower than fine-tuning: a fast rate drives the log-probability
    of both replies down."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=10))
    """How the learning rate moves."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How the training loop runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "row_tokens", "micro_batch_tokens", "prompt_tokens", "micro_batch")
        not_negative(self, "heldout_prompts", "samples", "ranked_pairs")
        if self.ranked_candidates < 2:
            raise ConfigError(
                f"the best and the worst of {self.ranked_candidates} are no pair",
                where="ranked_candidates",
                remedy="Choose 2 or more",
            )
        if self.beta <= 0:
            raise ConfigError(f"must be above 0, found {self.beta}", where="beta", remedy="0.1 is usual")
        if self.nll_weight < 0:
            raise ConfigError(
                f"cannot be negative, found {self.nll_weight}",
                where="nll_weight",
                remedy="1 holds the chosen replies; 0 is plain DPO",
            )
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"must be in [0, 0.5), found {self.label_smoothing}",
                where="label_smoothing",
                remedy="At a half the pairs would say nothing",
            )
        if self.label_smoothing and self.loss != "sigmoid":
            raise ConfigError(
                f"the loss {self.loss} knows no label smoothing", where="label_smoothing", remedy="Set loss: sigmoid"
            )
        no_dropout(self, "DPO")

    @property
    def kl_coefficient(self) -> float:
        """Beta: the weight of the KL penalty in the objective that the loss is derived from."""
        return self.beta
