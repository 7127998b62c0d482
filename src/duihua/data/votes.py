"""Votes and corrections of the chat page as preferences, read out of the file in which the server keeps its conversations.

Why the store itself and not an export: what people said of replies lies there already, with the path of messages that led to
each reply, and nothing has to be kept in step.

Replies under one parent are versions of one turn: each one voted up is set against each one voted down (kind `vote`), and a
correction against the reply that it corrects (kind `correction`). A vote without its opposite at the same turn compares
nothing and is counted, and so is what was said in a conversation that has been deleted. How the file is read: vote_store.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from duihua.data.records import (
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
from duihua.data.vote_store import SUFFIXES, Turn, VoteStore, read_store
from duihua.errors import DataError
from duihua.files import sha256_json

VOTE, CORRECTION = "vote", "correction"
DELETED = "reply in a conversation that was deleted"
HELD_OUT_OF_VOTES = 0.2
"""Votes are few: a twentieth of them would say nothing about accuracy."""


@dataclass(frozen=True)
class Judged:
    """A pair and the conversation that it came from."""

    conversation: str
    pair: Preference


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
        return [judged.pair for judged in self.judged(read_store(self.path), left_out)]

    def judged(self, store: VoteStore, left_out: LeftOut) -> list[Judged]:
        """The pairs of a store that has been read, and the conversations that they came from. DataError where there is none."""
        turns = [turn for turn in store.turns() if turn.judged]
        groups: defaultdict[tuple[str, str], list[Turn]] = defaultdict(list)
        for turn in turns:
            groups[turn.conversation, turn.parent].append(turn)
        found: list[Judged] = []
        for (conversation, _), group in groups.items():
            place = f"{self.name}: {conversation}"
            if conversation not in store.systems:
                left_out.add(DELETED, place, len(group))
                continue
            prompt = store.prompt(group[0])
            if not prompt or prompt[-1]["role"] != USER:
                left_out.add("reply without a question", place, len(group))
                continue
            found += [Judged(conversation, pair) for pair in self._of_turn(prompt, group, left_out)]
        if not found:
            raise self._nothing(turns, left_out)
        return found

    def _of_turn(self, prompt: list[Message], group: list[Turn], left_out: LeftOut) -> Iterator[Preference]:
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

    def _nothing(self, turns: list[Turn], left_out: LeftOut) -> DataError:
        votes = [turn.vote for turn in turns if turn.vote]
        if turns and left_out.counts[DELETED] == len(turns):
            problem = f"all {len(turns)} replies that were judged stand in conversations that were deleted"
        elif votes and len(set(votes)) == 1:
            way = "up" if votes[0] > 0 else "down"
            problem = f"all {len(votes)} votes are {way}, so that no reply is preferred to another"
        elif votes:
            problem = f"{len(votes)} votes, but no turn has one version voted up and another voted down"
        else:
            problem = "holds no vote and no correction"
        return DataError(
            problem, where=str(self.path), remedy="Have a reply written again and vote on both versions, or correct one"
        )

    def fingerprint(self) -> str:
        """Hash of all that was voted and corrected."""
        pairs = self.pairs(LeftOut())
        return sha256_json([[pair.prompt, pair.chosen, pair.rejected, pair.kind] for pair in pairs])


__all__ = ["CORRECTION", "SUFFIXES", "VOTE", "Judged", "Votes"]
