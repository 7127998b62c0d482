"""Held-out conversations and the replies to them: what fine-tuning and evaluation both measure on.

Why drawn by hash and alike for each language: which conversations are measured must not depend on their order, on the
seed of a run or on how much more of one language there is, so that the numbers of two runs can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duihua.data.pairs import stable_number
from duihua.data.records import Conversation, Message, Split, record_text
from duihua.data.source import Source
from duihua.engine.engine import Engine
from duihua.engine.request import Completion
from duihua.engine.settings import SamplingSettings
from duihua.models.decoder import Decoder
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

SLOTS = 128
"""Replies generated at a time."""


def conversations(source: Source, split: Split) -> list[Conversation]:
    """All conversations of a split. `source.left_out` then holds what the reader left out."""
    return [record for record in source.records(split) if isinstance(record, Conversation)]


@dataclass(frozen=True)
class HeldOut:
    """Held-out conversations in the order in which they are measured, and where they come from.

    of: the place of each one's source among the sources. known: how many each source has, before any limit; one that stands
    in several sources belongs to the first of them.
    """

    conversations: list[Conversation]
    of: list[int]
    known: list[int]

    def of_source(self, place: int) -> list[Conversation]:
        """Those of one source."""
        return [one for one, source in zip(self.conversations, self.of, strict=True) if source == place]


def held_out_by_source(sources: Sequence[Source], limit: int) -> HeldOut:
    """At most `limit` held-out conversations (0: all), as many of each language as there are, in an order by hash.

    One that stands in several sources, or twice in one, is taken once.
    """
    by_language: dict[str, dict[str, tuple[Conversation, int]]] = {}
    known = [0] * len(sources)
    for place, source in enumerate(sources):
        for conversation in conversations(source, "heldout"):
            group, text = by_language.setdefault(conversation.language, {}), record_text(conversation)
            if text not in group:
                group[text] = conversation, place
                known[place] += 1
    groups = [[group[text] for text in sorted(group, key=stable_number)] for group in by_language.values()]
    chosen: list[tuple[Conversation, int]] = []
    place = 0
    while any(place < len(group) for group in groups) and (not limit or len(chosen) < limit):
        chosen += [group[place] for group in groups if place < len(group)]
        place += 1
    chosen = chosen[:limit] if limit else chosen
    return HeldOut([conversation for conversation, _ in chosen], [source for _, source in chosen], known)


def held_out_conversations(sources: Sequence[Source], limit: int) -> list[Conversation]:
    """The conversations of `held_out_by_source`."""
    return held_out_by_source(sources, limit).conversations


def answerable(messages: Sequence[Message], template: ChatTemplate, context: int, reply_tokens: int) -> bool:
    """Whether prompt and reply fit into the model's context."""
    return len(template.encode(messages, add_generation_prompt=True).ids) + reply_tokens <= context


def replies(
    network: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    seeds: Sequence[int] | None = None,
) -> list[Completion]:
    """The reply to each prompt (ids), all generated together."""
    if not prompts:
        return []
    return Engine(network, tokenizer, slots=min(SLOTS, len(prompts))).generate(prompts, settings, seeds)


def chat_prompts(prompts: Sequence[Sequence[Message]], template: ChatTemplate) -> list[list[int]]:
    """The ids of each prompt up to the point where the assistant begins to speak."""
    return [template.encode(prompt, add_generation_prompt=True).ids for prompt in prompts]


def plain_prompts(prompts: Sequence[Sequence[Message]], tokenizer: Tokenizer) -> list[list[int]]:
    """The same for a model that knows no chat: a document in which each message is a line, and the next line is open."""
    texts = ["".join(f"{message['content']}\n" for message in prompt) for prompt in prompts]
    return [[tokenizer.end_of_text_id, *tokenizer.encode(text)] for text in texts]
