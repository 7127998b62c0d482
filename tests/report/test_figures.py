"""Figures: ticks, thinning and smoothing keep what they promise."""

from __future__ import annotations

import re

import pytest
from markupsafe import Markup

from duihua.report.components import brief, number
from duihua.report.figures import MAX_POINTS, metric_chart, nice_ticks, range_chart, smooth, thin, tick_label


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (3.4, 9.1), (-2.5, 2.6), (0, 3e-3), (2e-5, 2e-5), (1e9, 5e9), (0, 0)]
)
def test_ticks_are_round_and_span_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 2 <= len(ticks) <= 9
    mantissa = f"{ticks[1] - ticks[0]:.6e}"[0:3]
    assert mantissa in {"1.0", "2.0", "5.0", "9.9"}


def test_ticks_of_a_range_by_hand() -> None:
    assert nice_ticks(3.4, 9.1) == [2.0, 4.0, 6.0, 8.0, 10.0]


@pytest.mark.parametrize(
    ("value", "step", "shown"),
    [
        (0.0, 1, "0"),
        (0.1, 0.05, "0.10"),
        (-2.0, 1.0, "−2"),
        (2500.0, 500, "2.5k"),
        (2e-5, 1e-5, "2e−5"),
        (0.002, 0.001, "0.002"),
    ],
)
def test_tick_labels(value: float, step: float, shown: str) -> None:
    assert tick_label(value, step) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0005, "0.0005"),
        (0.0015, "0.0015"),
        (-0.0053, "−0.0053"),
        (0.005, "0.005"),
        (0.00999, "0.010"),
        (5.2e-6, "5.2e−06"),
        (0.02, "0.020"),
        (0.713, "0.713"),
        (123.456, "123.5"),
        (4521.0, "4,521"),
        (0.0, "0"),
    ],
)
def test_small_numbers_keep_two_significant_digits_and_others_their_look(value: float, shown: str) -> None:
    assert number(value) == shown


def test_learning_rates_in_captions_are_those_of_the_schedule() -> None:
    assert [brief(value) for value in (0.0005, 0.0015, 5.2e-6)] == ["0.0005", "0.0015", "5.2e−06"]


def test_thinning_keeps_peaks_and_the_order_and_plain_slicing_does_not() -> None:
    points = [(float(i), 0.0) for i in range(10_000)]
    points[4321] = (4321.0, 99.0)
    kept = thin(points)
    assert len(kept) <= MAX_POINTS + 2
    assert (4321.0, 99.0) in kept
    assert kept == sorted(kept)
    assert (4321.0, 99.0) not in points[:: len(points) // MAX_POINTS]


def test_moving_average_by_hand() -> None:
    points = [(float(i), y) for i, y in enumerate([0.0, 3.0, 6.0, 0.0, 3.0])]
    assert [y for _, y in smooth(points, share=0.1)] == [0.0, 3.0, 3.0, 3.0, 1.5]


def test_chart_of_a_level_metric_has_finite_coordinates() -> None:
    chart = metric_chart(Markup("t"), Markup("u"), [(float(i), 0.0005) for i in range(300)])
    assert "nan" not in chart and "inf" not in chart
    paths = re.findall(r'd="([^"]+)"', chart)
    numbers = [float(found) for path in paths for found in re.findall(r"-?\d+(?:\.\d+)?", path)]
    assert numbers and min(numbers) >= 0 and max(numbers) <= 1000


@pytest.mark.parametrize("value", [0.2, 1.85, 1.93, 2.0, 7.9])
def test_pin_of_the_range_stays_on_the_track(value: float) -> None:
    places = [
        float(found)
        for found in re.findall(r"left:(-?[\d.]+)%", range_chart(value, 1.85, 2.0, Markup("e"), Markup("h")))
    ]
    assert all(0 <= place <= 100 for place in places)
