"""Openings out of the conversations that a model learnt from, for its page and its terminal to offer.

Why from its own data: a model of a few million parameters answers what it was taught and babbles beyond, and nothing but its
data says what that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from duihua.data.pairs import stable_number
from duihua.data.records import Conversation

MOST_CHARACTERS = 48
"""Of an opening that is offered: it has to fit on a button."""


def offered_prompts(learnt: Sequence[tuple[Sequence[Conversation], float]], most: int) -> tuple[str, ...]:
    """At most `most` openings of (conversations, weight), one source each; as many of each language as there are.

    A source's share is that of its weight, since what was seen most often is known best; of each the most frequent openings
    come first, and those that are equally frequent in an order by hash. Conversations with a system message are left out.
    """
    languages = sorted({conversation.language for conversations, _ in learnt for conversation in conversations})
    by_language = [_of_language(learnt, language, most) for language in languages]
    places = range(max(map(len, by_language), default=0))
    chosen = dict.fromkeys(found[place] for place in places for found in by_language if place < len(found))
    return tuple(chosen)[:most]


def _of_language(learnt: Sequence[tuple[Sequence[Conversation], float]], language: str, most: int) -> list[str]:
    """Openings of one language, the source next in turn being the one with the largest weight / (taken of it + 1)."""
    left = [(_openings(conversations, language), weight) for conversations, weight in learnt]
    taken = [0] * len(left)
    chosen: list[str] = []
    while len(chosen) < most and any(openings for openings, _ in left):
        _, source = min((-weight / (taken[n] + 1), n) for n, (openings, weight) in enumerate(left) if openings)
        opening = left[source][0].pop(0)
        taken[source] += 1
        if opening not in chosen:
            chosen.append(opening)
    return chosen


def _openings(conversations: Sequence[Conversation], language: str) -> list[str]:
    """What a person says first, the most frequent first."""
    counts: Counter[str] = Counter()
    for conversation in conversations:
        first = conversation.messages[0] if conversation.language == language else None
        text = first["content"].strip() if first and first["role"] == "user" else ""
        if text and "\n" not in text and len(text) <= MOST_CHARACTERS:
            counts[text] += 1
    return sorted(counts, key=lambda text: (-counts[text], stable_number(text)))
