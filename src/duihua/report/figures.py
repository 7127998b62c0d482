"""Figures of the report as inline SVG with text beside it in HTML.

Why by hand and not by a plotting library: the labels exist in two languages and the colours in two themes, and a
picture with fixed glyphs and colours can switch neither. Only the lines are SVG (stretched to the box, stroke widths
kept); ticks and labels are HTML placed by percentages, so they stay legible at the width of a phone. Curves are thinned
to at most `MAX_POINTS`, which keeps a page with thirty of them small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from duihua.report.components import brief, compact, number, t

MAX_POINTS = 400
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line or cloud of points. `look` is its class in the style sheet."""

    points: Sequence[Point]
    look: Literal["faint", "strong", "second", "dots", "run1", "run2", "run3", "run4", "run5", "run6"]
    label: Markup | None = None


@dataclass(frozen=True)
class Mark:
    """A letter or sign at a point of a chart."""

    place: Point
    sign: str


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most about `limit` points: of each bucket the lowest and the highest stay, so that no peak disappears."""
    if len(points) <= limit:
        return list(points)
    bucket = math.ceil(2 * len(points) / limit)
    kept: list[Point] = []
    for start in range(0, len(points), bucket):
        part = points[start : start + bucket]
        ends = {min(range(len(part)), key=lambda i: part[i][1]), max(range(len(part)), key=lambda i: part[i][1])}
        kept.extend(part[i] for i in sorted(ends))
    return kept


def smooth(points: Sequence[Point], share: float = 0.03) -> list[Point]:
    """Centred moving average over `share` of the points.

    At the start the window shrinks on both sides alike, because curves are steep there and a lopsided mean would lie; at
    the end, where they are level, it only loses its right half, because a mean of few points would wag.
    """
    half = max(1, round(len(points) * share / 2))
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smoothed = []
    for i, (x, _) in enumerate(points):
        first = i - min(half, i)
        after = min(i + min(half, i), len(points) - 1) + 1
        smoothed.append((x, (sums[after] - sums[first]) / (after - first)))
    return smoothed


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) that span [low, high]; the first is <= low and the last >= high."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # level but for rounding
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick in as few characters as tell it from its neighbours."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return compact(value).replace("-", "−")
    if step < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-").replace("-", "−")
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}".replace("-", "−")


def line_chart(
    title: Markup,
    unit: Markup,
    series: Sequence[Series],
    *,
    summary: Markup | str = "",
    x_label: Markup | None = None,
    diagonal: bool = False,
    marks: Sequence[Mark] = (),
) -> Markup:
    """One chart as a <figure>. Axis titles stand above the y axis and below the x axis. With `diagonal` the axes share
    their range and the line y = x is drawn; `marks` stand beside their points."""
    points = [point for one in series for point in one.points]
    assert points, "a chart needs points"
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if diagonal:
        xs = ys = xs + ys
    y_ticks = nice_ticks(min(ys), max(ys), 7 if diagonal else 5)
    x_low, x_high = min(xs), max(xs)
    if 0 < x_low < 0.1 * x_high:  # steps count from the start of training
        x_low = 0.0
    x_ticks = y_ticks if diagonal else nice_ticks(x_low, x_high, 7)
    if diagonal:
        x_low, x_high = x_ticks[0], x_ticks[-1]
    if not x_high > x_low:
        x_low, x_high = x_low - 1, x_high + 1
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def across(x: float) -> float:
        return (x - x_low) / (x_high - x_low)

    def down(y: float) -> float:
        return 1 - (y - y_low) / (y_high - y_low)

    grid = "".join(f"M0 {1000 * down(y):.0f}H1000" for y in y_ticks)
    drawn = Markup('<path class="grid" d="{}"/>').format(grid)
    if diagonal:
        drawn += Markup('<path class="diagonal" d="M0 1000L1000 0"/>')
    for one in series:
        places = [(1000 * across(x), 1000 * down(y)) for x, y in one.points]
        if one.look == "dots":
            path = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places)
        else:
            path = "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in places)
        drawn += Markup('<path class="{}" d="{}"/>').format(one.look, path)

    y_step, x_step = y_ticks[1] - y_ticks[0], x_ticks[1] - x_ticks[0]
    ticks = Markup("").join(
        Markup('<i class="y" style="top:{:.2f}%">{}</i>').format(100 * down(y), tick_label(y, y_step)) for y in y_ticks
    )
    ticks += Markup("").join(
        Markup('<i class="x" style="left:{:.2f}%">{}</i>').format(100 * across(x), tick_label(x, x_step))
        for x in x_ticks
        if -1e-9 <= across(x) <= 1 + 1e-9
    )
    ticks += Markup("").join(
        Markup('<b class="mark" style="left:{:.2f}%;top:{:.2f}%">{}</b>').format(
            100 * across(mark.place[0]), 100 * down(mark.place[1]), mark.sign
        )
        for mark in marks
    )
    legend = Markup("").join(
        Markup('<span class="key"><i class="{}"></i>{}</span>').format(one.look, one.label)
        for one in series
        if one.label is not None
    )
    return Markup(
        '<figure class="chart{square}"><figcaption>{title}</figcaption>'
        '<div class="unit">{unit}</div>'
        '<div class="plot"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">{marks}</svg>'
        '{ticks}</div><div class="below"><span>{x_label}</span></div>'
        '<div class="legend">{legend}<span class="summary">{summary}</span></div></figure>'
    ).format(
        square=" square" if diagonal else "",
        title=title,
        unit=unit,
        marks=drawn,
        ticks=ticks,
        x_label=x_label if x_label is not None else t("axis.step"),
        legend=legend,
        summary=summary,
    )


def metric_chart(
    title: Markup, unit: Markup, points: Sequence[Point], heldout: Sequence[Point] = (), *, noisy: bool = True
) -> Markup:
    """A recorded metric over steps: thin as recorded, strong as a moving average, held-out values as a second line.

    What is not noisy (a schedule) is drawn as it is.
    """
    if len(points) >= 30 and noisy:
        series = [
            Series(thin(points), "faint", t("curves.raw") if heldout else None),
            Series(thin(smooth(points)), "strong"),
        ]
    else:
        series = [Series(thin(points), "strong", t("curves.raw") if heldout else None)]
        if len(points) == 1:
            series = [Series(points, "dots")]
    if heldout:
        series.append(Series(list(heldout), "dots" if len(heldout) == 1 else "second", t("curves.heldout")))
    values = [y for _, y in points]
    summary = t(
        "curves.span",
        first=brief(values[0]),
        last=brief(values[-1]),
        low=brief(min(values)),
        high=brief(max(values)),
    )
    return line_chart(title, unit, series, summary=summary)


@dataclass(frozen=True)
class Whisker:
    """A value with its interval on a shared scale."""

    label: Markup
    value: float
    low: float
    high: float
    counted: bool = True


def whisker_chart(rows: Sequence[Whisker], low: float, high: float, mark: float, mark_label: Markup) -> Markup:
    """Values with intervals under each other on the scale [low, high], and a dashed line at `mark`."""

    def place(value: float) -> float:
        return 100 * (min(max(value, low), high) - low) / (high - low)

    lines = Markup("").join(
        Markup(
            '<div class="whisker{}"><span class="name">{}</span><span class="track">'
            '<i class="mark" style="left:{:.2f}%"></i>'
            '<i class="bar" style="left:{:.2f}%;width:{:.2f}%"></i><i class="dot" style="left:{:.2f}%"></i>'
            '</span><span class="figure">{}</span></div>'
        ).format(
            "" if row.counted else " aside",
            row.label,
            place(mark),
            place(row.low),
            max(0.3, place(row.high) - place(row.low)),
            place(row.value),
            number(row.value),
        )
        for row in rows
    )
    scale = Markup(
        '<div class="whisker scale"><span class="name"></span><span class="track">'
        '<i style="left:0">{}</i><i style="left:{:.2f}%">{} {}</i><i style="left:100%">{}</i></span>'
        '<span class="figure"></span></div>'
    ).format(f"{low:g}", place(mark), f"{mark:g}", mark_label, f"{high:g}")
    return Markup('<div class="whiskers">{}{}</div>').format(lines, scale)


def range_chart(value: float, low: float, high: float, expected_label: Markup, here_label: Markup) -> Markup:
    """Where `value` lies beside the expected range [low, high], on a scale with room on both sides."""
    width = max(high - low, 1e-6)
    left, right = min(low - width, value - 0.3 * width), max(high + width, value + 0.3 * width)

    def place(x: float) -> float:
        return 100 * (x - left) / (right - left)

    return Markup(
        '<div class="range"><div class="here" style="left:{here:.2f}%"><b>{value}</b> {here_label}</div>'
        '<div class="track"><i class="band" style="left:{start:.2f}%;width:{width:.2f}%"></i>'
        '<i class="pin" style="left:{here:.2f}%"></i></div>'
        '<div class="ends"><span style="left:{start:.2f}%">{low}</span>'
        '<span class="word" style="left:{middle:.2f}%">{expected}</span>'
        '<span style="left:{end:.2f}%">{high}</span></div></div>'
    ).format(
        here=place(value),
        value=number(value),
        here_label=here_label,
        start=place(low),
        width=place(high) - place(low),
        middle=(place(low) + place(high)) / 2,
        end=place(high),
        low=f"{low:.2f}",
        high=f"{high:.2f}",
        expected=expected_label,
    )
