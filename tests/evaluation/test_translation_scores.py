"""Scores of translations: sacrebleu's, with signatures, and by length without leaving a sentence out."""

from __future__ import annotations

import pytest
import sacrebleu

from duihua.errors import DataError
from duihua.evaluation.translation_scores import BUCKETS, score_translations

SOURCES = [
    "un",
    "un deux trois",
    "a b c d e f",
    " ".join("x" * 12),
    " ".join("y" * 18),
    " ".join("z" * 25),
    "w " * 40,
    "",
]
RIGHT = [f"this is the right sentence number {i} of them all" for i in range(len(SOURCES))]


def test_whole_scores_are_sacrebleus_own() -> None:
    wrong = [text.replace("right", "wrong") for text in RIGHT]
    found = score_translations(wrong, [[text] for text in RIGHT], "en", SOURCES)
    assert found.bleu.value == pytest.approx(sacrebleu.corpus_bleu(wrong, [RIGHT]).score)
    assert found.chrf.value == pytest.approx(sacrebleu.corpus_chrf(wrong, [RIGHT]).score)
    assert "tok:13a" in found.bleu.signature and found.chrf.signature.startswith("nrefs:1")


def test_each_score_lies_in_its_interval_and_equal_sentences_have_no_spread() -> None:
    mixed = [text if i % 2 else text.replace("right", "wrong") for i, text in enumerate(RIGHT)]
    found = score_translations(mixed, [[text] for text in RIGHT], "en", SOURCES)
    for score, interval in ((found.bleu, found.bleu_interval), (found.chrf, found.chrf_interval)):
        assert interval.value == pytest.approx(score.value) and interval.n == len(SOURCES)
        assert interval.low < score.value < interval.high
    perfect = score_translations(RIGHT, [[text] for text in RIGHT], "en", SOURCES)
    assert perfect.bleu_interval.low == perfect.bleu_interval.high == pytest.approx(100)
    assert found.to_dict()["bleu_interval"] == found.bleu_interval.to_dict()


def test_every_sentence_stands_in_one_bucket_and_each_has_its_signature() -> None:
    found = score_translations(RIGHT, [[text] for text in RIGHT], "en", SOURCES)
    assert [(b.name, b.sentences) for b in found.buckets] == [
        ("1-5", 3), ("6-10", 1), ("11-15", 1), ("16-20", 1), ("21-30", 1), ("31+", 1)
    ]  # fmt: skip
    assert sum(b.sentences for b in found.buckets) == len(SOURCES)
    assert all(b.bleu.signature and b.bleu.value == pytest.approx(100) for b in found.buckets)
    assert len(BUCKETS) == 6


def test_a_fault_in_long_sentences_alone_shows_in_their_bucket() -> None:
    broken = [text if i < 5 else "nothing fits here at all now" for i, text in enumerate(RIGHT)]
    found = {b.name: b.bleu.value for b in score_translations(broken, [[t] for t in RIGHT], "en", SOURCES).buckets}
    assert found["11-15"] == pytest.approx(100) and found["31+"] < 5


def test_chinese_is_measured_in_characters_and_cut_by_characters() -> None:
    references = [["我爱你"], ["今天天气很好我们去公园吧"]]
    found = score_translations(["我爱你", "今天天气很好我们去公园吧"], references, "zh")
    assert found.unit == "characters" and found.measured == "reference"
    assert [b.name for b in found.buckets] == ["1-5", "11-15"]
    assert "tok:zh" in found.bleu.signature


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(DataError):
        score_translations(["a"], [["a"], ["b"]], "en")
