"""Whether a text that is trained on holds a text that a classifier is tested on.

Why it matters: a model that has read its test texts, even without their labels, is tested on something else than what it
will meet. Three ways of holding one are looked for: the same text (case, punctuation and spaces aside), nearly the same text
(`near_duplicates.py`), and a text in which at least half of the test text stands word for word, measured by its runs of 16
letters. The last finds quotations and edited copies: one letter changed in fifty spoils 16 of 35 runs. Texts of fewer than
16 letters ("very good, thank you") are no quotation when they stand in a longer one: of those only equality counts.

Of a long text every eighth run is kept, chosen by its hash: the same runs are then chosen wherever the text stands, so a text
that is held whole is always found, and of a part the share is estimated from 25 runs or more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from duihua.data.near_duplicates import DuplicateIndex, gram_hashes
from duihua.data.records import normalised

RUN = 16
"""Letters and digits of a run; a held-out text of fewer is only looked for as a whole."""
SHARE = 0.5
"""Share of a held-out text's runs from which on a text counts as holding it."""
LONG, KEPT_OF_LONG = 200, 8
"""From so many runs on, one in eight is kept."""


@dataclass(frozen=True)
class Occurrence:
    """How a held-out text occurs in another: "equals", "nearly equals", "holds" or "holds half of"; and which one."""

    how: str
    name: str
    """Name that the held-out text was given."""
    text: str


class HeldOutTexts:
    """Texts that must not occur in what is trained on. About two kilobytes a text."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """texts: (name, text), the name saying which source holds it out."""
        self.texts = list(texts)
        self._index = DuplicateIndex()
        runs = [np.zeros(0, dtype=np.uint64)]
        for number, (_, text) in enumerate(self.texts):
            self._index.add(number, text)
            runs.append(_kept(np.unique(gram_hashes(text, RUN))))
        self._sizes = np.array([len(each) for each in runs[1:]], dtype=np.int64)
        together, owners = np.concatenate(runs), np.repeat(np.arange(len(self.texts)), self._sizes)
        order = np.argsort(together, kind="stable")
        self._runs, self._owners = together[order], owners[order]

    def __len__(self) -> int:
        return len(self.texts)

    def occurrence(self, text: str) -> Occurrence | None:
        """The held-out text that stands in `text`, of several the one of which most does; None where there is none."""
        repeated = self._index.find(text)
        if repeated is not None:
            return Occurrence("equals" if repeated[1] else "nearly equals", *self.texts[repeated[0]])
        number, share = self._most_held(text)
        if share < SHARE:
            return None
        whole = normalised(self.texts[number][1]) in normalised(text)
        return Occurrence("holds" if whole else "holds half of", *self.texts[number])

    def _most_held(self, text: str) -> tuple[int, float]:
        """(the held-out text of which the largest share of runs stands in `text`, that share); share 0 for none."""
        if not len(self._runs):
            return 0, 0.0
        runs = gram_hashes(text, RUN)
        starts = np.searchsorted(self._runs, runs)
        known = self._runs[np.minimum(starts, len(self._runs) - 1)] == runs
        runs, first = np.unique(runs[known], return_index=True)
        starts, ends = starts[known][first], np.searchsorted(self._runs, runs, side="right")
        hits = [self._owners[start:end] for start, end in zip(starts, ends, strict=True)]
        if not hits:
            return 0, 0.0
        owners, counts = np.unique(np.concatenate(hits), return_counts=True)
        shares = counts / self._sizes[owners]
        best = int(shares.argmax())
        return int(owners[best]), float(shares[best])


def _kept(runs: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The runs that are remembered of one text."""
    if len(runs) < LONG:
        return runs
    chosen = runs[runs % np.uint64(KEPT_OF_LONG) == 0]
    return chosen if len(chosen) else runs
