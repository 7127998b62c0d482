"""Sliding windows against transformers' own documented loop, and against sums worked out by hand."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from duihua.data.records import Document
from duihua.errors import ConfigError, DataError
from duihua.evaluation.bits_per_byte import bits_per_byte as unslid
from duihua.evaluation.language_model import Counted, DecoderModel
from duihua.evaluation.next_token import Predictions
from duihua.evaluation.perplexity import Window, figures, score_documents, sliding_windows
from duihua.evaluation.sentence_perplexity import score_sentences
from duihua.models.bundle import load_bundle
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.text.characters import CharacterVocabulary
from duihua.text.words import WordVocabulary

LONG = "The cat sat on the mat and looked at the dog, and the dog ran over the hill. 我爱你，今天天气很好。 " * 3
DOCUMENTS = [Document(LONG, "a", "en"), Document("我们去公园走走。", "b", "zh"), Document("", "c", "en")]


class Fixed:
    """A model whose document i costs the given nats, one number a token: for sums by hand."""

    name, context, start_id, carries = "fixed", None, 0, True

    def __init__(self, losses: Sequence[Sequence[float]]) -> None:
        self.losses = iter(losses)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[1] * len(text) for text in texts]

    def unknown(self, ids: Sequence[int]) -> int:
        return 0

    def whole(self, text: str, ids: Sequence[int]) -> bool:
        return True

    def predict(self, sequences: Sequence[Sequence[int]], last: Sequence[int] | None = None) -> list[Predictions]:
        return [Predictions(np.array(next(self.losses)), np.zeros(0, dtype=np.bool_)) for _ in sequences]


def test_perplexity_weighs_tokens_where_the_mean_of_batch_means_gives_54_instead_of_9() -> None:
    """20 tokens of 2 nats in one batch, 1 token of 6 nats in the other: the article's mistake, reconstructed."""
    documents = [Document("x" * 20, "a", "en"), Document("y", "b", "en")]
    found = figures(score_documents(Fixed([[2.0] * 20, [6.0]]), documents))["all"]
    assert found.perplexity.value == pytest.approx(math.exp(46 / 21))
    assert round(found.perplexity.value, 2) == 8.94
    mean_of_means = math.exp((2.0 + 6.0) / 2)
    assert round(mean_of_means, 1) == 54.6
    assert found.perplexity.value != pytest.approx(mean_of_means, rel=0.5)
    assert found.bits_per_byte is not None
    assert found.bits_per_byte.value == pytest.approx(46 / math.log(2) / 21)
    assert (found.tokens, found.bytes, found.documents) == (21, 21, 2)


@pytest.mark.parametrize(
    ("inputs", "context", "stride"), list(itertools.product([1, 2, 7, 8, 9, 30], [1, 4, 8], [1, 3, 4, 8]))
)
def test_every_token_is_counted_once_with_as_much_context_as_promised(inputs: int, context: int, stride: int) -> None:
    if stride > context:
        return
    windows = sliding_windows(inputs, context, stride)
    counted = [place for w in windows for place in range(w.end - w.counted, w.end)]
    assert counted == list(range(inputs))
    for window in windows:
        assert window.end - window.begin <= context
        first = window.end - window.counted  # this input's successor is the window's first counted token
        assert first - window.begin + 1 >= min(context - stride + 1, first + 1)
    wrong = [Window(w.begin, w.end, w.end - w.begin) for w in windows]  # all of each window: the overlap twice
    twice = [place for w in wrong for place in range(w.end - w.counted, w.end)]
    assert (twice == list(range(inputs))) == (stride == context or len(windows) == 1)


