"""Conversations -> rows of fixed length for supervised fine-tuning, several conversations a row, none seeing another.

Why packing: most conversations are far shorter than a row, and padding each to the row would spend most of the work on
pads. Why it changes nothing: each conversation keeps a segment number (attention looks inside a segment only) and its
positions start again at 0, so its loss is the loss it would have alone in a row.
Why best-fit: rows are filled longest conversation first, each into the fullest row that still holds it (best-fit
decreasing; Ding et al., "Fewer Truncations Improve Language Modeling", ICML 2024), so that hardly any place is left and
no conversation is ever cut to fill a row.

Nothing is dropped silently. A conversation longer than a row loses whole turns at its end, or is split between turns;
one that cannot be used at all is left out; each is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duihua.data.halves import halve_rows
from duihua.data.records import ASSISTANT, SYSTEM, TOOL, USER, Conversation, Message
from duihua.errors import DataError

LongConversations = Literal["truncate", "split"]
TURNS_CUT = "last turns cut off, longer than a row"
SPLIT = "split between turns, longer than a row"
ANSWER_APART = "turns after a tool's answer cut off, which would stand without their call"
TURN_TOO_LONG = "left out: one turn is longer than a row"
NOTHING_TO_LEARN = "left out: no token of the assistant"


class Encoded(Protocol):
    """Ids and, as long, whether each is to be learnt."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def loss_mask(self) -> list[bool]: ...


class Template(Protocol):
    """What is needed of a chat template here."""

    def encode(self, messages: Any, /) -> Encoded: ...


@dataclass(frozen=True)
class Example:
    """One conversation up to its last learnt token. token_ids: (n + 1,) int32; loss_mask: (n + 1,) bool, true on tokens
    that are learnt. It reads token_ids[:-1], predicts token_ids[1:] and takes `length` = n places of a row."""

    token_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]

    @property
    def length(self) -> int:
        return len(self.token_ids) - 1


@dataclass
class EncodedConversations:
    """Examples in the order of the conversations they come from, and what happened to the others.

    left_out: reason -> conversations that were cut, split or left out. conversations: how many were read.
    """

    examples: list[Example] = field(default_factory=list)
    conversations: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def tokens(self) -> int:
        """Places that the examples take in rows."""
        return sum(example.length for example in self.examples)

    @property
    def learnt_tokens(self) -> int:
        """Tokens that count in the loss."""
        return sum(int(example.loss_mask[1:].sum()) for example in self.examples)


def encode_conversations(
    conversations: Iterable[Conversation], template: Template, row_length: int, long: LongConversations = "truncate"
) -> EncodedConversations:
    """Encode with the chat template; every example fits a row of `row_length` places.

    long: what becomes of a conversation that does not fit. truncate: whole turns at its end go. split: what does not
    fit becomes an example of its own, the system message in front, as when a chat outgrows the model's context.
    """
    made = EncodedConversations()
    for conversation in conversations:
        made.conversations += 1
        _encode_one(conversation.messages, template, row_length, long, made)
    return made


