"""A translator's scores on a test: BLEU and chrF with signatures and intervals, and BLEU against the length of what was
translated.

Why by length: a network that squeezes a sentence into one vector fails on long ones (Cho et al. 2014, "On the Properties of
Neural Machine Translation", figure 4; Bahdanau et al. 2015, figure 2), and one number for the whole test hides it. A
bucket's BLEU is of all its sentences together, as the whole test's is; a mean of sentence scores would be another measure
under the same name. The intervals are of resampled sentences (Koehn 2004): what another test of the kind would have shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from duihua.data.records import detect_language
from duihua.evaluation.bleu import Metric, Score, bleu, bleu_metric, chrf, chrf_metric
from duihua.evaluation.intervals import Interval
from duihua.evaluation.significance import bootstrap_interval

BUCKETS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, None))
"""Lengths that are looked at together: words, or characters of Chinese. The last has no end."""


@dataclass(frozen=True)
class LengthBucket:
    """Sentences of about one length. shortest, longest: in words or characters; longest None for no end."""

    shortest: int
    longest: int | None
    sentences: int
    bleu: Score

    @property
    def name(self) -> str:
        """As "6-10" or "31+"."""
        return f"{self.shortest}+" if self.longest is None else f"{self.shortest}-{self.longest}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"length": self.name, "sentences": self.sentences, "bleu": self.bleu.to_dict()}


@dataclass(frozen=True)
class TranslationScores:
    """Of a whole test. The intervals are of 95 %; measured: what the lengths are of, "source" or "reference"; unit: "words" or
    "characters"."""

    sentences: int
    bleu: Score
    chrf: Score
    bleu_interval: Interval
    chrf_interval: Interval
    buckets: tuple[LengthBucket, ...]
    measured: str
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every score with its signature."""
        return {
            "sentences": self.sentences,
            "bleu": self.bleu.to_dict(),
            "chrf": self.chrf.to_dict(),
            "bleu_interval": self.bleu_interval.to_dict(),
            "chrf_interval": self.chrf_interval.to_dict(),
            "by_length": {
                "measured": self.measured,
                "unit": self.unit,
                "buckets": [bucket.to_dict() for bucket in self.buckets],
            },
        }


def score_translations(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    language: str,
    sources: Sequence[str] | None = None,
) -> TranslationScores:
    """Scores of hypotheses[i] against all of references[i], in `language`. Lengths are of the sources where they are given,
    else of the first references. Raises DataError for unequal numbers, no sentence, or one without a reference."""
    whole, characters = bleu(hypotheses, references, language), chrf(hypotheses, references)
    measured = list(sources) if sources is not None else [known[0] for known in references]
    chinese = detect_language("\n".join(measured)) == "zh"
    lengths = [len("".join(text.split())) if chinese else len(text.split()) for text in measured]
    buckets = []
    for shortest, longest in BUCKETS:
        inside = [i for i, length in enumerate(lengths) if _within(length, shortest, longest)]
        if inside:
            its = bleu([hypotheses[i] for i in inside], [references[i] for i in inside], language)
            buckets.append(LengthBucket(shortest, longest, len(inside), its))
    return TranslationScores(
        len(hypotheses),
        whole,
        characters,
        _interval(bleu_metric(language), hypotheses, references),
        _interval(chrf_metric(), hypotheses, references),
        tuple(buckets),
        "source" if sources is not None else "reference",
        "characters" if chinese else "words",
    )


def _interval(metric: Metric, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Interval:
    return bootstrap_interval(metric.rows(hypotheses, references), metric.score)


def _within(length: int, shortest: int, longest: int | None) -> bool:
    """Whether a length belongs to a bucket; an empty text belongs to the first."""
    return (length >= shortest or shortest == BUCKETS[0][0]) and (longest is None or length <= longest)
