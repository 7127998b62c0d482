"""The law's fit finds the constants that made the runs, says how sure it is, and refuses runs that it does not describe."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duihua.errors import DataError
from duihua.files import write_json
from duihua.training.scaling_law import FLOOR, Cell, Curve, Law, fit, stored_law

TRUE = Curve(floor=FLOOR, size_factor=0.45, size_exponent=0.4, data_factor=1.1, data_exponent=0.3)
SIZES, TOKENS = (0.6e6, 1.4e6, 2.8e6, 5.8e6), (8e4, 16e4, 32e4, 64e4)
GRID = [(size, tokens) for size in SIZES for tokens in TOKENS]


def runs(curve: Curve = TRUE, noise: float = 0.0) -> list[Cell]:
    random = np.random.Generator(np.random.PCG64(1))
    return [Cell(n, d, curve.bits(n, d) * math.exp(noise * random.standard_normal())) for n, d in GRID]


def test_a_curve_by_hand() -> None:
    curve = Curve(0.5, 1.0, 0.5, 2.0, 1.0)
    assert curve.bits(4e6, 2e6) == pytest.approx(0.5 + 1 / 2 + 2 / 2)


def test_known_constants_are_found_again() -> None:
    law = fit(runs(), resamples=0)
    for name in ("size_factor", "size_exponent", "data_factor", "data_exponent"):
        assert getattr(law.curve, name) == pytest.approx(getattr(TRUE, name), rel=1e-3)
    assert law.misfit < 1e-5
    wrong = fit(runs(), floor=0.2, resamples=0)  # another floor bends the powers: it has to be known
    assert wrong.curve.data_exponent != pytest.approx(TRUE.data_exponent, rel=0.05)


def test_with_noise_the_truth_lies_in_the_range_which_widens_away_from_the_runs() -> None:
    law = fit(runs(noise=0.005), resamples=12)
    assert 0.002 < law.misfit < 0.01
    inside, outside = law.expect(2.8e6, 32e4), law.expect(1e7, 1e7)
    for expected, truth in ((inside, TRUE.bits(2.8e6, 32e4)), (outside, TRUE.bits(1e7, 1e7))):
        assert expected.low < truth < expected.high
    assert outside.high / outside.low > 1.05 * inside.high / inside.low
    surer = replace(law, resampled=())
    assert surer.expect(1e7, 1e7).high < outside.high


def test_one_run_that_diverged_hardly_moves_the_law() -> None:
    spoilt = [*runs()[:-1], replace(runs()[-1], bits=1.1 * runs()[-1].bits)]
    found = fit(spoilt, resamples=0).curve
    assert found.bits(1e7, 2e6) == pytest.approx(TRUE.bits(1e7, 2e6), rel=0.01)
    twice = [replace(cell, bits=1.1 * cell.bits) for cell in runs()]
    assert fit(twice, resamples=0).curve.bits(1e7, 2e6) != pytest.approx(TRUE.bits(1e7, 2e6), rel=0.03)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([Cell(n, d, 2.0 + 0.5 * math.sin(n / 1e6 + d / 1e5)) for n, d in GRID], "miss the law by"),
        ([Cell(n, d, 1.5 + 1e5 / d) for n, d in GRID], "do not say how the loss falls with size"),
        ([Cell(n, d, 1.2 + 0.8 * (n / 1e6) ** -0.4) for n, d in GRID], "do not say how the loss falls with tokens"),
        ([Cell(n, d, 0.8) for n, d in GRID], "below where the floor may lie"),
        ([Cell(SIZES[0], d, 2.0) for d in TOKENS], "1 sizes and 4 budgets"),
    ],
)
def test_runs_of_another_form_are_refused(wrong: list[Cell], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(wrong, resamples=0)
    fit(runs(), resamples=0)


def test_the_stored_law_is_that_of_its_own_cells(tmp_path: Path) -> None:
    law = stored_law()
    cells = [Cell(weights, tokens, bits) for _, weights, tokens, bits in law.about["cells"]]
    again = fit(cells, resamples=0).curve
    assert again.bits(4e6, 1e6) == pytest.approx(law.curve.bits(4e6, 1e6), rel=1e-3)
    for name in ("date", "sources", "vocabulary_size", "processor", "commit", "seeds"):
        assert law.about[name]
    write_json(tmp_path / "law.json", law.to_mapping())
    assert stored_law(tmp_path / "law.json") == law
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="is no law"):
        stored_law(tmp_path / "other.json")
    assert isinstance(law, Law)
