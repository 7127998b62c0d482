"""Equal to sacrebleu's own command-level functions, and to a BLEU worked out by hand."""

import math

import pytest
import sacrebleu

from duihua.errors import DataError
from duihua.evaluation.bleu import Score, bleu, chrf

REPLIES = ["the cat sat on the mat today", "I am fine thank you very much"]
REFERENCES = [["the cat sat on the mat yesterday"], ["I am fine , thank you", "I am very fine thank you very much"]]


def test_bleu_equals_the_formula_worked_out_by_hand() -> None:
    # one reply of 7 words, reference of 7: matches 6/7, 5/6, 4/5, 3/4; no brevity penalty
    by_hand = 100 * math.exp((math.log(6 / 7) + math.log(5 / 6) + math.log(4 / 5) + math.log(3 / 4)) / 4)
    assert bleu(REPLIES[:1], REFERENCES[:1], "en").value == pytest.approx(by_hand)


def test_brevity_penalty_punishes_short_replies_and_not_long_ones() -> None:
    # reply = the first 5 of 8 reference words: all n-grams match, so BLEU is the penalty itself, exp(1 - 8/5)
    reference = "a b c d e f g h"
    assert bleu(["a b c d e"], [[reference]], "en").value == pytest.approx(100 * math.exp(1 - 8 / 5))
    inverted = 100 * math.exp(1 - 5 / 8)  # the often copied mistake
    assert bleu(["a b c d e"], [[reference]], "en").value != pytest.approx(inverted, rel=0.1)


def test_english_equals_sacrebleu() -> None:
    streams = [[known[0] for known in REFERENCES], [known[-1] for known in REFERENCES]]
    expected = sacrebleu.corpus_bleu(REPLIES, streams).score
    both = [[known[0], known[-1]] for known in REFERENCES]
    assert bleu(REPLIES, both, "en").value == pytest.approx(expected)
    assert chrf(REPLIES, both).value == pytest.approx(sacrebleu.corpus_chrf(REPLIES, streams).score)


def test_replies_may_have_different_numbers_of_references() -> None:
    repeated = [[*known, known[0]][:2] for known in REFERENCES]  # a reference given twice adds no n-gram
    assert bleu(REPLIES, REFERENCES, "en").value == pytest.approx(bleu(REPLIES, repeated, "en").value)


def test_chinese_is_cut_into_characters_as_sacrebleu_does() -> None:
    replies, references = ["我今天很高兴认识你"], ["我今天很高兴见到你"]
    score = bleu(replies, [references], "zh")
    assert score.value == pytest.approx(sacrebleu.corpus_bleu(replies, [references], tokenize="zh").score)
    assert "tok:zh" in score.signature
    assert bleu(replies, [references], "en").value < score.value  # as one long word nothing matches


def test_signature_names_case_tokenizer_smoothing_and_version() -> None:
    signature = bleu(REPLIES, REFERENCES, "en").signature
    for part in ("nrefs:", "case:mixed", "tok:13a", "smooth:exp", f"version:{sacrebleu.__version__}"):
        assert part in signature
    assert "version:" in chrf(REPLIES, REFERENCES).signature


def test_a_score_without_signature_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="signature"):
        Score(12.3, "")


def test_missing_references_are_refused() -> None:
    with pytest.raises(DataError, match="without a reference"):
        bleu(["hello"], [[]], "en")
    with pytest.raises(DataError, match="1 replies, 2 lists"):
        bleu(["hello"], [["a"], ["b"]], "en")
