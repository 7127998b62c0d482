"""Preferences out of ratings: of two conversations that began alike, the reply of the one that people rated higher.

People rated each conversation of the chitchat set for being witty, upbeat and interesting, from 1 to 10; the form stood at
5, 5, 5, so those rate nothing. Two conversations are set against each other when their first messages read alike and their
mean ratings differ by two or more; the first replies are the two sides. It is weak evidence (a rating is of the whole
conversation), and its kind says so: `rated`. Each conversation stands in one pair at most: the best rated with the worst.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from duihua.data.records import Conversation, LeftOut, Preference, Record, is_held_out, normalised
from duihua.data.starter.base import Counts, StarterSource
from duihua.data.starter.chitchat import CHITCHAT_TERMS, MEMBER, PACKAGE, flattened, merged_turns
from duihua.data.starter.texts import race_held_out, text_hash

RATED = "rated"
QUALITIES = ("witty", "upbeat", "interesting")
UNTOUCHED = 5
LEAST_DIFFERENCE = 2.0
Rated = tuple[float, str, str, Conversation]
"""(mean rating, first reply, identifier, the first exchange)."""


class ChitchatRatings(StarterSource):
    """English first replies, the one of the better rated conversation preferred."""

    name, kind, language, terms = "chitchat-ratings", "preferences", "en", CHITCHAT_TERMS
    packages = (PACKAGE,)
    counts = Counts(243, 4)

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        groups: defaultdict[str, list[Rated]] = defaultdict(list)
        for identifier, row in json.loads(self.member(PACKAGE, MEMBER)).items():
            found = self._rated(identifier, row, left_out)
            if found is not None:
                groups[normalised(found[3].messages[0]["content"])].append(found)
        for group in groups.values():
            yield from self._pairs(sorted(group, key=lambda one: one[:3]), left_out)

    def _rated(self, identifier: str, row: dict[str, Any], left_out: LeftOut) -> Rated | None:
        place = f"{self.name}: {identifier}"
        known = row.get("ratings") or {}
        ratings = [float(known[quality]) for quality in QUALITIES if quality in known]
        turns = row.get("messages") or []
        messages = merged_turns(turns)
        if len(ratings) < len(QUALITIES) or all(rating == UNTOUCHED for rating in ratings):
            left_out.add("not rated", place)
        elif len({message["sender"] for turn in turns for message in turn}) > 2:
            left_out.add("more than two speakers", place)
        elif len(messages) < 2:
            left_out.add("nobody answered", place)
        else:
            first = Conversation(messages[:2], self.name, self.language)
            if text_hash(flattened(turns)) in race_held_out() and not is_held_out(first):
                left_out.add("held out as text, but its first message is asked in training", place)
                return None
            return sum(ratings) / len(ratings), messages[1]["content"], identifier, first
        return None

    def _pairs(self, group: list[Rated], left_out: LeftOut) -> Iterator[Preference]:
        """The best rated against the worst rated, the second best against the second worst, and so on."""
        low, high = 0, len(group) - 1
        while low < high and group[high][0] - group[low][0] >= LEAST_DIFFERENCE:
            better, worse = group[high], group[low]
            if normalised(better[1]) == normalised(worse[1]):
                left_out.add("both conversations have the same first reply", f"{self.name}: {better[2]}")
            else:
                prompt = better[3].messages[:1]
                yield Preference(prompt, better[1], worse[1], self.name, RATED, self.language)
            low, high = low + 1, high - 1
        left_out.add("no partner that began alike and is rated otherwise", self.name, max(0, high - low + 1))
