"""Sources: named places that documents, conversations, preferences, labelled examples and parallel texts come from, with
their terms.

A stage's config lists `SourceConfig`s; `open_source` turns each into a `Source`, and the stage iterates
`source.records("train")`. Nothing is read before that, and nothing is held that one pass does not need. This module
imports no torch and no reader: a reader is imported when a source of its kind is opened, so `--help` stays fast.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

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
    """Column with the text of a document or of a labelled example. Tried: text, content, document, article; for labelled
    also sentence, review, sentence1, premise, question1."""
    text_b: str = ""
    """Column with the second text of a labelled pair. Tried: text_b, sentence2, hypothesis, question2."""
    label: str = ""
    """Column with the class of a labelled example: a text, a whole number or true and false. Tried: label, class,
    category, labels."""
    messages: str = ""
    """Column with a list of messages, OpenAI form (role, content) or ShareGPT form (from, value), with calls of tools where
    there are some. Tried: messages, conversations, conversation, dialog."""
    system: str = ""
    """Column with a system message. Tried: system."""
    tools: str = ""
    """Column with what the assistant may call: a list of JSON schemas, or its JSON. Tried: tools."""
    instruction: str = ""
    """Column with an instruction or question. Tried: instruction, question, query, prompt."""
    input: str = ""
    """Column with what the instruction works on, added below it. Tried: input, context."""
    output: str = ""
    """Column with the reply. Tried: output, response, answer, reply, completion."""
    prompt: str = ""
    """Column with the prompt of a preference: text or a list of messages. Tried: prompt, instruction, question,
    conversations, messages."""
    chosen: str = ""
    """Column with the better reply: text, a message, messages, or an HH transcript. Tried: chosen."""
    rejected: str = ""
    """Column with the worse reply, in the same form. Tried: rejected."""
    context: str = ""
    """Column with what the options of a choice belong to. Tried: context, ctx, question, query, goal, premise."""
    options: str = ""
    """Column with the options of a choice: a list of texts, its JSON, or a mapping of texts and names. Tried: options,
    choices, endings."""
    answer: str = ""
    """Column with the right option: its index from 0, its name or letter, or its text. Tried: answer, gold, label,
    answerKey, answer_key."""
    first: str = ""
    """Column with a parallel text in the first of `languages`. Tried: that language's name (fr), source, src, sentence1. A
    number counts the columns of a .tsv or .txt file without a header, from 1."""
    second: str = ""
    """Column with the same text in the second language. Tried: that language's name (en), target, tgt, sentence2."""


