"""A person's reply spoilt in one known way, and pairs of the whole one against the spoilt.

Why: pairs are made of such replies (a reward model must learn that the start of a reply is no reply), and probes ask with
others of them what a reward model has learnt. Each spoils one thing and keeps the rest, length included where it can be kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from duihua.data.pairs import Exchange, stable_number
from duihua.data.records import LeftOut, Preference
from duihua.text.scripts import UNSPACED

_PIECE = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]|\s+")


def _pieces(text: str) -> list[str]:
    """Words, marks and the spaces between them; single characters in scripts without spaces, and where words are few."""
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


def cut_short_pairs(items: Sequence[Exchange], count: int, left_out: LeftOut) -> list[Preference]:
    """Up to `count` pairs of a person's reply and its own first third; where none is shorter, `left_out` counts it."""
    pairs: list[Preference] = []
    for exchange in items:
        if len(pairs) == count:
            break
        start = cut_short(exchange).strip()
        if start in ("", exchange.reply.strip()):
            left_out.add("reply too short to be cut short", exchange.source)
        else:
            pairs.append(
                Preference(exchange.prompt, exchange.reply, start, exchange.source, "cut short", exchange.language)
            )
    return pairs
