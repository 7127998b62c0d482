"""Sources: named places that documents, conversations and preferences come from, each knowing its terms.

A stage's config lists `SourceConfig`s; `open_source` turns each into a `Source`, and the stage iterates
`source.records("train")`. Nothing is read before that, and nothing is held that one pass does not need. This module
imports no torch and no reader: a reader is imported when a source of its kind is opened, so `--help` stays fast.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from duihua.data.records import Kind, LeftOut, Record, Split
from duihua.errors import ConfigError


@dataclass(frozen=True)
class Terms:
    """What may be done with a source's data: copied into the card of every model trained on it."""

    licence: str
    homepage: str
    attribution: str
    note: str = ""


@dataclass(frozen=True)
class ColumnsConfig:
    """Which column (key) of a row holds what. Empty: the usual names are tried."""

    text: str = ""
    """Column with the text of a document. Tried: text, content, document, article."""
    messages: str = ""
    """Column with a list of messages, OpenAI form (role, content) or ShareGPT form (from, value).
    Tried: messages, conversations, conversation, dialog."""
    system: str = ""
    """Column with a system message. Tried: system."""
    instruction: str = ""
    """Column with an instruction or question. Tried: instruction, question, query."""
    input: str = ""
    """Column with what the instruction works on, added below it. Tried: input, context."""
    output: str = ""
    """Column with the reply. Tried: output, response, answer, reply."""
    prompt: str = ""
    """Column with the prompt of a preference: text or a list of messages. Tried: prompt, instruction, question,
    conversations, messages."""
    chosen: str = ""
    """Column with the better reply: text, a message, messages, or an HH transcript. Tried: chosen."""
    rejected: str = ""
    """Column with the worse reply, in the same form. Tried: rejected."""


@dataclass(frozen=True)
class SourceConfig:
    """One source of data: a known one by `name`, your own files by `path`, or a Hugging Face data set by `hub`."""

    name: str = ""
    """Name of a known source (`duihua data list` shows them)."""
    path: str = ""
    """Your own file, folder or glob: txt, md, jsonl, json, csv, tsv, parquet, each also as .gz or .zst."""
    hub: str = ""
    """Name of a Hugging Face data set, streamed; needs the extra `hub`."""
    subset: str = ""
    """Configuration of the Hugging Face data set, where it has several."""
    hub_split: str = "train"
    """Split of the Hugging Face data set that is read; held-out records are taken out of it by hash."""
    revision: str = ""
    """Commit or tag of the Hugging Face data set; pin it where a run must be reproducible."""
    kind: Literal["", "text", "conversations", "preferences"] = ""
    """What the records are. A known source knows; for your own files and hub data sets empty means text."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Which column holds what, for your own files and hub data sets."""
    language: Literal["", "en", "zh"] = ""
    """Language of your own records. Empty: decided for each record by its characters."""
    limit: int = 0
    """At most this many records of each split, the first ones. 0 means all."""
    weight: float = 1.0
    """How often this source is drawn from, relative to the others."""


@runtime_checkable
class Source(Protocol):
    """What a stage reads from."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def language(self) -> str:
        """ "en", "zh", or "mixed"; each record says its own."""
        ...

    @property
    def terms(self) -> Terms: ...
    @property
    def left_out(self) -> LeftOut:
        """What the newest pass of `records` has left out so far, and why."""
        ...

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over the records of a split, always in the same order."""
        ...

    def fingerprint(self) -> str:
        """Hex hash of everything that decides the records: same fingerprint, same records."""
        ...


KNOWN_SOURCES: dict[str, tuple[str, str]] = {
    "race-text": ("duihua.data.starter.race", "RaceText"),
    "wiki": ("duihua.data.starter.texts", "Wiki"),
    "law": ("duihua.data.starter.texts", "Law"),
    "news": ("duihua.data.starter.texts", "News"),
    "reviews": ("duihua.data.starter.texts", "Reviews"),
    "chatterbot-en": ("duihua.data.starter.chatterbot", "ChatterbotEnglish"),
    "chatterbot-zh": ("duihua.data.starter.chatterbot", "ChatterbotChinese"),
    "small-talk-en": ("duihua.data.starter.chatterbot", "SmallTalkEnglish"),
    "small-talk-zh": ("duihua.data.starter.chatterbot", "SmallTalkChinese"),
    "chitchat": ("duihua.data.starter.chitchat", "Chitchat"),
    "identity": ("duihua.data.starter.llamafactory", "Identity"),
    "alpaca-en": ("duihua.data.starter.llamafactory", "AlpacaEnglish"),
    "alpaca-zh": ("duihua.data.starter.llamafactory", "AlpacaChinese"),
    "dpo-en": ("duihua.data.starter.llamafactory", "DpoEnglish"),
    "dpo-zh": ("duihua.data.starter.llamafactory", "DpoChinese"),
    "review-sentiment": ("duihua.data.starter.texts", "ReviewSentiment"),
    "tiny-text": ("duihua.data.tiny_source", "TinyText"),
    "tiny-chat": ("duihua.data.tiny_source", "TinyChat"),
    "tiny-preferences": ("duihua.data.tiny_source", "TinyPreferences"),
}
"""Name -> (module, class). A class is called with the data directory."""


def known_sources() -> list[str]:
    """Names of the known sources, in the order in which they are listed to people."""
    return list(KNOWN_SOURCES)


def open_source(config: SourceConfig, data_directory: Path) -> Source:
    """The source that `config` asks for. Raises ConfigError for an impossible config, DataError where data is missing."""
    given = [field_name for field_name in ("name", "path", "hub") if getattr(config, field_name)]
    if len(given) != 1:
        raise ConfigError(
            f"a source needs exactly one of name, path and hub; given: {', '.join(given) or 'none'}",
            where="source",
            remedy="Set one of them",
        )
    if config.limit < 0 or config.weight < 0:
        raise ConfigError("limit and weight cannot be negative", where=f"source {getattr(config, given[0])}")
    source: Source
    if config.name:
        source = _open_known(config.name, data_directory)
        if config.kind and config.kind != source.kind:
            raise ConfigError(
                f"the source holds {source.kind}, not {config.kind}",
                where=f"source {config.name}",
                remedy="Leave `kind` out, or take a source of that kind from `duihua data list`",
            )
    elif config.path:
        from duihua.data.user_files import UserFiles

        source = UserFiles(config)
    else:
        from duihua.data.hub import HubSource

        source = HubSource(config)
    return _Limited(source, config.limit) if config.limit else source


def _open_known(name: str, data_directory: Path) -> Source:
    if name not in KNOWN_SOURCES:
        near = difflib.get_close_matches(name, KNOWN_SOURCES, n=1)
        remedy = f"Did you mean {near[0]}" if near else f"Known are: {', '.join(KNOWN_SOURCES)}"
        raise ConfigError("no source of this name", where=f"source {name}", remedy=remedy)
    module, class_name = KNOWN_SOURCES[name]
    source: Source = getattr(importlib.import_module(module), class_name)(data_directory)
    return source


class _Limited:
    """The first `limit` records of each split of another source."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source, self._limit = source, limit
        self.name, self.kind, self.language = source.name, source.kind, source.language
        self.terms = source.terms

    @property
    def left_out(self) -> LeftOut:
        return self._source.left_out

    def records(self, split: Split) -> Iterator[Record]:
        return islice(self._source.records(split), self._limit)

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()}-first-{self._limit}"
