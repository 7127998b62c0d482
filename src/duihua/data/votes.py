"""Votes and corrections of the chat page as preferences, read out of the file in which the server keeps its conversations.

Why the store itself and not an export: what people said of replies lies there already, with the path of messages that led to
each reply, and nothing has to be kept in step. The file is opened for reading alone, so a running server is not disturbed.

What is read: table `messages` (id, conversation_id, parent_id, role, content, details) and `conversations` (id, system). The
key `vote` of a reply's details is 1 or -1, `correction` the text that the user would have wanted. Replies under one parent
are versions of one turn: each one voted up is set against each one voted down (kind `vote`), and a correction against the
reply that it corrects (kind `correction`). A vote without its opposite at the same turn compares nothing and is counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duihua.data.records import (
    ASSISTANT,
    SYSTEM,
    USER,
    Kind,
    LeftOut,
    Message,
    Preference,
    Record,
    Split,
    detect_language,
    is_held_out,
    normalised,
)
from duihua.data.source import SourceConfig
from duihua.data.user_files import OWN_TERMS
from duihua.errors import DataError
from duihua.files import sha256_json

SUFFIXES = (".sqlite3", ".sqlite", ".db")
VOTE, CORRECTION = "vote", "correction"
HELD_OUT_OF_VOTES = 0.2
"""Votes are few: a twentieth of them would say nothing about accuracy."""


@dataclass(frozen=True)
class _Turn:
    """A reply with what was said of it."""

    conversation: str
    parent: str
    text: str
    vote: int
    correction: str


class Votes:
    """A source of preferences out of a store of conversations."""

    kind: Kind = "preferences"
    terms = OWN_TERMS

    def __init__(self, config: SourceConfig) -> None:
        """Raises DataError where `config.path` is no store of conversations."""
        self.path = Path(config.path).expanduser()
        self.name, self.language, self._language = config.path, config.language or "mixed", config.language
        self.left_out = LeftOut()
        if not self.path.is_file():
            raise DataError("no such file", where=config.path, remedy="`duihua serve` says where it keeps its history")

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over the pairs of a split. Raises DataError where nothing was voted on, or only in one direction."""
        self.left_out = LeftOut()
        pairs = self.pairs(self.left_out)
        return (pair for pair in pairs if is_held_out(pair, HELD_OUT_OF_VOTES) == (split == "heldout"))

    def pairs(self, left_out: LeftOut) -> list[Preference]:
        """All pairs of both splits, in the order of the conversations."""
        messages, systems = self._read()
        turns = [turn for row in messages.values() if (turn := _turn(row)) is not None]
        groups: defaultdict[tuple[str, str], list[_Turn]] = defaultdict(list)
        for turn in turns:
            groups[turn.conversation, turn.parent].append(turn)
        found: list[Preference] = []
        for (conversation, parent), group in groups.items():
            prompt = _path(parent, messages, systems.get(conversation, ""))
            if not prompt or prompt[-1]["role"] != USER:
                left_out.add("reply without a question", f"{self.name}: {conversation}", len(group))
                continue
            found += self._of_turn(prompt, group, left_out)
        if not found:
            raise self._nothing(turns)
        return found

    def _of_turn(self, prompt: list[Message], group: list[_Turn], left_out: LeftOut) -> Iterator[Preference]:
        """The pairs of one turn's versions."""
        language = self._language or detect_language("\n".join(message["content"] for message in prompt))
        up, down = ([turn for turn in group if turn.vote == sign] for sign in (1, -1))
        for better in up:
            for worse in down:
                if normalised(better.text) == normalised(worse.text):
                    left_out.add("the same reply was voted up and down", f"{self.name}: {better.conversation}")
                else:
                    yield Preference(prompt, better.text, worse.text, self.name, VOTE, language)
        for turn in group:
            if turn.correction and normalised(turn.correction) != normalised(turn.text):
                yield Preference(prompt, turn.correction, turn.text, self.name, CORRECTION, language)
        if bool(up) != bool(down):
            lone = [turn for turn in (*up, *down) if not turn.correction]
            if lone:
                place = f"{self.name}: {lone[0].conversation}"
                left_out.add("vote without its opposite at the same turn", place, len(lone))

    def _nothing(self, turns: list[_Turn]) -> DataError:
        votes = [turn.vote for turn in turns if turn.vote]
        if votes and len(set(votes)) == 1:
            way = "up" if votes[0] > 0 else "down"
            problem = f"all {len(votes)} votes are {way}, so that no reply is preferred to another"
        elif votes:
            problem = f"{len(votes)} votes, but no turn has one version voted up and another voted down"
        else:
            problem = "holds no vote and no correction"
        return DataError(
            problem, where=str(self.path), remedy="Have a reply written again and vote on both versions, or correct one"
        )

    def _read(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """(message id -> row, conversation id -> system prompt)."""
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                connection.row_factory = sqlite3.Row
                order = "ORDER BY conversation_id, sequence"
                rows = connection.execute(
                    f"SELECT id, conversation_id, parent_id, role, content, details FROM messages {order}"
                )
                messages = {row["id"]: dict(row) for row in rows}
                systems = {
                    row["id"]: row["system"] for row in connection.execute("SELECT id, system FROM conversations")
                }
        except sqlite3.Error as error:
            raise DataError(
                f"is no store of conversations: {error}", where=str(self.path), remedy="Name the file of `duihua serve`"
            ) from error
        return messages, systems

    def fingerprint(self) -> str:
        """Hash of all that was voted and corrected."""
        pairs = self.pairs(LeftOut())
        return sha256_json([[pair.prompt, pair.chosen, pair.rejected, pair.kind] for pair in pairs])


def _turn(row: dict[str, Any]) -> _Turn | None:
    """A reply on which something was said; None for any other message."""
    if row["role"] != ASSISTANT or not row["parent_id"] or not row["content"].strip():
        return None
    try:
        details = json.loads(row["details"] or "{}")
    except ValueError:
        return None
    vote, correction = details.get("vote", 0), details.get("correction", "")
    vote = vote if vote in (1, -1) else 0
    correction = correction.strip() if isinstance(correction, str) else ""
    if not vote and not correction:
        return None
    return _Turn(row["conversation_id"], row["parent_id"], row["content"].strip(), vote, correction)


def _path(message: str | None, messages: dict[str, dict[str, Any]], system: str) -> list[Message]:
    """The messages from the first one to `message`, the system prompt in front; empty where the path is broken."""
    path: list[Message] = []
    while message:
        row = messages.get(message)
        if row is None or not row["content"].strip():
            return []
        path.append({"role": row["role"], "content": row["content"].strip()})
        message = row["parent_id"]
    front: list[Message] = [{"role": SYSTEM, "content": system.strip()}] if system.strip() else []
    return front + path[::-1]
