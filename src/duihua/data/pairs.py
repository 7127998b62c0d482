"""Prompts with a person's reply, out of conversations, and preference pairs made from them.

Why made pairs: real preferences are few. A person's reply against a reply that the model itself sampled teaches what the
model still does wrong (the comparison that PPO needs); a person's reply against the reply to another prompt teaches that
a reply must fit its prompt. Both are weaker evidence than a judged pair, so each keeps its own kind and is reported apart.

Why a hash decides which turn of a conversation asks: the choice then depends on the conversation alone, not on the order
of the data or on how many conversations stand before it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from duihua.data.records import (
    ASSISTANT,
    TOOL,
    USER,
    Conversation,
    LeftOut,
    Message,
    Preference,
    message_text,
    normalised,
)

OFF_TOPIC_CANDIDATES = 16
"""Replies of other prompts among which the one of the nearest length is taken, so that length gives no pair away."""


@dataclass(frozen=True)
class Exchange:
    """A prompt (messages that end with the user's) and what a person replied."""

    prompt: list[Message]
    reply: str
    source: str
    language: str

    @property
    def key(self) -> str:
        """Hex hash of source and prompt: the name of this prompt wherever one is needed. Of a file that was named by its whole
        path only the last part counts, so that the same files in another folder are asked the same."""
        source = Path(self.source).name if Path(self.source).is_absolute() else self.source
        parts = [source, *(f"{message['role']}\x1f{message_text(message)}" for message in self.prompt)]
        return hashlib.sha256("\x1e".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def stable_number(*parts: object) -> int:
    """A number in [0, 2^63) out of a hash of the parts: a draw that depends on what is drawn for, on nothing else."""
    text = "\x1e".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def in_half(prompt: Sequence[Message], half: str) -> bool:
    """Whether the conversation that a prompt is of belongs to this half ("first", "second") of all; "both" takes each one."""
    opening = next((message["content"] for message in prompt if message["role"] == USER), "")
    return half == "both" or (stable_number("half", normalised(opening)) % 2 == 0) == (half == "first")


def exchanges(conversations: Iterable[Conversation], left_out: LeftOut, turns: int = 1) -> list[Exchange]:
    """Up to `turns` exchanges of each conversation: an assistant's turn, chosen by hash, and all that was said before it.

    What is said after a tool's answer is no reply to a person. A prompt that came before (in another conversation) and an
    empty reply are left out and counted.
    """
    found: list[Exchange] = []
    seen: set[str] = set()
    for conversation in conversations:
        messages = conversation.messages
        replies = [
            place
            for place, message in enumerate(messages)
            if place and message["role"] == ASSISTANT and messages[place - 1]["role"] != TOOL
        ]
        if not replies:
            left_out.add("no reply to a prompt", conversation.source)
            continue
        replies.sort(key=lambda place: stable_number(place, *(message["content"] for message in messages)))
        for turn in replies[:turns]:
            exchange = Exchange(messages[:turn], messages[turn]["content"], conversation.source, conversation.language)
            if not exchange.reply.strip():
                left_out.add("empty reply", conversation.source)
            elif exchange.key in seen:
                left_out.add("prompt met before", conversation.source)
            else:
                seen.add(exchange.key)
                found.append(exchange)
    return found


def shuffled(items: Sequence[Exchange], seed: int) -> list[Exchange]:
    """The exchanges in an order of their own for each seed, whatever order they came in."""
    return sorted(items, key=lambda exchange: stable_number(seed, exchange.key))


def interleave(groups: Sequence[Sequence[Exchange]], weights: Sequence[float]) -> list[Exchange]:
    """All groups as one list in which every beginning holds the groups in proportion to their weights.

    The next one always comes from the group that is furthest behind its share; a group that is used up drops out, and
    one of weight 0 is not used.
    """
    taken = [0] * len(groups)
    mixed: list[Exchange] = []
    while True:
        open_groups = [g for g in range(len(groups)) if taken[g] < len(groups[g]) and weights[g] > 0]
        if not open_groups:
            return mixed
        nearest = min(open_groups, key=lambda g: ((taken[g] + 1) / weights[g], g))
        mixed.append(groups[nearest][taken[nearest]])
        taken[nearest] += 1


def off_topic_pairs(items: Sequence[Exchange], count: int, seed: int, left_out: LeftOut) -> list[Preference]:
    """Up to `count` pairs, one a prompt: the person's reply, and a person's reply to another prompt of that language.

    The other reply differs from the right one and comes from a different prompt; among a few drawn ones the nearest in
    length is taken. A prompt for which none is found is counted in `left_out`.
    """
    by_language: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in items:
        by_language[exchange.language].append(exchange)
    pairs: list[Preference] = []
    for exchange in items:
        if len(pairs) == count:
            break
        others = by_language[exchange.language]
        drawn = [
            others[stable_number("off-topic", seed, exchange.key, draw) % len(others)]
            for draw in range(OFF_TOPIC_CANDIDATES)
        ]
        fitting = [
            other
            for other in drawn
            if normalised(other.prompt[-1]["content"]) != normalised(exchange.prompt[-1]["content"])
            and normalised(other.reply) != normalised(exchange.reply)
        ]
        if not fitting:
            left_out.add("no other reply in this language", exchange.source)
            continue
        other = min(fitting, key=lambda candidate: abs(len(candidate.reply) - len(exchange.reply)))
        pairs.append(
            Preference(exchange.prompt, exchange.reply, other.reply, exchange.source, "off-topic", exchange.language)
        )
    return pairs


def sampled_pairs(items: Sequence[Exchange], sampled: Sequence[str], left_out: LeftOut) -> list[Preference]:
    """The person's reply against the sampled one, prompt by prompt; empty or equal samples are left out and counted."""
    pairs: list[Preference] = []
    for exchange, text in zip(items, sampled, strict=True):
        if not text.strip():
            left_out.add("sampled reply is empty", exchange.source)
        elif normalised(text) == normalised(exchange.reply):
            left_out.add("sampled reply equals the person's", exchange.source)
        else:
            pairs.append(
                Preference(exchange.prompt, exchange.reply, text, exchange.source, "sampled", exchange.language)
            )
    return pairs


def count_by_source(items: Sequence[Exchange] | Sequence[Preference]) -> dict[str, int]:
    """How many came from each source, most first."""
    return dict(Counter(item.source for item in items).most_common())
