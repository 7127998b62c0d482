"""BLEU and chrF of replies against references, always with the signature that says how they were computed.

Why sacrebleu and not our own formula: BLEU depends on tokenisation, smoothing and the brevity penalty, and numbers from
different programs cannot be compared. The signature pins all of it. English is cut by the `13a` tokenizer, Chinese by
`zh` (one token a character, other scripts as in `13a`); text of both languages together by `zh` too.

From: M. Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018; K. Papineni et al., "BLEU", ACL 2002;
M. Popović, "chrF", WMT 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from duihua.errors import DataError

TOKENIZERS = {"en": "13a", "zh": "zh", "all": "zh"}
"""sacrebleu's tokenizer by language; a language that is not listed gets `13a`."""


@dataclass(frozen=True)
class Score:
    """A corpus score from 0 to 100 with the signature of how it was computed."""

    value: float
    signature: str

    def __post_init__(self) -> None:
        if not self.signature:
            raise ValueError("a score without its signature cannot be compared with anything")

    def to_dict(self) -> dict[str, float | str]:
        """As it stands in result.json: value, signature."""
        return {"value": self.value, "signature": self.signature}


class Metric:
    """BLEU or chrF as sums: the numbers that each line brings, and the score out of their sum.

    Why: an interval or a comparison scores thousands of resampled test sets; counting n-grams once and adding counts gives
    the same scores as sacrebleu on the resampled lines, a hundred times faster. The counts are sacrebleu's own (its modules
    for significance use the same two methods); a test holds that their sum gives its corpus score.
    """

    def __init__(self, metric: BLEU | CHRF) -> None:
        self._metric = metric

    def rows(self, replies: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """(lines, numbers): the counts of each line."""
        found = self._metric._extract_corpus_statistics(list(replies), _streams(replies, references))
        return np.asarray(found, dtype=np.float64)

    def score(self, sums: NDArray[np.float64]) -> float:
        """The corpus score, 0 to 100, out of the sum of rows."""
        return float(self._metric._compute_score_from_stats([round(number) for number in sums]).score)

    @property
    def signature(self) -> str:
        """How the score is computed; complete after `rows`."""
        return str(self._metric.get_signature())


def bleu_metric(language: str) -> Metric:
    """BLEU with the tokenizer of a language (en, zh, all or another)."""
    return Metric(BLEU(tokenize=TOKENIZERS.get(language, "13a")))


def chrf_metric() -> Metric:
    """chrF: the same for every language."""
    return Metric(CHRF())


def bleu(replies: Sequence[str], references: Sequence[Sequence[str]], language: str) -> Score:
    """Corpus BLEU of replies[i] against all of references[i] (one or more each). `language`: en, zh, all or another."""
    metric = BLEU(tokenize=TOKENIZERS.get(language, "13a"))
    result = metric.corpus_score(list(replies), _streams(replies, references))
    return Score(float(result.score), str(metric.get_signature()))


def chrf(replies: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """Corpus chrF (character 6-grams, beta 2): needs no tokenizer, so it is the same rule for every language."""
    metric = CHRF()
    result = metric.corpus_score(list(replies), _streams(replies, references))
    return Score(float(result.score), str(metric.get_signature()))


def _streams(replies: Sequence[str], references: Sequence[Sequence[str]]) -> Any:
    """sacrebleu's layout: stream k holds the k-th reference of every reply, None where a reply has fewer."""
    if len(replies) != len(references):
        raise DataError(
            f"{len(replies)} replies, {len(references)} lists of references",
            where="BLEU",
            remedy="Give one list of references for each reply",
        )
    if not replies or not all(references):
        raise DataError(
            "a reply without a reference cannot be scored", where="BLEU", remedy="Give one reference or more"
        )
    most = max(len(known) for known in references)
    return [[known[k] if k < len(known) else None for known in references] for k in range(most)]
