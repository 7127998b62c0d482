"""Settings of the DPO stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.reward import RewardConfig
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class DPOConfig:
    """How a policy is trained on preferences directly, without a reward model and without sampling while it learns."""

    preferences: tuple[SourceConfig, ...] = (
        SourceConfig(name="dpo-en", limit=150),
        SourceConfig(name="dpo-zh", limit=150),
    )
    """Sources of judged pairs (kind human)."""
    conversations: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en"),
        SourceConfig(name="chatterbot-zh"),
        SourceConfig(name="chitchat"),
        SourceConfig(name="alpaca-en"),
        SourceConfig(name="alpaca-zh"),
    )
    """Sources of prompts with a person's reply, for sampled and off-topic pairs and for the comparison at the end; drawn in
    proportion to their weights."""
    turns: int = 3
    """Most replies of one conversation that become pairs."""
    sampled_pairs: int = 640
    """Training pairs of a person's reply against one that the policy sampled before training."""
    off_topic_pairs: int = 0
    """Training pairs of a person's reply against the reply to another prompt."""
    heldout_sampled_pairs: int = 240
    """Most sampled pairs of held-out prompts, for the accuracy."""
    heldout_off_topic_pairs: int = 0
    """Most off-topic pairs of held-out prompts, for the accuracy."""
    length: int = 128
    """Most tokens of prompt and reply together; never more than the model's context, which 0 stands for."""
    long_pairs: Literal["cut", "leave_out"] = "cut"
    """Judged pairs longer than that. cut: the prompt loses its beginning (it keeps at most half the length), then each
    reply its end; leave_out: not used. Either way they are counted and reported."""
    reply_tokens: int = 32
    """Most tokens of a sampled reply, in pairs and in the comparison."""
    sampled_candidates: int = 3
    """Replies sampled for each sampled pair; the one nearest in length to the person's is taken."""
    temperature: float = 1.0
    """Temperature at which replies are sampled. The loss reads log-probabilities at temperature 1."""
    slots: int = 64
    """Replies sampled at a time."""
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
    epochs: int = 1
    """Passes over the training pairs."""
    batch_pairs: int = 16
    """Pairs for each update."""
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
    lora: LoraConfig | None = None
    """Train low-rank adapters beside the frozen model instead of all its weights; None for all weights."""
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
        for name in ("epochs", "batch_pairs", "row_tokens", "micro_batch_tokens", "prompt_tokens", "micro_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, found {getattr(self, name)}", where=name)
        for name in ("heldout_prompts", "samples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cannot be negative, found {getattr(self, name)}", where=name)
        if self.beta <= 0:
            raise ConfigError(f"must be above 0, found {self.beta}", where="beta", remedy="0.1 is usual")
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
        if self.lora is not None and self.lora.dropout:
            raise ConfigError(
                f"DPO compares two forwards of the same weights, found a dropout of {self.lora.dropout}",
                where="lora.dropout",
                remedy="Set it to 0",
            )
        _ = self.pairs  # what a pair needs is checked there

    @property
    def pairs(self) -> RewardConfig:
        """How the pairs are made: as for a reward model, without its normalisation."""
        return RewardConfig(
            preferences=self.preferences,
            conversations=self.conversations,
            turns=self.turns,
            sampled_pairs=self.sampled_pairs,
            off_topic_pairs=self.off_topic_pairs,
            heldout_sampled_pairs=self.heldout_sampled_pairs,
            heldout_off_topic_pairs=self.heldout_off_topic_pairs,
            length=self.length,
            long_pairs=self.long_pairs,
            reply_tokens=self.reply_tokens,
            sampled_candidates=self.sampled_candidates,
            temperature=self.temperature,
            slots=self.slots,
            batch_pairs=self.batch_pairs,
            normalisation_samples=2,
            verification_samples=0,
        )

    @property
    def kl_coefficient(self) -> float:
        """Beta: the weight of the KL penalty in the objective that the loss is derived from."""
        return self.beta
