"""Hand-checkable models: a uniform one, and one that knows the answer where it has seen enough."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from duihua.data.records import Document
from duihua.errors import DataError
from duihua.evaluation.bits_per_byte import TextScore, bits_per_byte, windows_of
from duihua.evaluation.next_token import predict

VOCABULARY, SEPARATOR = 257, 256


class Bytes:
    """One token a byte."""

    end_of_text_id = SEPARATOR

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode("utf-8")) for text in texts]

    def gives_back(self, text: str, ids: Sequence[int]) -> bool:
        return bytes(ids) == text.encode("utf-8")


class Uniform(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, VOCABULARY)


class Bigram(nn.Module):
    """p(next | this token) from a fixed random table: the score of a text does not depend on windows or batches."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=generator))
        self.seen: list[int] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.seen.append(ids.shape[1])
        assert not self.training
        return self.table[ids]


def documents() -> list[Document]:
    return [
        Document("hello world, this is one text", "a", "en"),
        Document("你好，世界", "b", "zh"),
        Document("", "a", "en"),
        Document("x", "a", "en"),
    ]


def test_uniform_model_needs_log2_of_the_vocabulary_bits_for_each_byte() -> None:
    scores = bits_per_byte(Uniform(), Bytes(), documents(), context=8)
    for language in ("all", "en", "zh"):
        assert scores[language].bits_per_byte == pytest.approx(math.log2(VOCABULARY))
        assert scores[language].perplexity == pytest.approx(VOCABULARY)
    assert scores["all"].bytes == 29 + 15 + 1
    assert scores["all"].tokens == 29 + 15 + 1
    assert scores["all"].documents == 3


@pytest.mark.parametrize("context", [1, 3, 5, 29, 100])
def test_every_byte_counts_once_whatever_the_window(context: int) -> None:
    """The bigram model's total does not depend on the context, so it equals the sum written out by hand."""
    model = Bigram()
    logs = model.table.detach().log_softmax(-1)
    total = 0.0
    for document in documents():
        stream = [SEPARATOR, *document.text.encode("utf-8")]
        total -= sum(float(logs[a, b]) for a, b in itertools.pairwise(stream))
    scores = bits_per_byte(model, Bytes(), documents(), context)
    assert scores["all"].nats == pytest.approx(total, rel=1e-5)
    assert scores["all"].nats == pytest.approx(scores["en"].nats + scores["zh"].nats)
    assert max(model.seen) <= context


def test_windows_do_not_overlap_and_leave_no_token_out() -> None:
    windows = windows_of([1, 2, 3, 4, 5], separator=0, context=2)
    assert windows == [[0, 1, 2], [2, 3, 4], [4, 5]]
    assert [token for window in windows for token in window[1:]] == [1, 2, 3, 4, 5]
    wrong = [[1, 2], [3, 4], [5]]  # without the token before it, the first of each window would never be predicted
    assert [token for window in wrong for token in window[1:]] != [1, 2, 3, 4, 5]
    assert windows_of([1, 2], separator=0, context=2) == [[0, 1, 2]]


def test_documents_do_not_see_each_other() -> None:
    """A model that scores by how many tokens stand before gives a document the same, whatever stands around it."""

    class Counting(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            place = torch.arange(ids.shape[1], dtype=torch.float32)
            return (place[None, :, None] * torch.linspace(0, 0.1, VOCABULARY)).expand(*ids.shape, VOCABULARY)

    first, second = documents()[0], documents()[1]
    together = bits_per_byte(Counting(), Bytes(), [first, second], context=10)
    alone = bits_per_byte(Counting(), Bytes(), [second], context=10)
    assert together["zh"].nats == pytest.approx(alone["zh"].nats)


def test_perplexity_weighs_tokens_and_not_batches() -> None:
    """One document of 99 tokens that are sure (ln 2 each) and one of a single unlikely token (ln 1000)."""
    scores = [TextScore(99 * math.log(2), 99, 99, 1), TextScore(math.log(1000), 1, 1, 1)]
    total = scores[0] + scores[1]
    assert total.perplexity == pytest.approx(2**0.99 * 1000**0.01)  # 2.13
    batch_means = math.exp((math.log(2) + math.log(1000)) / 2)  # 44.7: the wrong way
    assert total.perplexity != pytest.approx(batch_means, rel=0.5)
    assert total.bits_per_byte == pytest.approx((99 + math.log2(1000)) / 100)


def test_predictions_do_not_depend_on_batch_mates_or_padding() -> None:
    model = Bigram()
    sequences = [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10], [1, 2, 3]]
    together = predict(model, sequences)
    for sequence, made in zip(sequences, together, strict=True):
        alone = predict(model, [sequence])[0]
        assert made.nats.tolist() == pytest.approx(alone.nats.tolist())
        assert made.right.tolist() == alone.right.tolist()
        assert len(made.nats) == len(sequence) - 1


def test_no_text_is_an_error() -> None:
    with pytest.raises(DataError, match="no held-out text"):
        bits_per_byte(Uniform(), Bytes(), [Document("", "a", "en")], 4)


def test_network_goes_back_to_training_mode() -> None:
    model = Bigram().train()
    bits_per_byte(model, Bytes(), documents(), 8)
    assert model.training
