"""How much is taken from each count: one discount, or three that grow with the count.

Why a discount at all: an n-gram seen once in a million words is seen again far less often than once in the next million.
Church and Gale (1991) measured it: what occurred r times in one half of 44 million words occurred about r - 0.75 times in the
other. So the same D is taken from every count, and what is taken goes to what was not seen.

    one:    D = n1 / (n1 + 2 n2)                                              (Ney, Essen, Kneser 1994)
    three:  Y = n1 / (n1 + 2 n2);  D_r = r - (r + 1) Y n_{r+1} / n_r, r = 1, 2, 3;  D_3 serves all higher counts
                                                                              (Chen, Goodman 1999, section 3.2.2)

n_r is the number of n-grams of this order with count r. Little text can leave an n_r empty or put an estimate outside
(0, r]: then the single discount is taken, and where that has no estimate either, 0.75. What was taken is stored and shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Discounting = Literal["modified", "fixed"]
LAST_RESORT = 0.75
"""Church and Gale's figure, for text so small that nothing can be estimated."""


@dataclass(frozen=True)
class Discounts:
    """What is taken from counts of 1, of 2, and of 3 or more. origin: how they were found ("modified", "fixed", "given" or
    "too little text")."""

    values: tuple[float, float, float]
    origin: str

    def of(self, counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The discount of each count; 0 of a count of 0."""
        table = np.array([0.0, *self.values])
        taken: npt.NDArray[np.float64] = table[np.minimum(counts, 3)]
        return taken

    def to_mapping(self) -> dict[str, Any]:
        """As it is stored: values and origin."""
        return {"values": list(self.values), "origin": self.origin}


def estimate(counts: npt.NDArray[Any], discounting: Discounting) -> Discounts:
    """The discounts of one order from its counts (zeros are passed over)."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == r)) for r in (1, 2, 3, 4))
    if not n1 or not n2:
        return Discounts((LAST_RESORT,) * 3, "too little text")
    Y = n1 / (n1 + 2 * n2)
    if discounting == "modified" and n3 and n4:
        three = (1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3)
        if all(0 < value <= r for r, value in enumerate(three, start=1)):
            return Discounts(three, "modified")
    return Discounts((Y, Y, Y), "fixed")