def hugging_face_loop(directory: Path, ids: list[int], longest: int, stride: int) -> tuple[float, float, float]:
    """The loop of transformers' page "Perplexity of fixed-length models", with its own model: (sum of the nats of the
    tokens that it scores, its estimate of the perplexity, the older version's mean of window means)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory)
    all_ids = torch.tensor([ids])
    nats, nll_sum, n_tokens, previous_end = 0.0, 0.0, 0, 0
    means = []
    for begin in range(0, len(ids), stride):
        end = min(begin + longest, len(ids))
        target_length = end - previous_end
        input_ids = all_ids[:, begin:end]
        target_ids = input_ids.clone()
        target_ids[:, :-target_length] = -100
        with torch.no_grad():
            loss = float(model(input_ids, labels=target_ids).loss)
        valid = int((target_ids != -100).sum())
        nll_sum, n_tokens = nll_sum + loss * (valid - 1), n_tokens + valid - 1
        nats += loss * int((target_ids[:, 1:] != -100).sum())
        means.append(loss)
        previous_end = end
        if end == len(ids):
            break
    return nats, math.exp(nll_sum / n_tokens), math.exp(sum(means) / len(means))


@pytest.mark.parametrize("stride", [1, 5, 12, 23])
def test_windows_equal_the_documented_loop_of_transformers(
    decoder: DecoderModel, bundle_directory: Path, stride: int
) -> None:
    context = 23  # transformers' windows hold the last target too: one token more than our inputs
    (score,) = score_documents(decoder, DOCUMENTS[:1], context, stride)
    ids = [decoder.start_id, *decoder.encode([LONG])[0]]
    assert len(ids) > 3 * context
    nats, estimate, of_means = hugging_face_loop(bundle_directory, ids, context + 1, stride)
    assert score.nats == pytest.approx(nats, rel=1e-5)
    perplexity = math.exp(score.nats / score.tokens)
    assert perplexity == pytest.approx(estimate, rel=0.05 if stride > 1 else 0.5)  # it weights by one token too few
    assert perplexity != pytest.approx(of_means, rel=1e-3)


def test_a_shorter_stride_sees_more_and_changes_the_number(decoder: DecoderModel) -> None:
    by_stride = {stride: score_documents(decoder, DOCUMENTS[:1], 16, stride)[0].nats for stride in (1, 8, 16)}
    assert len({round(nats, 3) for nats in by_stride.values()}) == 3


def test_stride_of_the_context_is_the_rule_of_bits_per_byte(decoder: DecoderModel) -> None:
    expected = unslid(decoder.network, decoder.bundle.tokenizer, DOCUMENTS, 24)
    found = figures(score_documents(decoder, DOCUMENTS))
    for language, score in expected.items():
        assert found[language].perplexity.value == pytest.approx(score.perplexity, rel=1e-6)
        interval = found[language].bits_per_byte
        assert interval is not None
        assert interval.value == pytest.approx(score.bits_per_byte, rel=1e-6)
        assert (found[language].tokens, found[language].bytes) == (score.tokens, score.bytes)
        assert interval.low <= interval.value <= interval.high


def test_accuracy_counts_likeliest_tokens(decoder: DecoderModel) -> None:
    found = figures(score_documents(decoder, DOCUMENTS[1:2]))["zh"]
    ids = [decoder.start_id, *decoder.encode([DOCUMENTS[1].text])[0]]
    with torch.no_grad():
        likeliest = decoder.network(torch.tensor([ids[:-1]]))[0].argmax(-1).tolist()
    right = sum(a == b for a, b in zip(likeliest, ids[1:], strict=True))
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(right / found.tokens)


def test_recurrent_state_is_carried_and_n_grams_fit_through_log_probabilities() -> None:
    vocabulary = CharacterVocabulary.train([LONG])
    size = vocabulary.vocabulary_size
    network = RecurrentLM(RecurrentConfig(size, end_id=1, width=8, layers=1)).initialise(0)
    from duihua.evaluation.language_model import RecurrentModel

    text = LONG * 3  # longer than one reading
    carried = score_documents(RecurrentModel(network, vocabulary, "r"), [Document(text, "a", "en")])[0]
    counted = score_documents(Counted(network, vocabulary, "c"), [Document(text, "a", "en")])[0]
    assert carried.tokens == len(text) > 256
    assert carried.nats == pytest.approx(counted.nats, rel=1e-5)
    assert carried.right >= 0 > counted.right
    forgetful = -sum(  # a state that is not carried: every part from its own start
        float(network.log_probabilities([1, *vocabulary.encode(text[i : i + 256])]).sum())
        for i in range(0, len(text), 256)
    )
    assert carried.nats != pytest.approx(forgetful, rel=1e-5)


def test_bits_per_byte_are_not_claimed_where_ids_do_not_say_all_of_the_text() -> None:
    known = CharacterVocabulary.train(["abc"])
    network = RecurrentLM(RecurrentConfig(known.vocabulary_size, end_id=1, width=8, layers=1)).initialise(0)
    scored = figures(score_documents(Counted(network, known, "c"), [Document("abca", "a", "en")]))["all"]
    assert scored.bits_per_byte is not None
    unknown = figures(score_documents(Counted(network, known, "c"), [Document("abxa", "a", "en")]))["all"]
    assert unknown.unknown == 1
    assert unknown.bits_per_byte is None
    words = WordVocabulary.train(["a b", "a b"])
    network = RecurrentLM(RecurrentConfig(words.vocabulary_size, end_id=1, width=8, layers=1)).initialise(0)
    spaces = figures(score_documents(Counted(network, words, "w"), [Document("a  b\na", "a", "en")]))["all"]
    assert spaces.bits_per_byte is None, "words do not say how many spaces stood between them"


@pytest.fixture(scope="module")
def composing(bundle_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> DecoderModel:
    """The decoder under a tokenizer that composes characters first (NFC), as Qwen's does."""
    folder = tmp_path_factory.mktemp("models") / "composing"
    shutil.copytree(bundle_directory, folder)
    stored = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(stored | {"normalizer": {"type": "NFC"}}), "utf-8")
    return DecoderModel(load_bundle(folder))


