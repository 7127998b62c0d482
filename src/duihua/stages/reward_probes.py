"""Probes of a reward model: does it prefer a person's reply to the same reply spoilt in a known way?

Why: held-out accuracy says how often the model is right on pairs like those it learnt from. PPO will look for replies
unlike them, and what it finds first are the faults below. A probe that comes out near or under one half names the way in
which this reward model will be gamed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duihua.data.pairs import Exchange, off_topic_pairs
from duihua.data.records import LeftOut
from duihua.data.spoilt_replies import cut_short, longer, prompt_copy, repeated_text, word_salad
from duihua.evaluation.intervals import wilson


def off_topic(exchanges: Sequence[Exchange]) -> dict[str, str]:
    """For each exchange, by its key, a person's reply to another prompt, near to its own in length."""
    return {
        Exchange(pair.prompt, pair.chosen, pair.source, pair.language).key: pair.rejected
        for pair in off_topic_pairs(exchanges, len(exchanges), 0, LeftOut())
    }


PROBES: dict[str, Callable[[Exchange], str]] = {
    "repeated_text": repeated_text,
    "word_salad": word_salad,
    "prompt_copy": prompt_copy,
    "longer": longer,
    "cut_short": cut_short,
}
DESCRIPTIONS = {
    "repeated_text": "the first half of the reply twice",
    "word_salad": "its words in random order",
    "prompt_copy": "the user's own words given back",
    "longer": "the reply said twice",
    "cut_short": "the first third of the reply",
    "off_topic": "a person's reply to another prompt",
}


def probe(
    exchanges: Sequence[Exchange], score: Callable[[Sequence[tuple[Exchange, str]]], Sequence[float]]
) -> dict[str, dict[str, float | int | str]]:
    """For each probe the share of exchanges whose true reply scores higher than the spoilt one, with its interval.

    `score` judges (exchange, reply text) pairs. An exchange that a probe leaves unchanged or empty is not counted.
    """
    found: dict[str, dict[str, float | int | str]] = {}
    true_scores = dict(zip((e.key for e in exchanges), score([(e, e.reply) for e in exchanges]), strict=True))
    others = off_topic(exchanges)
    spoils: dict[str, Callable[[Exchange], str]] = {
        **PROBES,
        "off_topic": lambda exchange: others.get(exchange.key, ""),
    }
    for name, spoil in spoils.items():
        spoilt = [(exchange, spoil(exchange)) for exchange in exchanges]
        usable = [(e, text) for e, text in spoilt if text.strip() and text.strip() != e.reply.strip()]
        scores = score(usable) if usable else []
        right = sum(true_scores[e.key] > value for (e, _), value in zip(usable, scores, strict=True))
        if usable:
            found[name] = {**wilson(right, len(usable)).to_dict(), "description": DESCRIPTIONS[name]}
    return found
