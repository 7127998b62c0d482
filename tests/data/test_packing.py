"""Packing by hand: what goes into a row, what is learnt, what is counted, and that a batch source goes on exactly."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duihua.data.packing import (
    ANSWER_APART,
    NOTHING_TO_LEARN,
    SPLIT,
    TURN_TOO_LONG,
    TURNS_CUT,
    Example,
    PackedBatches,
    best_fit,
    encode_conversations,
    make_batch,
)
from duihua.data.records import Conversation, Message
from duihua.errors import DataError

START, END = 1000, 1001


@dataclass
class Encoded:
    ids: list[int]
    loss_mask: list[bool]


class OneIdAWord:
    """ChatML with one id a word: START role words END; a word is its own number, roles are 0, 1, 2, 3."""

    def encode(self, messages: list[Message]) -> Encoded:
        ids: list[int] = []
        mask: list[bool] = []
        for message in messages:
            words = [int(word) for word in message["content"].split()]
            speaks = message["role"] == "assistant"
            ids += [START, ("system", "user", "assistant", "tool").index(message["role"]), *words, END]
            mask += [False, False, *[speaks] * len(words), speaks]
        return Encoded(ids, mask)


def conversation(*turns: str, system: str = "") -> Conversation:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    return Conversation(messages, "test", "en")


def examples(*lengths: int) -> list[Example]:
    """Example k has the ids 10 k, 10 k + 1, ...; the last two tokens are learnt."""
    made = []
    for k, n in enumerate(lengths, start=1):
        mask = np.zeros(n + 1, dtype=bool)
        mask[-2:] = True
        mask[0] = False
        made.append(Example(np.arange(10 * k, 10 * k + n + 1, dtype=np.int32), mask))
    return made


# -- encoding ---------------------------------------------------------------------------------------------------------


def test_the_stop_token_of_the_assistant_is_learnt_and_the_users_words_are_not() -> None:
    made = encode_conversations([conversation("5 6", "7 8")], OneIdAWord(), 20)
    (example,) = made.examples
    assert example.token_ids.tolist() == [START, 1, 5, 6, END, START, 2, 7, 8, END]
    assert example.token_ids[example.loss_mask].tolist() == [7, 8, END]
    assert (example.length, made.tokens, made.learnt_tokens, made.conversations) == (9, 9, 3, 1)
    assert not made.left_out


def test_a_conversation_that_fits_exactly_is_kept_whole() -> None:
    whole = conversation("5 6", "7 8", "9", "10")
    needed = encode_conversations([whole], OneIdAWord(), 100).examples[0].length
    assert encode_conversations([whole], OneIdAWord(), needed).left_out == Counter()
    assert encode_conversations([whole], OneIdAWord(), needed - 1).left_out == {TURNS_CUT: 1}


def test_over_long_conversations_lose_whole_turns_at_the_end_and_are_counted() -> None:
    made = encode_conversations([conversation("5", "6", "7", "8", "9", "10")], OneIdAWord(), 16)
    (example,) = made.examples
    # two exchanges of 8 tokens; the third goes as a whole: never half a reply, never a question without its answer
    assert example.token_ids.tolist() == [START, 1, 5, END, START, 2, 6, END, START, 1, 7, END, START, 2, 8, END]
    assert made.left_out == {TURNS_CUT: 1}
    cut_anywhere = [START, 1, 5, END, START, 2, 6, END, START, 1, 7, END, START, 2, 8, END, START]
    assert example.token_ids.tolist() != cut_anywhere


def test_split_keeps_every_turn_and_the_system_message() -> None:
    made = encode_conversations([conversation("5", "6", "7", "8", "9", "10", system="99")], OneIdAWord(), 20, "split")
    learnt = [int(token) for example in made.examples for token in example.token_ids[example.loss_mask]]
    assert [token for token in learnt if token != END] == [6, 8, 10]
    assert all(example.token_ids[:4].tolist() == [START, 0, 99, END] for example in made.examples)
    assert made.left_out == {SPLIT: 1}
    assert len(made.examples) == 2


def test_a_turn_longer_than_a_row_is_left_out_and_counted() -> None:
    long_user = " ".join(["5"] * 50)
    made = encode_conversations([conversation(long_user, "6", "7", "8")], OneIdAWord(), 16)
    assert made.examples == []
    assert made.left_out == {TURN_TOO_LONG: 1}
    made = encode_conversations([conversation(long_user, "6", "7", "8")], OneIdAWord(), 16, "split")
    assert [e.token_ids.tolist() for e in made.examples] == [[START, 1, 7, END, START, 2, 8, END]]
    assert made.left_out == {TURN_TOO_LONG: 1, SPLIT: 1}


def test_a_split_never_begins_with_a_tools_answer() -> None:
    turns = [("user", "5"), ("assistant", "6"), ("tool", "7"), ("assistant", "8"), ("user", "9"), ("assistant", "10")]
    called = Conversation([{"role": role, "content": text} for role, text in turns], "test", "en")
    made = encode_conversations([called], OneIdAWord(), 10, "split")
    first = [START, 1, 5, END, START, 2, 6, END]
    assert [e.token_ids.tolist() for e in made.examples] == [first, [START, 1, 9, END, START, 2, 10, END]]
    assert made.left_out == {ANSWER_APART: 1, SPLIT: 1}
    spoken = Conversation(
        [{**m, "role": "user" if m["role"] == "tool" else m["role"]} for m in called.messages], "", ""
    )
    apart = encode_conversations([spoken], OneIdAWord(), 10, "split")  # control: what a person says may begin a split
    assert [START, 1, 7, END, START, 2, 8, END] in [e.token_ids.tolist() for e in apart.examples]


def test_a_conversation_without_assistant_is_counted() -> None:
    made = encode_conversations([conversation("5 6"), conversation("5", "6")], OneIdAWord(), 16)
    assert made.left_out == {NOTHING_TO_LEARN: 1}
    assert (made.conversations, len(made.examples)) == (2, 1)


# -- best fit ---------------------------------------------------------------------------------------------------------


def test_best_fit_fills_the_fullest_row_that_still_has_room() -> None:
    # 7 and 6 open rows with 3 and 4 left; 3 goes into the row with exactly 3 left, 4 into the other
    assert best_fit([3, 7, 4, 6], 10) == [[1, 0], [3, 2]]
    first_come = [[3], [7], [4, 6]]  # next-fit wastes a row
    assert len(best_fit([3, 7, 4, 6], 10)) < len(first_come)


@given(st.lists(st.integers(1, 50), max_size=60))
def test_best_fit_places_each_index_once_and_never_overfills(lengths: list[int]) -> None:
    rows = best_fit(lengths, 50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 50 for row in rows)
    assert sum(sum(lengths[index] for index in row) <= 25 for row in rows) <= 1  # two such rows would be one


def test_best_fit_refuses_what_no_row_can_hold() -> None:
    with pytest.raises(ValueError, match="from 1 to 10"):
        best_fit([11], 10)
    with pytest.raises(ValueError, match="from 1 to 10"):
        best_fit([0], 10)


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_packed_row_by_hand() -> None:
    first, second = examples(3, 2)
    batch = make_batch([[first, second], [second]], 6, pad_id=7)
    assert batch["token_ids"].tolist() == [[10, 11, 12, 20, 21, 7], [20, 21, 7, 7, 7, 7]]
    assert batch["targets"].tolist() == [[11, 12, 13, 21, 22, 7], [21, 22, 7, 7, 7, 7]]
    assert batch["positions"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 0, 0]]
    assert batch["segments"].tolist() == [[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]]
    assert batch["weights"].tolist() == [[0, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]


def test_no_target_crosses_from_one_conversation_into_the_next() -> None:
    first, second = examples(3, 2)
    batch = make_batch([[first, second]], 6, pad_id=7)
    inputs = batch["token_ids"][0].tolist()
    shifted = [*inputs[1:], 7]  # the simple way: the next place of the row
    assert batch["targets"][0, 2] == 13
    assert shifted[2] == 20  # would teach the end of one conversation to begin the other


# -- the batch source -------------------------------------------------------------------------------------------------


def source(
    weight: float = 1.0, seed: int = 0, rows: int = 2, lengths: tuple[int, ...] = (3, 5, 2, 4, 6, 3, 5)
) -> PackedBatches:
    return PackedBatches([(examples(*lengths), weight)], row_length=8, rows=rows, micro_rows=1, pad_id=0, seed=seed)


def firsts(batches: PackedBatches, epochs: int) -> Counter[int]:
    """How often each example (named by its first id) stands in so many epochs."""
    seen: Counter[int] = Counter()
    while batches.epoch < epochs:
        for part in batches.next():
            starts = (part["positions"] == 0) & (part["segments"] > 0)
            seen.update(part["token_ids"][starts].tolist())
    return seen


def test_an_epoch_holds_every_conversation_once() -> None:
    seen: Counter[int] = Counter()
    batches = source(rows=1)
    for _ in range(batches.rows_an_epoch):
        for part in batches.next():
            seen.update(part["token_ids"][(part["positions"] == 0) & (part["segments"] > 0)].tolist())
    assert seen == {10 * k: 1 for k in range(1, 8)}


def test_weights_say_how_often_an_epoch_repeats_a_source() -> None:
    twice, half = examples(2, 2), examples(*[3] * 8)[2:]
    batches = PackedBatches([(twice, 2.0), (half, 0.5)], row_length=8, rows=1, micro_rows=1, pad_id=0, seed=0)
    seen = firsts(batches, 20)
    assert sum(seen[e.token_ids[0]] for e in twice) == pytest.approx(2 * 2 * 20, abs=4)
    assert sum(seen[e.token_ids[0]] for e in half) == pytest.approx(3 * 20, abs=4)
    assert min(seen[e.token_ids[0]] for e in half) >= 4  # another half each epoch, not the same one


def test_a_step_has_its_rows_in_micro_batches() -> None:
    batches = PackedBatches([(examples(3, 5, 2), 1.0)], row_length=8, rows=5, micro_rows=2, pad_id=0, seed=0)
    assert [part["token_ids"].shape for part in batches.next()] == [(2, 8), (2, 8), (1, 8)]


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_a_reloaded_source_goes_on_with_the_very_same_batches(steps: int) -> None:
    batches, again = source(1.5), source(1.5)
    for _ in range(steps):
        batches.next()
    again.load_state_dict(batches.state_dict())
    for _ in range(6):
        for left, right in zip(batches.next(), again.next(), strict=True):
            assert all(torch.equal(left[name], right[name]) for name in left)


def test_order_changes_with_the_seed_and_the_epoch() -> None:
    def order(batches: PackedBatches) -> list[list[int]]:
        return [part["token_ids"][0].tolist() for _ in range(batches.rows_an_epoch) for part in batches.next()]

    many = tuple([3, 5, 2, 4, 6] * 5)
    first, other_seed = source(lengths=many, rows=1), source(lengths=many, rows=1, seed=1)
    one, two = order(first), order(first)
    assert one == order(source(lengths=many, rows=1))
    assert one != two
    assert one != order(other_seed)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="no conversation"):
        PackedBatches([([], 1.0)], row_length=8, rows=1, micro_rows=1, pad_id=0, seed=0)