@dataclass(frozen=True)
class SourceConfig:
    """One source of data: a known one by `name`, your own files by `path`, or a Hugging Face data set by `hub`."""

    keeps_nothing: ClassVar[bool] = True  # of the default source, where another one is given (config/build.py)

    name: str = ""
    """Name of a known source (`duihua data list` shows them)."""
    path: str = ""
    """Your own file, folder or glob: txt, md, jsonl, json, csv, tsv, parquet, each also as .gz or .zst. For preferences also
    the .sqlite3 file in which `duihua serve` keeps its history: votes and corrections become pairs."""
    hub: str = ""
    """Name of a Hugging Face data set, streamed; needs the extra `hub`."""
    subset: str = ""
    """Configuration of the Hugging Face data set, where it has several."""
    hub_split: str = "train"
    """Split of the Hugging Face data set that is read; held-out records are taken out of it by hash."""
    revision: str = ""
    """Commit or tag of the Hugging Face data set; pin it where a run must be reproducible."""
    kind: Literal["", "text", "conversations", "preferences", "labelled", "choices", "parallel"] = ""
    """What the records are. A known source knows; for your own files and hub data sets empty means text. `text` on a
    known labelled source gives the texts of its training part as documents, without their labels; `preferences` on a known
    source of choices sets the right option against a wrong one."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Which column holds what, for your own files and hub data sets."""
    language: Literal["", "en", "zh"] = ""
    """Language of your own records. Empty: decided for each record by its characters."""
    languages: str = ""
    """The two languages of your own parallel texts, as fr-en: the first column or file, then the second."""
    aligned: str = ""
    """Parallel texts in two files, the same line of both saying the same: `path` is the first, this the second."""
    heldout: str = ""
    """Your held-out records, if you have them apart: a path beside `path`, the name of a split beside `hub`. All of
    `path` is then trained on. Empty: one record in twenty is held out, by a hash."""
    limit: int = 0
    """At most this many records of each split, the first ones. Of labelled examples and choices at most so many are
    trained on, drawn by a hash so that the classes keep their shares, and the held-out ones all stay. 0 means all."""
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
    "wiki-words": ("duihua.data.starter.wiki_words", "WikiWords"),
    "law": ("duihua.data.starter.texts", "Law"),
    "news": ("duihua.data.starter.texts", "News"),
    "reviews": ("duihua.data.starter.texts", "Reviews"),
    "chatterbot-en": ("duihua.data.starter.chatterbot", "ChatterbotEnglish"),
    "chatterbot-zh": ("duihua.data.starter.chatterbot", "ChatterbotChinese"),
    "small-talk-en": ("duihua.data.starter.chatterbot", "SmallTalkEnglish"),
    "small-talk-zh": ("duihua.data.starter.chatterbot", "SmallTalkChinese"),
    "chitchat": ("duihua.data.starter.chitchat", "Chitchat"),
    "chitchat-ratings": ("duihua.data.starter.chitchat_ratings", "ChitchatRatings"),
    "identity": ("duihua.data.starter.llamafactory", "Identity"),
    "alpaca-en": ("duihua.data.starter.llamafactory", "AlpacaEnglish"),
    "alpaca-zh": ("duihua.data.starter.llamafactory", "AlpacaChinese"),
    "glaive-en": ("duihua.data.starter.llamafactory", "GlaiveEnglish"),
    "glaive-zh": ("duihua.data.starter.llamafactory", "GlaiveChinese"),
    "dpo-en": ("duihua.data.starter.llamafactory", "DpoEnglish"),
    "dpo-zh": ("duihua.data.starter.llamafactory", "DpoChinese"),
    "review-sentiment": ("duihua.data.starter.texts", "ReviewSentiment"),
    "starter-text": ("duihua.data.labelled.starter_text", "StarterText"),
    "mrpc": ("duihua.data.labelled.mrpc", "Mrpc"),
    "newsgroups": ("duihua.data.labelled.newsgroups", "Newsgroups"),
    "newsgroups-4": ("duihua.data.labelled.newsgroups", "FourNewsgroups"),
    "reuters-r8": ("duihua.data.labelled.newsgroups", "ReutersR8"),
    "reviews-zh": ("duihua.data.labelled.reviews", "ChineseReviews"),
    "hellaswag": ("duihua.data.labelled.choices", "HellaSwag"),
    "piqa": ("duihua.data.labelled.choices", "Piqa"),
    "socialiqa": ("duihua.data.labelled.choices", "SocialIqa"),
    "csqa": ("duihua.data.labelled.choices", "CommonsenseQa"),
    "multi30k-fr-en": ("duihua.data.parallel.multi30k", "Multi30kFrench"),
    "multi30k-de-en": ("duihua.data.parallel.multi30k", "Multi30kGerman"),
    "tatoeba-zh-en": ("duihua.data.parallel.tatoeba", "Tatoeba"),
    "tatoeba-zh-en-simplified": ("duihua.data.parallel.tatoeba", "TatoebaSimplified"),
    "everyday-fr-en": ("duihua.data.parallel.everyday", "EverydayFrench"),
    "everyday-zh-en": ("duihua.data.parallel.everyday", "EverydayChinese"),
    "tiny-text": ("duihua.data.tiny_source", "TinyText"),
    "tiny-chat": ("duihua.data.tiny_source", "TinyChat"),
    "tiny-preferences": ("duihua.data.tiny_source", "TinyPreferences"),
    "arithmetic": ("duihua.data.arithmetic", "Arithmetic"),
    "arithmetic-small": ("duihua.data.arithmetic", "SmallArithmetic"),
}
"""Name -> (module, class). A class is called with the data directory."""


def known_sources() -> list[str]:
    """Names of the known sources, in the order in which they are listed to people."""
    return list(KNOWN_SOURCES)


