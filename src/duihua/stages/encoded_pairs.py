"""Preference pairs as ids: prompt and reply of both sides, cut where they are longer than a model reads.

Judged pairs are often longer than a small model's rows. They are cut (or left out) and counted either way; what was judged may
lie behind the cut, which their accuracy shows. Whether a reply that was cut keeps a stop token depends on who reads it: a
reward model reads its score there; a policy that learns from likelihoods must not learn that a reply ended where it did not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from duihua.data.records import LeftOut, Preference
from duihua.stages.prompts import encode_pair_side
from duihua.text.chat_template import ChatTemplate


@dataclass(frozen=True)
class Pair:
    """Two encoded sides, each prompt and reply up to the stop token. lengths: tokens of the replies."""

    chosen: list[int]
    rejected: list[int]
    kind: str
    chosen_reply: int
    rejected_reply: int
    source: str
    language: str


def cut_side(ids: list[int], reply: int, length: int, open_end: bool = False) -> tuple[list[int], int]:
    """A side of at most `length` tokens: the prompt keeps its end, at most half the length where the reply needs the rest;
    the reply keeps its beginning and its stop token, which with `open_end` it loses where it is cut. Returns the ids and
    how many of them are the reply's."""
    if len(ids) <= length:
        return ids, reply
    room = max(length - reply, length // 2)
    prompt = ids[: len(ids) - reply][-room:]
    whole = ids[len(ids) - reply : -1]
    body = whole[: length - len(prompt) - 1]
    if open_end and 0 < len(body) < len(whole):
        return [*prompt, *body], len(body)
    return [*prompt, *body, ids[-1]], len(body) + 1


def without_end(pair: Pair) -> Pair:
    """The pair with a rejected reply that did not end: its stop token is left off where something else is left."""
    if pair.rejected_reply < 2:
        return pair
    return replace(pair, rejected=pair.rejected[:-1], rejected_reply=pair.rejected_reply - 1)


def encode_pairs(
    records: Iterable[Preference],
    kind: str,
    length: int,
    template: ChatTemplate,
    left_out: LeftOut,
    cut: LeftOut | None = None,
    open_ends: bool = False,
) -> list[Pair]:
    """The pairs, each side of at most `length` tokens.

    A longer pair is cut and counted in `cut` where that is given, else left out and counted in `left_out`; so are pairs
    whose sides are equal (or become so by cutting) and pairs with an empty reply. open_ends: a reply that was cut has no
    stop token, since it did not end there.
    """
    pairs: list[Pair] = []
    for record in records:
        if not record.chosen.strip() or not record.rejected.strip():
            left_out.add(f"{kind} pair with an empty reply", record.source)
            continue
        chosen, chosen_reply = encode_pair_side(record.prompt, record.chosen, template)
        rejected, rejected_reply = encode_pair_side(record.prompt, record.rejected, template)
        too_long = max(len(chosen), len(rejected)) > length
        if too_long and cut is None:
            left_out.add(f"{kind} pair longer than {length} tokens", record.source)
            continue
        if too_long and cut is not None:
            cut.add(f"{kind} pair cut to {length} tokens", record.source)
            # Both sides keep the same prompt, so that what was cut of it tells nothing.
            longest = max(chosen_reply, rejected_reply)
            prompt = max(length - longest, length // 2)
            chosen, chosen_reply = cut_side(chosen[-prompt - chosen_reply :], chosen_reply, length, open_ends)
            rejected, rejected_reply = cut_side(rejected[-prompt - rejected_reply :], rejected_reply, length, open_ends)
        if chosen == rejected:
            left_out.add(f"{kind} pair of equal replies", record.source)
            continue
        pairs.append(Pair(chosen, rejected, kind, chosen_reply, rejected_reply, record.source, record.language))
    return pairs
