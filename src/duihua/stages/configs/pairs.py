"""What every stage that learns from pairs of replies is told about them. No torch here.

The reward model and DPO learn from the same pairs, made in the same way (stages/reward_pairs.py); each adds how it learns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.checks import at_least_one, not_negative


@dataclass(frozen=True)
class PairsConfig:
    """Which pairs there are: judged by people, sampled, off-topic."""

    preferences: tuple[SourceConfig, ...] = (
        SourceConfig(name="dpo-en", limit=150),
        SourceConfig(name="dpo-zh", limit=150),
    )
    """Sources of judged pairs (kind human). All their pairs are learnt, so that a weight is refused; `limit` takes fewer."""
    conversations: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en"),
        SourceConfig(name="chatterbot-zh"),
        SourceConfig(name="chitchat"),
        SourceConfig(name="alpaca-en"),
        SourceConfig(name="alpaca-zh"),
    )
    """Sources of prompts with a person's reply, for sampled and off-topic pairs; drawn in proportion to their weights."""
    half: Literal["both", "first", "second"] = "both"
    """Which half of the training prompts the pairs are of, by a hash of the prompt: two reward models of different halves have
    learnt from no common pair, so that one can judge what was trained against the other. Held-out pairs are the same."""
    turns: int = 3
    """Most replies of one conversation that become pairs; the intervals take them as independent."""
    sampled_pairs: int = 640
    """Training pairs of a person's reply against one that the policy sampled before training."""
    off_topic_pairs: int = 0
    """Training pairs of a person's reply against the reply to another prompt."""
    cut_short_pairs: int = 0
    """Training pairs of a person's reply against its own first third, as a reply that ends there; of the prompts of the sampled
    pairs, so never more than those. Against shortness for its own sake; the probe cut_short then asks what was taught."""
    heldout_sampled_pairs: int = 240
    """Most sampled pairs of held-out prompts, for the accuracy."""
    heldout_off_topic_pairs: int = 0
    """Most off-topic pairs of held-out prompts, for the accuracy."""
    length: int = 128
    """Most tokens of prompt and reply together; never more than the model's context, which 0 stands for."""
    long_pairs: Literal["cut", "leave_out"] = "cut"
    """Judged pairs longer than that. cut: the prompt loses its beginning (it keeps at most half the length), then each
    reply its end; leave_out: not used. Either way they are counted and reported."""
    reply_tokens: int = 48
    """Most tokens of a sampled reply. Exchanges whose human reply is longer are left out of sampled pairs and counted,
    so that being cut does not tell the two apart."""
    sampled_candidates: int = 3
    """Replies sampled for each sampled pair; the one nearest in length to the person's is taken, so that length does not
    give it away."""
    temperature: float = 1.0
    """Temperature at which replies are sampled."""
    slots: int = 128
    """Replies sampled at a time."""
    epochs: int = 1
    """Passes over the training pairs. More than one overfits soon (Stiennon et al. 2020, appendix B)."""
    batch_pairs: int = 16
    """Pairs for each update."""
    lora: LoraConfig | None = None
    """Train low-rank adapters beside the frozen model instead of all its weights; None for all weights."""

    def __post_init__(self) -> None:
        at_least_one(self, "reply_tokens", "sampled_candidates", "slots", "epochs", "batch_pairs")
        not_negative(
            self, "sampled_pairs", "off_topic_pairs", "cut_short_pairs", "heldout_sampled_pairs",
            "heldout_off_topic_pairs", "length",
        )  # fmt: skip
        if self.cut_short_pairs > self.sampled_pairs:
            raise ConfigError(
                f"{self.cut_short_pairs} pairs of replies cut short, of the prompts of {self.sampled_pairs} sampled pairs",
                where="cut_short_pairs",
                remedy="Set it to sampled_pairs at most",
            )
        if self.temperature <= 0:
            raise ConfigError(
                f"must be above 0, found {self.temperature}",
                where="temperature",
                remedy="Replies are sampled; a greedy one would be the same each time",
            )
        if not self.preferences and not self.conversations:
            raise ConfigError("there is no source to make pairs from", where="preferences", remedy="Name at least one")
        for place, source in enumerate(self.preferences):
            if source.weight != 1:
                raise ConfigError(
                    f"every judged pair is learnt once in each epoch, so that a weight does nothing; found {source.weight:g}",
                    where=f"preferences[{place}].weight",
                    remedy="Leave it out; `limit` takes fewer pairs of a source",
                )