def open_source(config: SourceConfig, data_directory: Path) -> Source:
    """The source that `config` asks for. Raises ConfigError for an impossible config, DataError where data is missing."""
    from duihua.data.preference_views import ChoicePreferences
    from duihua.data.views import ApartSource, Limited, TextsOnly

    given = [field_name for field_name in ("name", "path", "hub") if getattr(config, field_name)]
    if len(given) != 1:
        raise ConfigError(
            f"a source needs exactly one of name, path and hub; given: {', '.join(given) or 'none'}",
            where="source",
            remedy="Set one of them; the name of a default source is taken away by an empty one, as --sources.0.name ''"
            if config.name
            else "Set one of them",
        )
    if config.heldout and config.name:
        raise ConfigError(
            "a known source has its own held-out part", where=f"source {config.name}", remedy="Leave `heldout` out"
        )
    if config.name and (config.languages or config.aligned):
        raise ConfigError(
            "a known source has its own languages and files",
            where=f"source {config.name}",
            remedy="Leave `languages` and `aligned` out",
        )
    if config.limit < 0 or config.weight < 0:
        raise ConfigError(
            f"limit and weight cannot be negative, found {config.limit} and {config.weight}",
            where=f"source {getattr(config, given[0])}",
            remedy="Leave limit out for all records and weight out for once through them",
        )
    source: Source
    if config.name:
        source = _open_known(config.name, data_directory)
        if config.kind == "text" and source.kind == "labelled":
            source = TextsOnly(source)
        if config.kind == "preferences" and source.kind == "choices":
            source = ChoicePreferences(source)
        if config.kind and config.kind != source.kind:
            raise ConfigError(
                f"the source holds {source.kind}, not {config.kind}",
                where=f"source {config.name}",
                remedy="Leave `kind` out, or take a source of that kind from `duihua data list`",
            )
    elif config.path:
        source = _open_path(config)
    else:
        from duihua.data.hub import HubSource

        apart = replace(config, hub_split=config.heldout, heldout="")
        if config.kind == "parallel":
            from duihua.data.parallel.hub_pairs import open_hub_pairs

            source = open_hub_pairs(config, apart if config.heldout else None)
        elif config.heldout:
            source = ApartSource(HubSource(config, 0.0), HubSource(apart, 0.0))
        else:
            source = HubSource(config)
    return Limited(source, config.limit) if config.limit else source


def refuse_as_text(source: Source, where: str) -> None:
    """Raise ConfigError: `source` holds no text that may be trained on as it is. Says what to do instead."""
    remedies: dict[Kind, str] = {
        "labelled": "Use it in the classify stage, or set `kind: text` to read the texts of its training part",
        "choices": "Use it in the classify stage",
        "conversations": "Use it in the sft stage",
        "preferences": "Use it in the reward stage",
        "parallel": "Use it in the translate stage",
    }
    raise ConfigError(
        f"this reads text, and the source holds {source.kind}",
        where=f"{where}, {source.name}",
        remedy=remedies.get(source.kind, "Use another source"),
    )


def _open_known(name: str, data_directory: Path) -> Source:
    if name not in KNOWN_SOURCES:
        near = difflib.get_close_matches(name, KNOWN_SOURCES, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(KNOWN_SOURCES)}"
        raise ConfigError("no source of this name", where=f"source {name}", remedy=remedy)
    module, class_name = KNOWN_SOURCES[name]
    source: Source = getattr(importlib.import_module(module), class_name)(data_directory)
    return source


def _open_path(config: SourceConfig) -> Source:
    """The user's own files; a folder with the original files of MRPC, asked for as labelled, is read as such."""
    from duihua.data.user_files import UserFiles
    from duihua.data.views import ApartSource

    if config.kind == "parallel" or config.aligned or config.languages:
        from duihua.data.parallel.own_files import open_own

        return open_own(config)
    if config.kind == "labelled" and not config.heldout:
        from duihua.data.labelled.mrpc import Mrpc, holds_mrpc

        folder = Path(config.path).expanduser()
        if holds_mrpc(folder):
            return Mrpc(folder.parent, folder)
    if config.kind == "preferences":
        from duihua.data.votes import SUFFIXES, Votes

        if Path(config.path).suffix.lower() in SUFFIXES:
            return Votes(config)
    if not config.heldout:
        return UserFiles(config)
    apart = replace(config, path=config.heldout, heldout="")
    return ApartSource(UserFiles(config, 0.0), UserFiles(apart, 0.0))
