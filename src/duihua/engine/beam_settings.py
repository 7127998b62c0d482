"""How a translation is searched for: the settings of beam search, as data, and the length penalties by name. No torch here.

Why lengths are corrected at all: a sum of log-probabilities only falls, so the shortest hypothesis tends to win. Toolkits
divide by different functions of the length and all call it the length penalty; a score means nothing without the name of
the one that was used.

    none        log P
    average     log P / |Y|^alpha                     Marian (normalize), fairseq (lenpen), transformers (length_penalty)
    gnmt        log P / ((5 + |Y|) / 6)^alpha         Wu et al. 2016, equation 14; Vaswani et al. 2017 with alpha 0.6
    opennmt     the same with the start token counted, as OpenNMT-py does for `wu`

|Y| counts the tokens of the target with its end token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.errors import GenerationError

LengthPenalty = Literal["none", "average", "gnmt", "opennmt"]
Stopping = Literal["full", "estimate", "exact"]
USUAL_ALPHA: dict[LengthPenalty, float] = {"none": 0.0, "average": 1.0, "gnmt": 0.6, "opennmt": 0.6}


@dataclass(frozen=True)
class BeamSettings:
    """How translations are searched for. The defaults are close to Vaswani et al. 2017, section 6.1 (there beam is 4)."""

    beam: int = 5
    """Hypotheses that are kept at each step; 1 takes the likeliest token each time (greedy)."""
    n_best: int = 1
    """Translations given for each sentence, best first; at most `beam`."""
    length_penalty: LengthPenalty = "gnmt"
    """none: the log-probability itself, which favours short translations; average: divided by |Y|^alpha (Marian, fairseq,
    transformers); gnmt: divided by ((5 + |Y|) / 6)^alpha (Wu et al. 2016, equation 14); opennmt: so, the start token
    counted."""
    alpha: float | None = None
    """Strength of the length penalty; None for 0.6 with gnmt and opennmt (Vaswani et al. 2017) and 1 with average."""
    coverage: float = 0.0
    """Wu et al.'s beta: adds beta times the sum over the source of log(min(attention received, 1)) to a finished
    hypothesis, so that nothing of the source is left out; 0 for none, 0.2 in that paper."""
    no_repeat_ngram: int = 0
    """No sequence of this many tokens is written twice in one translation; 0 for no such guard."""
    max_ratio: float = 1.0
    """A translation has at most max_ratio * (tokens of the source) + max_extra tokens; there it must end."""
    max_extra: int = 50
    """See max_ratio; 50 is Vaswani et al.'s."""
    stopping: Stopping = "estimate"
    """When a sentence is done. full: as many hypotheses as the beam have ended (fairseq); where a model is sure of itself
    these are short wrong ones that end before the right one can; estimate: and no running one is better at its present length
    (transformers' default); exact: no running one can become better at any length."""
    batch_sentences: int = 64
    """Sentences searched for at the same time, of similar length."""

    def __post_init__(self) -> None:
        self._check("beam", self.beam >= 1, "must be at least 1")
        self._check("n_best", 1 <= self.n_best <= self.beam, f"must be between 1 and the beam ({self.beam})")
        self._check("length_penalty", self.length_penalty in USUAL_ALPHA, f"must be one of {', '.join(USUAL_ALPHA)}")
        self._check("alpha", self.alpha is None or 0.0 <= self.alpha < float("inf"), "must be 0 or more")
        self._check("coverage", 0.0 <= self.coverage < float("inf"), "must be 0 (none) or more")
        self._check("no_repeat_ngram", self.no_repeat_ngram >= 0, "must be 0 (no guard) or more")
        self._check("max_ratio", 0.0 <= self.max_ratio < float("inf"), "must be 0 or more")
        self._check("max_extra", self.max_extra >= 0 and self.max_ratio + self.max_extra > 0, "leaves no room to write")
        self._check("stopping", self.stopping in ("full", "estimate", "exact"), "must be full, estimate or exact")
        self._check("batch_sentences", self.batch_sentences >= 1, "must be at least 1")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise GenerationError(
                f"{rule}, found {getattr(self, name)!r}", where=name, remedy="Set another value, or leave it out"
            )

    def penalty(self, tokens: int) -> float:
        """What a log-probability of a hypothesis of so many tokens, its end included, is divided by."""
        alpha = USUAL_ALPHA[self.length_penalty] if self.alpha is None else self.alpha
        if self.length_penalty == "none":
            return 1.0
        if self.length_penalty == "average":
            return float(tokens**alpha)
        counted = tokens + 1 if self.length_penalty == "opennmt" else tokens
        return float(((5 + counted) / 6) ** alpha)

    def most_tokens(self, source_tokens: int, model_limit: int) -> int:
        """Most tokens of a translation of a source with so many, its end included; at least 1."""
        return max(1, min(int(self.max_ratio * source_tokens) + self.max_extra, model_limit))
