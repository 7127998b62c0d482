"""Several sources of preferences as one set: no pair twice, none that contradicts another, none that gives a held-out one away.

Why across sources: each source splits by its own hash and its own share, so a prompt that two of them have can be trained on
in one and asked in the other's test. Within a source the split is the source's own: reviews, for one, share one prompt by
design and are split by what was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from duihua.data.records import LeftOut, Preference, normalised

REPEATED, TURNED = "pair met before", "pair that an earlier one judges the other way round"
PROMPT_HELD_OUT, REPLY_HELD_OUT = "prompt that another source holds out", "reply that is held out with this prompt"


def _read(text: str) -> str:
    """A text as it compares with others: case, punctuation and spaces aside where anything is left."""
    return normalised(text) or text


def prompt_key(pair: Preference) -> str:
    """The prompt as it compares with others."""
    return "\x1e".join(f"{message['role']}\x1f{_read(message['content'])}" for message in pair.prompt)


def distinct(pairs: Iterable[Preference], left_out: LeftOut) -> list[Preference]:
    """The pairs without repetitions; of two that contradict each other the first stays. The others are counted."""
    seen: set[tuple[str, str, str]] = set()
    kept: list[Preference] = []
    for pair in pairs:
        prompt, chosen, rejected = prompt_key(pair), _read(pair.chosen), _read(pair.rejected)
        if (prompt, chosen, rejected) in seen:
            left_out.add(REPEATED, pair.source)
        elif (prompt, rejected, chosen) in seen:
            left_out.add(TURNED, pair.source)
        else:
            seen.add((prompt, chosen, rejected))
            kept.append(pair)
    return kept


def without_leaks(train: Iterable[Preference], heldout: Sequence[Preference], left_out: LeftOut) -> list[Preference]:
    """The training pairs that say nothing about a held-out one; the others are counted."""
    sources_of: dict[str, set[str]] = {}
    replies: set[tuple[str, str]] = set()
    for pair in heldout:
        prompt = prompt_key(pair)
        sources_of.setdefault(prompt, set()).add(pair.source)
        replies |= {(prompt, _read(pair.chosen)), (prompt, _read(pair.rejected))}
    kept: list[Preference] = []
    for pair in train:
        prompt = prompt_key(pair)
        if sources_of.get(prompt, set()) - {pair.source}:
            left_out.add(PROMPT_HELD_OUT, pair.source)
        elif {(prompt, _read(pair.chosen)), (prompt, _read(pair.rejected))} & replies:
            left_out.add(REPLY_HELD_OUT, pair.source)
        else:
            kept.append(pair)
    return kept


def prompts_by_source(pairs: Iterable[Preference]) -> Counter[str]:
    """How many different prompts each source asks."""
    return Counter(source for source, _ in {(pair.source, prompt_key(pair)) for pair in pairs})
