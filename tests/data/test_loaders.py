"""Shards and the stream of pre-training batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from duihua.data.loaders import StreamedBatches, documents_in
from duihua.data.shards import Shard, cached_shard, write_shard
from duihua.errors import DataError


class Letters:
    """A tokenizer of single letters; 0 ends a text."""

    vocabulary_size = 128
    end_of_text_id = 0

    def encode_flat(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        rows = [[ord(c) for c in text] for text in texts]
        return np.array([id for row in rows for id in row]), np.cumsum(list(map(len, rows)))


TEXTS = ["abc", "defgh", "i", "jklmnopqrstuvwxyz"]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return write_shard(tmp_path / "shard", TEXTS, Letters())


def stream(batches: StreamedBatches, steps: int) -> list[int]:
    return [int(i) for _ in range(steps) for batch in batches.next() for i in batch["targets"].flatten()]


def test_a_shard_holds_every_document_with_its_end(shard: Shard) -> None:
    assert shard.documents == 4
    assert shard.tokens == sum(len(t) + 1 for t in TEXTS)
    assert shard.text_bytes == sum(len(t) for t in TEXTS)
    assert [bytes(shard.document(i).astype(np.uint8)).decode() for i in range(4)] == [t + "\0" for t in TEXTS]


def test_a_cached_shard_is_not_written_twice(tmp_path: Path) -> None:
    cached_shard(tmp_path, "key", TEXTS, Letters())
    again = cached_shard(tmp_path, "key", iter(()), Letters())
    assert again.documents == 4


def test_a_shard_that_another_process_finished_meanwhile_stays(tmp_path: Path) -> None:
    """Two trainings begin together: both find nothing, and the second is done later."""

    def slow() -> Iterator[str]:
        yield from TEXTS
        write_shard(tmp_path / "shard", ["other"], Letters())

    kept = write_shard(tmp_path / "shard", slow(), Letters())
    assert kept.documents == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shard"], "nothing half written is left"


def test_an_empty_corpus_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        write_shard(tmp_path / "shard", [], Letters())
    with pytest.raises(UnicodeEncodeError):
        write_shard(tmp_path / "shard", ["fine", "\ud83d"], Letters())
    assert list(tmp_path.iterdir()) == []


def test_every_token_of_an_epoch_is_a_target_once(shard: Shard) -> None:
    batches = StreamedBatches([shard], [1.0], rows=2, length=3, micro_batches=1, seed=5, end_id=0)
    assert batches.epoch_tokens == 30
    found = stream(batches, 5)
    assert Counter(found) == Counter(int(i) for i in shard.ids)
    assert batches.row == 10


def test_when_rows_do_not_divide_the_epoch_no_token_is_left_out(shard: Shard) -> None:
    batches = StreamedBatches([shard], [1.0], rows=1, length=7, micro_batches=1, seed=5, end_id=0)
    found = Counter(stream(batches, 5))
    assert batches.row == 5
    assert all(found[token] >= count for token, count in Counter(int(i) for i in shard.ids).items())


def test_inputs_are_the_targets_one_place_earlier_and_rows_are_pieces_of_the_text(shard: Shard) -> None:
    text = "".join(t + "\0" for t in TEXTS)
    batches = StreamedBatches([shard], [1.0], rows=2, length=3, micro_batches=2, seed=5, end_id=0)
    for batch in batches.next():
        assert torch.equal(batch["token_ids"][:, 1:], batch["targets"][:, :-1])
        for first, row in zip(batch["token_ids"][:, 0], batch["targets"], strict=True):
            pieces = "".join(chr(int(i)) for i in (first, *row)).split("\0")
            assert all(piece in text for piece in pieces)


def test_epochs_and_seeds_order_the_documents_differently(shard: Shard) -> None:
    batches = StreamedBatches([shard], [1.0], rows=2, length=3, micro_batches=1, seed=5, end_id=0)
    first, second = stream(batches, 5), stream(batches, 5)
    other = stream(StreamedBatches([shard], [1.0], 2, 3, 1, seed=6, end_id=0), 5)
    assert first != second
    assert first != other
    assert Counter(first) == Counter(second) == Counter(other)


@pytest.mark.parametrize("after", [1, 4, 7])
def test_the_stream_goes_on_from_its_state(shard: Shard, after: int) -> None:
    whole = StreamedBatches([shard], [1.0], 2, 3, 1, seed=5, end_id=0)
    stream(whole, after)
    resumed = StreamedBatches([shard], [1.0], 2, 3, 1, seed=5, end_id=0)
    resumed.load_state_dict(whole.state_dict())
    assert torch.equal(whole.next()[0]["token_ids"], resumed.next()[0]["token_ids"])
    assert stream(whole, 6) == stream(resumed, 6)


def test_a_source_that_counts_double_is_read_twice_an_epoch(shard: Shard, tmp_path: Path) -> None:
    small = write_shard(tmp_path / "small", ["!!"], Letters())
    batches = StreamedBatches([shard, small], [0.5, 2.0], rows=1, length=1, micro_batches=1, seed=1, end_id=0)
    found = Counter(stream(batches, batches.epoch_tokens))
    assert found[ord("!")] == 4
    assert found[0] == 2 + 2  # the ends of two of four documents, and of the small one twice


def test_a_document_begins_at_the_end_of_text_token_that_opens_it() -> None:
    rows = torch.tensor([[5, 6, 0, 7, 8, 0, 0, 9], [0, 1, 2, 3, 4, 5, 6, 0]])
    segments, positions = documents_in(rows, end_id=0)
    assert segments.tolist() == [[0, 0, 1, 1, 1, 2, 3, 3], [1, 1, 1, 1, 1, 1, 1, 2]]
    assert positions.tolist() == [[0, 1, 0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5, 6, 0]]
    assert segments.dtype == positions.dtype == torch.int64
    closed_by_it = (rows == 0).cumsum(dim=1) - (rows == 0).long()  # wrong: the token ends the document before
    assert closed_by_it.tolist() != segments.tolist()


def test_masked_batches_hold_the_same_rows_and_say_which_token_belongs_where(shard: Shard) -> None:
    plain = StreamedBatches([shard], [1.0], 3, 4, 2, seed=5, end_id=0)
    masked = StreamedBatches([shard], [1.0], 3, 4, 2, seed=5, end_id=0, mask_documents=True)
    for one, other in zip(plain.next(), masked.next(), strict=True):
        assert list(one) == ["token_ids", "targets"], "without the mask nothing is added"
        assert set(other) == {"token_ids", "targets", "segments", "positions"}
        assert all(torch.equal(one[name], other[name]) for name in one)
        segments, positions = documents_in(other["token_ids"], 0)
        assert torch.equal(other["segments"], segments) and torch.equal(other["positions"], positions)
        halves = masked.halves(other)
        assert all(torch.equal(torch.cat([half[name] for half in halves]), other[name]) for name in other)
    assert plain.state_dict() == masked.state_dict()


def test_ranks_share_the_documents_of_the_rows_too(shard: Shard) -> None:
    sources = [StreamedBatches([shard], [1.0], 3, 4, 1, seed=5, end_id=0, mask_documents=True) for _ in range(3)]
    (whole,), (first,), (second,) = sources[0].next(), sources[1].share(0, 2), sources[2].share(1, 2)
    for name in whole:
        assert torch.equal(whole[name][0::2], first[name]) and torch.equal(whole[name][1::2], second[name])
    assert StreamedBatches([shard], [1.0], 1, 4, 1, 5, 0, mask_documents=True).share(1, 2) == [{}]
