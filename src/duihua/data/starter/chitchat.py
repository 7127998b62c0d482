"""English two-person chat: 7,168 conversations between people, rated by them; about half got no answer.

Messages sent one after the other by one person are one turn. Whoever spoke first becomes the user, the other the
assistant. As text, all of a conversation's turns, one a line, are a part of the race text (`race.py`); a conversation
that is held out there is held out here too, so that no stage trains on what another is scored on. Beside those, the
usual twentieth part by first message is held out. A few conversations that are held out as text begin with a message
that training asks too ("hello"); they belong to neither split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from duihua.data.records import ASSISTANT, USER, Conversation, LeftOut, Message, Record, Split, is_held_out, normalised
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource
from duihua.data.starter.texts import race_held_out, text_hash

CHITCHAT_TERMS = Terms(
    "MIT",
    "https://github.com/BYU-PCCL/chitchat-dataset",
    "Myers, Etchart, Fulda: Conversational Scaffolding, 2020; collected by the BYU Perception, Control and Cognition lab",
)
PACKAGE, MEMBER = "chitchat-dataset", "chitchat_dataset/dataset.json"


def raw_conversations(dataset: bytes) -> Iterator[tuple[str, list[list[dict[str, Any]]]]]:
    """(identifier, turns) of each conversation; a turn is a list of messages with sender and text."""
    for identifier, conversation in json.loads(dataset).items():
        yield identifier, conversation.get("messages") or []


def flattened(turns: list[list[dict[str, Any]]]) -> str:
    """A conversation as running text: one turn a line, a turn's messages joined by spaces."""
    return "\n".join(" ".join(message["text"] for message in turn) for turn in turns)


def merged_turns(turns: list[list[dict[str, Any]]]) -> list[Message]:
    """Messages with consecutive ones of one sender joined by spaces; empty ones dropped; first sender is the user."""
    merged: list[tuple[str, list[str]]] = []
    for message in (message for turn in turns for message in turn):
        text = message["text"].strip()
        if not text:
            continue
        if merged and merged[-1][0] == message["sender"]:
            merged[-1][1].append(text)
        else:
            merged.append((message["sender"], [text]))
    return [
        {"role": USER if sender == merged[0][0] else ASSISTANT, "content": " ".join(texts)} for sender, texts in merged
    ]


class Chitchat(StarterSource):
    """English conversations between two people."""

    name, kind, language, terms = "chitchat", "conversations", "en", CHITCHAT_TERMS
    packages = (PACKAGE,)
    counts = Counts(3_778, 205)

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        return (conversation for conversation, _ in self._conversations(left_out))

    def records(self, split: Split) -> Iterator[Record]:
        """One pass; the split looks at the text before messages were merged, so it is decided while reading."""
        self.left_out = LeftOut()
        return (record for record, held_out in self._conversations(self.left_out) if held_out == (split == "heldout"))

    def _conversations(self, left_out: LeftOut) -> Iterator[tuple[Conversation, bool]]:
        found: list[tuple[Conversation, bool, bool, str]] = []
        for identifier, turns in raw_conversations(self.member(PACKAGE, MEMBER)):
            place = f"{self.name}: {identifier}"
            messages = merged_turns(turns)
            if len({message["sender"] for turn in turns for message in turn}) > 2:
                left_out.add("more than two speakers", place)
                continue
            if len(messages) < 2:
                left_out.add("nobody answered", place)
                continue
            if messages[-1]["role"] == USER:
                left_out.add("closing user message without a reply (the rest is kept)", place)
                messages = messages[:-1]
            conversation = Conversation(messages, self.name, self.language)
            by_prompt, as_text = is_held_out(conversation), text_hash(flattened(turns)) in race_held_out()
            found.append((conversation, by_prompt, as_text, place))
        trained = {_prompt(each) for each, by_prompt, as_text, _ in found if not by_prompt and not as_text}
        for conversation, by_prompt, as_text, place in found:
            if as_text and _prompt(conversation) in trained:
                left_out.add("held out as text, but its first message is asked in training", place)
            else:
                yield conversation, by_prompt or as_text


def _prompt(conversation: Conversation) -> str:
    return normalised(conversation.messages[0]["content"])
