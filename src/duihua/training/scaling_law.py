"""How far a model gets: held-out bits per byte as a function of its size and of the tokens that it has read.

    L(N, D) = E + A / N^a + B / D^b         (Hoffmann et al. 2022, equation 2; N and D in millions here)

N counts the weights that multiply: the matrices of the blocks and the head. The embedding is a look-up and costs no
product; with it the runs of small models lie on no one curve. D counts tokens. E is what no model of the family gets below.

Why runs of minutes cannot tell E: they end far above it, where a smaller E with flatter powers fits as well. So E is fixed
(`FLOOR`), and how little is known of it goes into the range of a prediction: the law is fitted again and again to cells
drawn with replacement (Efron 1979), each time with an E drawn from `FLOOR_RANGE`. Near the measured cells these agree, far
from them they spread, and the range with them.

The constants that the dial uses are in scaling_law.json, which `benchmarks/scaling.py` writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duihua.errors import DataError
from duihua.files import read_json

LAW_FILE = Path(__file__).with_name("scaling_law.json")
FLOOR, FLOOR_RANGE = 0.6, (0.3, 0.9)
"""E and where it may lie, bits per byte. Hoffmann et al. 2022 (section D.3) find 1.69 nats a token on English text, which is
0.55 bits at 4.4 bytes a token."""
HUBER = 0.005
"""Misfit (of the logarithm) from which on a cell counts linearly and no longer by its square."""
MOST_MISFIT = 0.03
"""Root mean square of that misfit above which the cells do not follow the law."""
EXPONENTS = (0.02, 2.0)
"""Where a and b may lie; at the ends the cells do not say how the loss falls."""
RESAMPLES = 40
MILLION = 1e6


@dataclass(frozen=True)
class Cell:
    """One finished run. parameters: N as above. tokens: D. bits: held-out bits per byte."""

    parameters: float
    tokens: float
    bits: float


@dataclass(frozen=True)
class Curve:
    """The five constants; N and D are in millions."""

    floor: float
    size_factor: float
    size_exponent: float
    data_factor: float
    data_exponent: float

    def bits(self, parameters: float, tokens: float) -> float:
        """Held-out bits per byte after `tokens` with a model of `parameters` (both counts, not millions)."""
        by_size = self.size_factor * (parameters / MILLION) ** -self.size_exponent
        return float(self.floor + by_size + self.data_factor * (tokens / MILLION) ** -self.data_exponent)


@dataclass(frozen=True)
class Expected:
    """Bits per byte and the range that nine runs of ten should end in."""

    bits: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """A fitted curve with what is needed to say how sure it is. misfit: root mean square of log(fit / measured).

    about: corpus, vocabulary size, machine, date, and the like, as benchmarks/scaling.py writes them.
    """

    curve: Curve
    resampled: tuple[Curve, ...]
    misfit: float
    about: Mapping[str, Any]

    def expect(self, parameters: float, tokens: float) -> Expected:
        """What a run should end in: the curve, and around it the 5th to the 95th of 100 resampled ones, with twice the
        misfit on both sides."""
        bits = self.curve.bits(parameters, tokens)
        drawn = [curve.bits(parameters, tokens) for curve in self.resampled] or [bits]
        low, high = np.quantile([*drawn, bits], (0.05, 0.95))
        return Expected(bits, float(low) * (1 - 2 * self.misfit), float(high) * (1 + 2 * self.misfit))

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON; `from_mapping` reads it."""
        return {
            "about": dict(self.about),
            "misfit": self.misfit,
            "curve": asdict(self.curve),
            "resampled": [list(asdict(curve).values()) for curve in self.resampled],
        }

    @classmethod
    def from_mapping(cls, found: Any, where: str = "") -> Law:
        """Raises DataError where the mapping is not one of `to_mapping`."""
        try:
            return cls(
                Curve(**found["curve"]),
                tuple(Curve(*constants) for constants in found["resampled"]),
                float(found["misfit"]),
                found["about"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"is no law ({error})", where=where, remedy="Write it anew with benchmarks/scaling.py"
            ) from error


def stored_law(path: Path = LAW_FILE) -> Law:
    """The law that comes with the package."""
    return Law.from_mapping(read_json(path), str(path))


def fit(
    cells: Sequence[Cell],
    about: Mapping[str, Any] | None = None,
    *,
    floor: float = FLOOR,
    floor_range: tuple[float, float] = FLOOR_RANGE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Law:
    """The law of these runs: least Huber loss of the logarithm (Hoffmann et al. 2022, section 3.3), E fixed.

    Raises DataError for fewer than three sizes or horizons, for runs below the floor, and for runs that the law does not
    describe: a misfit above `MOST_MISFIT`, or a loss that does not fall with size or with tokens.
    """
    sizes, horizons = {cell.parameters for cell in cells}, {cell.tokens for cell in cells}
    if min(len(sizes), len(horizons)) < 3:
        raise DataError(
            f"{len(sizes)} sizes and {len(horizons)} budgets do not tell a power from a line",
            where="scaling law",
            remedy="Run at least three of each",
        )
    lowest = min(cell.bits for cell in cells)
    if lowest <= floor_range[1]:
        raise DataError(
            f"a run ended in {lowest:.3f} bits per byte, below where the floor may lie",
            where="scaling law",
            remedy="Lower the floor",
        )
    starts = [(a, b) for a in (0.1, 0.3, 0.7) for b in (0.1, 0.3, 0.7)]
    curve, _ = min((_fitted(cells, floor, start) for start in starts), key=lambda found: found[1])
    misfit = math.sqrt(float(np.mean(_misfits(curve, cells) ** 2)))
    if misfit > MOST_MISFIT:
        raise DataError(
            f"the runs miss the law by {100 * misfit:.1f} % (root mean square; {100 * MOST_MISFIT:.0f} % are borne)",
            where="scaling law",
            remedy="Look for runs that diverged, or whose learning rates do not suit their size",
        )
    for name, exponent in (("size", curve.size_exponent), ("tokens", curve.data_exponent)):
        if not 1.05 * EXPONENTS[0] < exponent < 0.95 * EXPONENTS[1]:
            raise DataError(
                f"the runs do not say how the loss falls with {name} (its power came out at {exponent:.3f})",
                where="scaling law",
                remedy="Spread the sizes and budgets wider",
            )
    random = np.random.Generator(np.random.PCG64(seed))
    start = (curve.size_exponent, curve.data_exponent)
    resampled: list[Curve] = []
    while len(resampled) < resamples:
        drawn = [cells[place] for place in random.integers(len(cells), size=len(cells))]
        of_floor = float(random.uniform(*floor_range))
        if min(len({cell.parameters for cell in drawn}), len({cell.tokens for cell in drawn})) >= 3:
            resampled.append(_fitted(drawn, of_floor, start)[0])
    return Law(curve, tuple(resampled), misfit, about or {})


def _fitted(cells: Sequence[Cell], floor: float, start: tuple[float, float]) -> tuple[Curve, float]:
    """The best curve of this floor from these exponents on, and its Huber loss."""
    from scipy.optimize import least_squares

    half = math.log((float(np.mean([cell.bits for cell in cells])) - floor) / 2)

    def misfits(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return _misfits(_curve(floor, values), cells)

    found = least_squares(
        misfits,
        [half, start[0], half, start[1]],
        bounds=([-12.0, EXPONENTS[0], -12.0, EXPONENTS[0]], [6.0, EXPONENTS[1], 6.0, EXPONENTS[1]]),
        loss="huber",
        f_scale=HUBER,
    )
    return _curve(floor, found.x), float(found.cost)


def _curve(floor: float, values: Sequence[float] | npt.NDArray[np.float64]) -> Curve:
    size, size_exponent, data, data_exponent = (float(value) for value in values)
    return Curve(floor, math.exp(size), size_exponent, math.exp(data), data_exponent)


def _misfits(curve: Curve, cells: Sequence[Cell]) -> npt.NDArray[np.float64]:
    """log(fit / measured) of each cell."""
    size, tokens, bits = np.asarray([(cell.parameters, cell.tokens, cell.bits) for cell in cells], dtype=np.float64).T
    by_size = curve.size_factor * (size / MILLION) ** -curve.size_exponent
    by_data = curve.data_factor * (tokens / MILLION) ** -curve.data_exponent
    return np.asarray(np.log((curve.floor + by_size + by_data) / bits))
