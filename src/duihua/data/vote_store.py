"""Reading the file in which `duihua serve` keeps its conversations: replies, what was said of them, and the paths to them.

What is read: table `messages` (id, conversation_id, sequence, parent_id, role, content, details) and `conversations` (id,
title, system). The key `vote` of a reply's details is 1 or -1, `correction` the text that the user would have wanted. The
file is opened for reading alone and read in one transaction, so that a running server is neither disturbed nor met half way.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duihua.data.records import ASSISTANT, SYSTEM, USER, Conversation, Message, detect_language
from duihua.errors import DataError

SUFFIXES = (".sqlite3", ".sqlite", ".db")


@dataclass(frozen=True)
class Turn:
    """A reply with what was said of it: vote 1, -1 or 0 for none; correction "" for none."""

    conversation: str
    parent: str
    text: str
    vote: int
    correction: str

    @property
    def judged(self) -> bool:
        """Whether anything was said of it."""
        return bool(self.vote or self.correction)


@dataclass(frozen=True)
class VoteStore:
    """The file's content. messages: id -> row, in the order of the conversations. titles, systems: by conversation."""

    path: Path
    messages: Mapping[str, Mapping[str, Any]]
    titles: Mapping[str, str]
    systems: Mapping[str, str]

    def turns(self) -> list[Turn]:
        """Every reply that says something, also of conversations that are gone."""
        return [turn for row in self.messages.values() if (turn := _turn(row)) is not None]

    def prompt(self, turn: Turn) -> list[Message]:
        """The messages that the reply answers, the system prompt in front; empty where the path is broken."""
        return self._path(turn.parent, self.systems.get(turn.conversation, ""))

    def conversations(self) -> Iterator[Conversation]:
        """Each question once, with all that was said before it and one reply: the correction if there is one, else a reply that
        was voted up, else the first that was not voted down, else the first."""
        best: dict[str, tuple[int, Turn]] = {}
        for turn in self.turns():
            rank = 3 if turn.correction else turn.vote + 1
            if turn.conversation in self.systems and (turn.parent not in best or rank > best[turn.parent][0]):
                best[turn.parent] = (rank, turn)
        for _, turn in best.values():
            prompt = self.prompt(turn)
            if prompt and prompt[-1]["role"] == USER:
                text = "\n".join(message["content"] for message in prompt)
                reply: Message = {"role": ASSISTANT, "content": turn.correction or turn.text}
                yield Conversation([*prompt, reply], str(self.path), detect_language(text))

    def _path(self, message: str | None, system: str) -> list[Message]:
        path: list[Message] = []
        while message:
            row = self.messages.get(message)
            if row is None or not row["content"].strip() or len(path) > len(self.messages):
                return []
            path.append({"role": row["role"], "content": row["content"].strip()})
            message = row["parent_id"]
        front: list[Message] = [{"role": SYSTEM, "content": system.strip()}] if system.strip() else []
        return front + path[::-1]


def read_store(path: Path) -> VoteStore:
    """Read the file. Raises DataError where there is none, or where it is no store of conversations."""
    if not path.is_file():
        raise DataError("no such file", where=str(path), remedy="`duihua serve` says where it keeps its history")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            columns, order = "id, conversation_id, parent_id, role, content, details", "conversation_id, sequence"
            messages = {
                row["id"]: dict(row) for row in connection.execute(f"SELECT {columns} FROM messages ORDER BY {order}")
            }
            found = connection.execute("SELECT id, title, system FROM conversations").fetchall()
    except sqlite3.Error as error:
        raise DataError(
            f"is no store of conversations: {error}", where=str(path), remedy="Name the file of `duihua serve`"
        ) from error
    return VoteStore(
        path, messages, {row["id"]: row["title"] for row in found}, {row["id"]: row["system"] for row in found}
    )


def _turn(row: Mapping[str, Any]) -> Turn | None:
    """A reply; None for any other message, and for a reply without a word."""
    if row["role"] != ASSISTANT or not row["parent_id"] or not row["content"].strip():
        return None
    try:
        details = json.loads(row["details"] or "{}")
    except ValueError:
        details = {}
    vote, correction = details.get("vote", 0), details.get("correction", "")
    vote = vote if vote in (1, -1) else 0
    correction = correction.strip() if isinstance(correction, str) else ""
    return Turn(row["conversation_id"], row["parent_id"], row["content"].strip(), vote, correction)