def _encode_one(
    messages: list[Message], template: Template, row_length: int, long: LongConversations, made: EncodedConversations
) -> None:
    system = [message for message in messages[:1] if message["role"] == SYSTEM]
    reasons: set[str] = set()
    while True:
        encoded = template.encode(messages)
        mask = np.asarray(encoded.loss_mask, dtype=bool)
        mask[:1] = False  # nothing stands before the first token that could predict it
        after = np.append(mask[1:], False)
        ends = np.flatnonzero(mask & ~after)  # the last token of each of the assistant's turns
        fitting = int((ends <= row_length).sum())
        if fitting:
            cut = int(ends[fitting - 1]) + 1
            made.examples.append(Example(np.asarray(encoded.ids[:cut], dtype=np.int32), mask[:cut].copy()))
        if len(ends) == 0:
            reasons.add(NOTHING_TO_LEARN)
        if fitting == len(ends):
            break
        if not fitting:
            reasons.add(TURN_TOO_LONG)
        elif long == "truncate":
            reasons.add(TURNS_CUT)
        if long == "truncate":
            break
        speaks = [place for place, message in enumerate(messages) if message["role"] == ASSISTANT]
        done = max(1, fitting)  # a turn that fits no row is passed over
        rest = messages[speaks[done - 1] + 1 :] if len(speaks) == len(ends) else []
        if rest and rest[0]["role"] == TOOL:  # goes on where a person speaks again
            reasons.add(ANSWER_APART)
            rest = rest[next((place for place, message in enumerate(rest) if message["role"] == USER), len(rest)) :]
        if not any(message["role"] == ASSISTANT for message in rest):
            break
        reasons.add(SPLIT)
        messages = [*system, *rest]
    made.left_out.update(reasons)


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` grouped into rows of at most `capacity`, best-fit decreasing; equal lengths in given order.

    Each index stands in exactly one row. ValueError for a length of 0 or one above the capacity.
    """
    if any(not 0 < length <= capacity for length in lengths):
        raise ValueError(f"every length must be from 1 to {capacity}")
    rows: list[list[int]] = []
    with_space: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the space that is left in them
    open_spaces = 0  # bit s is set where with_space[s] is not empty, so that the tightest fit is one bit operation away
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        fitting = open_spaces >> length << length
        if fitting:
            space = (fitting & -fitting).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                open_spaces &= ~(1 << space)
            rows[row].append(index)
        else:
            row, space = len(rows), capacity
            rows.append([index])
        if space > length:
            with_space[space - length].append(row)
            open_spaces |= 1 << (space - length)
    return rows


def make_batch(rows: Sequence[Sequence[Example]], row_length: int, pad_id: int) -> dict[str, Tensor]:
    """Rows of examples -> {"token_ids", "targets", "positions", "segments"} int64 and "weights" fp32, all (b, t).

    segments: 1, 2, ... for the conversations of a row and 0 for the pads behind them. positions start at 0 in each
    segment. weights: 1 where the target is learnt, else 0.
    """
    shape = (len(rows), row_length)
    token_ids = np.full(shape, pad_id, dtype=np.int64)
    targets = np.full(shape, pad_id, dtype=np.int64)
    positions, segments = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    weights = np.zeros(shape, dtype=np.float32)
    for r, row in enumerate(rows):
        place = 0
        for number, example in enumerate(row, start=1):
            span = (r, slice(place, place + example.length))
            token_ids[span], targets[span] = example.token_ids[:-1], example.token_ids[1:]
            positions[span], segments[span] = np.arange(example.length), number
            weights[span] = example.loss_mask[1:]
            place += example.length
    arrays = {
        "token_ids": token_ids,
        "targets": targets,
        "positions": positions,
        "segments": segments,
        "weights": weights,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class PackedBatches:
    """An endless source of packed batches; next() gives one step's micro-batches of `make_batch`.

    An epoch holds each source's examples `weight` times: 2.0 twice, 0.5 a half of them, drawn anew each epoch. The
    epoch is packed and its rows are shuffled; a step takes `rows` of them and goes on into the next epoch. What an
    epoch holds depends on the seed and its number alone, so the state is (epoch, row).
    """

    def __init__(
        self,
        sources: Sequence[tuple[Sequence[Example], float]],
        *,
        row_length: int,
        rows: int,
        micro_rows: int,
        pad_id: int,
        seed: int,
    ) -> None:
        if rows < 1 or micro_rows < 1:
            raise ValueError(f"{rows} rows a step, {micro_rows} a micro-batch: both must be at least 1")
        if not any(examples and weight > 0 for examples, weight in sources):
            raise DataError(
                "there is no conversation to learn from", where="sources", remedy="Add a source or raise its weight"
            )
        self.sources, self.row_length, self.rows, self.micro_rows = list(sources), row_length, rows, micro_rows
        self.pad_id, self.seed = pad_id, seed
        self.epoch, self.row = 0, 0
        self._packed = self._pack(0)

    @property
    def rows_an_epoch(self) -> int:
        """Rows of the present epoch."""
        return len(self._packed)

    def next(self) -> list[dict[str, Tensor]]:
        """One step's micro-batches: `rows` rows in all, at most `micro_rows` in each."""
        return self.share(0, 1)

    def share(self, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """The rows of one of several ranks, of each micro-batch those numbered rank, rank + ranks, ...; {} for none."""
        rows: list[list[Example]] = []
        while len(rows) < self.rows:
            if self.row >= len(self._packed):
                self.epoch, self.row = self.epoch + 1, 0
                self._packed = self._pack(self.epoch)
            taken = self._packed[self.row : self.row + self.rows - len(rows)]
            self.row += len(taken)
            rows += taken
        parts = [rows[start : start + self.micro_rows] for start in range(0, self.rows, self.micro_rows)]
        mine = [part[rank::ranks] for part in parts]
        return [make_batch(part, self.row_length, self.pad_id) if part else {} for part in mine]

    def halves(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A micro-batch as two, where the memory does not hold it."""
        return halve_rows(batch)

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch starts."""
        return {"epoch": self.epoch, "row": self.row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the same sources, shape and seed."""
        self.epoch, self.row = int(state["epoch"]), int(state["row"])
        self._packed = self._pack(self.epoch)

    def _pack(self, epoch: int) -> list[list[Example]]:
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        chosen: list[Example] = []
        for examples, weight in self.sources:
            whole = int(weight)
            part = round((weight - whole) * len(examples))
            chosen += [example for _ in range(whole) for example in examples]
            chosen += [examples[i] for i in sorted(generator.permutation(len(examples))[:part])]
        if not chosen:  # weights so small that an epoch would be empty
            chosen = [example for examples, weight in self.sources if weight > 0 for example in examples]
        chosen = [chosen[i] for i in generator.permutation(len(chosen))]  # which conversations share a row
        packed = best_fit([example.length for example in chosen], self.row_length)
        return [[chosen[i] for i in packed[r]] for r in generator.permutation(len(packed))]
