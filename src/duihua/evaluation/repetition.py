"""How much a reply repeats itself: the share of its n-grams that stood in it before.

Why: reward models like long and repeated text, so a policy that climbs its reward by repeating itself shows here first.
Which n-grams: of words in scripts that put spaces between them and of single characters in Chinese, Japanese and
Korean, punctuation left out, letter case ignored, n = 4. Units of text and not tokens, so that models with different
tokenizers can be compared.

From: S. Welleck et al., "Neural Text Generation with Unlikelihood Training", ICLR 2020, section 6, seq-rep-n:
1 - (distinct n-grams) / (n-grams), averaged over replies.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from duihua.text.scripts import UNSPACED

_UNIT = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:['’][^\W_{UNSPACED}]+)*")


def units(text: str) -> list[str]:
    """Words of spaced scripts and single characters of Chinese, Japanese and Korean, in order; no punctuation."""
    return _UNIT.findall(unicodedata.normalize("NFKC", text).lower())


def repeated_share(text: str, n: int = 4) -> float:
    """1 - distinct / all n-grams of one reply, in [0, 1); a reply with fewer than n units has nothing repeated: 0."""
    words = units(text)
    total = len(words) - n + 1
    if total < 1:
        return 0.0
    return 1.0 - len({tuple(words[i : i + n]) for i in range(total)}) / total


def repetition_rate(texts: Sequence[str], n: int = 4) -> float:
    """Mean of `repeated_share` over replies: each reply counts alike, however long. Needs at least one reply."""
    if not texts:
        raise ValueError("no replies to measure")
    return sum(repeated_share(text, n) for text in texts) / len(texts)
