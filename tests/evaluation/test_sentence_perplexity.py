"""Sentences as one stream: the recurrent stage's own loss, n-grams within sentences, decoders by windows."""

from __future__ import annotations

import numpy as np
import pytest

from duihua.data.records import Document
from duihua.errors import DataError
from duihua.evaluation.language_model import Counted, DecoderModel, RecurrentModel
from duihua.evaluation.perplexity import score_documents
from duihua.evaluation.sentence_perplexity import score_sentences
from duihua.evaluation.stream_loss import stream_loss
from duihua.models.counts.ngram import NGram
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.text.words import WordVocabulary

LINES = ["the cat sat on the mat", "the dog ran", "a cat ran over the dog"] * 40
FILE = Document("\n".join(LINES) + "\n\n", "ptb.test.txt", "en")


def vocabulary() -> WordVocabulary:
    return WordVocabulary.train(LINES, segmentation="spaces")


def test_a_recurrent_network_is_scored_as_its_stage_scores_it() -> None:
    words = vocabulary()
    end = words.end_of_text_id
    network = RecurrentLM(RecurrentConfig(words.vocabulary_size, end_id=end, width=16, layers=2)).initialise(0)
    stream = np.array([id for line in LINES for id in [*words.encode(line), end]])
    expected = stream_loss(network, stream)
    found = score_sentences(RecurrentModel(network, words, "r"), [FILE])
    assert sum(score.tokens for score in found) == expected.tokens == len(stream)
    assert sum(score.nats for score in found) == pytest.approx(expected.nats, rel=1e-5)
    assert len(found) == len(LINES)
    assert sum(score.bytes for score in found) == len(FILE.text.rstrip()) + 1
    apart = score_documents(RecurrentModel(network, words, "r"), [Document(line, "f", "en") for line in LINES])
    assert sum(score.nats for score in apart) != pytest.approx(expected.nats, rel=1e-2), "without ends, and forgetful"


def test_n_grams_are_scored_within_sentences_ends_included() -> None:
    words = vocabulary()
    end = words.end_of_text_id
    model = NGram.fit([words.encode(line) for line in LINES[:60]], 3, words.vocabulary_size, end)
    found = score_sentences(Counted(model, words, "n"), [FILE])
    expected = -sum(float(model.log_probabilities([end, *words.encode(line), end]).sum()) for line in LINES)
    assert sum(score.nats for score in found) == pytest.approx(expected)
    one_stream = [end, *(id for line in LINES for id in [*words.encode(line), end])]
    assert float(-model.log_probabilities(one_stream).sum()) != pytest.approx(expected), (
        "across sentences it was not counted"
    )


def test_a_decoder_slides_over_all_sentences(decoder: DecoderModel) -> None:
    found = score_sentences(decoder, [FILE], 24, 24)
    joined = [id for line in LINES for id in [*decoder.encode([line])[0], decoder.start_id]]
    assert sum(score.tokens for score in found) == len(joined)
    windows = [[decoder.start_id, *joined][begin : begin + 25] for begin in range(0, len(joined), 24)]
    expected = sum(float(part.nats.sum()) for part in decoder.predict(windows))
    assert sum(score.nats for score in found) == pytest.approx(expected, rel=1e-5)


def test_blank_files_are_refused(decoder: DecoderModel) -> None:
    with pytest.raises(DataError, match="no sentence"):
        score_sentences(decoder, [Document("\n \n", "f", "en")])
