"""Settings of the evaluation. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.stages.configs.checks import at_least_one, not_negative


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt whose replies by all models are shown side by side."""

    language: str = "en"
    """Language of the prompt."""
    turns: tuple[str, ...] = ()
    """What is said so far, user and assistant in turn; the last one is the user's."""

    def __post_init__(self) -> None:
        if len(self.turns) % 2 == 0:
            raise ConfigError(
                f"user and assistant speak in turn and the user last, found {len(self.turns)} turns",
                where="turns",
                remedy="Write user, assistant, ..., user: an odd number of turns",
            )


SAMPLE_PROMPTS = (
    SamplePrompt("en", ("Hello, how are you?",)),
    SamplePrompt("en", ("What is your name?",)),
    SamplePrompt("en", ("What do you do in your free time?",)),
    SamplePrompt("en", ("Do you like music?", "Yes, I like music very much.", "What kind of music do you like?")),
    SamplePrompt(
        "en", ("Hi", "Hello", "I had a long day at work.", "I am sorry to hear that.", "What should I do now?")
    ),
    SamplePrompt("zh", ("你好，你好吗？",)),
    SamplePrompt("zh", ("你叫什么名字？",)),
    SamplePrompt("zh", ("你有什么爱好？",)),
    SamplePrompt("zh", ("你喜欢音乐吗？", "我很喜欢音乐。", "你喜欢什么样的音乐？")),
    SamplePrompt("zh", ("嗨", "你好", "我今天工作很累。", "辛苦了。", "我现在应该做什么？")),
)
"""Written for this page; in no source."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured of the base, fine-tuned and PPO models, on data that none of them has trained on."""

    text_sources: tuple[SourceConfig, ...] = (SourceConfig(name="race-text"),)
    """Held-out documents for bits per byte and perplexity; empty leaves both out."""
    heldout_bytes: int = 100_000
    """About how many bytes of each language are scored, in whole documents drawn by hash; 0 for all."""
    sources: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en"),
        SourceConfig(name="chatterbot-zh"),
        SourceConfig(name="identity"),
        SourceConfig(name="alpaca-en"),
        SourceConfig(name="alpaca-zh"),
        SourceConfig(name="chitchat"),
    )
    """Held-out conversations for token accuracy, and for prompts with a reference reply; empty leaves both out."""
    heldout_conversations: int = 240
    """Most conversations for token accuracy, as many of each language; 0 for all."""
    prompts: int = 96
    """Most prompts that are answered, as many of each language: for BLEU, repetition and reward."""
    reply_tokens: int = 48
    """Most tokens of a reply. Prompts whose reference is longer are left out and counted, so that being cut costs no
    BLEU."""
    temperature: float = 1.0
    """Temperature of the replies that repetition and reward are measured on; BLEU and greetings take the likeliest."""
    repetition_samples: int = 4
    """Replies to each prompt that repetition is measured on: it is so rare that one reply each would decide it by chance."""
    greetings: bool = True
    """Whether the listed greetings and simple questions are asked."""
    greeting_tokens: int = 64
    """Most tokens of a reply to a greeting."""
    sample_prompts: tuple[SamplePrompt, ...] = SAMPLE_PROMPTS
    """Prompts whose replies are shown side by side."""
    sample_temperature: float = 0.6
    """Temperature of the replies that are shown."""

    def __post_init__(self) -> None:
        at_least_one(self, "reply_tokens", "greeting_tokens", "repetition_samples")
        not_negative(self, "heldout_bytes", "heldout_conversations", "prompts", "temperature", "sample_temperature")
