"""Short English and Chinese conversations written for chat bots: greetings, small talk, jokes, trivia, tech questions.

YAML files, one a topic; a conversation is a list of lines, the user's first. The Chinese files (simplified script) are
for the most part translations of the English ones. What answers a greeting after fine-tuning comes from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import ClassVar

import yaml

from duihua.data.archives import member_names, read_member, require_archive
from duihua.data.records import ASSISTANT, USER, Conversation, LeftOut, Message, Record
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource

PACKAGE = "chatterbot-corpus"
CHATTERBOT_TERMS = Terms(
    "BSD-3-Clause",
    "https://github.com/gunthercox/chatterbot-corpus",
    "ChatterBot Language Training Corpus, by Gunther Cox and its contributors",
)


class _Chatterbot(StarterSource):
    """One language's folder of the corpus."""

    kind, terms = "conversations", CHATTERBOT_TERMS
    packages = (PACKAGE,)
    folder: ClassVar[str]
    topics: ClassVar[frozenset[str]] = frozenset()
    """Files that are read, without their ending; empty means all."""

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        path = require_archive(PACKAGE, self.data_directory)
        for member in member_names(path, f"chatterbot_corpus/data/{self.folder}/"):
            if self.topics and PurePosixPath(member).stem not in self.topics:
                continue
            topic = yaml.load(read_member(path, member), Loader=_loader())
            for index, lines in enumerate(topic["conversations"]):
                place = f"{member}: conversation {index + 1}"
                texts = [str(line).strip() for line in lines]
                if not all(texts):
                    left_out.add("empty message", place)
                    continue
                if len(texts) < 2:
                    left_out.add("nobody answered", place)
                    continue
                if len(texts) % 2:
                    left_out.add("closing user message without a reply (the rest is kept)", place)
                    texts = texts[:-1]
                messages: list[Message] = [
                    {"role": USER if turn % 2 == 0 else ASSISTANT, "content": text} for turn, text in enumerate(texts)
                ]
                yield Conversation(messages, self.name, self.language)


SMALL_TALK = frozenset(
    ("ai", "botprofile", "conversations", "emotion", "food", "gossip", "greetings", "health", "history", "sports")
)
"""Topics of everyday talk; more than half of the English corpus is technical support and programming."""


def _loader() -> type[yaml.SafeLoader]:
    """The safe loader, in C where it was built in: ten times faster."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ChatterbotEnglish(_Chatterbot):
    """English small talk and questions."""

    name, language, folder = "chatterbot-en", "en", "english"
    counts = Counts(1_902, 123)


class ChatterbotChinese(_Chatterbot):
    """Chinese small talk and questions, simplified script."""

    name, language, folder = "chatterbot-zh", "zh", "chinese"
    counts = Counts(443, 24)


class SmallTalkEnglish(ChatterbotEnglish):
    """The everyday topics of chatterbot-en, so that a recipe can weight greetings above technical support."""

    name, topics = "small-talk-en", SMALL_TALK
    counts = Counts(274, 13)


class SmallTalkChinese(ChatterbotChinese):
    """The everyday topics of chatterbot-zh."""

    name, topics = "small-talk-zh", SMALL_TALK
    counts = Counts(188, 9)
