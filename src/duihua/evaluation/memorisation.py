"""Learnt or learnt by heart: how much of a greedy reply stands in the data word for word.

Why three measures: a reply may be the reference from end to end (exact), hold a long piece of it (the longest run of tokens
that both have), or be put together from pieces of other training replies (copied n-grams). Each says little by itself, for
people repeat each other too, so each is taken of prompts that were trained on and of prompts that were not, and copying also
of what people wrote in answer to the latter.

From: N. Carlini et al., "Quantifying Memorization Across Neural Language Models", ICLR 2023, definition 3.1 (a string is
memorised when greedy decoding gives it back after the context that it has in the training data); R. T. McCoy et al., "How
Much Do Language Models Copy From Their Training Data?", TACL 2023, section 4 (the share of n-grams that stand in the training
data, beside that of people's text).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from duihua.evaluation.repetition import units

Gram = tuple[str, ...]


def longest_run(said: Sequence[int], meant: Sequence[int]) -> int:
    """The length of the longest run of tokens that stands in both, one directly after the other."""
    longest, before = 0, [0] * (len(meant) + 1)
    for token in said:
        ending = [0] * (len(meant) + 1)  # at place + 1: the run that ends with this token and with meant[place]
        for place, other in enumerate(meant):
            if token == other:
                ending[place + 1] = before[place] + 1
        longest, before = max(longest, *ending), ending
    return longest


def copied_shares(texts: Sequence[str], training: Iterable[str], n: int = 4) -> list[float]:
    """Of each text the share of its n-grams that stand in any text of `training`, which is read once.

    The units are those of `repetition.units`; a text of fewer than n units counts as one gram. Without units: 0.
    """
    grams = [_grams(units(text), n) for text in texts]
    wanted: dict[int, set[Gram]] = {}
    for found in grams:
        for gram in found:
            wanted.setdefault(len(gram), set()).add(gram)
    known: set[Gram] = set()
    for text in training:
        words = units(text)
        for size, grams_of_size in wanted.items():
            known |= grams_of_size.intersection(_runs(words, size))
    return [sum(gram in known for gram in found) / len(found) if found else 0.0 for found in grams]


def _grams(words: Sequence[str], n: int) -> list[Gram]:
    return _runs(words, min(n, len(words))) if words else []


def _runs(words: Sequence[str], size: int) -> list[Gram]:
    return [tuple(words[place : place + size]) for place in range(len(words) - size + 1)]
