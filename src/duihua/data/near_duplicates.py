"""Which texts are nearly the same: MinHash over character 8-grams with banded look-up.

A text is the set of its 8-grams (of letters and digits, case aside); two texts are near duplicates when their sets share
at least four fifths of all that either has (Jaccard similarity). Comparing all pairs would take the square of the number
of records, so each set is drawn down to 32 minima of random hash functions: the share of equal minima estimates the
similarity (Broder 1997, "On the resemblance and containment of documents"), and texts that agree in one of eight groups
of four minima are looked at (a pair at the threshold is met with probability 0.98). About a kilobyte is kept a record.

Beside this, `normalised` equality finds exact duplicates for certain, short texts too.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from duihua.data.records import normalised

GRAM = 8
BANDS, ROWS_A_BAND = 8, 4
THRESHOLD = 0.8

_MULTIPLIERS = np.random.default_rng(20).integers(1, 2**63, size=BANDS * ROWS_A_BAND, dtype=np.uint64) | np.uint64(1)
_BASE = 0x9E3779B97F4A7C15


def gram_hashes(text: str, width: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of every run of `width` letters and digits of the text, as `normalised` has it, in its order."""
    letters = np.frombuffer(normalised(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    grams = np.zeros(max(0, len(letters) - width + 1), dtype=np.uint64)
    for offset in range(width if len(grams) else 0):  # polynomial hash, modulo 2^64
        power = np.uint64(pow(_BASE, offset, 2**64))
        grams += (letters[offset : offset + len(grams)] + np.uint64(1)) * power
    return grams ^ (grams >> np.uint64(29))


def sketch(text: str) -> npt.NDArray[np.uint32] | None:
    """The text's 32 minima, upper halves of 64-bit hashes; None for a text of fewer than 8 letters and digits."""
    grams = gram_hashes(text, GRAM)
    if not len(grams):
        return None
    minima = [((grams * multiplier) >> np.uint64(32)).min() for multiplier in _MULTIPLIERS]
    return np.array(minima, dtype=np.uint32)


def similarity(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> float:
    """Share of equal minima: an estimate of the Jaccard similarity, standard error at most 0.09."""
    return float(np.mean(a == b))


class DuplicateIndex:
    """Texts seen so far. `add` tells the first one that a text repeats."""

    def __init__(self) -> None:
        self._exact: dict[bytes, int] = {}
        self._bands: dict[bytes, int] = {}
        self._sketches: dict[int, npt.NDArray[np.uint32]] = {}

    def add(self, number: int, text: str) -> tuple[int, bool] | None:
        """Remember record `number`; (the earlier record it repeats, whether exactly), None where it is new.

        A repeat is not remembered itself, so each group of duplicates is told by its first record.
        """
        key, minima = _exact_key(text), sketch(text)
        known = self._known(key, minima)
        if known is not None:
            if not known[1]:
                self._exact[key] = number
            return known
        self._exact[key] = number
        if minima is not None:
            self._sketches[number] = minima
            for band in _bands(minima):
                self._bands.setdefault(band, number)
        return None

    def find(self, text: str) -> tuple[int, bool] | None:
        """As `add`, but nothing is remembered."""
        return self._known(_exact_key(text), sketch(text))

    def _known(self, key: bytes, minima: npt.NDArray[np.uint32] | None) -> tuple[int, bool] | None:
        if key in self._exact:
            return self._exact[key], True
        if minima is None:
            return None
        near = {self._bands[band] for band in _bands(minima) if band in self._bands}
        best = max(near, key=lambda other: (similarity(minima, self._sketches[other]), -other), default=None)
        if best is not None and similarity(minima, self._sketches[best]) >= THRESHOLD:
            return best, False
        return None


def _exact_key(text: str) -> bytes:
    return hashlib.sha256((normalised(text) or text).encode("utf-8", "surrogatepass")).digest()[:16]


def _bands(minima: npt.NDArray[np.uint32]) -> list[bytes]:
    return [bytes([band]) + minima[band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND].tobytes() for band in range(BANDS)]
