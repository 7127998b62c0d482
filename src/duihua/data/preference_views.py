"""Multiple choice as preferences: the right ending against a wrong one.

Why the wrong option nearest in length: else a reward model can tell the two by their length, and PPO learns to be long or
short instead of right. The source's own split holds, so a question that is tested is never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

from duihua.data.pairs import stable_number
from duihua.data.records import USER, Choice, Kind, LeftOut, Preference, Record, Split, normalised
from duihua.data.source import Source

CHOICE = "choice"
"""Kind of a preference whose chosen reply is the right option of a question."""


class ChoicePreferences:
    """A source of choices, read as preferences: the question asks, the options answer."""

    kind: Kind = "preferences"

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name, self.language, self.terms = source.name, source.language, source.terms
        self.left_out = LeftOut()

    def records(self, split: Split) -> Iterator[Record]:
        """One pair a question, in an order by hash, since some sources keep like questions together."""
        records = list(self._source.records(split))
        self.left_out = self._source.left_out
        for record in sorted(records, key=lambda one: stable_number(CHOICE, getattr(one, "context", ""))):
            assert isinstance(record, Choice)
            pair = preference(record)
            if pair is None:
                self.left_out.add("no wrong option that reads otherwise than the right one", record.source)
            else:
                yield pair

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()}-preferences"


def preference(record: Choice) -> Preference | None:
    """The right option against the wrong one nearest to it in length (of equals one by hash); None where all read alike."""
    right = record.options[record.answer]
    wrong = [option for option in record.options if normalised(option) != normalised(right)]
    if not wrong:
        return None
    nearest = min(wrong, key=lambda option: (abs(len(option) - len(right)), stable_number(record.context, option)))
    return Preference(
        [{"role": USER, "content": record.context}], right, nearest, record.source, CHOICE, record.language
    )
