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
        raise DataError(f"{len(replies)} replies, {len(references)} lists of references", where="BLEU")
    if not replies or not all(references):
        raise DataError(
            "a reply without a reference cannot be scored", where="BLEU", remedy="Give one reference or more"
        )
    most = max(len(known) for known in references)
    return [[known[k] if k < len(known) else None for known in references] for k in range(most)]
