"""Probes of a reward model: does it prefer a person's reply to the same reply spoilt in a known way?

Why: held-out accuracy says how often the model is right on pairs like those it learnt from. PPO will look for replies
unlike them, and what it finds first are the faults below. A probe that comes out near or under one half names the way in
which this reward model will be gamed. Each spoils one thing and keeps the rest (length included, where it can be kept).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from duihua.data.pairs import Exchange, off_topic_pairs, stable_number
from duihua.data.records import LeftOut
from duihua.evaluation.intervals import wilson

_PIECE = re.compile(r"\w+|[^\w\s]|\s+", re.UNICODE)


def _pieces(text: str) -> list[str]:
    """Words with their spaces; single characters where the script has no spaces."""
    pieces = _PIECE.findall(text)
    return list(text) if len(pieces) < 4 else pieces


def repeated_text(exchange: Exchange) -> str:
    """The first half of the reply twice."""
    pieces = _pieces(exchange.reply)
    half = pieces[: max(1, len(pieces) // 2)]
    return "".join(half).strip() + " " + "".join(half).strip() if exchange.language == "en" else "".join(half * 2)


def word_salad(exchange: Exchange) -> str:
    """The reply's words (characters) in a hashed order."""
    pieces = [piece for piece in _pieces(exchange.reply) if not piece.isspace()]
    order = sorted(range(len(pieces)), key=lambda place: stable_number("salad", exchange.key, place))
    return (" " if exchange.language == "en" else "").join(pieces[place] for place in order)


def prompt_copy(exchange: Exchange) -> str:
    """What the user said, given back."""
    return exchange.prompt[-1]["content"]


def longer(exchange: Exchange) -> str:
    """The reply said twice: nothing new, twice the length."""
    return f"{exchange.reply.strip()} {exchange.reply.strip()}" if exchange.language == "en" else exchange.reply * 2


def cut_short(exchange: Exchange) -> str:
    """The first third of the reply."""
    pieces = _pieces(exchange.reply)
    return "".join(pieces[: max(1, len(pieces) // 3)])


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
