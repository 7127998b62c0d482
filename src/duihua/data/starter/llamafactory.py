"""Instructions, calls of tools, self-descriptions and preferences in English and Chinese: LLaMA-Factory's demonstration files.

Read from its source archive by the same column rules as a user's own files (`columns.py`). The self-descriptions leave
room for a name and an author: they are filled with this project's, so that a model trained on them says what it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from duihua.data.columns import plan_columns, to_record
from duihua.data.records import BadRecordError, LeftOut, Record, detect_language
from duihua.data.source import ColumnsConfig, Terms
from duihua.data.starter.base import Counts, StarterSource

PACKAGE = "llamafactory"
HOMEPAGE = "https://github.com/hiyouga/LLaMA-Factory"
MODEL_NAME = "Duihua"
PREFERENCES_HELD_OUT = 0.2
"""A twentieth of 300 pairs would say nothing about accuracy. The twentieth that is held out elsewhere is a part of it."""
AUTHORS = {"en": "the Duihua project", "zh": "Duihua 项目"}

IDENTITY_TERMS = Terms("Apache-2.0", HOMEPAGE, "Self-descriptions from LLaMA-Factory, by its authors")
ALPACA_TERMS = Terms(
    "Apache-2.0 (the package)",
    HOMEPAGE,
    "Alpaca-style instructions from LLaMA-Factory's demonstration files",
    "Replies written by language models whose providers' terms may limit commercial use: check them before.",
)
GLAIVE_TERMS = Terms(
    "Apache-2.0 (the package)",
    HOMEPAGE,
    "Conversations with calls of tools from LLaMA-Factory's demonstration files, after Glaive AI's glaive-function-calling-v2",
    "Written by language models whose providers' terms may limit commercial use: check them before.",
)
DPO_TERMS = Terms(
    "Apache-2.0 (the package)",
    HOMEPAGE,
    "Preference pairs from LLaMA-Factory's demonstration files, a sample of the DPO-En-Zh collection",
    "Replies written and mostly judged by language models whose providers' terms may limit commercial use.",
)


class _Demonstration(StarterSource):
    """One JSON file of the archive's data folder."""

    packages = (PACKAGE,)
    file: ClassVar[str]

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        rows = json.loads(self.member(PACKAGE, f"data/{self.file}"))
        plan = plan_columns(self.kind, ColumnsConfig(), rows[0], self.file)
        for index, row in enumerate(rows):
            place = f"{self.file}: record {index + 1}"
            language = "" if self.language == "mixed" else self.language
            try:
                yield to_record(self.prepared(row), plan, self.name, language, left_out, place)
            except BadRecordError as bad:
                left_out.add(bad.reason, f"{place}: {bad.field}")

    def prepared(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row as it is read; the self-descriptions fill in names here."""
        return row


class Identity(_Demonstration):
    """What the model says of itself, in both languages."""

    name, kind, language, terms, file = "identity", "conversations", "mixed", IDENTITY_TERMS, "identity.json"
    counts = Counts(86, 5)

    def prepared(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        author = AUTHORS[detect_language(row["instruction"] + row["output"])]
        reply = row["output"].replace("{{author}} ", author + " " * author.isascii()).replace("{{author}}", author)
        reply = reply.replace("{{name}}", MODEL_NAME)
        return {**row, "output": reply}


class AlpacaEnglish(_Demonstration):
    """English instructions with replies."""

    name, kind, language, terms, file = "alpaca-en", "conversations", "en", ALPACA_TERMS, "alpaca_en_demo.json"
    counts = Counts(950, 49)


class AlpacaChinese(_Demonstration):
    """Chinese instructions with replies."""

    name, kind, language, terms, file = "alpaca-zh", "conversations", "zh", ALPACA_TERMS, "alpaca_zh_demo.json"
    counts = Counts(937, 63)


class GlaiveEnglish(_Demonstration):
    """English conversations, many with tools that are called and answer."""

    name, kind, language, terms, file = "glaive-en", "conversations", "en", GLAIVE_TERMS, "glaive_toolcall_en_demo.json"
    counts = Counts(294, 6)


class GlaiveChinese(_Demonstration):
    """The same kind in Chinese; the calls are JSON with English names."""

    name, kind, language, terms, file = "glaive-zh", "conversations", "zh", GLAIVE_TERMS, "glaive_toolcall_zh_demo.json"
    counts = Counts(279, 19)


class DpoEnglish(_Demonstration):
    """English preference pairs, many of several turns."""

    name, kind, language, terms, file = "dpo-en", "preferences", "en", DPO_TERMS, "dpo_en_demo.json"
    held_out_share = PREFERENCES_HELD_OUT
    counts = Counts(250, 50)


class DpoChinese(_Demonstration):
    """Chinese preference pairs."""

    name, kind, language, terms, file = "dpo-zh", "preferences", "zh", DPO_TERMS, "dpo_zh_demo.json"
    held_out_share = PREFERENCES_HELD_OUT
    counts = Counts(229, 71)
