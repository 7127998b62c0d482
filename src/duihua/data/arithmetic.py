"""Sums of one and two digits as conversations, in English and Chinese: a small world in which every answer can be checked.

Why: reinforcement learning with verifiable rewards needs prompts whose answers are known, and a model small enough for a
CPU can learn to add. Nothing is read or fetched: the sums are counted out here.

Why held out by the two numbers and not by the text: 3 + 4 in training would give away 4 + 3, and the Chinese wording of
both. A held-out pair of numbers is therefore met in no order and in no wording.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from duihua.data.records import ASSISTANT, USER, Conversation, LeftOut, Record, Split
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource
from duihua.files import sha256_json

WORDINGS = {
    "en": ("{a} + {b} = ?", "What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?"),
    "zh": ("计算：{a} + {b}", "{a}加{b}等于几？", "{a}加上{b}是多少？", "{a}与{b}的和是多少？"),
}
HELD_OUT_SHARE = 0.1


class Arithmetic(StarterSource):
    """Every sum of two whole numbers from 0 to `largest`, once in each language, in a wording chosen by a hash.

    The order is by a hash too, so that any first part (`limit`) holds small and large numbers and both languages alike.
    """

    name = "arithmetic"
    kind = "conversations"
    language = "mixed"
    terms = Terms(
        licence="CC0-1.0",
        homepage="",
        attribution="The authors of Duihua",
        note="Sums counted out by a program, with their results",
    )
    packages = ()
    counts = Counts(18012, 1988)
    largest: ClassVar[int] = 99

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        """Every sum of both splits, in the order by hash."""
        every = range(self.largest + 1)
        for number, a, b, language in sorted(
            (_number(self.name, a, b, language), a, b, language) for a in every for b in every for language in WORDINGS
        ):
            wording = WORDINGS[language][number % len(WORDINGS[language])]
            yield Sum(
                [
                    {"role": USER, "content": wording.format(a=a, b=b)},
                    {"role": ASSISTANT, "content": str(a + b)},
                ],
                self.name,
                language,
                (a, b),
            )

    def records(self, split: Split) -> Iterator[Record]:
        """The sums of a split as plain conversations."""
        for record in super().records(split):
            assert isinstance(record, Sum)
            yield Conversation(record.messages, record.source, record.language)

    def held_out(self, record: Record) -> bool:
        """Whether the record's two numbers are held out."""
        assert isinstance(record, Sum)
        return is_held_out_sum(*record.numbers)

    def fingerprint(self) -> str:
        """Hash of name, reader and wordings, which decide everything."""
        return sha256_json([self.name, self.reader_version, self.largest, WORDINGS])


class SmallArithmetic(Arithmetic):
    """The sums of two numbers from 0 to 19."""

    name = "arithmetic-small"
    counts = Counts(716, 84)
    largest = 19


@dataclass(frozen=True)
class Sum(Conversation):
    """A conversation that knows its two numbers."""

    numbers: tuple[int, int] = (0, 0)


def is_held_out_sum(a: int, b: int) -> bool:
    """Whether training must not see a + b nor b + a, in whatever words."""
    return _number("held out", min(a, b), max(a, b)) < HELD_OUT_SHARE * 2**64


def _number(*parts: object) -> int:
    """A number in [0, 2^64) out of a hash of the parts."""
    return int.from_bytes(hashlib.sha256("\x1e".join(map(str, parts)).encode()).digest()[:8], "big")
