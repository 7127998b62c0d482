import math

import numpy as np
import pytest

from duihua.evaluation.intervals import (
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
    paired_mean,
    t_interval,
    t_quantile,
    wilson,
)


def test_wilson_equals_the_hand_computed_interval() -> None:
    # 8 of 10, z = 2: centre (0.8 + 4/20) / 1.4, half width 2/1.4 * sqrt(0.16/10 + 4/400)
    interval = wilson(8, 10, z=2.0)
    half = 2 / 1.4 * math.sqrt(0.016 + 0.01)
    assert interval.value == 0.8
    assert interval.low == pytest.approx(1.0 / 1.4 - half)
    assert interval.high == pytest.approx(1.0 / 1.4 + half)


def test_wilson_solves_its_defining_equation() -> None:
    """Its ends are the shares p that lie exactly z standard errors of p from 8/10; the textbook's are not."""

    def distance(p: float) -> float:
        return abs(0.8 - p) / math.sqrt(p * (1 - p) / 10)

    interval = wilson(8, 10)
    assert distance(interval.low) == pytest.approx(1.959964, rel=1e-6)
    assert distance(interval.high) == pytest.approx(1.959964, rel=1e-6)
    textbook = 0.8 - 1.959964 * math.sqrt(0.8 * 0.2 / 10)
    assert distance(textbook) != pytest.approx(1.959964, rel=1e-2)


def test_wilson_stays_inside_zero_and_one_and_keeps_a_width() -> None:
    assert wilson(20, 20).high == 1.0
    assert 0.8 < wilson(20, 20).low < 1.0
    assert wilson(0, 20).low == 0.0
    assert wilson(0, 20).high > 0.1
    assert (wilson(0, 0).low, wilson(0, 0).high, wilson(0, 0).n) == (0.0, 1.0, 0)
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


def test_wilson_covers_the_true_share_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = sum(wilson(int(k), 40).low <= 0.9 <= wilson(int(k), 40).high for k in generator.binomial(40, 0.9, 2000))
    assert 0.93 <= hits / 2000 <= 0.98


def test_bootstrap_mean_is_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    interval = bootstrap_mean(values.tolist(), resamples=2000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)


def test_bootstrap_ratio_divides_sums_and_is_not_the_mean_of_ratios() -> None:
    interval = bootstrap_ratio([1, 0, 90], [1, 1, 98])
    assert interval.value == 0.91
    assert interval.value != pytest.approx(np.mean([1, 0, 90 / 98]), abs=0.01)  # the wrong way
    assert interval.n == 3


def test_bootstrap_of_whole_examples_is_wider_than_of_dependent_tokens() -> None:
    """Each conversation is right or wrong throughout: 20 examples, however many tokens they have."""
    right, counted = [50.0] * 10 + [0.0] * 10, [50.0] * 20
    by_example = bootstrap_ratio(right, counted)
    by_token = wilson(500, 1000)
    assert by_example.high - by_example.low > 4 * (by_token.high - by_token.low)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = np.random.default_rng(5).normal(size=50).tolist()
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_the_difference_of_two_groups_is_as_sure_as_both_together() -> None:
    """Against the normal interval of independent means: variances add up."""
    generator = np.random.default_rng(2)
    first, second = generator.normal(1.0, 1.0, 300), generator.normal(3.0, 2.0, 400)
    ones = [np.ones(300).tolist(), np.ones(400).tolist()]
    found = bootstrap_difference((first.tolist(), ones[0]), (second.tolist(), ones[1]), resamples=2000)
    half = 1.96 * math.sqrt(first.var(ddof=1) / 300 + second.var(ddof=1) / 400)
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.low == pytest.approx(found.value - half, abs=0.03)
    assert found.high == pytest.approx(found.value + half, abs=0.03)
    assert found.n == 700
    alone = bootstrap_mean(second.tolist(), resamples=2000)  # the wrong way: as if the other group were known
    assert alone.high - alone.low < found.high - found.low - 0.02
    assert math.isnan(bootstrap_difference(([], []), ([1.0], [1.0])).value)


def test_paired_mean_takes_out_what_pairs_share() -> None:
    before, after = [1.0, 5.0, 9.0, 13.0], [2.0, 7.0, 10.0, 15.0]  # differences 1 2 1 2: mean 1.5, s^2 = 1/3
    pair = paired_mean(before, after)
    assert pair.value == 1.5
    assert pair.standard_error == pytest.approx(math.sqrt(1 / 3) / 2)
    unpaired = math.sqrt((np.var(before, ddof=1) + np.var(after, ddof=1)) / 4)
    assert unpaired > 10 * pair.standard_error
    assert math.isinf(paired_mean([1.0], [2.0]).standard_error)
    with pytest.raises(ValueError, match="pairs"):
        paired_mean([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (10, 2.2281), (30, 2.0423), (120, 1.9799)],
)
def test_students_quantiles_are_those_of_the_tables(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=5e-5)


def test_students_interval_of_three_runs_is_twice_as_wide_as_the_normal_one() -> None:
    interval = t_interval([1.0, 2.0, 3.0])  # s = 1
    assert (interval.value, interval.n) == (2.0, 3)
    assert interval.high - 2.0 == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4)
    assert interval.high - 2.0 > 2 * 1.96 / math.sqrt(3)
    assert t_interval([5.0]).low == -math.inf
    assert math.isnan(t_interval([]).value)
    with pytest.raises(ValueError, match="0 degrees"):
        t_quantile(0)


def test_students_interval_covers_the_mean_of_three_runs_as_often_as_it_says_and_the_normal_one_does_not() -> None:
    runs = np.random.default_rng(2).normal(size=(2000, 3))
    intervals = [t_interval(row.tolist()) for row in runs]
    assert 0.935 <= np.mean([each.low <= 0 <= each.high for each in intervals]) <= 0.965
    normal = 1.96 * runs.std(axis=1, ddof=1) / math.sqrt(3)
    assert np.mean(abs(runs.mean(axis=1)) <= normal) < 0.85
