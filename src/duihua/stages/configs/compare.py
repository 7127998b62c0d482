"""Settings of the comparison of several models of a run. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass

from duihua.data.source import SourceConfig
from duihua.stages.configs.checks import above_zero, at_least_one, not_negative
from duihua.stages.configs.evaluate import SAMPLE_PROMPTS, SamplePrompt
from duihua.stages.configs.verifiable import RuleConfig


@dataclass(frozen=True)
class CompareConfig:
    """Every model of a run against every other on held-out prompts, judged blind and in both orders."""

    sources: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en"),
        SourceConfig(name="chatterbot-zh"),
        SourceConfig(name="chitchat"),
        SourceConfig(name="alpaca-en"),
        SourceConfig(name="alpaca-zh"),
    )
    """Conversations whose held-out prompts are answered; drawn in proportion to their weights."""
    rules: tuple[RuleConfig, ...] = ()
    """What judges where there is no input `judge`: rewards that are worked out, added up."""
    prompts: int = 256
    """Most held-out prompts, each answered once by every model."""
    prompt_tokens: int = 96
    """Longest prompt; longer ones are left out and counted."""
    reply_tokens: int = 32
    """Most tokens of a reply; one that has not ended by then is cut there."""
    temperature: float = 1.0
    """Temperature at which replies are sampled, and of the log-probabilities that the KL is made of."""
    best_of: int = 8
    """Replies of the fine-tuned model among which the input `reward` chooses, for best-of-n; 0 leaves it out."""
    slots: int = 64
    """Replies sampled at a time."""
    micro_batch: int = 16
    """Replies that are read at a time."""
    sample_prompts: tuple[SamplePrompt, ...] = SAMPLE_PROMPTS
    """Prompts whose replies by all models are shown side by side."""
    sample_temperature: float = 0.6
    """Temperature of the replies that are shown."""
    worse: int = 5
    """Replies of each model that are shown because the judge likes the fine-tuned model's better: those that fell furthest."""

    def __post_init__(self) -> None:
        at_least_one(self, "prompts", "prompt_tokens", "reply_tokens", "slots", "micro_batch")
        not_negative(self, "best_of", "sample_temperature", "worse")
        above_zero(self, "temperature")

    @property
    def kl_coefficient(self) -> float:
        """Nothing is trained here, so no KL is paid for."""
        return 0.0