DECOMPOSED, COMPOSED = "the cafe\u0301", "the caf\u00e9"


def test_a_tokenizer_that_changes_a_text_gives_it_no_bits_per_byte(
    decoder: DecoderModel, composing: DecoderModel
) -> None:
    """Two texts of other bytes have the same ids: what is predicted is one of them, and only its bytes may divide it."""
    scores = [
        score_documents(composing, [Document(text, "a", "en")])[0] for text in (DECOMPOSED, COMPOSED, "plain text")
    ]
    assert [score.whole for score in scores] == [False, True, True]
    assert scores[0].nats == scores[1].nats and scores[0].bytes != scores[1].bytes
    assert figures(scores[1:])["all"].bits_per_byte is not None
    found = figures(scores)["all"]
    assert found.bits_per_byte is None and found.altered == 1 and found.to_dict()["altered_documents"] == 1
    lines = score_sentences(composing, [Document(f"{DECOMPOSED}\nplain text\n", "a", "en")])
    assert [line.whole for line in lines] == [False, True]
    assert score_documents(decoder, [Document(DECOMPOSED, "a", "en")])[0].whole  # control: our own tokenizer keeps it


def test_the_stages_bits_per_byte_follow_the_same_rule(
    decoder: DecoderModel, composing: DecoderModel, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [Document(DECOMPOSED, "a", "en"), Document("我们去公园走走。", "b", "zh")]
    found = unslid(composing.network, composing.bundle.tokenizer, documents, 24)
    assert (found["all"].bits_per_byte, found["en"].bits_per_byte) == (None, None)
    assert found["zh"].bits_per_byte is not None and found["all"].perplexity > 1
    assert "the ids of 1 of 2 texts" in capsys.readouterr().err
    kept = unslid(decoder.network, decoder.bundle.tokenizer, documents, 24)["all"]
    assert kept.bits_per_byte is not None and not kept.altered


def test_impossible_windows_and_no_text_are_refused(decoder: DecoderModel) -> None:
    for context, stride, problem in (
        (25, None, "at most the model's 24"),
        (0, None, "at least 1"),
        (8, 9, "1 to the context"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            score_documents(decoder, DOCUMENTS, context, stride)
        assert caught.value.remedy
    with pytest.raises(DataError, match="no text"):
        score_documents(decoder, [Document("", "a", "en")])
    with pytest.raises(ConfigError, match="whole documents"):
        score_documents(Fixed([[1.0]]), [Document("x", "a", "en")], stride=2)
